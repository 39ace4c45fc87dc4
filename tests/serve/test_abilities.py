"""What the page receives about a run's abilities, from a file that the writer of records wrote."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest

from etude.evaluate.answerers import ItemScore
from etude.evaluate.items import Probe, choice
from etude.evaluate.records import FILE, Where, write_records
from etude.evaluate.results import ProbeResult, measure
from etude.serve.abilities import abilities_of
from etude.serve.run_types import Ability
from serving import client_of, require_type
from watched import Watched

PROBE = Probe("recall", "", "Who?", tuple(choice(f"{n}", "a", "b") for n in range(20)), held_out="all")
OTHER = Probe("recall", "", "Who?", tuple(choice(f"{n}!", "a", "b") for n in range(20)))


def result(probe: Probe, right: int, gap: float = 2.0) -> ProbeResult:
    """The first `right` items are answered correctly, all by the same margin in nats."""

    def scores(count: int) -> list[ItemScore]:
        return [
            ItemScore(
                np.array([0.0, -gap if at < count else gap]), np.array([1, 1]), np.zeros(1), np.empty(0)
            )
            for at in range(20)
        ]

    half = measure(probe, scores(10))
    return ProbeResult(probe, measure(probe, scores(right)), half, half)


def where(step: int) -> Where:
    return Where(1, step, 100 * step, 1e9, 12_345, 2.0, "world")


@pytest.fixture
def run(studied: Watched, tmp_path: Path) -> Path:
    shutil.copytree(studied.path, tmp_path / "runs" / "probed")
    return tmp_path / "runs" / "probed"


def test_no_file_no_abilities(run: Path) -> None:
    assert abilities_of(run) == []


def test_scores_by_step(run: Path) -> None:
    write_records(run, [result(PROBE, 10)], where(0))
    write_records(run, [result(PROBE, 20)], where(8))
    abilities = client_of(run.parent).get("/api/runs/probed/abilities").json()
    assert len(abilities) == 1
    ability = abilities[0]
    require_type(Ability, ability)
    assert (ability["steps"], ability["right"]) == ([0, 8], [0.5, 1.0])
    assert (ability["chance"], ability["counting"], ability["random"]) == (0.5, 0.5, 0.5)
    assert (ability["label"], ability["num_parameters"]) == ("beyond counting", 12_345)
    assert ability["probability"][1] == pytest.approx(1 / (1 + math.exp(-2.0)))
    assert ability["probability"][0] == pytest.approx(math.sqrt(1 / (1 + math.exp(2)) / (1 + math.exp(-2))))
    assert ability["low"][1] < ability["right"][1] <= ability["high"][1]


def test_scores_of_other_items_are_not_mixed_in(run: Path) -> None:
    write_records(run, [result(OTHER, 20)], where(0))
    write_records(run, [result(PROBE, 15)], where(8))
    assert [ability["steps"] for ability in abilities_of(run)] == [[8]]


def test_a_damaged_file_is_one_line(run: Path) -> None:
    (run / FILE).write_text(json.dumps({"schema": 1, "event": "probe", "step": "x"}) + "\n")
    answer = client_of(run.parent).get("/api/runs/probed/abilities")
    assert answer.status_code == 404
    assert "etude eval" in answer.json()["error"]
