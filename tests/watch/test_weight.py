"""The arithmetic of one number gives the value that the run applied."""

from __future__ import annotations

import math
import random
import re

import pytest
import torch

from etude.errors import InputError
from etude.train.rules.muon import update_scale
from etude.watch.arithmetic import WeightStep, weight_step
from etude.watch.one_weight import look_at_weight
from etude.watch.opened_step import OpenedStep, open_step
from watched import Watched


def some_numbers(opened: OpenedStep, each: int = 3) -> list[tuple[str, tuple[int, ...]]]:
    """Random places in every parameter: matrices, biases, norms, embeddings."""
    chance = random.Random(0)
    return [
        (name, tuple(chance.randrange(size) for size in gradient.shape))
        for name, gradient in opened.gradients.items()
        for _ in range(each)
    ]


@pytest.mark.parametrize("step", [1, 2, 19, 40])
def test_the_arithmetic_gives_the_applied_value(any_watched: Watched, step: int) -> None:
    opened = open_step(any_watched.machine, step)
    rules = set()
    for name, index in some_numbers(opened):
        number = weight_step(opened, name, index)
        rules.add(number.used.rule)
        assert number.before + number.update == number.after
        assert number.before == float(opened.before.weights[name][index])
        assert number.after == float(opened.after.weights[name][index])
        assert number.gradient == float(opened.gradients[name][index])
        update = opened.parameter(name)
        expected, apart = float(update.by_the_rule[index]), 1e-6 * number.lr
        if not number.whole:
            allowed = 2 * number.spacing + 1e-4 * number.lr * abs(number.direction) + 1e-9
        else:
            allowed = 2 * number.spacing + 3 * 2**-23 * number.lr * abs(number.direction)
            # In double precision the iteration ends a small share of a usual element away.
            apart = 1e-3 * float(update.definition.move.square().mean().sqrt())
        assert abs(number.difference) <= allowed, number
        assert number.by_the_rule - number.before == pytest.approx(expected, rel=1e-6, abs=apart)
    assert rules == ({"muon", "adamw"} if any_watched.path.name == "llama" else {"adamw"})


@pytest.mark.parametrize("step", [1, 23])
def test_the_state_is_the_optimizers(any_watched: Watched, step: int) -> None:
    opened = open_step(any_watched.machine, step)
    for name, index in some_numbers(opened, 1):
        number = weight_step(opened, name, index)
        assert bool(number.state_before) == (step > 1)
        exact = opened.parameter(name).definition.state
        assert set(number.state_after) == set(exact)
        leaves = {term.leaf: term.value for term in number.terms if term.leaf}
        for leaf, value in leaves.items():
            smallest = 1e-14 if leaf == "exp_avg_sq" else 1e-9
            assert value == pytest.approx(number.state_after[leaf], rel=1e-4, abs=smallest)
            assert value == pytest.approx(float(exact[leaf][index]), rel=1e-5, abs=1e-12)
        assert {*leaves, *({"step"} & set(exact))} == set(exact)
        assert number.state_after.get("step", step) == step
        for leaf, value in number.state_after.items():
            stored = opened.after.optimizer[f"{name}.{leaf}"]
            assert value == float(stored if leaf == "step" else stored[index])


def test_muon_moves_by_an_element_of_the_orthogonal_matrix(watched_run: Watched) -> None:
    opened = open_step(watched_run.machine, 20)
    name = "model.layers.0.mlp.down_proj.weight"
    number, update = weight_step(opened, name, (4, 9)), opened.parameter(name)
    scale = number.used.extra["scale"]
    assert scale == update_scale(32, 96)
    # The iteration brings the singular values near 1 and keeps the singular vectors.
    momentum, mu = update.definition.state["momentum_buffer"], number.used.momentum
    ahead = mu * momentum + (1 - mu) * update.clipped_gradient.double()
    left, sizes, right = torch.linalg.svd(ahead, full_matrices=False)
    direction = update.definition.move / (number.lr * scale)
    values = (left.mT @ direction @ right.mT).diagonal()
    assert (values > 0.5).all()
    assert (values < 1.3).all()
    rebuilt = left @ values.diag() @ right
    # The iteration raises the smallest singular value to the largest, and its rounding with it.
    allowed = 2**-24 * float(sizes[0] / sizes[-1])
    assert allowed < 1e-3
    assert number.whole["orthogonal"] == pytest.approx(float(rebuilt[4, 9]), abs=allowed)
    assert "a weight does not move alone" in repr(number)


def test_history_is_the_update_after_each_checkpoint(any_watched: Watched) -> None:
    machine = any_watched.machine
    name = "model.hidden.weight" if any_watched.path.name == "mlp" else "model.layers.1.mlp.up_proj.weight"
    history = look_at_weight(machine, name, (3, 7))
    checkpoints = [step for step in machine.recorded.checkpoints if step < 40]
    assert [number.step for number in history.steps] == [step + 1 for step in checkpoints]
    for number in history.steps:
        weights = machine.go_to(number.step - 1).model.get_parameter(name)
        assert number.before == float(weights[3, 7].detach())
        assert "proved" in number.proof
    assert history.last == (40, float(machine.go_to(40).model.get_parameter(name)[3, 7].detach()))
    assert history.values[0] == history.steps[0].before
    assert history.values[1] == history.steps[0].after == history.steps[1].before
    assert list(history.values) == sorted({0, 40, *checkpoints, *(step + 1 for step in checkpoints)})
    assert history.shape == tuple(machine.state.model.get_parameter(name).shape)
    assert len(repr(history).splitlines()) <= 14


def test_any_step_on_demand_and_chosen_steps(watched_run: Watched) -> None:
    history = look_at_weight(watched_run.machine, "model.norm.weight", 3, [30, 5, 5])
    assert [number.step for number in history.steps] == [5, 30]
    assert history.index == (3,)
    assert history.at(5) is history.steps[0]
    between = history.at(31)
    assert between.before == history.steps[1].after
    assert between.used.weight_decay == 0
    assert between.decay == 0


def test_every_line_carries_its_numbers(any_watched: Watched) -> None:
    opened = open_step(any_watched.machine, 12)
    for name, index in some_numbers(opened, 1):
        number = weight_step(opened, name, index)
        text = repr(number)
        assert len(text.splitlines()) <= 14
        assert f"{number.after:+.9g}" in text
        assert f"{number.clip_factor:.9g}" in text
        new = next(line for line in number.lines if line.startswith("new value"))
        before, decay, step = (float(part) for part in new.split("value")[1].split("=")[0].split(" - "))
        assert before - decay - step == pytest.approx(float(new.split("=")[1]), rel=1e-7, abs=1e-9)
        for term in number.terms:  # evaluate the formula of each line
            line = next(line for line in number.lines if re.match(rf"{term.symbol}\b", line))
            if term.formula is not None:
                formula, result = re.sub(rf"^{term.symbol} *", "", line).replace("^", "**").split(" = ")
                made = eval(formula, {"sqrt": math.sqrt})
                assert made == pytest.approx(float(result), rel=1e-6, abs=1e-15)


def test_a_skipped_step_is_named(watched_run: Watched) -> None:
    number = look_at_weight(watched_run.machine, "model.norm.weight", 3, [5]).steps[0]
    values = {name: getattr(number, name) for name in WeightStep.__dataclass_fields__}
    skipped = WeightStep(**{**values, "applied": False, "after": number.before, "gradient": math.nan})
    assert skipped.by_the_rule == skipped.after
    assert skipped.update == skipped.decay == 0
    assert "no parameter changed" in repr(skipped)


def test_a_missing_weight_is_named(watched_run: Watched) -> None:
    machine, matrix = watched_run.machine, "model.layers.0.mlp.up_proj.weight"
    with pytest.raises(InputError, match=r"did you mean 'model.layers.0.mlp.up_proj.weight'"):
        look_at_weight(machine, "model.layers.0.mlp.upproj.weight", (0, 0))
    bad: list[object] = [3, (1,), (1, 2, 3), (96, 0), (0, 32), (-1, 0), (1.5, 0), "ab"]
    for index in bad:
        with pytest.raises(InputError, match=r"has shape \(96, 32\)"):
            look_at_weight(machine, matrix, index)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="no step 0"):
        look_at_weight(machine, matrix, (0, 0), [0])
    with pytest.raises(InputError, match="no step 41"):
        look_at_weight(machine, matrix, (0, 0), [41])
