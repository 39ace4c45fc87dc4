"""Probes of general abilities in the report on a tuning: the same items for both models, none of the training data."""

from __future__ import annotations

import io
import json
import time
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from tuned_folders import corpus_of, make_run

from etude.data.corpus.corpus import Corpus
from etude.data.reference import ReferenceText
from etude.evaluate.items import FEWEST_ITEMS
from etude.evaluate.network_answerer import ModelAnswerer
from etude.evaluate.statistics import credit
from etude.evaluate.tuning.costs import ITEM_CHARS, ITEMS, Costs, general_probes
from etude.evaluate.tuning.examined import Counted
from etude.evaluate.tuning.records import from_json
from etude.evaluate.tuning.report import TunedRun
from etude.evaluate.tuning.tables import PROBES_DROPPED, print_reports
from etude.plan.model_card import with_tuning


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> TunedRun:
    made = make_run(tmp_path_factory.mktemp("costs"))
    made.texts = (ReferenceText("a text", ("One day a fox met a crow.", "The crow had cheese.")),)
    return made


def test_the_probes_are_many_enough_and_short(run: TunedRun) -> None:
    probes = general_probes(run.corpus)
    titles = {probe.title for probe in probes}
    assert {"induction", "entity recall"} <= titles
    assert all(FEWEST_ITEMS <= len(probe.items) <= ITEMS for probe in probes)
    texts = [c.given + c.said for probe in probes for item in probe.items for c in item.candidates]
    assert max(map(len, texts)) <= ITEM_CHARS
    assert [probe.hash for probe in general_probes(run.corpus)] == [probe.hash for probe in probes]


def test_an_item_of_the_training_examples_is_not_asked(run: TunedRun, tmp_path: Path) -> None:
    (probe,) = [probe for probe in general_probes(run.corpus) if probe.title == "induction"]
    known = probe.items[0].answer.given.split()[0]
    row = {
        "messages": [
            {"role": "user", "content": "Say it."},
            {"role": "assistant", "content": f"It is {known}."},
        ]
    }
    others = [
        {"messages": [{"role": "user", "content": f"{n}?"}, {"role": "assistant", "content": str(n)}]}
        for n in range(9)
    ]
    for part, lines in (("train", [row]), ("valid", others)):
        (tmp_path / "rows").mkdir(exist_ok=True)
        (tmp_path / "rows" / f"{part}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    corpus: Corpus = corpus_of(tmp_path, tmp_path / "rows")
    (fewer,) = [probe for probe in general_probes(corpus) if probe.title == "induction"]
    assert not any(known in candidate.given for item in fewer.items for candidate in item.candidates)


def test_both_models_answer_the_same_items_and_the_change_is_paired(run: TunedRun) -> None:
    report = run.report(run.folder / "checkpoints" / "step-00000004", probes=True)
    probes = {probe.title: probe for probe in general_probes(run.corpus)}
    assert [cost.title for cost in report.probes] == list(probes)
    cost = next(cost for cost in report.probes if cost.title == "induction")
    probe = probes["induction"]
    trained = run.respondent.trained
    shares = [
        credit(score.logprobs, item.right)
        for item, score in zip(
            probe.items, ModelAnswerer(trained.model, trained.tokenizer).answer(probe.items), strict=True
        )
    ]
    assert cost.base.value == pytest.approx(np.mean(shares))
    assert cost.change.value == pytest.approx(cost.tuned.value - cost.base.value)
    assert cost.digest == probe.hash
    assert cost.chance == 0.5


def test_without_time_the_probes_are_dropped(run: TunedRun) -> None:
    costs, seen = Costs(run.texts, general_probes(run.corpus)), []
    count = Counted(lambda done, of: seen.append((done, of)), 2 * len(costs))
    before = costs.read(run.respondent, count, until=time.monotonic())
    assert before.credits == []
    assert costs.probes_dropped
    assert costs.compare(before, costs.read(run.respondent, count))[1] == ()
    assert seen[-1] == (2, 2)


def test_the_report_says_that_the_probes_were_dropped(run: TunedRun) -> None:
    checkpoint, out = run.folder / "checkpoints" / "step-00000004", io.StringIO()
    asked = run.report(checkpoint, until=time.monotonic() + 600, probes=True)
    assert not asked.probes_dropped
    hurried = run.report(checkpoint, until=time.monotonic(), probes=True)
    assert hurried.probes_dropped
    assert not run.report(checkpoint, until=time.monotonic()).probes_dropped, "they were not wanted"
    print_reports([asked], False, Console(file=out, width=150))
    assert PROBES_DROPPED not in out.getvalue()
    print_reports([hurried], False, Console(file=out, width=150))
    assert out.getvalue().count(PROBES_DROPPED) == 1
    line = hurried.to_json()
    assert from_json(line).probes_dropped
    assert "General abilities were not asked, for want of time." in with_tuning("# A model\n", line)
