"""The arithmetic of one number's update as data: terms with their words, each a formula over the terms before it.

A rule writes its terms down once. The command line prints them, the page draws them and computes them again in double
precision, and a rule that is registered is checked against them. So a formula knows how to evaluate itself, how it is
written with its numbers, how much rounding its result may carry, and what it looks like in JSON.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from etude.train.rules.contract import Hyperparameters

CLIPPED = "clipped"
"""Name of the gradient as the rule gets it."""
DIRECTION = "direction"
"""Symbol of the last term of every rule: what the learning rate multiplies."""
FP32 = 2.0**-23
ROUNDINGS = 3.0
"""How many roundings of fp32, of the size of a formula's parts, an update may be off by; twice and a half what was
found over every weight of opened steps (studio/src/lib/arithmetic.ts, which uses the same)."""
_RANK = {"+": 1, "-": 1, "*": 2, "/": 2, "^": 3}


@dataclass(frozen=True)
class Formula:
    """A number, the name of one, or an operation on formulas: + - * / ^, sqrt, sign."""

    operation: str  # "number", "name", or what is done with the parts
    parts: tuple[Formula, ...] = ()
    number: float = 0.0
    name: str = ""

    def __add__(self, other: Formula | float) -> Formula:
        return Formula("+", (self, constant(other)))

    def __radd__(self, other: float) -> Formula:
        return Formula("+", (constant(other), self))

    def __sub__(self, other: Formula | float) -> Formula:
        return Formula("-", (self, constant(other)))

    def __rsub__(self, other: float) -> Formula:
        return Formula("-", (constant(other), self))

    def __mul__(self, other: Formula | float) -> Formula:
        return Formula("*", (self, constant(other)))

    def __rmul__(self, other: float) -> Formula:
        return Formula("*", (constant(other), self))

    def __truediv__(self, other: Formula | float) -> Formula:
        return Formula("/", (self, constant(other)))

    def __rtruediv__(self, other: float) -> Formula:
        return Formula("/", (constant(other), self))

    def __pow__(self, exponent: float) -> Formula:
        return Formula("^", (self, constant(exponent)))

    def value(self, known: Mapping[str, float]) -> float:
        """Evaluate in float64; ``known`` has the numbers behind the names."""
        if self.operation == "number":
            return self.number
        if self.operation == "name":
            return known[self.name]
        return _OPERATIONS[self.operation](*(part.value(known) for part in self.parts))

    def size(self, known: Mapping[str, float], sizes: Mapping[str, float]) -> float:
        """Return the size of what may have been rounded on the way to the value.

        A sum that nearly cancels is as uncertain as its addends are large. Numbers of the rule itself are exact: a run
        computes with them in double precision. ``sizes`` has the same of each name; of one that is missing its value's.
        """
        if self._exact:
            return abs(self.value(known))
        if self.operation == "name":
            return sizes.get(self.name, abs(known[self.name]))
        values = [part.value(known) for part in self.parts]
        parts = [part.size(known, sizes) for part in self.parts]
        if self.operation in "+-":
            return parts[0] + parts[1]
        if self.operation == "*":
            return parts[0] * parts[1]
        if self.operation == "/":
            return _divided(_divided(parts[0] * parts[1], values[1]), values[1])
        if self.operation == "^":
            return float(parts[0] ** values[1])
        if self.operation == "sqrt":
            return math.sqrt(values[0]) * _divided(parts[0], values[0]) if values[0] > 0 else 0.0
        # A sign is exact, except where rounding alone decides it.
        decided = abs(values[0]) > ROUNDINGS * FP32 * parts[0]
        return 1.0 if decided else 2.0 / (ROUNDINGS * FP32)

    def text(self, known: Mapping[str, float], write: Callable[[float], str]) -> str:
        """Write the formula with its numbers; ``write`` writes one behind a name, signed."""
        if self.operation == "number":
            return f"{self.number:.9g}"
        if self.operation == "name":
            return write(known[self.name])
        if self.operation not in _RANK:
            return f"{self.operation}({self.parts[0].text(known, write)})"
        left, right = (part.text(known, write) for part in self.parts)
        if self.operation == "^":
            base = self.parts[0]
            return f"{left}^{right}" if base.operation == "number" else f"({left})^{right}"
        if self._binds_looser(self.parts[0], False):
            left = f"({left})"
        if self._binds_looser(self.parts[1], self.operation in "-/"):
            right = f"({right})"
        return f"{left} {self.operation} {right}"

    def as_values(self) -> Any:
        """Return it for JSON: a number, a name, or [operation, part, ...]."""
        if self.operation == "number":
            return self.number
        if self.operation == "name":
            return self.name
        return [self.operation, *(part.as_values() for part in self.parts)]

    @property
    def _exact(self) -> bool:
        return self.operation == "number" or (
            self.operation != "name" and all(part._exact for part in self.parts)
        )

    def _binds_looser(self, part: Formula, or_alike: bool) -> bool:
        mine, its = _RANK[self.operation], _RANK.get(part.operation, 4)
        return its < mine or (or_alike and its == mine)


_OPERATIONS: dict[str, Callable[..., float]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": lambda a, b: _divided(a, b),
    "^": lambda a, b: a**b,
    "sqrt": lambda a: math.sqrt(a) if a >= 0 else math.nan,
    "sign": lambda a: math.nan if math.isnan(a) else float((a > 0) - (a < 0)),
}


def _divided(a: float, b: float) -> float:
    """Divide as IEEE 754 does: by zero too."""
    if b:
        return a / b
    return math.nan if math.isnan(a) or a == 0 else math.copysign(math.inf, a)


def constant(value: Formula | float) -> Formula:
    """Return a number of the rule (a beta, an epsilon) as a formula; a formula as it is."""
    return value if isinstance(value, Formula) else Formula("number", number=float(value))


def named(name: str) -> Formula:
    """Return the number behind ``name``."""
    return Formula("name", name=name)


def sqrt(of: Formula) -> Formula:
    """Return its square root."""
    return Formula("sqrt", (of,))


def sign(of: Formula) -> Formula:
    """Return -1, 0 or 1."""
    return Formula("sign", (of,))


@dataclass(frozen=True)
class Term:
    """One line of the arithmetic.

    Attributes:
        symbol: how later formulas and the command line call it; ``direction`` for a rule's last term.
        words: how the page calls it.
        formula: None where it does not follow from this number alone; ``note`` says where it comes from.
        leaf: the leaf of the optimizer's state that has this value after the update, or nothing.
    """

    symbol: str
    words: str
    formula: Formula | None
    value: float
    size: float  # of what may have been rounded on the way
    leaf: str = ""
    note: str = ""


@dataclass
class NumberUpdate:
    """One number of a parameter in one update, as its rule sees it: the rule adds its terms, the direction last.

    Attributes:
        used: the hyperparameters of the update.
        state: this number's leaves before the update; empty before the first.
        whole: what the rule takes from the whole tensor, at this number (:meth:`UpdateRule.of_whole`).
        terms: those that were added.
    """

    used: Hyperparameters
    state: Mapping[str, float]
    whole: Mapping[str, float]
    clipped: float
    terms: list[Term] = field(default_factory=list)
    known: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.known[CLIPPED] = self.clipped
        self.known |= {f"state.{leaf}": value for leaf, value in self.state.items()}

    @property
    def gradient(self) -> Formula:
        """The gradient, clipped."""
        return named(CLIPPED)

    def before(self, leaf: str) -> Formula:
        """Return a leaf of the state before the update; it is zero before the first."""
        self.known.setdefault(f"state.{leaf}", 0.0)
        return named(f"state.{leaf}")

    def count_before(self, leaf: str) -> float:
        """Return a leaf that counts updates, as a number of the rule: it is exact."""
        return self.state.get(leaf, 0.0)

    def term(self, symbol: str, words: str, formula: Formula, *, leaf: str = "", note: str = "") -> Formula:
        """Add a term and return its name for later formulas."""
        sizes = {term.symbol: term.size for term in self.terms}
        value, size = formula.value(self.known), formula.size(self.known, sizes)
        return self._added(Term(symbol, words, formula, value, size, leaf, note))

    def term_of_whole(self, symbol: str, words: str, note: str) -> Formula:
        """Add the term that :attr:`whole` has under ``symbol``."""
        value = self.whole[symbol]
        return self._added(Term(symbol, words, None, value, abs(value), "", note))

    def _added(self, term: Term) -> Formula:
        self.known[term.symbol] = term.value
        self.terms.append(term)
        return named(term.symbol)
