"""Parse the command line of every command, with clear errors for text that begins with a dash or is not UTF-8."""

from __future__ import annotations

import os
from typing import Any

import typer
from typer.core import TyperCommand

from etude.errors import InputError
from etude.messages import command
from etude.untrusted import shown

USAGE_ERROR: type[Exception] = typer.BadParameter.__mro__[1]
"""The exception of a wrong command line: click's, or that of the copy of click in newer versions of typer."""
_MAY_BE_PATHS = {"sources", "source", "text", "fork"}
"""Parameters that may name files. File names are bytes, so they need not be UTF-8."""
_SETTINGS = {"overrides", "name", "tokenizer"}
"""Parameters that become settings. Settings are checked when they are loaded."""


class Command(TyperCommand):
    """The base of all commands of ``etude``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments, and decode those that are text.

        Raises:
            InputError: a text that begins with a dash was read as an option, or a text is not UTF-8.
        """
        words = list(args)
        try:
            rest = super().parse_args(ctx, args)
        except USAGE_ERROR as error:
            text = next((word for word in words if _looks_like_text(word)), None)
            if text is None:
                raise
            # Click names an unknown option. Otherwise the text begins with a known one, such as -n.
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
    """Return whether the word cannot be an option: it has white space, or no letter after the dash."""
    after = word.lstrip("-")
    if not word.startswith("-") or not after:
        return False
    return any(c.isspace() for c in word.split("=")[0]) or not after[0].isalpha()


def _names(ctx: Any) -> list[str]:
    """Return the names of the command below ``etude``, such as ["train"] or ["data", "report"]."""
    names: list[str] = []
    context: Any = ctx
    while context is not None and context.parent is not None:
        names.insert(0, context.info_name or "")
        context = context.parent
    return names


def _text_of(parameter: Any, value: Any) -> Any:
    """Return the value, decoded as UTF-8 where the locale could not decode the bytes from the shell."""
    if isinstance(value, list | tuple):
        return type(value)(_text_of(parameter, part) for part in value)
    if (
        not isinstance(value, str) or value.isascii()
    ):  # typer gives paths as Path: their names may be any bytes
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
    """Return the name of the parameter in the help text: ``PROMPT`` or ``--node``."""
    if parameter.param_type_name == "argument":
        return str(parameter.metavar or str(parameter.name)).upper()
    return str(parameter.opts[0])
