"""What there is to know of each setting, from its one declaration in :mod:`etude.config`."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, cast, get_args

import tomli_w

from etude import config
from etude.config import Resolved, Settings, get_value, known_keys
from etude.errors import InputError
from etude.setting_types import Change, Compared, Open


@dataclass(frozen=True)
class Declaration:
    """A setting.

    Attributes:
        default: as plain JSON.
        is_derived: whether the dial always resolves it: it is never ``"auto"`` in :data:`~etude.config.Resolved`.
        change: when it may be changed once a run has begun.
        may_differ: whether runs that are compared as one family may differ in it.
        help: its docstring.
    """

    default: Any
    is_derived: bool
    change: Change
    may_differ: bool
    help: str


@cache
def declarations() -> Mapping[str, Declaration]:
    """Return the declaration of every setting, by its dotted key."""
    defaults, helps, found = Settings(), _docstrings(), {}
    plain = defaults.model_dump(mode="json")
    for key in known_keys():
        section, name = key.split(".")
        declared_in = type(getattr(defaults, section))
        field = declared_in.model_fields[name]
        found[key] = Declaration(
            default=plain[section][name],
            is_derived=Open in get_args(field.annotation),
            change=next((mark for mark in field.metadata if isinstance(mark, Change)), declared_in.change),
            may_differ=Compared.MAY_DIFFER in field.metadata,
            help=helps.get((declared_in.__name__, name), ""),
        )
    return found


def require_resolved(settings: Settings) -> Resolved:
    """Return ``settings`` as resolved ones.

    Raises:
        InputError: one that the dial resolves is ``"auto"``.
    """
    for key, declaration in declarations().items():
        if declaration.is_derived and get_value(settings, key) == "auto":
            raise InputError(f"{key} is not resolved")
    return cast(Resolved, settings)


def settings_with_help() -> str:
    """Return a settings file with every setting at its default, its help above it."""
    lines: list[str] = []
    for section, branch in Settings():
        usual = f"Can be changed {branch.change.value}, where nothing else is said."
        lines += [f"[{section}]", *_comment(f"{inspect.getdoc(branch)} {usual}"), ""]
        for name in type(branch).model_fields:
            declaration = declarations()[f"{section}.{name}"]
            own = declaration.change is not branch.change
            lines += _comment(declaration.help + f" Can be changed {declaration.change.value}." * own)
            lines += [tomli_w.dumps({name: declaration.default}).rstrip(), ""]
    return "\n".join(lines)


def _comment(text: str) -> list[str]:
    return [f"# {line}" for line in textwrap.wrap(text.replace("``", "`"), 98)]


def _docstrings() -> dict[tuple[str, str], str]:
    """Return the string below each attribute of the classes in config.py, by class and attribute.

    Python keeps none of them. Read once a caller needs them: pydantic would do so at every start of the program.
    """
    classes = [node for node in ast.parse(inspect.getsource(config)).body if isinstance(node, ast.ClassDef)]
    return {(node.name, name): help for node in classes for name, help in _documented(node)}


def _documented(node: ast.ClassDef) -> Iterator[tuple[str, str]]:
    for statement, below in zip(node.body, node.body[1:], strict=False):
        match statement, below:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                yield name, inspect.cleandoc(text)
