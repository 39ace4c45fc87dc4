"""Every built-in rule passes the registration check; an incomplete or inconsistent rule does not."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar
from unittest.mock import patch

import pytest
import torch
from torch import Tensor

from etude.config import TrainSettings
from etude.errors import InputError
from etude.registry import UPDATE_RULES
from etude.train.rules import (
    Definition,
    Hyperparameters,
    NumberUpdate,
    Rate,
    UpdateRule,
    register,
    rule_named,
)
from etude.train.rules.adamw import AdamWRule
from etude.train.rules.terms import Formula, constant, named, sign, sqrt
from etude.train.rules.trial import require_complete
from etude.watch.rule_values import rule_values, term_values

NAMES = ["muon", "adamw"]
FIXTURE = Path(__file__).parents[2] / "studio" / "src" / "lib" / "updates.fixture.json"
"""The terms of some updates, for the page's tests: python tests/train/test_rules.py writes it."""


@pytest.mark.parametrize("name", NAMES)
def test_a_built_in_rule_is_complete(name: str) -> None:
    require_complete(rule_named(name))


def test_every_built_in_rule_is_tested_here() -> None:
    assert list(UPDATE_RULES._builtin) == NAMES


class Other(AdamWRule):
    """AdamW under another name."""

    name = "other"


@pytest.fixture
def registered() -> Iterator[dict[str, UpdateRule]]:
    """Remove rules registered during a test after it."""
    with patch.dict(UPDATE_RULES._known):
        yield UPDATE_RULES._known


def test_a_registered_rule_can_be_used(registered: dict[str, UpdateRule]) -> None:
    with pytest.raises(InputError, match="no update rule 'other': choose muon"):
        rule_named("other")
    rule = Other()
    register(rule)
    register(rule)
    assert rule_named("other") is rule
    assert TrainSettings(optimizer="other").optimizer == "other"
    with pytest.raises(InputError, match="the name 'other' is taken"):
        register(Other())


@pytest.mark.parametrize("name", NAMES)
def test_the_name_of_a_built_in_rule_is_taken(name: str) -> None:
    class Taken(AdamWRule):
        pass

    Taken.name = name
    with pytest.raises(InputError, match=f"the name '{name}' is taken"):
        register(Taken())


class Bare(UpdateRule):
    """A rule without any description."""

    name = "bare"


class OtherDefinition(Other):
    def definition(self, gradient: Tensor, state: Mapping[str, Tensor], used: Hyperparameters) -> Definition:
        actual = super().definition(gradient, state, used)
        return Definition(1.01 * actual.move, actual.state)


class OtherState(Other):
    def definition(self, gradient: Tensor, state: Mapping[str, Tensor], used: Hyperparameters) -> Definition:
        actual = super().definition(gradient, state, used)
        return Definition(actual.move, {**actual.state, "exp_avg": 1.001 * actual.state["exp_avg"]})


class OtherLeaves(Other):
    def state_shapes(self, shape: Any) -> dict[str, tuple[int, ...]]:
        return {**super().state_shapes(shape), "max_exp_avg_sq": tuple(shape)}

    def definition(self, gradient: Tensor, state: Mapping[str, Tensor], used: Hyperparameters) -> Definition:
        actual = super().definition(gradient, state, used)
        return Definition(actual.move, {**actual.state, "max_exp_avg_sq": actual.state["exp_avg_sq"]})


class OtherTerms(Other):
    """Without the bias correction."""

    def terms(self, number: NumberUpdate) -> None:
        first, second = number.used.betas
        m = number.term(
            "m", "m", first * number.before("exp_avg") + (1 - first) * number.gradient, leaf="exp_avg"
        )
        v = number.term("v", "v", second * number.before("exp_avg_sq") + (1 - second) * number.gradient**2)
        number.term("direction", "direction", m / (sqrt(v) + number.used.eps))


class OtherLeafOfATerm(Other):
    def terms(self, number: NumberUpdate) -> None:
        number.term("m", "m", 1.0001 * number.gradient, leaf="exp_avg")
        super().terms(number)


class NoDirection(Other):
    def terms(self, number: NumberUpdate) -> None:
        super().terms(number)
        number.term("move", "the move", number.used.lr * named("direction"))


class NoTerms(Other):
    def terms(self, number: NumberUpdate) -> None:
        pass


class Undeclared(Other):
    def of_whole(self, moved: Tensor, used: Hyperparameters) -> dict[str, Tensor]:
        return {"spectrum": moved}


class Forgetful(torch.optim.AdamW):
    """Stores a number outside of the state."""

    updates = 0

    def step(self, closure: Any = None) -> Any:
        self.updates += 1
        for group in self.param_groups:
            group["lr"] *= 1 + 1e-3 * (self.updates == 3)
        return super().step(closure)


class NotResumed(Other):
    def optimizer(self, groups: Any, settings: TrainSettings, device: Any) -> torch.optim.Optimizer:
        return Forgetful(list(groups))


class NoRate(Other):
    rates: ClassVar = {}


class UnknownRate(Other):
    rates: ClassVar = {"train.learning_rate": Rate(0.1, "a guess")}


class NoGoodRate(Other):
    rates: ClassVar = {"train.lr": Rate(math.nan, "a guess")}


class SharedRate(Other):
    moves = frozenset({"hidden"})
    rates: ClassVar = {"train.lr": Rate(0.5, "a guess")}


class MovesNothing(Other):
    moves = frozenset()


class NoName(Other):
    name = "Other rule"


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (torch.optim.SGD, "it is not an etude.train.rules.UpdateRule"),
        (Bare, "it does not define definition, hyperparameters, optimizer, options, state_shapes, terms"),
        (Other, "give an instance"),
        (OtherDefinition(), "`definition` moves .* differently from `optimizer`"),
        (OtherState(), "`definition` leaves another exp_avg of .* than `optimizer`"),
        (OtherLeaves(), "`state_shapes` declares .*max_exp_avg_sq"),
        (OtherTerms(), "its `terms` move .* differently from `optimizer`"),
        (OtherLeafOfATerm(), "its term m of .* is not the exp_avg that `optimizer` left"),
        (NoDirection(), "the last of its `terms` must have the symbol direction"),
        (NoTerms(), "the last of its `terms` must have the symbol direction"),
        (Undeclared(), r"`of_whole` returns \['spectrum'\], and `whole` declares \[\]"),
        (
            NotResumed(),
            "an update from its saved state moves .* differently, so that a run cannot be resumed",
        ),
        (NoRate(), "`rates` must be settings of train, such as train.lr; got none"),
        (UnknownRate(), "`rates` must be settings of train, such as train.lr; got train.learning_rate"),
        (NoGoodRate(), "each of its rates must be a Rate above 0"),
        (SharedRate(), "train.lr is the rate of the parameters that it may not move"),
        (MovesNothing(), "`moves` must be some of embedding, hidden, output, vector"),
        (NoName(), "its name must begin with a small letter"),
    ],
    ids=lambda value: getattr(value, "__name__", type(value).__name__) if not isinstance(value, str) else "",
)
def test_an_incomplete_or_inconsistent_rule_is_refused(
    rule: Any, words: str, registered: dict[str, UpdateRule]
) -> None:
    before = dict(registered)
    with pytest.raises(InputError, match=f"cannot be registered: .*{words}") as raised:
        register(rule)
    assert len(str(raised.value).splitlines()) == 1
    assert registered == before


@pytest.mark.parametrize("missing", ["title", "summary", "moves", "rates", "tolerances", "explanation"])
def test_what_a_rule_lacks_is_named(missing: str) -> None:
    class Lacking(Other):
        def __getattribute__(self, key: str) -> Any:
            if key == missing:
                raise AttributeError(key)
            return super().__getattribute__(key)

    with pytest.raises(InputError, match=f"'other' cannot be registered: it does not define {missing}"):
        register(Lacking())


@pytest.mark.parametrize("name", NAMES)
def test_a_rule_explains_itself_at_four_depths(name: str) -> None:
    values = rule_values(rule_named(name))
    for key in ("title", "picture", "stops", "words", "symbols"):
        assert values[key].strip()
        assert key == "title" or values[key].endswith(".")
    assert "←" in values["formulas"][-1]
    for code in values["code"]:
        assert "def " in code["text"]
        file = Path(__file__).parents[2] / code["file"]
        there = file.read_text().splitlines()[code["first_line"] - 1 :][: len(code["text"].splitlines())]
        assert "\n".join(there) == code["text"]


def updates() -> list[dict[str, Any]]:
    """Updates of one number by each rule, the first and a later one, with all their terms."""
    adamw = Hyperparameters("adamw", 0.02, 0.1, (0.8, 0.95), 1e-8)
    extra = {"row_blocks": 4.0, "column_blocks": 1.0, "scale": 1.25}
    muon = Hyperparameters("muon", 0.025, 0.1, momentum=0.95, extra=extra)
    cases: list[tuple[Hyperparameters, int, dict[str, float], dict[str, float]]] = [
        (adamw, 1, {}, {}),
        (adamw, 18, {"exp_avg": -2e-3, "exp_avg_sq": 1.5e-5, "step": 17.0}, {}),
        (muon, 1, {}, {"orthogonal": 0.03125}),
        (muon, 18, {"momentum_buffer": 4e-4}, {"orthogonal": -0.0625}),
    ]
    actual = []
    for used, step, state, whole in cases:
        number = NumberUpdate(used, state, whole, clipped=0.00390625)
        rule_named(used.rule).terms(number)
        leaves = {
            name.removeprefix("state."): value for name, value in number.known.items() if name[:6] == "state."
        }
        terms = [{**term_values(term), "size": term.size} for term in number.terms]
        actual.append(
            {"rule": used.rule, "step": step, "clipped": number.clipped, "state": leaves, "terms": terms}
        )
    return actual


def test_the_tests_of_the_page_have_the_terms_of_the_rules() -> None:
    assert json.loads(FIXTURE.read_text(encoding="utf-8")) == json.loads(json.dumps(updates()))


KNOWN = {"a": 0.25, "b": -0.5}


@pytest.mark.parametrize(
    ("formula", "text", "value", "size"),
    [
        (0.8 * named("a") + (1 - 0.8) * named("b"), "0.8 * +0.25 + 0.2 * -0.5", 0.1, 0.3),
        (named("a") / (1 - constant(0.5) ** 2), "+0.25 / (1 - 0.5^2)", 1 / 3, 1 / 3),
        (named("b") ** 2, "(-0.5)^2", 0.25, 0.25),
        (1 - (named("a") - 1), "1 - (+0.25 - 1)", 1.75, 2.25),
        (1 / named("b"), "1 / -0.5", -2.0, 2.0),
        (sqrt(named("a") + 2), "sqrt(+0.25 + 2)", 1.5, 1.5),
        (sign(named("a") + named("b")), "sign(+0.25 + -0.5)", -1.0, 1.0),
        (sign(named("a") - 0.25), "sign(+0.25 - 0.25)", 0.0, 2**24 / 3),
    ],
)
def test_a_formula_is_written_evaluated_and_bounded(
    formula: Formula, text: str, value: float, size: float
) -> None:
    assert formula.text(KNOWN, lambda number: f"{number:+g}") == text
    assert formula.value(KNOWN) == pytest.approx(value, rel=1e-15)
    assert formula.size(KNOWN, {}) == pytest.approx(size, rel=1e-14)


def test_a_size_bounds_the_error_of_single_precision() -> None:
    """Every operation rounded to fp32, at random places: the error stays below one rounding for each operation."""
    generator = torch.Generator().manual_seed(1)
    a, b = named("a"), named("b")
    formulas = [
        0.9 * a + (1 - 0.9) * b,
        a * b - b,
        (a + b) / (sqrt(a * a) + 1e-8),
        sqrt(a * a + b * b),
        a / b - b**2,
    ]

    def single(formula: Formula, known: Mapping[str, Tensor]) -> Tensor:
        if formula.operation == "number":
            return torch.tensor(formula.number)
        if formula.operation == "name":
            return known[formula.name]
        parts = [single(part, known) for part in formula.parts]
        operations: dict[str, Any] = {
            "+": torch.add, "-": torch.sub, "*": torch.mul, "/": torch.div, "^": torch.pow, "sqrt": torch.sqrt,
        }  # fmt: skip
        made: Tensor = operations[formula.operation](*parts)
        return made

    for _ in range(300):
        known = dict(zip("ab", torch.randn(2, generator=generator), strict=True))
        exact = {name: float(value) for name, value in known.items()}
        for formula in formulas:
            off = abs(float(single(formula, known)) - formula.value(exact))
            assert off <= 6 * 2**-24 * formula.size(exact, {}), (formula, exact)


if __name__ == "__main__":
    FIXTURE.write_text(json.dumps(updates(), indent=1) + "\n", encoding="utf-8")
