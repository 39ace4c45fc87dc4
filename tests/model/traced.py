"""Print the graphs of small networks as JSON: python traced.py HOW NAME...

HOW says what becomes of the calls of ``tap`` in ``etude.model`` when it is imported: "as written"; "without" removes
them, and every argument called ``taps``, from the source; "changed" has each of them add nothing to its value, which
must show in the graph.
"""

from __future__ import annotations

import ast
import json
import sys
from collections.abc import Callable
from importlib.machinery import SourceFileLoader
from typing import Any


class Without(ast.NodeTransformer):
    """Source in which taps never existed: ``tap(taps, path, leaf, value)`` is ``value``, and ``taps is None`` holds."""

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        if isinstance(node.func, ast.Name) and node.func.id == "tap":
            return node.args[3]
        node.args = [one for one in node.args if not is_taps(one)]
        node.keywords = [keyword for keyword in node.keywords if keyword.arg != "taps"]
        return node

    def visit_Tuple(self, node: ast.Tuple) -> ast.AST:
        self.generic_visit(node)
        node.elts = [one for one in node.elts if not is_taps(one)]
        return node

    def visit_Compare(self, node: ast.Compare) -> ast.AST:
        self.generic_visit(node)
        return ast.Constant(isinstance(node.ops[0], ast.Is)) if is_taps(node.left) else node

    def visit_If(self, node: ast.If) -> Any:
        self.generic_visit(node)
        return node.body if isinstance(node.test, ast.Constant) and node.test.value is True else node

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.AST | None:
        return None if node.module == "etude.model.taps" else node

    def visit_arguments(self, node: ast.arguments) -> ast.AST:
        """Arguments with a default stand last, and so does ``taps`` among them."""
        for arguments, defaults in ((node.args, node.defaults), (node.kwonlyargs, node.kw_defaults)):
            if arguments and arguments[-1].arg == "taps" and defaults:
                defaults.pop()
            arguments[:] = [one for one in arguments if one.arg != "taps"]
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST | None:
        if node.name == "attend_with_taps":
            return None
        self.generic_visit(node)
        return node


class Changed(ast.NodeTransformer):
    """Source in which a tap adds 0 to its value."""

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        if isinstance(node.func, ast.Name) and node.func.id == "tap":
            node.args[3] = ast.BinOp(node.args[3], ast.Add(), ast.Constant(0.0))
        return node


def is_taps(node: ast.AST) -> bool:
    return isinstance(node, ast.Name) and node.id == "taps"


def names_in(tree: ast.AST) -> set[str]:
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    return names | {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}


def rewrite_on_import(how: str) -> None:
    """Rewrite the modules of ``etude.model`` from now on; nothing is read from compiled files."""
    original: Callable[..., Any] = SourceFileLoader.source_to_code

    def source_to_code(self: SourceFileLoader, data: Any, path: Any, **options: Any) -> Any:
        if "/etude/model/" in str(path) and not str(path).endswith(("taps.py", "trial.py")):
            tree = ast.parse(data)
            tree = ast.fix_missing_locations((Without() if how == "without" else Changed()).visit(tree))
            if how == "without":
                assert not {"tap", "taps", "attend_with_taps"} & names_in(tree), path
            return compile(tree, path, "exec")
        return original(self, data, path, **options)

    SourceFileLoader.source_to_code = source_to_code  # type: ignore[method-assign]


def main(how: str, names: list[str]) -> None:
    if how != "as written":
        rewrite_on_import(how)
    import torch
    from functorch.compile import make_boxed_func
    from torch._dynamo.backends.common import aot_autograd

    from etude.model.dropout import Dropout, keep_masks, keep_scale
    from networks import make_config, make_network, make_tokens

    torch.set_num_threads(1)
    inputs, graphs = make_tokens(2, 8), {}
    documents = torch.tensor([[0] * 3 + [1] * 5, [0] * 8])
    for name in names:
        model = make_network(make_config(name, **({} if "mlp" in name else {"num_hidden_layers": 2})))
        masks = keep_masks(0.25, 7, 0, model.dropout_shape(2, 8), torch.device("cpu"))
        dropout = Dropout(masks, keep_scale(0.25))
        cases: dict[str, dict[str, Any]] = {
            "plain": {},
            "documents, dropout": {"document_ids": documents, "dropout": dropout},
            "recomputed": {"recompute": True},
        }
        for case, options in cases.items():
            traced: list[list[str]] = []

            def keep(graph: torch.fx.GraphModule, example: Any, traced: list[list[str]] = traced) -> Any:
                traced.append([line_of(node) for node in graph.graph.nodes])
                return make_boxed_func(graph.forward)

            torch._dynamo.reset()
            backend = aot_autograd(fw_compiler=keep, bw_compiler=keep)
            compiled = torch.compile(model.hidden, fullgraph=True, dynamic=False, backend=backend)
            compiled(inputs, **options).sum().backward()
            graphs[f"{name}, {case}"] = traced
    print(json.dumps(graphs))


def line_of(node: Any) -> str:
    """One node of a graph: operation, name, target and arguments."""
    return f"{node.op} {node.name} {node.target} {node.args} {node.kwargs}"


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
