"""The arithmetic of one number's update as data: terms with a description, each a formula over the terms before it.

A rule defines its terms once. The command line prints them, the page draws and recomputes them in double precision, and
the registration of a rule checks them. So a formula can evaluate itself, print itself with its numbers, bound the
rounding of its result, and convert itself to JSON.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from etude.train.rules.contract import Hyperparameters

CLIPPED = "clipped"
"""Name of the gradient that the rule receives."""
DIRECTION = "direction"
"""Symbol of the last term of every rule, which the learning rate multiplies."""
FP32 = 2.0**-23
"""Spacing of fp32 numbers at 1."""
ROUNDINGS = 3.0
"""Allowed error of an update, in roundings of fp32 of the size of a formula's parts: 2.5 times the largest over all
weights of opened steps. studio/src/lib/arithmetic.ts uses the same number."""
_RANK = {"+": 1, "-": 1, "*": 2, "/": 2, "^": 3}


@dataclass(frozen=True)
class Formula:
    """A number, the name of a number, or an operation on formulas: + - * / ^, sqrt, sign."""

    operation: str  # "number", "name", or an operation on the parts
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
        """Evaluate in float64; ``known`` has the numbers by name."""
        if self.operation == "number":
            return self.number
        if self.operation == "name":
            return known[self.name]
        return _OPERATIONS[self.operation](*(part.value(known) for part in self.parts))

    def size(self, known: Mapping[str, float], sizes: Mapping[str, float]) -> float:
        """Return the magnitude that bounds the rounding of the value: rounding error <= roundings * FP32 * size.

        The rounding error of a sum that nearly cancels is proportional to its addends. Constants of the rule are exact:
        a run computes with them in double precision. ``sizes`` has the sizes of names; the default is the absolute
        value.
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
        # A sign is exact, unless rounding may have decided it.
        decided = abs(values[0]) > ROUNDINGS * FP32 * parts[0]
        return 1.0 if decided else 2.0 / (ROUNDINGS * FP32)

    def text(self, known: Mapping[str, float], write: Callable[[float], str]) -> str:
        """Print the formula with its numbers; ``write`` formats the signed number of a name."""
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
        """Convert the formula to JSON: a number, a name, or [operation, part, ...]."""
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
    """Divide by the rules of IEEE 754, also by zero."""
    if b:
        return a / b
    return math.nan if math.isnan(a) or a == 0 else math.copysign(math.inf, a)


def constant(value: Formula | float) -> Formula:
    """Return a constant of the rule (a beta, an epsilon) as a formula. A formula is returned unchanged."""
    return value if isinstance(value, Formula) else Formula("number", number=float(value))


def named(name: str) -> Formula:
    """Return the formula of the number called ``name``."""
    return Formula("name", name=name)


def sqrt(of: Formula) -> Formula:
    """Return the square root as a formula."""
    return Formula("sqrt", (of,))


def sign(of: Formula) -> Formula:
    """Return the sign, -1, 0 or 1, as a formula."""
    return Formula("sign", (of,))


@dataclass(frozen=True)
class Term:
    """One line of the arithmetic.

    Attributes:
        symbol: name in later formulas and on the command line; ``direction`` for the last term of a rule.
        words: name on the page.
        formula: None for a value that depends on the whole tensor; ``note`` explains it.
        size: magnitude that bounds the rounding of ``value`` (:meth:`Formula.size`).
        leaf: leaf of the optimizer's state that has this value after the update, or "".
    """

    symbol: str
    words: str
    formula: Formula | None
    value: float
    size: float
    leaf: str = ""
    note: str = ""


@dataclass
class NumberUpdate:
    """One number of a parameter in one update, to which its rule adds terms, the direction last.

    Attributes:
        used: the hyperparameters of the update.
        state: leaves of this number before the update; empty before the first update.
        whole: values at this number of terms that depend on the whole tensor (:meth:`UpdateRule.of_whole`).
        clipped: the clipped gradient.
        terms: the terms that the rule has added.
        known: values by name, for formulas.
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
        """The clipped gradient, as a formula."""
        return named(CLIPPED)

    def before(self, leaf: str) -> Formula:
        """Return a leaf of the state before the update, as a formula; zero before the first update."""
        self.known.setdefault(f"state.{leaf}", 0.0)
        return named(f"state.{leaf}")

    def count_before(self, leaf: str) -> float:
        """Return a leaf that counts updates, as an exact constant."""
        return self.state.get(leaf, 0.0)

    def term(self, symbol: str, words: str, formula: Formula, *, leaf: str = "", note: str = "") -> Formula:
        """Add a term. Returns its name, for later formulas."""
        sizes = {term.symbol: term.size for term in self.terms}
        value, size = formula.value(self.known), formula.size(self.known, sizes)
        return self._added(Term(symbol, words, formula, value, size, leaf, note))

    def term_of_whole(self, symbol: str, words: str, note: str) -> Formula:
        """Add the term ``symbol`` of :attr:`whole`, which depends on the whole tensor."""
        value = self.whole[symbol]
        return self._added(Term(symbol, words, None, value, abs(value), "", note))

    def _added(self, term: Term) -> Formula:
        self.known[term.symbol] = term.value
        self.terms.append(term)
        return named(term.symbol)
