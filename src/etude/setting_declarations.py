"""The properties of each setting, such as its default and help, from its declaration in :mod:`etude.config`."""

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
from etude.config import NO_BASE, Resolved, Settings, get_value, known_keys
from etude.errors import InputError
from etude.setting_types import Change, Compared, Open


@dataclass(frozen=True)
class Declaration:
    """The properties of a setting.

    Attributes:
        default: the default value, as plain JSON.
        is_derived: whether the dial always resolves it: it is never ``"auto"`` in :data:`~etude.config.Resolved`.
        change: when the user may change it in an existing run.
        may_differ: whether runs that are compared over seeds may differ in it.
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
    defaults, docstrings, result = Settings(), _docstrings(), {}
    plain = defaults.model_dump(mode="json")
    for key in known_keys():
        section, name = key.split(".")
        section_class = type(getattr(defaults, section))
        field = section_class.model_fields[name]
        result[key] = Declaration(
            default=plain[section][name],
            is_derived=Open in get_args(field.annotation),
            change=next((mark for mark in field.metadata if isinstance(mark, Change)), section_class.change),
            may_differ=Compared.MAY_DIFFER in field.metadata,
            help=docstrings.get((section_class.__name__, name), ""),
        )
    return result


def require_resolved(settings: Settings) -> Resolved:
    """Return ``settings`` with the type of resolved settings, after checking them.

    Raises:
        InputError: a setting that the dial resolves is ``"auto"``.
    """
    for key, declaration in declarations().items():
        if declaration.is_derived and get_value(settings, key) == "auto":
            raise InputError(f"{key} is not resolved")
    return cast(Resolved, settings)


def require_model_to_adapt(settings: Settings) -> None:
    """Raise InputError for an adapter without a base model, and for dropout of an adapter that does not exist."""
    if settings.train.lora_rank and settings.model.base == NO_BASE:
        raise InputError("an adapter needs a model to adapt: add --from MODEL, or omit --lora")
    if settings.train.lora_dropout and not settings.train.lora_rank:
        raise InputError("train.lora_dropout is for an adapter: add --lora, or omit it")


def settings_with_help() -> str:
    """Return a settings file that has every setting at its default, with its help as a comment above it."""
    lines: list[str] = []
    for section, branch in Settings():
        usual = f"Can be changed {branch.change.value}, unless the setting has another note."
        lines += [f"[{section}]", *_comment(f"{inspect.getdoc(branch)} {usual}"), ""]
        for name in type(branch).model_fields:
            declaration = declarations()[f"{section}.{name}"]
            differs = declaration.change is not branch.change
            lines += _comment(declaration.help + f" Can be changed {declaration.change.value}." * differs)
            lines += [tomli_w.dumps({name: declaration.default}).rstrip(), ""]
    return "\n".join(lines)


def _comment(text: str) -> list[str]:
    """Return a text as wrapped lines of TOML comments."""
    return [f"# {line}" for line in textwrap.wrap(text.replace("``", "`"), 98)]


def _docstrings() -> dict[tuple[str, str], str]:
    """Return the docstring below each attribute of the classes in config.py, by (class, attribute).

    Python does not store them, so the source is parsed when they are first needed. pydantic could read them
    (``use_attribute_docstrings``), but at every start of the program.
    """
    classes = [node for node in ast.parse(inspect.getsource(config)).body if isinstance(node, ast.ClassDef)]
    return {(node.name, name): help for node in classes for name, help in _documented(node)}


def _documented(node: ast.ClassDef) -> Iterator[tuple[str, str]]:
    """Yield (attribute, docstring) for each documented attribute of a class."""
    for statement, below in zip(node.body, node.body[1:], strict=False):
        match statement, below:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                yield name, inspect.cleandoc(text)
