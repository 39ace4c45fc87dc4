"""A sandboxed Jinja for chat templates, which come from strangers: bounded in time, memory and output.

It offers what ``transformers`` offers to a template (``trim_blocks``, ``lstrip_blocks``, ``break`` and ``continue``,
``tojson``, ``raise_exception``, ``strftime_now``, ``{% generation %}``), and keeps it within bounds:

1. Jinja's ``ImmutableSandboxedEnvironment``: no access to Python's internals, no change of the messages.
2. Each pass through a loop, call, filter and operator counts as a step, and the steps of a render have a limit in
   number and in processor time.
3. No value may exceed :data:`MOST_CHARS`, and what a render makes in all has a limit. Operations that can grow
   their arguments (``*``, ``replace``, ``join``, ``center`` ...) are refused before they take the memory.
4. Constants are not computed when the template is compiled. There is nothing to include, and no random choice.
"""

from __future__ import annotations

import datetime
import json
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache
from types import GeneratorType
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace
from jinja2.visitor import NodeTransformer

MOST_CHARS = 1 << 25
"""Most characters or entries of one value of a template, of the rendered text, and of its constants."""
MOST_MADE = 1 << 28
"""Most characters that one render may make in all."""
MOST_STEPS = 300_000
MOST_SECONDS = 5.0
"""Most processor time of one render. Real templates take about a ten-thousandth of a second."""
MOST_INTEGER_BITS = 256
_ENTRY = 32
"""What an entry of a list counts for, in characters."""
_PADDING = {"center", "ljust", "rjust", "zfill", "truncate"}
_MULTIPLYING = {"expandtabs", "translate", "indent", "wordwrap", "batch", "slice", "tojson", "xmlattr"}
_SLOW = {"rfind", "rindex", "rsplit", "rpartition"}
"""Methods and filters whose result, or whose time, can be out of all proportion to the text that they are given."""
_REFUSED_FILTERS = ("random", "urlize", "pprint")
_WIDTH = re.compile(r"%[^a-zA-Z%]*(?:\d{4,}|\*)|\{[^{}]*:[^{}]*(?:\d{4,}|\{)")
"""A width of a format that is long, or that another argument gives."""


class TooMuch(SecurityError):
    """A template asks for more time or memory than a conversation needs."""


@dataclass
class _Budget:
    """What a render has used so far. ``marks`` are written around each ``{% generation %}`` block."""

    deadline: float
    date: datetime.date
    marks: tuple[str, str] | None = None
    steps: int = 0
    made: int = 0


_BUDGET: ContextVar[_Budget | None] = ContextVar("budget", default=None)


@contextmanager
def bounded(date: datetime.date, marks: tuple[str, str] | None = None) -> Iterator[None]:
    """Give the render within the block a fresh budget; ``date`` is what ``strftime_now`` knows."""
    token = _BUDGET.set(_Budget(time.thread_time() + MOST_SECONDS, date, marks))
    try:
        yield
    finally:
        _BUDGET.reset(token)


def _step() -> str:
    budget = _BUDGET.get()
    if budget is not None:
        budget.steps += 1
        if budget.steps > MOST_STEPS or time.thread_time() > budget.deadline:
            raise TooMuch("it takes too long")
    return ""


def _size(value: object, limit: int = MOST_CHARS) -> int:
    """Return the characters and entries in a value, with all that it holds; stop counting above ``limit``."""
    if isinstance(value, str | bytes):
        return len(value)
    if not isinstance(value, dict | list | tuple | set | frozenset):
        return 1
    size, pending = 0, [value]
    while pending:
        entries: Any = pending.pop()
        size += _ENTRY * len(entries)
        if isinstance(entries, dict):
            size += sum(len(key) for key in entries if isinstance(key, str))
            entries = entries.values()
        for entry in entries:
            if isinstance(entry, str | bytes):
                size += len(entry)
            elif isinstance(entry, dict | list | tuple | set | frozenset):
                pending.append(entry)
            if size > limit:
                return size
    return size


def _checked(value: Any) -> Any:
    """Return a value that a template has made. Raises TooMuch where it, or all that was made, is too large."""
    if isinstance(value, int) and value.bit_length() > MOST_INTEGER_BITS:
        raise TooMuch("it makes an integer that is too large")
    size = _size(value)
    budget = _BUDGET.get()
    if budget is not None:
        budget.made += size
    if size > MOST_CHARS or (budget is not None and budget.made > MOST_MADE):
        raise TooMuch("it makes too much text")
    return value


def _require_bounded(name: str, subject: object, arguments: list[Any]) -> None:
    """Raise TooMuch where the method or filter ``name`` could make, or search through, far too much text."""
    if isinstance(subject, str) and name in {"format", "format_map"} and _WIDTH.search(subject):
        raise TooMuch("it pads text to a very long or a variable width")
    largest = max([1, *(abs(a) if isinstance(a, int) else _size(a) for a in arguments)])
    if name == "round" and largest > 100:
        raise TooMuch("it rounds to very many digits")
    if _most_made(name, subject, arguments, largest) > (MOST_MADE if name in _SLOW else MOST_CHARS):
        raise TooMuch(f"its use of {name} makes too much text")


def _most_made(name: str, subject: object, arguments: list[Any], largest: int) -> int:
    """Return a bound of the text that a method or filter makes, or of its time; 0 for those that cannot grow."""
    size = max(1, _size(subject))
    if name in _PADDING:
        return largest
    if name in _MULTIPLYING or name in _SLOW:
        return size * largest
    if name in {"format", "format_map"} and isinstance(subject, str):
        return (subject.count("{") + subject.count("%")) * largest
    if name == "replace" and isinstance(subject, str) and arguments and isinstance(arguments[0], str):
        return subject.count(arguments[0]) * largest
    if name == "join":  # the text of a method stands between the entries; a filter is given the entries
        entries, between = (
            (arguments[:1], subject) if isinstance(subject, str) else ([subject], arguments[:1])
        )
        if isinstance(subject, str) and not (arguments and isinstance(arguments[0], list | tuple | dict)):
            return size * largest
        count = len(entries[0]) if entries and isinstance(entries[0], list | tuple | dict | str) else 1
        return count * _size(between) + _size(entries)
    return 0


@jinja2.pass_context  # without the context, Jinja would compute constants when it compiles
def _finalised(context: object, value: Any) -> Any:
    return _checked(value)


class _Bounds(NodeTransformer):
    """Let every pass through a loop count as a step, and check all that literals and ``~`` make."""

    def visit_For(self, node: nodes.For) -> nodes.Node:
        self.generic_visit(node)
        step = nodes.Call(nodes.EnvironmentAttribute("step"), [], [], None, None)
        node.body.insert(0, nodes.ExprStmt(step, lineno=node.lineno))
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        joined = nodes.EnvironmentAttribute("joined")
        return nodes.Call(joined, node.nodes, [], None, None, lineno=node.lineno)

    def visit_List(self, node: nodes.List) -> nodes.Node:
        self.generic_visit(node)
        return self._in_check(node)

    def visit_Dict(self, node: nodes.Dict) -> nodes.Node:
        self.generic_visit(node)
        return self._in_check(node)

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Node:
        self.generic_visit(node)
        return self._in_check(node) if node.ctx == "load" else node

    def _in_check(self, node: nodes.Expr) -> nodes.Node:
        check = nodes.EnvironmentAttribute("check")
        return nodes.Call(check, [node], [], None, None, lineno=node.lineno)


class _Generation(Extension):
    """The ``{% generation %}`` block, which marks what the assistant writes."""

    tags = {"generation"}  # noqa: RUF012 (Jinja reads a set)

    def parse(self, parser: Any) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_marked"), [], [], body).set_lineno(line)

    def _marked(self, caller: Callable[[], str]) -> str:
        budget = _BUDGET.get()
        text = caller()
        if budget is None or budget.marks is None:
            return text
        return f"{budget.marks[0]}{text}{budget.marks[1]}"


class _Environment(ImmutableSandboxedEnvironment):
    """The environment of every chat template."""

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            optimized=False,  # constants must not be computed outside of a budget
            extensions=[_Generation, loopcontrols],
            finalize=_finalised,
        )
        self.step, self.check, self.joined = _step, _checked, _joined
        self.concat = _concat  # type: ignore[method-assign]
        self.filters["tojson"] = _tojson
        for name in _REFUSED_FILTERS:
            del self.filters[name]
        self.filters = {name: _bounded_filter(name, function) for name, function in self.filters.items()}
        del self.globals["lipsum"]
        self.globals["raise_exception"] = _raise_exception
        self.globals["strftime_now"] = _strftime_now
        self.globals["namespace"] = _Names
        self.globals["dict"] = _new_dict

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree: nodes.Template = _Bounds().visit(super()._parse(source, name, filename))
        return tree

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        _step()
        if operator == "**":
            raise TooMuch("it uses powers")
        if operator == "%" and isinstance(left, str):
            _require_bounded("format", left, [right])
        if operator == "*":
            for text, count in ((left, right), (right, left)):
                repeated = isinstance(text, str | list | tuple) and isinstance(count, int)
                if repeated and max(1, _size(text)) * count > MOST_CHARS:
                    raise TooMuch("it makes too much text")
        return _checked(super().call_binop(context, operator, left, right))

    def call(__self, __context: Any, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        _step()
        subject = getattr(getattr(__obj, "__wrapped__", __obj), "__self__", None)
        if isinstance(subject, str | list | dict | tuple | bytes):
            name = getattr(__obj, "__name__", "")
            _require_bounded(name, subject, [*args, *kwargs.values()])
        return _checked(super().call(__context, __obj, *args, **kwargs))


class _Names(Namespace):
    """Jinja's namespace, without names that begin with an underscore."""

    def __init__(*args: Any, **kwargs: Any) -> None:
        names = dict(*args[1:], **kwargs)
        for name in names:
            _Names._require_plain(name)
        Namespace.__init__(args[0], names)

    def __setitem__(self, name: str, value: Any) -> None:
        _Names._require_plain(name)
        super().__setitem__(name, value)

    @staticmethod
    def _require_plain(name: object) -> None:
        if isinstance(name, str) and name.startswith("_"):
            raise SecurityError(f"a namespace has no name {name!r}")


def _new_dict(*args: Any, **kwargs: Any) -> dict[Any, Any]:
    return dict(*args, **kwargs)


def _joined(*values: Any) -> str:
    return _concat([str(_checked(value)) for value in values])


def _concat(parts: Any) -> str:
    texts = list(parts)
    budget = _BUDGET.get()
    size = sum(map(len, texts))
    if size > MOST_CHARS or (budget is not None and budget.made + size > MOST_MADE):
        raise TooMuch("it makes too much text")
    if budget is not None:
        budget.made += size
    return "".join(texts)


def _bounded_filter(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a filter of Jinja that counts as a step and whose result is checked."""
    leading = 1 if getattr(function, "jinja_pass_arg", None) is not None else 0

    def run(*args: Any, **kwargs: Any) -> Any:
        _step()
        values = list(args)
        if len(values) > leading:
            subject = values[leading]
            if isinstance(subject, GeneratorType | range):
                subject = values[leading] = list(subject)
            if _size(subject) > MOST_CHARS:
                raise TooMuch("it makes too much text")
            _require_bounded(name, subject, [*values[leading + 1 :], *kwargs.values()])
        result = function(*values, **kwargs)
        return _checked(list(result) if isinstance(result, GeneratorType) else result)

    for attribute in ("jinja_pass_arg", "jinja_async_variant"):
        if hasattr(function, attribute):
            setattr(run, attribute, getattr(function, attribute))
    return run


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: Any = None,
    separators: Any = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _raise_exception(message: object) -> None:
    raise jinja2.TemplateError(str(message))


def _strftime_now(form: str) -> str:
    budget = _BUDGET.get()
    if len(form) > 100 or budget is None:
        raise TooMuch("its date has a very long form")
    return datetime.datetime.combine(budget.date, datetime.time()).strftime(form)


@lru_cache(maxsize=8)
def compiled(source: str) -> jinja2.Template:
    """Return a compiled chat template.

    Raises:
        Exception: of many kinds, where ``source`` is not a template.
    """
    return _Environment().from_string(source)
