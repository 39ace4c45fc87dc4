"""``python -m etude.serve.typescript FILE``: write the TypeScript types of the server's answers.

The page is checked against them (``npm run check`` in studio/), and a test compares the file in the repository with
what this module gives.
"""

from __future__ import annotations

import inspect
import re
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NotRequired, Union, get_args, get_origin, get_type_hints

from typing_extensions import TypeAliasType, is_typeddict

from etude.serve import look_types, run_types, tuning_types

API = """Everything that the studio's server answers, and the questions that the page may ask.

GET  api/runs                        RunLine[]
GET  api/runs/NAME                   RunFacts
GET  api/runs/NAME/rows?from=A,B     Rows: lines of metrics.jsonl and samples.jsonl behind byte offsets A and B
GET  api/runs/NAME/abilities         Ability[]
GET  api/runs/NAME/tuning            TuningStep[]
POST api/runs/NAME/control           {action}: answers {}; only where RunFacts.control is true
POST api/runs/NAME/doctor            Verdict[]: those of `etude doctor RUN`, after some seconds
POST api/ask                         a Question; lines of JSON: Progress, Busy, ConversationLine and TokenLine,
                                     then {answer} or Failure
GET  api/tensors/KEY                 a file of safetensors, which the page reads in parts by Range
GET  api/source?of=FILE:NAME         Source: a function or class of Etude's own code, as it is installed

All of these need the token, which opening the printed address exchanges for a cookie; without it they answer 401.
"""
FILE = Path(__file__).parents[3] / "studio" / "src" / "lib" / "generated.ts"
"""Where the types stand in a checkout."""
_PLAIN = {str: "string", int: "number", float: "number", bool: "boolean", types.NoneType: "null"}
_NAMED = re.compile(r"^ {4}(\w+): (.*?)(?=\n {4}\w+: |\Z)", re.M | re.S)


class Generator:
    """Collects TypedDicts and aliases, each once, and writes them as interfaces and types."""

    def __init__(self) -> None:
        self.declared: dict[str, str] = {}

    def of(self, kind: Any) -> str:
        """Return the TypeScript of a type, declaring what it names.

        Raises:
            TypeError: JSON or this module has no such type.
        """
        origin, arguments = get_origin(kind), get_args(kind)
        if kind in _PLAIN:
            return _PLAIN[kind]
        if isinstance(kind, TypeAliasType):
            return self._alias(kind)
        if isinstance(kind, str) and kind in self.declared:  # an alias that names itself
            return kind
        if is_typeddict(kind):
            return self._interface(kind)
        if origin is NotRequired:
            return self.of(arguments[0])
        if origin is Literal:
            return " | ".join(f"'{value}'" for value in arguments)
        if origin in (Union, types.UnionType):
            return " | ".join(dict.fromkeys(self.of(argument) for argument in arguments))
        if origin is list:
            item = self.of(arguments[0])
            return f"({item})[]" if " | " in item else f"{item}[]"
        if origin is tuple:
            return f"[{', '.join(map(self.of, arguments))}]"
        if origin is dict and arguments[0] is str:
            return f"Record<string, {self.of(arguments[1])}>"
        raise TypeError(f"there is no TypeScript for {kind!r}")

    def _alias(self, alias: TypeAliasType) -> str:
        name: str = alias.__name__
        if name not in self.declared:
            self.declared[name] = ""  # before its value, which may name it
            self.declared[name] = f"export type {name} = {self.of(alias.__value__)};"
        return name

    def _interface(self, kind: Any) -> str:
        name: str = kind.__name__
        if name not in self.declared:
            self.declared[name] = ""
            words, notes = _described(kind)
            fields = []
            for field, hint in get_type_hints(kind, include_extras=True).items():
                mark = "?" if get_origin(hint) is NotRequired else ""  # __optional_keys__ sees no text
                note = f" // {notes[field]}" if field in notes else ""
                fields.append(f"  {field}{mark}: {self.of(hint)};{note}")
            self.declared[name] = "\n".join([_comment(words), f"export interface {name} {{", *fields, "}"])
        return name


def typescript() -> str:
    """Return the whole file."""
    generator = Generator()
    for module in (run_types, tuning_types, look_types):
        for kind in _top(module):
            generator.of(kind)
    looks = [f"  {look}: {generator.of(kind)};" for look, kind in look_types.ANSWERS.items()]
    head = _comment(f"Written by `python -m etude.serve.typescript`; do not edit.\n\n{API}")
    answers = "\n".join(["/** The answer to each look. */", "export interface Answers {", *looks, "}"])
    look = "export type Look = keyof Answers;"
    return "\n\n".join([head, *generator.declared.values(), answers, look]) + "\n"


def _top(module: types.ModuleType) -> Iterator[Any]:
    """Yield the types that a module declares, in its order."""
    for value in vars(module).values():
        if is_typeddict(value) and value.__module__ == module.__name__:
            yield value


def _described(kind: type) -> tuple[str, dict[str, str]]:
    """Return the description of a class without its ``Attributes``, and those by name, its bases' too."""
    notes: dict[str, str] = {}
    for base in (kind, *getattr(kind, "__orig_bases__", ())):
        _, _, attributes = (inspect.getdoc(base) or "").partition("\n\nAttributes:\n")
        for name, words in _NAMED.findall(attributes):
            notes.setdefault(name, " ".join(words.split()).removesuffix("."))
    return (inspect.getdoc(kind) or "").partition("\n\nAttributes:\n")[0], notes


def _comment(words: str) -> str:
    lines = words.strip().splitlines()
    if len(lines) == 1:
        return f"/** {lines[0]} */"
    return "\n".join(["/**", *(f" * {line}".rstrip() for line in lines), " */"])


if __name__ == "__main__":
    Path(sys.argv[1] if len(sys.argv) > 1 else FILE).write_text(typescript(), encoding="utf-8")
