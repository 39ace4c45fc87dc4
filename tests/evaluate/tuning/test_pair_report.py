"""The report on a run tuned on pairs: its figures equal independent ones, and its verdict says what fell."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from tuned_folders import corpus_of, make_run

from etude.data.conversations.conversation import Example
from etude.data.conversations.encode import encode_example
from etude.data.conversations.template import template_of
from etude.data.reference import ReferenceText
from etude.data.tokens.published import model_tokenizer
from etude.errors import InputError
from etude.evaluate.tuning.examined import ExaminedTuning
from etude.evaluate.tuning.pair_report import PairsReport, TunedPairs
from etude.evaluate.tuning.pair_scores import PairScores
from etude.evaluate.tuning.pair_verdict import (
    AWAY,
    BOTH_FELL,
    CANNOT_TELL,
    CHOSEN_FELL,
    STILL,
    TOWARDS,
    gains_of,
    pairs_verdict,
)
from etude.evaluate.tuning.records import from_json
from etude.evaluate.tuning.tables import print_reports
from etude.plan.model_card import with_tuning
from etude.pretrained.load_model import load_trained

PAIRS = 9


def rows(count: int, wording: str) -> list[dict[str, str]]:
    return [
        {
            "prompt": wording.format(n),
            "chosen": f"Fact {n} is {n * n}.",
            "rejected": "I do not know." * (1 + n % 3),
        }
        for n in range(count)
    ]


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> TunedPairs:
    """Return a run whose checkpoint of step 4 is a moved base, with pairs."""
    folder = tmp_path_factory.mktemp("pairs")
    tuned = make_run(folder)
    (folder / "of-pairs" / "rows").mkdir(parents=True)
    for part in ("train", "valid"):
        lines = (
            rows(PAIRS, "Which is fact {}, please?")
            if part == "valid"
            else rows(2 * PAIRS, "What is fact {}?")
        )
        (folder / "of-pairs" / "rows" / f"{part}.jsonl").write_text(
            "".join(json.dumps(row) + "\n" for row in lines)
        )
    corpus = corpus_of(folder / "of-pairs", folder / "of-pairs" / "rows")
    tokenizer = model_tokenizer(tuned.base.folder)
    tuning = ExaminedTuning(tuned.folder, tuned.base, corpus, tokenizer, "assistant")
    made = TunedPairs.of(tuning, 100, threads=1)
    made.texts = (ReferenceText("source code", ("def f(x):\n    return x\n", "int main() {}\n")),)
    return made


@pytest.fixture(scope="module")
def report(pairs: TunedPairs) -> PairsReport:
    return pairs.report(pairs.folder / "checkpoints" / "step-00000004")


@torch.no_grad()
def log_probabilities(folder: Path, documents: list[bytes]) -> dict[str, tuple[float, float, int, int]]:
    """(chosen, rejected, tokens of both) by the last turn of the user, each conversation read alone."""
    trained = load_trained(folder, 1)
    template, found = template_of(trained.tokenizer), {}
    for document in documents:
        example = Example.from_json(document.decode())
        values: list[float] = []
        for part in example.answers():
            encoded = encode_example(part, trained.tokenizer, template, "last")
            logprobs = trained.model(torch.tensor([encoded.ids]))[0].double().log_softmax(-1)
            places = encoded.trained.nonzero()[0].tolist()
            values += [sum(float(logprobs[at - 1, encoded.ids[at]]) for at in places), len(places)]
        found[example.messages[-2].content] = (values[0], values[2], int(values[1]), int(values[3]))
    return found


def test_the_figures_are_those_of_each_answer_alone(pairs: TunedPairs, report: PairsReport) -> None:
    documents = list(pairs.corpus.documents("validation"))
    base, tuned = (
        log_probabilities(pairs.folder / "checkpoints" / f"step-{step:08d}", documents) for step in (0, 4)
    )
    details = json.loads((pairs.folder / "derived" / "tuning" / "step-00000004.json").read_text())
    assert len(details["answers"]) == len(base) == PAIRS == report.asked == report.groups == report.held_out
    for row in details["answers"]:
        for name, expected in (("base", base), ("tuned", tuned)):
            assert row[name] == pytest.approx(expected[row["question"]][:2], abs=1e-3)
            assert row["tokens"] == list(expected[row["question"]][2:])
    for model, known in zip(report.models, (base, tuned), strict=True):
        values = np.array(list(known.values()))
        assert model.won.value == pytest.approx(np.mean(values[:, 0] > values[:, 1]))
        assert model.chosen.value == pytest.approx(values[:, 0].sum() / values[:, 2].sum(), abs=1e-4)
        assert model.rejected.value == pytest.approx(values[:, 1].sum() / values[:, 3].sum(), abs=1e-4)
    margins = [{key: v[0] - v[1] for key, v in known.items()} for known in (base, tuned)]
    gained = np.mean([margins[1][key] > margins[0][key] for key in base])
    assert report.models[1].gained is not None
    assert report.models[1].gained.value == pytest.approx(gained)
    assert report.models[0].gained is None
    chosen = (sum(v[0] for v in tuned.values()) - sum(v[0] for v in base.values())) / sum(
        v[2] for v in base.values()
    )
    assert report.verdict.chosen.value == pytest.approx(chosen, abs=1e-4)


def test_the_report_is_recorded_printed_and_in_the_card(pairs: TunedPairs, report: PairsReport) -> None:
    (line,) = [json.loads(text) for text in (pairs.folder / "tuning.jsonl").read_text().splitlines()]
    assert line == json.loads(json.dumps(report.to_json(), allow_nan=False))
    recorded = from_json(line)
    assert [model.name for model in recorded.pairs] == ["base", "tuned, step 4"]
    assert recorded.pairs[1].chosen.value == report.models[1].chosen.value
    assert recorded.pair_changes is not None
    assert recorded.pair_changes[0].value == report.verdict.chosen.value
    out = io.StringIO()
    print_reports([report], False, Console(file=out, width=150))
    text = " ".join(out.getvalue().split())
    assert f"verdict, step 4: {report.verdict.sentence}" in text
    assert f"{PAIRS} held-out pairs with {PAIRS} different questions" in text
    assert "source code, step 4" in text
    card = with_tuning("# A model\n", line)
    assert f"{PAIRS} held-out pairs: {report.verdict.sentence}" in card
    assert card.count("| this model |") == 1


def test_a_base_compared_with_itself_is_refused(pairs: TunedPairs) -> None:
    with pytest.raises(InputError, match="step 0 is the base itself"):
        pairs.report(pairs.folder / "checkpoints" / "step-00000000")


def scores(*nats: object) -> PairScores:
    """Scores of the sum of log-probabilities that broadcast to (P, 2), with ten tokens in each answer."""
    total = sum(np.array(part) for part in nats)
    return PairScores(np.array(total), np.full(np.shape(total), 10.0))


GROUPS = [f"question {number}" for number in range(8)]
BASE = scores([[-20.0 - n, -21.0 - n] for n in range(8)])


@pytest.mark.parametrize(
    ("chosen", "rejected", "claims"),
    [
        (-5.0, -30.0, [TOWARDS, BOTH_FELL]),
        (+5.0, -30.0, [TOWARDS]),
        (-5.0, +5.0, [AWAY, CHOSEN_FELL]),
        (0.0, 0.0, [STILL]),
        (-3.0, -3.0, [STILL, BOTH_FELL]),
    ],
)
def test_the_verdict_names_the_move_and_what_fell(chosen: float, rejected: float, claims: list[str]) -> None:
    noise = np.random.default_rng(1).normal(0, 0.1, (8, 1)) * [1, 1]
    verdict = pairs_verdict(GROUPS, BASE, scores(BASE.nats, [chosen, rejected], noise), [])
    assert verdict.claims == claims
    assert all(claim in verdict.sentence for claim in claims)
    few = pairs_verdict(GROUPS[:5], scores(BASE.nats[:5]), scores(BASE.nats[:5], [1, -9]), [])
    assert few.claims[0] == CANNOT_TELL


def test_pairs_of_one_question_count_as_one_and_rounding_is_no_gain() -> None:
    tuned = scores(BASE.nats, [1, -9])
    assert pairs_verdict(["one question"] * 8, BASE, tuned, []).claims[0] == CANNOT_TELL
    assert gains_of(BASE, scores(BASE.nats, [1e-6, -1e-6])) == [0] * 8
    assert gains_of(BASE, tuned) == [1] * 8


def test_tossed_answers_are_seldom_said_to_move() -> None:
    generator = np.random.default_rng(7)
    tossed = (scores(BASE.nats, generator.normal(0, 2, (8, 2))) for _ in range(400))
    called = sum(pairs_verdict(GROUPS, BASE, tuned, []).claims[0] == TOWARDS for tuned in tossed)
    assert called <= 20  # 2.5 % are 10; more than 20 has a probability below 0.002
