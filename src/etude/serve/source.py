"""A function or class of Etude's own code, as it is installed: what the page explains can be read."""

from __future__ import annotations

import ast
from pathlib import Path
from threading import Lock

import etude
from etude.errors import InputError
from etude.serve.run_types import Source
from etude.untrusted import shown

PACKAGE = Path(etude.__file__).parent
_PARSING = Lock()  # Python 3.11's parser counts its recursion for all threads together


def source_of(reference: str) -> Source:
    """The code of ``FILE:NAME``, such as train/step.py:update_step or model/layers.py:GatedMLP.forward.

    Raises:
        InputError: there is none of that name.
    """
    file, _, name = reference.partition(":")
    known = {str(path.relative_to(PACKAGE)): path for path in PACKAGE.rglob("*.py")}
    if file not in known:
        raise InputError(f"Etude has no file {shown(file)}")
    text = known[file].read_text(encoding="utf-8")
    with _PARSING:
        found: ast.AST | None = ast.parse(text)
    for part in name.split("."):
        found = next(
            (
                node
                for node in ast.iter_child_nodes(found or ast.Module([], []))
                if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == part
            ),
            None,
        )
    if not isinstance(found, ast.FunctionDef | ast.ClassDef):
        raise InputError(f"{file} has nothing called {shown(name)}")
    first = min([found.lineno, *(decorator.lineno for decorator in found.decorator_list)])
    lines = text.splitlines()[first - 1 : found.end_lineno]
    return {"file": f"src/etude/{file}", "first_line": first, "text": "\n".join(lines)}
