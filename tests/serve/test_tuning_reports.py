"""What the page receives of a tuning, from a file that the writer of reports wrote, whole or damaged."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from bare_models import make_model
from etude.errors import InputError
from etude.evaluate.tuning.records import from_json, read_reports
from etude.run import RunFolder
from etude.serve.tuning import tuning_of
from etude.serve.tuning_types import TuningStep
from reported_tunings import report, report_on_pairs, write
from serving import client_of, require_type
from watched import Watched


@pytest.fixture
def run(studied: Watched, tmp_path: Path) -> Path:
    shutil.copytree(studied.path, tmp_path / "runs" / "tuned")
    return tmp_path / "runs" / "tuned"


def test_no_file_no_reports(run: Path) -> None:
    assert tuning_of(run) == []
    assert client_of(run.parent).get("/api/runs/tuned/tuning").json() == []


def test_the_last_report_on_each_step(run: Path) -> None:
    write(run, report(8), report(4), report(8, rise=0.5))
    steps = client_of(run.parent).get("/api/runs/tuned/tuning").json()
    require_type(list[TuningStep], steps)
    assert [step["step"] for step in steps] == [4, 8]
    assert steps[1]["texts"][0]["rise"] == {"value": 0.5, "low": 0.5, "high": 0.5}
    assert steps[1]["claims"] == ["better than prompting", "forgot"]
    assert steps[0]["verdict"] == report(4).verdict.sentence
    assert [system["name"] for system in steps[0]["systems"]] == ["base", "base, 2 examples", "tuned, step 4"]
    assert steps[0]["systems"][0]["right"] is None


def test_an_infinite_interval_is_none(run: Path) -> None:
    write(run, report(4, documents=1))
    (step,) = tuning_of(run)
    assert step["texts"][0]["rise"] == {"value": 0.2, "low": None, "high": None}


def test_pairs_and_probes_reach_the_page(run: Path) -> None:
    made = report_on_pairs(6)
    write(run, made, report(8, probes=True, labels=True))
    pairs, questions = client_of(run.parent).get("/api/runs/tuned/tuning").json()
    require_type(list[TuningStep], [pairs, questions])
    assert [model["name"] for model in pairs["pairs"]] == ["base", "tuned, step 6"]
    assert pairs["pairs"][0]["gained"] is None
    assert pairs["pair_changes"][0]["value"] == made.verdict.chosen.value
    assert pairs["probes_dropped"]
    assert not questions["probes_dropped"]
    assert [(null["name"], null["right"]["value"]) for null in questions["nulls"]] == [
        ("always the commonest answer", 0.5),
        ("naive Bayes on words", 0.75),
    ]
    assert [(kind["name"], kind["tuned"]["value"]) for kind in questions["kinds"]] == [
        ("retell", 1),
        ("who", 1),
    ]
    assert (pairs["nulls"], pairs["kinds"]) == ([], [])
    assert pairs["claims"] == ["moved towards the chosen answers", "both fell"]
    assert pairs["systems"] == questions["pairs"] == questions["pair_changes"] == []
    assert [probe["name"] for probe in questions["probes"]] == ["induction"]
    assert questions["probes"][0]["change"]["value"] == -0.25


def damaged(change: object, *keys: object) -> dict[str, object]:
    line = json.loads(json.dumps(report(4).to_json()))
    part = line
    for key in keys[:-1]:
        part = part[key]
    part[keys[-1]] = change
    return line  # type: ignore[no-any-return]


DAMAGE = [
    damaged(2, "schema"),
    damaged("probe", "event"),
    damaged(-1, "step"),
    damaged("4", "step"),
    damaged([], "systems"),
    damaged(None, "systems"),
    damaged(7, "verdict", "sentence"),
    damaged("x" * 3000, "verdict", "sentence"),
    damaged("much", "texts", 0, "rise", "value"),
    damaged(float("1e300"), "texts", 0, "base"),
    damaged(2.0, "systems", 0, "exact"),
    damaged(None, "base"),
]


@pytest.mark.parametrize("line", DAMAGE)
def test_a_damaged_line_is_skipped_and_alone_it_is_one_line(run: Path, line: dict[str, object]) -> None:
    with pytest.raises((KeyError, TypeError, ValueError, AttributeError)):
        from_json(line)
    RunFolder(run).tuning.append(line)
    with pytest.raises(InputError, match="holds no report"):
        read_reports(run)
    write(run, report(4))
    assert len(read_reports(run)) == 1


def test_a_pipe_does_not_hang_the_page(run: Path) -> None:
    os.mkfifo(run / "tuning.jsonl")
    assert tuning_of(run) == []


def test_a_model_without_a_run_has_no_report(tmp_path: Path) -> None:
    make_model(tmp_path / "published", "llama-grouped-tied")
    assert client_of(tmp_path).get("/api/runs/published/tuning").json() == []


def test_a_damaged_file_is_one_line_for_the_page(run: Path) -> None:
    (run / "tuning.jsonl").write_text("{}\n")
    answer = client_of(run.parent).get("/api/runs/tuned/tuning")
    assert answer.status_code == 404
    assert "--suite tuning" in answer.json()["error"]
