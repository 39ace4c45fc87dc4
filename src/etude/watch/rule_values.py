"""An update rule as plain values: the terms of its arithmetic, its explanation, and its source code."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import etude
from etude.train.rules import UpdateRule
from etude.train.rules.terms import Term
from etude.watch.step_types import NamedSource, RuleAnswer, TermAnswer

_PACKAGE = Path(etude.__file__).parent


def term_values(term: Term) -> TermAnswer:
    """Return a line of a rule's arithmetic."""
    return {
        "symbol": term.symbol,
        "words": term.words,
        "formula": None if term.formula is None else term.formula.as_values(),
        "value": term.value,
        "leaf": term.leaf or None,
        "note": term.note,
    }


def rule_values(rule: UpdateRule) -> RuleAnswer:
    """Return a rule's name, its title, and its explanation at four depths."""
    words = rule.explanation
    return {
        "name": rule.name,
        "title": rule.title,
        "picture": words.picture,
        "stops": words.stops,
        "words": words.words,
        "formulas": list(words.formulas),
        "symbols": words.symbols,
        "code": [source_values(thing) for thing in words.code],
    }


def source_values(thing: Any) -> NamedSource:
    """Return the installed source of a function or class, with its name, file and first line."""
    thing = inspect.unwrap(thing)
    lines, first = inspect.getsourcelines(thing)
    file = Path(inspect.getsourcefile(thing) or "")
    within = file.is_relative_to(_PACKAGE)
    return {
        "name": thing.__qualname__,
        "file": f"src/etude/{file.relative_to(_PACKAGE).as_posix()}" if within else file.name,
        "first_line": first,
        "text": "".join(lines).rstrip("\n"),
    }
