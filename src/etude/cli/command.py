"""How every command reads its words: text that begins with a dash, and bytes that are no text."""

from __future__ import annotations

import os
from typing import Any

import typer
from typer.core import TyperCommand

from etude.errors import InputError
from etude.messages import command
from etude.untrusted import shown

USAGE_ERROR: type[Exception] = typer.BadParameter.__mro__[1]
"""What typer raises for a wrong command line: click's class, or that of the copy of click in newer versions."""
_MAY_BE_PATHS = {"sources", "source", "text", "fork"}
"""Words that may name files, whose names are bytes."""
_SETTINGS = {"overrides", "name", "tokenizer"}
"""Words that become settings, which are checked as such."""


class Command(TyperCommand):
    """A command of ``etude``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the words of the command line.

        Raises:
            InputError: a text that begins with a dash was taken for an option, or a text is not UTF-8.
        """
        words = list(args)
        try:
            rest = super().parse_args(ctx, args)
        except USAGE_ERROR as error:
            text = next((word for word in words if _looks_like_text(word)), None)
            if text is None:
                raise
            # Of an unknown option; else the beginning of the text is one, such as -n.
            option = getattr(error, "option_name", None) or text[:2]
            words.remove(text)
            typed = command(*_names(ctx), *(word for word in words if word != "--"), "--", text)
            raise InputError(
                f"'{shown(text)}' begins with a dash, so it was read as an option ({option}): put -- before "
                f"the text, as in: {typed}"
            ) from None
        for parameter in self.params:
            name = str(parameter.name)
            if name not in _MAY_BE_PATHS | _SETTINGS and name in ctx.params:
                ctx.params[name] = _text_of(parameter, ctx.params[name])
        return rest


def _looks_like_text(word: str) -> bool:
    """Whether no option is written like this: it has white space, or no letter after the dash."""
    after = word.lstrip("-")
    if not word.startswith("-") or not after:
        return False
    return any(c.isspace() for c in word.split("=")[0]) or not after[0].isalpha()


def _names(ctx: Any) -> list[str]:
    """Return the names of the command below ``etude``: one, or that of a group and its own."""
    names: list[str] = []
    at: Any = ctx
    while at is not None and at.parent is not None:
        names.insert(0, at.info_name or "")
        at = at.parent
    return names


def _text_of(parameter: Any, value: Any) -> Any:
    """Return the value, with the shell's bytes read as UTF-8 where the locale did not know what to make of them."""
    if isinstance(value, list | tuple):
        return type(value)(_text_of(parameter, part) for part in value)
    if not isinstance(value, str) or value.isascii():  # a path is no str here: its name may be any bytes
        return value
    try:
        value.encode("utf-8")
        return value
    except UnicodeEncodeError:
        pass
    try:
        return os.fsencode(value).decode("utf-8")
    except UnicodeError:
        raise InputError(
            f"{_label(parameter)} is not UTF-8 text ('{shown(value)}'): type it in UTF-8, or set LC_ALL to your "
            "terminal's encoding"
        ) from None


def _label(parameter: Any) -> str:
    """Return how the help calls the parameter: ``PROMPT`` or ``--node``."""
    if parameter.param_type_name == "argument":
        return str(parameter.metavar or str(parameter.name)).upper()
    return str(parameter.opts[0])
