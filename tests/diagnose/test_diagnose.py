"""Each rule about the record finds its fault in a run that has it, and nothing in a run that does not."""

from __future__ import annotations

import dataclasses
import io
import json
import math
import random
import shlex
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from diagnosed import finished_run, settings_for, write_text
from etude.config import load_settings, with_values
from etude.diagnose.run.activations import NetworkState
from etude.diagnose.run.curves import (
    SPIKE_FEWEST,
    not_learning,
    overfitting,
    rate_too_high,
    rate_too_low,
    spikes,
)
from etude.diagnose.run.evidence import Absent, Evidence, Text
from etude.diagnose.run.gather import gather
from etude.diagnose.run.held_out import above_the_ladder, data_leak
from etude.diagnose.run.network import attention_collapse, idle_units
from etude.diagnose.run.overlap import Overlap
from etude.diagnose.run.planned import absurd_shape, loader_bound, schedule_not_finished
from etude.diagnose.run.stability import numbers_not_finite
from etude.diagnose.run.verdicts import RULES, show
from etude.errors import InputError
from etude.plan.derivation import Facts, model_config
from etude.run import RunFolder
from etude.run.events import EvalEvent, LengthEvent
from etude.run.ladder import Ladder, Rung
from etude.run.record import RunRecord
from mixed_losses import mixed


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the cache of prepared text for all runs of this module."""
    return tmp_path_factory.mktemp("shared-cache")


@pytest.fixture(scope="module")
def in_cache(cache: Path) -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ETUDE_CACHE", str(cache))
        yield patch


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs-of-the-module")
    write_text(folder / "text", 300_000)
    return folder


@pytest.fixture(scope="module")
def healthy_path(folder: Path, in_cache: pytest.MonkeyPatch) -> Path:
    return finished_run(settings_for(folder, "healthy"))


@pytest.fixture(scope="module")
def healthy(healthy_path: Path) -> Evidence:
    return gather(healthy_path)


def with_losses(run: Evidence, losses: list[float], lrs: list[float] | None = None) -> Evidence:
    """Return the run with other training losses (and learning rates)."""
    steps = [dataclasses.replace(e, loss=loss) for e, loss in zip(run.history.steps, losses, strict=True)]
    if lrs is not None:
        steps = [dataclasses.replace(e, lr=lr) for e, lr in zip(steps, lrs, strict=True)]
    return dataclasses.replace(run, history=dataclasses.replace(run.history, steps=steps))


def with_evals(run: Evidence, losses: dict[int, float]) -> Evidence:
    """Return the run with other evaluations: step -> nats per token."""
    evals = [EvalEvent(step, 0, 0.0, loss, loss / 2, 500) for step, loss in losses.items()]
    return dataclasses.replace(run, history=dataclasses.replace(run.history, evals=evals))


def with_settings(run: Evidence, **values: Any) -> Evidence:
    changes = {key.replace("__", "."): value for key, value in values.items()}
    return dataclasses.replace(run, settings=with_values(run.settings, changes))


def losses_of(run: Evidence) -> list[float]:
    return [event.loss for event in run.history.steps]


def test_a_healthy_run_has_no_problem(healthy: Evidence) -> None:
    verdicts = [rule(healthy) for rule in RULES]
    assert {v.rule: v.finding for v in verdicts if v.severity in ("problem", "not judged")} == {}
    assert len({v.rule for v in verdicts}) == len(RULES) == 14
    noticed = {v.rule for v in verdicts if v.severity == "notice"}
    assert noticed <= {"validation set too small", "still above the n-gram ladder"}


def test_a_rate_of_nothing_is_not_learning(folder: Path, in_cache: pytest.MonkeyPatch) -> None:
    rates = {"train.lr": 1e-9, "train.muon_lr": 1e-9, "train.steps": 24}
    run = gather(finished_run(settings_for(folder, "frozen", **rates)))
    verdict = not_learning(run)
    assert verdict.severity == "problem"
    assert f"{run.untrained_loss:.3f}" in verdict.finding
    assert "train.lr=0.02" in verdict.advice
    low = rate_too_low(run)
    assert low.severity == "problem"
    assert "4e-08 times" in low.finding
    assert rate_too_high(run).severity == "fine"


def test_learning_is_judged_only_after_some_steps(healthy: Evidence) -> None:
    assert not_learning(healthy).severity == "fine"
    assert not_learning(with_evals(healthy, {0: 5.7, 9: 5.7})).severity == "not judged"
    assert not_learning(with_evals(healthy, {0: 5.7, 10: 5.7})).severity == "problem"
    longer = with_settings(healthy, train__steps=1000)  # its warm-up ends after 20 steps
    assert not_learning(with_evals(longer, {0: 5.7, 10: 5.7})).severity == "not judged"


def test_a_huge_rate_is_too_high(folder: Path, in_cache: pytest.MonkeyPatch) -> None:
    rates = {"train.lr": 5.0, "train.muon_lr": 5.0, "train.steps": 40}
    run = gather(finished_run(settings_for(folder, "wild", **rates)))
    verdict = rate_too_high(run)
    assert verdict.severity == "problem"
    assert "above the" in verdict.finding
    assert (
        "train.lr=0.02 --set train.muon_lr=0.025" in verdict.advice
    )  # a quarter of 5 is still not a sane rate
    assert rate_too_low(run).severity != "problem"


def test_spikes_of_the_loss_are_counted(healthy: Evidence) -> None:
    losses = losses_of(healthy)
    assert rate_too_high(healthy).severity == "fine"
    losses[150] += 3
    once = rate_too_high(with_losses(healthy, losses))
    assert once.severity == "notice"
    assert "first: 151" in once.finding
    for index in (100, 120, 170):
        losses[index] += 3
    assert rate_too_high(with_losses(healthy, losses)).severity == "problem"


def test_rows_of_samples_of_the_base_are_no_jumps(healthy: Evidence) -> None:
    losses, shares = (values[200:400] for values in mixed(600, replay=0.03, rows=1))

    def judged(losses: list[float], known: bool = True) -> str:
        run = with_settings(with_losses(healthy, losses), data__replay=0.03)
        share_of = (lambda step: shares[step - 1]) if known else None
        start = {
            0: 1.0,
            25: 0.5,
        }  # the answers' loss before training, which that of samples exceeds throughout
        return rate_too_high(dataclasses.replace(with_evals(run, start), shares=share_of)).severity

    assert rate_too_high(with_losses(healthy, losses)).severity == "problem"
    assert judged(losses) == "fine"
    assert judged(losses, known=False) == "fine"
    assert judged([loss + index / 20 for index, loss in enumerate(losses)]) == "problem"
    for index in [at for at in range(110, 200) if not shares[at]][:40:10]:
        losses[index] += 0.5
    assert judged(losses) == "problem"


def test_spikes_equal_a_direct_computation() -> None:
    noise = np.random.default_rng(0)
    losses = 1e4 + noise.normal(size=1500)
    losses[noise.integers(50, 1500, 40)] += noise.uniform(5, 9, 40)
    before: list[float] = []
    expected = []
    for index, loss in enumerate(losses.tolist()):
        window = np.array(before[-100:])
        if len(window) >= SPIKE_FEWEST and loss - window.mean() > 7 * window.std():
            expected.append(index)
        else:
            before.append(loss)
    assert 0 < len(expected) < 40
    assert spikes(losses.tolist()) == expected


def test_a_loss_that_fluctuates_around_its_start_is_fine(healthy: Evidence) -> None:
    start, noise = healthy.untrained_loss, np.random.default_rng(0)
    wavering = start * (1 + 0.01 * noise.standard_normal(200))
    assert rate_too_high(with_losses(healthy, wavering.tolist())).severity == "fine"
    wavering[60:80] *= 1.05
    assert rate_too_high(with_losses(healthy, wavering.tolist())).severity == "problem"


def test_a_loss_that_is_not_finite_is_found(healthy: Evidence) -> None:
    losses = [*losses_of(healthy)[:-1], math.nan]
    assert "step 200" in numbers_not_finite(with_losses(healthy, losses)).finding
    reason = "the loss of step 7 is nan and the norm of its gradient nan: the run stopped"
    failed = dataclasses.replace(healthy, state="failed", reason=reason)
    assert numbers_not_finite(failed).severity == "problem"
    full = dataclasses.replace(healthy, state="failed", reason="could not write banana/info: disk full")
    assert numbers_not_finite(full).severity == "fine"


def test_a_rate_far_from_the_dials_is_worth_a_notice(healthy: Evidence) -> None:
    assert rate_too_high(with_settings(healthy, train__muon_lr=0.2)).severity == "notice"
    assert rate_too_high(with_settings(healthy, train__muon_lr=0.1)).severity == "fine"
    assert rate_too_low(with_settings(healthy, train__lr=0.002)).severity == "notice"
    assert rate_too_low(with_settings(healthy, train__lr=0.002, train__optimizer="adamw")).severity == "fine"


def test_a_straight_descent_is_a_rate_too_low(healthy: Evidence) -> None:
    assert rate_too_low(healthy).severity == "fine"
    lrs = [event.lr for event in healthy.history.steps]
    spent = np.cumsum(lrs) / sum(lrs)
    straight = with_evals(healthy, {0: 5.7} | {n: 5.7 - 2 * float(spent[n - 1]) for n in range(10, 201, 10)})
    verdict = rate_too_low(straight)
    assert verdict.severity == "notice"
    assert "50%" in verdict.finding
    assert rate_too_low(with_settings(straight, train__lr=0.002)).severity == "problem"
    assert rate_too_low(with_evals(healthy, {0: 5.7, 5: 5.6})).severity == "not judged"


def test_memorising_the_text_is_overfitting(folder: Path, in_cache: pytest.MonkeyPatch) -> None:
    write_text(folder / "little", 5_000)
    values = {
        "data.sources": (str(folder / "little"),),
        "data.validation_fraction": 0.3,
        "train.steps": 150,
        "train.dropout": 0.0,
    }
    run = gather(finished_run(settings_for(folder, "by-heart", **values)))
    verdict = overfitting(run)
    best = min(run.evals, key=lambda event: event.val_loss)
    assert verdict.severity == "problem"
    assert f"since step {best.step}" in verdict.finding
    assert f"train.steps={best.step}" in verdict.advice


def test_a_held_out_loss_that_rises_with_the_training_loss_is_no_overfitting(healthy: Evidence) -> None:
    assert overfitting(healthy).severity == "fine"
    rising = with_evals(healthy, {0: 5.7, 50: 3.0, 100: 3.02, 150: 3.1, 200: 3.14})
    assert overfitting(rising).severity == "notice"
    assert overfitting(with_losses(rising, [4.0] * 50 + [5.0] * 150)).severity == "fine"
    once = with_evals(healthy, {0: 5.7, 50: 3.2, 100: 3.02, 150: 3.0, 200: 3.14})
    assert overfitting(once).severity == "fine"
    assert overfitting(with_evals(healthy, {0: 5.7, 50: 3.0})).severity == "not judged"


def test_a_run_that_ended_early_differs_from_a_running_one(healthy: Evidence) -> None:
    assert schedule_not_finished(healthy).severity == "fine"
    half = dataclasses.replace(
        healthy,
        state="stopped",
        history=dataclasses.replace(
            healthy.history,
            steps=healthy.history.steps[:100],
            evals=healthy.history.evals[:3],
            last_step=100,
        ),
    )
    verdict = schedule_not_finished(half)
    assert verdict.severity == "problem"
    assert "step 100 of 200" in verdict.finding
    assert f"--resume {healthy.path}" in verdict.advice
    running = dataclasses.replace(half, state="running")
    assert schedule_not_finished(running).severity == "notice"
    failed = dataclasses.replace(half, state="failed", reason="disk full")
    assert "disk full" in schedule_not_finished(failed).finding
    almost = dataclasses.replace(
        half, history=dataclasses.replace(half.history, steps=healthy.history.steps[:195])
    )
    assert schedule_not_finished(almost).severity == "notice"
    shorter = dataclasses.replace(half.history, lengths=[LengthEvent(50, 0, 0.0, 100)])
    assert schedule_not_finished(dataclasses.replace(half, history=shorter)).severity == "fine"


def test_a_slow_loader_is_compared_with_the_recorded_step(healthy: Evidence) -> None:
    assert loader_bound(healthy).severity == "fine"
    seconds = healthy.tokens_per_step / median(event.tokens_per_second for event in healthy.steps)
    slow = dataclasses.replace(healthy, seconds_per_batch=0.2 * seconds)
    assert loader_bound(slow).severity == "notice"
    assert "20%" in loader_bound(slow).finding
    assert loader_bound(with_settings(slow, device__kind="cuda")).severity == "fine"
    slower = dataclasses.replace(healthy, seconds_per_batch=0.8 * seconds)
    assert loader_bound(slower).severity == "problem"
    assert loader_bound(dataclasses.replace(healthy, seconds_per_batch=Absent("gone"))).finding == "gone"


def test_a_run_above_the_ladder_names_the_best_model_it_beats(healthy: Evidence) -> None:
    bits = healthy.evals[-1].bits_per_byte

    def judged(*rungs: float, run: Evidence = healthy) -> Any:
        ladder = Ladder("byte", 1, 1, 1, tuple(Rung(n, bits + above) for n, above in enumerate(rungs, 1)))
        return above_the_ladder(
            dataclasses.replace(run, history=dataclasses.replace(run.history, ladder=ladder))
        )

    assert judged(1.0, 0.5, 0.1).severity == "fine"
    verdict = judged(1.0, 0.5, -0.1)
    assert verdict.severity == "notice"
    assert "2-gram at most" in verdict.finding
    assert judged(1.0, -0.5).severity == "problem"
    assert judged(-0.5, -1.0).severity == "problem"
    assert judged(-0.5, run=with_settings(healthy, train__steps=400)).severity == "notice"
    assert "more steps: " in judged(-0.5).advice
    fallen_behind = with_evals(healthy, {0: 5.7, 100: 3.0, 200: 2 * bits + 3})
    assert "more text: " in judged(-0.5, run=fallen_behind).advice


@pytest.mark.parametrize(
    ("changes", "finding"),
    [
        ({"hidden_size": 64, "num_hidden_layers": 48}, "48 layers"),  # nanoGPT's issue 391
        ({"hidden_size": 32, "num_attention_heads": 8, "head_dim": 4}, "4 numbers"),
        (
            {"num_attention_heads": 1, "num_key_value_heads": 1, "hidden_size": 512, "head_dim": 512},
            "512 numbers",
        ),
        ({"hidden_size": 2048, "num_hidden_layers": 1, "head_dim": 64}, "2.05e+03 numbers per layer"),
        ({"intermediate_size": 16}, "16 neurons"),
    ],
)
def test_absurd_shapes_are_problems(healthy: Evidence, changes: dict[str, int], finding: str) -> None:
    run = dataclasses.replace(healthy, model=dataclasses.replace(healthy.model, **changes))
    judged = absurd_shape(run)
    assert judged.severity == "problem"
    assert finding in judged.finding


def test_a_shape_out_of_proportion_to_the_text_is_worth_a_notice(healthy: Evidence) -> None:
    assert absurd_shape(healthy).severity == "fine"
    rare = dataclasses.replace(healthy, model=dataclasses.replace(healthy.model, vocab_size=32_000))
    assert "32,000" in absurd_shape(rare).finding
    assert "learn from" in absurd_shape(with_settings(healthy, train__steps=4)).finding
    short = dataclasses.replace(healthy, text=Text(healthy.text.train_tokens, healthy.text.train_tokens // 2))
    assert "documents of 2 each" in absurd_shape(short).finding
    assert absurd_shape(short).severity == "notice"


def test_the_commands_advised_make_a_plan(healthy: Evidence) -> None:
    """Every override is a setting, and the network they describe can be built."""
    assert isinstance(healthy.network, NetworkState)
    heads = [dataclasses.replace(h, peaked=np.ones_like(h.peaked)) for h in healthy.network.heads]
    nodes = [dataclasses.replace(n, reach=np.zeros_like(n.reach)) for n in healthy.network.nodes]
    network = dataclasses.replace(healthy.network, heads=tuple(heads), nodes=tuple(nodes))
    copies = Overlap(1000, 9000, 500, 500, 500, "the same")
    steps = healthy.history.steps
    straight = {n: 5.7 - n / 100 for n in range(0, 201, 25)}
    faulty = [
        not_learning(with_evals(healthy, {0: 5.7, 200: 5.7})),
        rate_too_high(with_losses(healthy, [9.0] * len(steps))),
        rate_too_low(with_losses(with_evals(healthy, straight), losses_of(healthy), [0.02] * len(steps))),
        overfitting(with_evals(healthy, {0: 5.7, 50: 3.0, 100: 3.1, 200: 4.0})),
        data_leak(dataclasses.replace(with_settings(healthy, data__split="tail"), overlap=copies)),
        idle_units(dataclasses.replace(healthy, network=network)),
        attention_collapse(dataclasses.replace(healthy, network=network)),
        loader_bound(dataclasses.replace(healthy, seconds_per_batch=9.0)),
        above_the_ladder(with_evals(healthy, {0: 50.0, 200: 20.0})),
    ]
    for verdict in faulty:
        assert verdict.severity in ("problem", "notice"), verdict
        words = shlex.split(verdict.advice[verdict.advice.index("etude train") :])
        overrides = [value for option, value in pairwise(words) if option == "--set"]
        assert overrides, verdict.advice
        settings = load_settings(Path(words[words.index("--config") + 1]), overrides)
        assert model_config(settings, Facts(10_000, 300, 0))


def test_the_output_names_every_rule_worst_first(
    healthy: Evidence,
    healthy_path: Path,
    in_cache: pytest.MonkeyPatch,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ETUDE_CACHE", str(cache))
    console = Console(file=io.StringIO(), width=120)
    assert not show(healthy_path, console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    verdicts = [rule(healthy) for rule in RULES]
    assert all(verdict.rule in text for verdict in verdicts)
    assert f"{healthy_path}: no problems" in text
    assert "could not be judged" not in text


def test_json_lines_are_whole_objects(
    healthy_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ETUDE_CACHE", str(cache))
    console = Console(file=io.StringIO(), width=60)
    assert not show(healthy_path, console, json_lines=True)
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    objects = [json.loads(line) for line in lines]
    assert len(objects) == len(RULES)
    assert all(set(o) == {"rule", "severity", "finding", "statement", "advice"} for o in objects)
    order = ["problem", "notice", "fine", "not judged"]
    places = [order.index(o["severity"]) for o in objects]
    assert places == sorted(places)


def test_a_run_without_its_text_lists_what_cannot_be_judged(healthy_path: Path) -> None:
    console = Console(file=io.StringIO(), width=500)
    assert not show(healthy_path, console)  # this test has an empty cache
    text = console.file.getvalue()  # type: ignore[attr-defined]
    absent = text[text.index("could not be judged") :]
    for rule in ("data leak", "validation set", "dead or saturated", "attention collapse", "loader-bound"):
        assert rule in absent
    assert "no longer in the cache" in absent


def test_a_problem_is_shown_with_its_rule_and_a_command(
    small_settings: Any, folder: Path, tmp_path: Path
) -> None:
    values = {"train.lr": 1e-9, "train.muon_lr": 1e-9, "run.folder": str(tmp_path), "run.name": "frozen"}
    path = finished_run(with_values(small_settings, values))
    console = Console(file=io.StringIO(), width=120)
    assert show(path, console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    first = text[text.index("problem: not learning") :]
    assert "the rule: " in first
    assert f"etude train --config {path}/run.toml --name frozen-again --set train.lr=0.02" in first


def test_no_run_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not a run folder"):
        show(tmp_path, Console(file=io.StringIO()))


def test_a_damaged_manifest_is_one_line(healthy_path: Path, tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.settings_file.write_bytes((healthy_path / "run.toml").read_bytes())
    run.manifest_file.write_text('{"train_tokens": "many"}')
    with pytest.raises(InputError, match=r"manifest\.json is damaged"):
        show(tmp_path, Console(file=io.StringIO()))


def test_unresolved_settings_are_one_line(healthy_path: Path, tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.settings_file.write_text(
        (healthy_path / "run.toml").read_text().replace("\nsteps = 200", '\nsteps = "auto"')
    )
    run.manifest_file.write_bytes((healthy_path / "manifest.json").read_bytes())
    with pytest.raises(InputError, match=r"train\.steps is not resolved"):
        show(tmp_path, Console(file=io.StringIO()))


def test_every_rule_judges_a_corrupt_record(healthy: Evidence, healthy_path: Path, tmp_path: Path) -> None:
    draw = random.Random(0)
    lines = [json.loads(line) for line in (healthy_path / "metrics.jsonl").read_text().splitlines()]
    odd = [None, "x", -1, 0, 1e308, -1e308, math.inf, math.nan, True, [], 10**30, 10**400]
    for attempt in range(40):
        run = RunFolder(tmp_path / str(attempt))
        run.path.mkdir()
        run.settings_file.write_text("")
        selected = [dict(line) for line in lines if draw.random() < draw.choice([0.02, 0.5, 1.0])]
        for line in selected:
            if draw.random() < draw.choice([0.05, 0.9]):
                line[draw.choice(sorted(set(line) - {"event"}))] = draw.choice(odd)
        run.metrics.path.write_text("".join(json.dumps(line) + "\n" for line in selected))
        tampered = dataclasses.replace(healthy, history=RunRecord.open(run.path).history)
        assert all(rule(tampered).finding for rule in RULES)
