"""The house has one direction: a package imports only from those above it; files and functions stay small."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "etude"
ORDER = [
    "errors",
    "messages",
    "registry",
    "untrusted",
    "files",
    "settings_file",
    "setting_types",
    "setting_input",
    "text_settings",
    "config",
    "setting_declarations",
    "places",
    "system",
    "run",
    "device",
    "show",
    "data",
    "model",
    "pretrained",
    "train",
    "plan",
    "watch",
    "generate",
    "evaluate",
    "emergence",
    "diagnose",
    "interop",
    "serve",
    "workflow",
    "cli",
]
MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60
LIGHT = {"etude", "cli", *ORDER[: ORDER.index("data")]}
"""Imported by `import etude` or `etude --help`: nothing heavy at the top of these, data and evaluate included."""
HEAVY = {"torch", "transformers", "matplotlib", "pyarrow", "datasets", "tokenizers", "safetensors"}
FILES = sorted(SOURCE.rglob("*.py"))


def package_of(file: Path) -> str:
    return file.relative_to(SOURCE).parts[0].removesuffix(".py")


def imported_modules(node: ast.AST) -> Iterator[str]:
    for child in ast.walk(node):
        if isinstance(child, ast.Import):
            yield from (alias.name for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, "imports are absolute"
            assert child.module is not None
            yield child.module
            if child.module == "etude":
                yield from (f"etude.{alias.name}" for alias in child.names)


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(SOURCE)))
def test_imports_run_in_one_direction(file: Path) -> None:
    package = package_of(file)
    if package in {"__init__", "__main__"}:
        return
    for module in imported_modules(ast.parse(file.read_text())):
        parts = module.split(".")
        if parts[0] == "etude" and len(parts) > 1 and parts[1] in ORDER and parts[1] != package:
            assert ORDER.index(parts[1]) < ORDER.index(package), f"{file} imports {module}"


def test_every_package_has_its_place() -> None:
    assert {package_of(file) for file in FILES} - {"__init__", "__main__"} <= set(ORDER)


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(SOURCE)))
def test_files_and_functions_are_short(file: Path) -> None:
    text = file.read_text()
    assert len(text.splitlines()) <= MAX_FILE_LINES
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            length = node.end_lineno - node.lineno + 1
            assert length <= MAX_FUNCTION_LINES, f"{node.name} has {length} lines"


@pytest.mark.parametrize(
    "file",
    [f for f in FILES if package_of(f) in LIGHT | {"data", "evaluate", "__init__"}],
    ids=lambda f: f.name,
)
def test_nothing_heavy_is_imported_at_the_top(file: Path) -> None:
    tree = ast.parse(file.read_text())
    top = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    for node in top:
        for module in imported_modules(node):
            assert module.split(".")[0] not in HEAVY, f"{file} imports {module} at its top"


def test_every_file_says_what_it_is_for() -> None:
    for file in FILES:
        assert ast.get_docstring(ast.parse(file.read_text())), f"{file} has no docstring"
