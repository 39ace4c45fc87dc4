"""Runs with made-up scores whose truth is known: families, verdicts, the table, the page; and what a stranger writes."""

from __future__ import annotations

import csv
import html
import io
import json
import math
import re
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from etude.config import load_settings, to_toml
from etude.errors import InputError
from etude.evaluate.emergence.curves import Curve
from etude.evaluate.emergence.simulated import Truth, study
from etude.evaluate.emergence.verdict import Word
from etude.evaluate.items import Probe, choice
from etude.evaluate.records import FILE, Where, write_records
from etude.evaluate.results import Exact, Measured, ProbeResult
from etude.evaluate.statistics import mean, proportion
from etude.workflow.emergence import emergence
from etude.workflow.emergence_picture import Line, Panel, Point, Scale
from etude.workflow.emergence_study import Axis, LawOfStudy, law_of, load_study

HOSTILE = "<script>alert(1)</script> [red]\x1b[31m \"'&"


def probe(name: str, condition: str = "", number: int = 0) -> Probe:
    items = tuple(choice(f"{number} {at} ", "yes", "no") for at in range(4))
    return Probe(name, condition, f"Is it {name}?", items, held_out="None of it was in the training text.")


def level(credits: Sequence[float], margins: Sequence[float]) -> Measured:
    return Measured(proportion(credits), mean(margins), 0.5, None, 0)


AT_CHANCE = level([1.0, 0.0] * 50, [0.1, -0.1] * 50)


def result(asked: Probe, curve: Curve, at: int) -> ProbeResult:
    exact = None
    if curve.exact is not None and curve.independence is not None:
        exact = Exact(curve.exact[at], curve.exact[at], curve.independence[at], mean([1.0, 1.1]))
    model = Measured(curve.accuracy[at], curve.margin[at], 0.3, exact, 0)
    return ProbeResult(asked, model, AT_CHANCE, AT_CHANCE)


def make_runs(
    folder: Path,
    truths: dict[str, Truth],
    *,
    num_seeds: int = 3,
    hidden_size: int = 64,
    number: int = 0,
    title: str = "run",
) -> list[Path]:
    """Run folders with run.toml and probes.jsonl, and nothing else."""
    runs = []
    studies = {
        name: study(truth, np.random.default_rng([7, at]), num_seeds=num_seeds)
        for at, (name, truth) in enumerate(truths.items())
    }
    for seed in range(num_seeds):
        run = folder / f"{title}-{hidden_size}-{seed}"
        run.mkdir(parents=True)
        settings = load_settings(
            values={"run.seed": seed, "run.name": run.name, "model.hidden_size": hidden_size}
        )
        (run / "run.toml").write_text(to_toml(settings))
        parameters = 12 * hidden_size**2 * 4
        for name, curves in studies.items():
            for at, step in enumerate(curves[seed].x):
                loss = (
                    1.3
                    + 4 / parameters**0.15
                    + 3 / (1 + step) ** 0.3
                    + 0.003 * math.sin(7 * seed + parameters)
                )
                where = Where(
                    seed,
                    int(step),
                    int(step) * 2048,
                    step * 2048 * 6 * parameters,
                    parameters,
                    loss,
                    "test 1",
                )
                write_records(run, [result(probe(name, number=number), curves[seed], at)], where)
        runs.append(run)
    return runs


TRUTHS = {
    "tense": Truth.SMOOTH,
    "induction": Truth.SHARP,
    "addition": Truth.THRESHOLD,
    "reversal": Truth.BIMODAL,
    "parity": Truth.NOISE,
}
EXPECTED = {
    "tense": Word.SMOOTH,
    "induction": Word.EMERGED,
    "addition": Word.METRIC,
    "reversal": Word.MIXED,
    "parity": Word.NOT_YET,
}
