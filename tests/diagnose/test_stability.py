"""Not finite, diverged, memorised: found in that order, with advice that a user can follow."""

from __future__ import annotations

import dataclasses
import io
import math
import re
import shlex
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from etude.config import Settings, load_settings, with_values
from etude.diagnose.run.activations import HeadState, NetworkState
from etude.diagnose.run.advice import SANE, bounded, lowered, sane
from etude.diagnose.run.course import divergence, held_out_rise, not_finite
from etude.diagnose.run.curves import not_learning
from etude.diagnose.run.evidence import Absent, Evidence, Text
from etude.diagnose.run.network import attention_collapse
from etude.diagnose.run.planned import absurd_shape
from etude.diagnose.run.stability import broken_sentence, loss_diverged, numbers_not_finite
from etude.diagnose.run.verdicts import RULES, judged
from etude.messages import command
from etude.model.config import ModelConfig
from etude.plan.derivation import Facts, model_config
from etude.run.events import EvalEvent, StepEvent
from etude.run.history import RunHistory
from etude.run.ladder import Ladder, Rung
from etude.workflow import jobs
from etude.workflow.close import ladder_sentence

START = 5.7
DESCENT = [
    START,
    5.5,
    5.2,
    4.9,
    4.7,
    4.5,
    4.3,
    4.2,
    4.1,
    4.0,
    3.9,
    3.9,
    3.8,
    3.8,
    3.7,
    3.7,
    3.6,
    3.6,
    3.6,
    3.5,
]


def steps_of(losses: list[float]) -> list[StepEvent]:
    return [StepEvent(n, 128 * n, 0.1 * n, loss, 1.0, 0.02, 1000.0) for n, loss in enumerate(losses, 1)]


def history_of(losses: list[float], evals: dict[int, float], **changes: Any) -> RunHistory:
    """Return a record with these training losses (from step 1) and held-out losses (by step), in nats per token."""
    held_out = [EvalEvent(step, 0, 0.0, loss, loss, 500) for step, loss in evals.items()]
    ladder = Ladder("byte", 1, 1, 1, (Rung(1, 4.5), Rung(2, 3.6)))
    values = {
        "folder": Path("runs/x"),
        "name": "x",
        "steps": steps_of(losses),
        "evals": held_out,
        "ladder": ladder,
    }
    absent: dict[str, Any] = {"rungs": [], "samples": [], "lengths": [], "end": None}
    return RunHistory(**(values | absent | changes))


def evidence_of(history: RunHistory, state: str = "finished", **changes: Any) -> Evidence:
    values = {
        "train.steps": 200,
        "train.context": 64,
        "train.batch_rows": 8,
        "train.lr": 0.02,
        "train.muon_lr": 0.025,
        "train.lora_rank": 0,
    }
    values |= {
        "train.optimizer": "muon",
        "train.eval_tokens": 4000,
        "model.hidden_size": 32,
        "model.intermediate_size": 96,
    }
    values |= {"model.num_hidden_layers": 2, "model.num_attention_heads": 2, "model.num_key_value_heads": 2}
    settings = load_settings(
        values=values | {key.replace("__", "."): value for key, value in changes.items()}
    )
    gone = Absent("not measured")
    model: ModelConfig = model_config(settings, Facts(10_000, 300, 0))
    return Evidence(Path("runs/x"), settings, history, state, "", model, Text(10_000), gone, gone, gone, gone)


HEALTHY = history_of(DESCENT, {0: START, 10: 4.0, 20: 3.5})
WILD = history_of(
    [START, 40.0, 800.0, 9e3, 3e4, 2e5, 4e5, 6e5, 9e5, 2e6, 2e6, 3e6], {0: START, 6: 2e5, 12: 1e4}
)
FELL_THEN_ROSE = history_of(
    [*DESCENT[:12], 4.2, 4.8, 5.2, 5.3, 5.3, 5.4, 5.3, 5.4], {0: START, 10: 3.5, 15: 5.2, 20: 5.4}
)
BY_HEART = history_of([*DESCENT, *[3.0] * 10, *[1.0] * 10], {0: START, 10: 4.0, 20: 3.5, 30: 4.4, 40: 6.0})
NAN = history_of([*DESCENT[:5], math.nan], {0: START, 5: 4.8, 6: math.nan})
SKIPPED = history_of(DESCENT, {0: START, 20: math.nan}, skipped=[7, 8])


def test_a_healthy_run_has_none_of_these_faults() -> None:
    assert not_finite(HEALTHY) is None
    assert divergence(HEALTHY.steps, START) is None
    assert held_out_rise(HEALTHY.steps, HEALTHY.evals, START) is None
    assert broken_sentence(HEALTHY) == ""


@pytest.mark.parametrize(("history", "step"), [(WILD, 2), (FELL_THEN_ROSE, 13)])
def test_a_diverged_run_names_the_step_from_which_its_loss_rose(history: RunHistory, step: int) -> None:
    fault = divergence(history.steps, START)
    assert fault is not None
    assert fault.step == step
    assert f"It diverged: from step {step} on the training loss rose from" in broken_sentence(history)
    verdict = loss_diverged(evidence_of(history))
    assert verdict.severity == "problem"
    assert f"from step {step} on" in verdict.finding


def test_a_short_run_diverged_only_if_its_loss_doubled() -> None:
    assert divergence(steps_of([5.7, 5.9, 6.1]), 5.7) is None
    assert divergence(steps_of([5.7, 90.0, 4000.0]), 5.7) is not None
    assert divergence(steps_of([5.7]), 5.7) is None


def test_a_spike_is_no_divergence() -> None:
    assert divergence(steps_of([*DESCENT[:15], 30.0, *DESCENT[15:]]), START) is None


def test_memorising_needs_a_falling_training_loss() -> None:
    rise = held_out_rise(BY_HEART.steps, BY_HEART.evals, START)
    assert rise is not None
    assert rise.by_heart
    assert (rise.best.step, rise.training_now) == (20, 1.0)
    assert divergence(BY_HEART.steps, START) is None, "only its held-out loss ends above the untrained one"
    rising = held_out_rise(FELL_THEN_ROSE.steps, FELL_THEN_ROSE.evals, START)
    assert rising is not None
    assert not rising.by_heart


def test_the_last_line_mentions_memorising_only_then() -> None:
    assert BY_HEART.ladder is not None
    sentence = ladder_sentence(BY_HEART.ladder, BY_HEART)
    passed = "It passed the 2-gram at step 20 and has fallen behind it since"
    assert f"{passed}: it is learning its text by heart" in sentence
    level = history_of([*DESCENT[:10], *[4.0] * 10], {0: START, 10: 3.5, 15: 3.9, 20: 4.0})
    sentence = ladder_sentence(BY_HEART.ladder, level)
    assert "by heart" not in sentence
    assert "etude doctor runs/x looks for the cause" in sentence


@pytest.mark.parametrize(("history", "first"), [(NAN, 6), (SKIPPED, 7)])
def test_numbers_that_are_not_finite_come_first(history: RunHistory, first: int) -> None:
    verdicts = judged(evidence_of(history))
    problems = [verdict for verdict in verdicts if verdict.severity == "problem"]
    assert problems[0].rule == "not a finite number"
    assert f"From step {first} on" in problems[0].finding
    assert "train.lr=0.002 --set train.muon_lr=0.0025" in problems[0].advice
    assert broken_sentence(history).startswith(f"From step {first} on")


def test_a_skipped_update_of_a_run_that_recovered_is_worth_a_notice() -> None:
    long = history_of(DESCENT * 10, {0: START, 200: 3.5}, skipped=[57])
    assert numbers_not_finite(evidence_of(long)).severity == "notice"
    many = dataclasses.replace(long, skipped=[57, 58, 90])
    assert numbers_not_finite(evidence_of(many)).severity == "problem"


def test_effects_of_a_diverged_run_are_not_judged() -> None:
    verdicts = {verdict.rule: verdict for verdict in judged(evidence_of(WILD))}
    assert len(verdicts) == len(RULES)
    assert [v.rule for v in verdicts.values() if v.severity == "problem"] == ["diverged"]
    for rule in ("not learning", "overfitting", "dead or saturated units", "still above the n-gram ladder"):
        assert verdicts[rule].severity == "not judged"
        assert verdicts[rule].finding == "diverged comes first"


def overrides_of(advice: str) -> dict[str, str]:
    words = shlex.split(advice[advice.find("etude train") :]) if "etude train" in advice else []
    pairs = pairwise(words)
    return dict(re.split("=", word, maxsplit=1) for before, word in pairs if before == "--set")


@pytest.mark.parametrize("rate", [1e-12, 1e-6, 0.02, 0.3, 30.0, 5e29, 1e300])
@pytest.mark.parametrize("history", [HEALTHY, WILD, FELL_THEN_ROSE, BY_HEART, NAN, SKIPPED])
def test_no_advice_names_a_value_outside_a_sane_range(history: RunHistory, rate: float) -> None:
    run = evidence_of(history, train__lr=rate, train__muon_lr=rate, train__steps=2**40, train__context=2**19)
    for verdict in [rule(run) for rule in RULES]:
        for key, value in overrides_of(verdict.advice).items():
            if key in (*SANE, "train.lr", "train.muon_lr"):
                low, high = sane(key, run.settings)
                assert low <= float(value) <= high, verdict


def test_lower_rates_are_lower_and_sane() -> None:
    muon = with_values(Settings(), {"train.optimizer": "muon"})

    def rates(lr: float, muon_lr: float, times: float) -> dict[str, float]:
        values = {"train.optimizer": "muon", "train.lr": lr, "train.muon_lr": muon_lr}
        return lowered(with_values(Settings(), values), times)

    assert rates(0.02, 0.025, 4) == {
        "train.lr": pytest.approx(0.005),
        "train.muon_lr": pytest.approx(0.00625),
    }
    assert rates(30.0, 30.0, 4) == {"train.lr": 0.02, "train.muon_lr": 0.025}
    assert rates(0.02 / 1000, 30.0, 4) == {"train.muon_lr": 0.025}
    assert rates(1e-9, 1e-9, 4) == {}
    assert bounded("train.lr", 5e29, muon) == sane("train.lr", muon)[1]


def test_a_real_run_with_a_rate_of_30_is_reported_as_diverged(small_settings: Settings) -> None:
    changes = {"train.lr": 30.0, "train.muon_lr": 30.0, "run.name": "my wild run"}
    console = Console(file=io.StringIO(), width=200)
    outcome = jobs.grow(with_values(small_settings, changes), console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "It diverged: from step 2 on the training loss rose from" in text
    assert "by heart" not in text
    assert "has not passed any n-gram model" not in text
    path = outcome.run.path
    assert command("doctor", path) in text
    (line,) = (line for line in text.splitlines() if "my wild run-again" in line)
    assert overrides_of(line) == {"train.lr": "0.02", "train.muon_lr": "0.025"}
    assert shlex.split(line)[:4] == ["etude", "train", "--config", str(path / "run.toml")]


def test_the_network_of_a_base_model_is_not_up_for_change() -> None:
    """Its shape and its normalisation are the publisher's, so advice is about rates, steps, rows and text."""
    odd: dict[str, Any] = {
        "model__hidden_size": 32,
        "model__num_hidden_layers": 30,
        "model__num_attention_heads": 16,
        "model__num_key_value_heads": 16,
    }
    few_documents = Text(10_000, train_documents=2_000)
    for base, severity in (("none", "problem"), ("models/their's", "fine")):
        evidence = replace(evidence_of(HEALTHY, model__base=base, **odd), text=few_documents)
        verdict = absurd_shape(evidence)
        assert verdict.severity == severity
        assert "Rows of 64 tokens hold 13 documents" not in verdict.finding  # fewer than 16
        long_rows = replace(
            evidence, settings=evidence_of(HEALTHY, model__base=base, train__context=128).settings
        )
        assert "documents of 5 each" in absurd_shape(long_rows).finding
    assert "--set train.context=80" in absurd_shape(long_rows).advice
    assert "layers" not in absurd_shape(long_rows).finding
    assert evidence.new_run_command().endswith("--from 'models/their'\"'\"'s'")


def test_collapsed_heads_of_a_base_model_ask_for_lower_rates_alone() -> None:
    heads = HeadState(1, np.ones(2), np.zeros(2))
    network = NetworkState(5, "silu", 100, (), (heads,))
    for base in ("none", "model"):
        verdict = attention_collapse(replace(evidence_of(HEALTHY, model__base=base), network=network))
        assert verdict.severity == "problem"
        assert ("qk_norm" in verdict.advice) == (base == "none")
        assert "train.lr=" in verdict.advice


def test_a_base_model_has_learned_before() -> None:
    little = history_of([3.0 - 0.001 * step for step in range(20)], {0: 3.0, 10: 2.995, 20: 2.99})
    assert not_learning(evidence_of(little)).severity == "problem"
    assert not_learning(evidence_of(little, model__base="model")).severity == "fine"
    flat = history_of([3.0] * 20, {0: 3.0, 10: 3.0, 20: 3.01})
    assert not_learning(evidence_of(flat, model__base="model")).severity == "problem"
