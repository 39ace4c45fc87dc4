"""The source code of a function or class of the installed Etude, for the explanations on the page."""

from __future__ import annotations

import ast
from pathlib import Path
from threading import Lock

import etude
from etude.errors import InputError
from etude.serve.run_types import Source
from etude.untrusted import shown

PACKAGE = Path(etude.__file__).parent
_PARSING = Lock()  # Python 3.11's parser counts recursion over all threads together


def source_code_of(reference: str) -> Source:
    """Return the code of ``FILE:NAME``, such as train/step.py:update_step or model/layers.py:GatedMLP.forward.

    Raises:
        InputError: there is no such file or name.
    """
    file, _, name = reference.partition(":")
    files = {str(path.relative_to(PACKAGE)): path for path in PACKAGE.rglob("*.py")}
    if file not in files:
        raise InputError(f"Etude has no file {shown(file)}")
    text = files[file].read_text(encoding="utf-8")
    with _PARSING:
        node: ast.AST | None = ast.parse(text)
    for part in name.split("."):
        node = next(
            (
                child
                for child in ast.iter_child_nodes(node or ast.Module([], []))
                if isinstance(child, ast.FunctionDef | ast.ClassDef) and child.name == part
            ),
            None,
        )
    if not isinstance(node, ast.FunctionDef | ast.ClassDef):
        raise InputError(f"{file} has nothing called {shown(name)}")
    first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
    lines = text.splitlines()[first - 1 : node.end_lineno]
    return {"file": f"src/etude/{file}", "first_line": first, "text": "\n".join(lines)}
