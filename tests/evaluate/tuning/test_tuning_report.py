"""The report on a tuned run: its figures equal independent ones, and it resumes, stops in time and is recorded."""

from __future__ import annotations

import io
import json
import math
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from tuned_folders import FACTS, make_run

from etude.data.conversations.encode import encode_example
from etude.data.conversations.template import CHATML_SOURCE, template_of
from etude.data.reference import built_in_texts
from etude.errors import InputError
from etude.evaluate.statistics import wilson
from etude.evaluate.tuning import asking as asking_module
from etude.evaluate.tuning.asking import BLOCK, Respondent, TextBits
from etude.evaluate.tuning.paired_tests import ratio
from etude.evaluate.tuning.prompting import EXAMPLES, prompted
from etude.evaluate.tuning.report import TunedRun
from etude.evaluate.tuning.summary import System, TuningReport, best_prompt, cost_of, figures_of, paired_of
from etude.evaluate.tuning.tables import lines_of, print_reports
from etude.generate.engine import generate
from etude.generate.sampling import SamplingSettings
from etude.plan.model_card import with_tuning
from etude.pretrained.load_model import Trained, load_trained


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TunedRun]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(asking_module, "has_fast_bf16", lambda kind: False)
        yield make_run(tmp_path_factory.mktemp("tuned"), (4, 8))


def checkpoint(run: TunedRun, step: int) -> Path:
    return run.folder / "checkpoints" / f"step-{step:08d}"


@pytest.fixture(scope="module")
def report(run: TunedRun) -> TuningReport:
    return run.report(checkpoint(run, 4))


@torch.no_grad()
def loss_of(trained: Trained, run: TunedRun, examples: int) -> float:
    """Nats per trained token of the held-out answers, each conversation read alone."""
    nats, tokens = 0.0, 0
    for asking in run.askings:
        example = prompted(asking.question, asking.question.answer, asking.shots[:examples])
        encoded = encode_example(example, trained.tokenizer, template_of(trained.tokenizer), "last")
        logprobs = trained.model(torch.tensor([encoded.ids]))[0].double().log_softmax(-1)
        for at in encoded.trained.nonzero()[0].tolist():
            nats -= float(logprobs[at - 1, encoded.ids[at]])
            tokens += 1
    return nats / tokens


def test_losses_are_those_of_each_conversation_alone(run: TunedRun, report: TuningReport) -> None:
    base, tuned = load_trained(checkpoint(run, 0), 1), load_trained(checkpoint(run, 4), 1)
    for system in report.systems[:-1]:
        assert system.loss.value == pytest.approx(loss_of(base, run, system.examples), abs=1e-4)
    assert report.systems[-1].loss.value == pytest.approx(loss_of(tuned, run, 0), abs=1e-4)


def test_the_base_is_asked_with_every_number_of_examples_and_each_question_once(
    run: TunedRun, report: TuningReport
) -> None:
    assert [system.examples for system in report.systems] == [0, *EXAMPLES, 0]
    assert report.asked == report.held_out == report.groups == report.short == FACTS
    assert all(system.loss.count == FACTS for system in report.systems)
    assert not report.skipped
    assert report.verdict.measure == "exact answers"


def test_answers_are_the_greedy_ones(run: TunedRun, report: TuningReport) -> None:
    trained = load_trained(checkpoint(run, 4), 1)
    details = json.loads((run.folder / "derived" / "tuning" / "step-00000004.json").read_text())
    template, stops = template_of(trained.tokenizer), trained.tokenizer.roles.stop_ids
    for asking, row in zip(run.askings, details["answers"], strict=True):
        encoded = encode_example(asking.question.example, trained.tokenizer, template, "last")
        prompt = encoded.ids[: int(encoded.trained.nonzero()[0][0])]
        reference = int(encoded.trained.sum())
        settings = SamplingSettings(temperature=0.0, max_new_tokens=min(64, 16 + 2 * reference))
        (expected,) = generate(trained.model, [prompt], settings, stop_ids=stops, dtype=report.decoding)
        text = trained.tokenizer.decode(expected.token_ids, skip_special_tokens=True).strip()
        assert row["systems"]["tuned"]["answer"] == text
        assert row["systems"]["tuned"]["ended"] == (expected.finish_reason == "eos")
        assert row["reference"] == asking.question.answer
        assert row["other_answer"] != row["reference"]


def test_the_cost_is_the_rise_of_bits_per_byte_paired_by_document(
    run: TunedRun, report: TuningReport
) -> None:
    trained = load_trained(checkpoint(run, 4), 1)
    for cost, text in zip(report.texts, built_in_texts(), strict=True):
        bits = 0.0
        for document in text.documents[:1]:
            ids = [trained.tokenizer.roles.document_id, *trained.tokenizer.encode(document)][:512]
            with torch.no_grad():
                logprobs = trained.model(torch.tensor([ids]))[0].double().log_softmax(-1)
            bits -= sum(float(logprobs[at, token]) for at, token in enumerate(ids[1:])) / math.log(2)
        saved = run.respondent
        read = Respondent(checkpoint(run, 4), saved.within, 1).read(text)
        if len(trained.tokenizer.encode(text.documents[0])) < 512:
            assert read.bits[0] == pytest.approx(bits, rel=1e-5)
        assert cost.tuned == pytest.approx(sum(read.bits) / sum(read.sizes))
        assert cost.rise.rise.value == pytest.approx(cost.tuned - cost.base)
        assert (cost.name, cost.digest) == (text.name, text.digest)


def test_the_interval_of_a_rise_is_students_of_the_documents() -> None:
    cost = cost_of(
        "text", "d", TextBits((10.0, 10.0, 10.0), (5, 5, 5)), TextBits((15.0, 20.0, 25.0), (5, 5, 5))
    )
    assert cost.rise.rise.value == pytest.approx(2.0)
    half = 4.303 * (np.std([1, 2, 3], ddof=1) / math.sqrt(3))
    assert cost.rise.rise.interval.low == pytest.approx(2 - half)
    assert not cost.rise.is_forgetting
    same = TextBits((10.0, 12.0), (5, 5))
    assert not cost_of("text", "d", same, same).rise.is_forgetting


def test_copies_and_wrong_copies_are_counted(run: TunedRun, report: TuningReport) -> None:
    askings = run.askings
    own = [asking.question.answer for asking in askings]
    written = [own[0], own[1], own[0], "Fact  3\nis 9.", "nothing", own[5].lower(), *own[6:]]
    results = tuple(asking_module.Result(1.0, 2, 1.0, answer, ended=True) for answer in written)
    groups = [asking.question.answer for asking in askings]
    training = frozenset(f"Fact {number} is {number * number}." for number in range(FACTS))
    figures = figures_of(System("tuned", 0, results), askings, groups, training)
    right = sum(a.lower() == b.lower() for a, b in zip(written, own, strict=True))
    right += own[3] == "Fact 3 is 9."
    copies = [text for text in (" ".join(answer.split()) for answer in written) if text in training]
    assert figures.exact is not None
    assert figures.exact.value == pytest.approx(right / FACTS)
    assert figures.exact.interval == wilson(right, FACTS)
    assert figures.copies is not None
    assert figures.copies.value == len(copies) / FACTS
    wrong = sum(
        " ".join(a.split()) in training and " ".join(a.split()) != b
        for a, b in zip(written, own, strict=True)
    )
    assert wrong >= 1
    assert figures.wrong_copies is not None
    assert figures.wrong_copies.value == pytest.approx(wrong / len(copies))


def test_known_answers_are_not_computed_again(
    run: TunedRun, report: TuningReport, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads: Counter[str] = Counter()

    def counted(folder: Path, threads: object) -> Trained:
        loads[folder.name] += 1
        return load_trained(folder, 1)

    monkeypatch.setattr(asking_module, "load_trained", counted)
    run.respondent.release()
    again = run.report(checkpoint(run, 4))
    assert not loads
    assert again.to_json() == report.to_json()
    later = run.report(checkpoint(run, 8))
    assert loads == {"step-00000008": 1}
    assert later.systems[:-1] == report.systems[:-1]
    steps = [json.loads(line)["step"] for line in (run.folder / "tuning.jsonl").read_text().splitlines()]
    assert steps == [4, 4, 8]


def test_an_interrupted_report_resumes_at_the_block_that_was_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tmp_path)
    seen: list[int] = []

    def stop(done: int, total: int) -> None:
        seen.append(done)
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run.report(checkpoint(run, 4), progress=stop)
    assert not (run.folder / "tuning.jsonl").exists()
    computed: list[int] = []
    original = Respondent._ask

    def ask(self: Respondent, askings: object, examples: int, plain: bool) -> object:
        computed.append(examples)
        return original(self, askings, examples, plain)  # type: ignore[arg-type]

    monkeypatch.setattr(Respondent, "_ask", ask)
    run.report(checkpoint(run, 4))
    assert computed == [4, 8, 0], "both texts and the blocks of 0 and 2 examples were known"


def test_with_little_time_one_block_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(tmp_path)
    run.askings = run.askings * 3
    assert len(run.askings) > 2 * BLOCK
    hurried = run.report(checkpoint(run, 4), until=time.monotonic())
    assert hurried.asked == BLOCK
    assert run.report(checkpoint(run, 4), until=time.monotonic() + 600).asked == len(run.askings)


def test_a_base_compared_with_itself_is_refused(run: TunedRun) -> None:
    with pytest.raises(InputError, match="step 0 is the base itself"):
        run.report(checkpoint(run, 0))


def test_questions_that_do_not_fit_are_counted_and_examples_are_dropped(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    asking, tokenizer = run.askings[0], load_trained(checkpoint(run, 0), 1).tokenizer
    template = template_of(tokenizer)
    whole, own = asking.tokens(asking.question.answer, 8, tokenizer, template, 10_000)
    some, _ = asking.tokens(asking.question.answer, 8, tokenizer, template, len(whole) // 2 + 60)
    assert len(some) < len(whole)
    assert some[-20:] == whole[-20:]
    with pytest.raises(InputError, match="more than the 20 tokens"):
        asking.tokens(asking.question.answer, 8, tokenizer, template, 20)
    assert own[-1] in asking.stops(own, tokenizer)


def test_the_tables_hold_every_system_and_the_verdict(run: TunedRun, report: TuningReport) -> None:
    later = run.report(checkpoint(run, 8))
    out = io.StringIO()
    print_reports([report, later], False, Console(file=out, width=150))
    text = out.getvalue()
    for name in (
        "base, 2 examples",
        "base, 8 examples",
        "tuned, step 4",
        "tuned, step 8",
        "source code, step 8",
    ):
        assert name in text
    assert text.count("base, 2 examples") == 1
    assert f"verdict, step 8: {later.verdict.sentence}" in " ".join(text.split())
    assert "at most 2.5 % are called better than prompting" in " ".join(text.split())


def test_the_json_holds_no_number_that_json_lacks(
    report: TuningReport, capsys: pytest.CaptureFixture[str]
) -> None:
    print_reports([report], True, Console(file=io.StringIO()))
    (step,) = json.loads(capsys.readouterr().out)["steps"]
    assert step == json.loads(json.dumps(report.to_json(), allow_nan=False))
    assert step["verdict"]["claims"][0] in ("no better than prompting", "better than prompting")
    assert set(step["systems"][0]) >= {"loss", "exact", "ended", "copies", "wrong_copies", "own_over_other"}


def test_the_model_card_names_base_verdict_and_cost_once(run: TunedRun, report: TuningReport) -> None:
    file = checkpoint(run, 4) / "README.md"
    file.write_text("---\nlicense: mit\n---\n\n# A model\n\nMine.\n")
    for _ in range(2):
        run.report(checkpoint(run, 4))
    card = file.read_text()
    assert card.startswith("---\nlicense: mit\n---\n\n# A model\n\nMine.\n")
    assert card.count("## What tuning gained and cost") == 1
    assert report.verdict.sentence in card
    assert "Base: `a tiny base`" in card
    assert f"Bits per byte on source code: {report.texts[1].base:.3f} before" in card
    assert card.count("| this model |") == 1
    assert with_tuning(card, {"schema": 1, "base": None}) == card


def test_a_base_without_a_template_is_asked_in_its_better_form(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking_module, "has_fast_bf16", lambda kind: False)
    run = make_run(tmp_path, template=CHATML_SOURCE)
    run.askings, run.trial, run.texts = run.askings[:3], run.trial[:3], ()
    report = run.report(checkpoint(run, 4))
    shown = {shot.asked for asking in run.trial for shot in asking.shots}
    assert shown.isdisjoint(asking.question.asked for asking in run.trial)
    base, asking = load_trained(checkpoint(run, 0), 1), run.askings[0]
    shot, question = asking.shots[0], asking.question
    before = f"Question: {shot.asked}\nAnswer: {shot.answer}\n\nQuestion: {question.asked}\nAnswer:"
    begin, whole = (base.tokenizer.encode(text) for text in (before, f"{before} {question.answer}\n"))
    ids = [base.tokenizer.roles.document_id, *whole]
    with torch.no_grad():
        logprobs = base.model(torch.tensor([ids]))[0].double().log_softmax(-1)
    nats = -sum(float(logprobs[at, ids[at + 1]]) for at in range(len(begin), len(whole)))
    (result,) = run.respondent.ask([asking], 1, plain=True)
    assert result.nats == pytest.approx(nats, abs=1e-4)
    assert result.answer is not None
    assert "\n" not in result.answer
    trials = [run.respondent.ask(run.trial, 8, plain) for plain in (False, True)]
    better = best_prompt([paired_of(results, run.trial) for results in trials])
    assert report.form == ("ChatML", "plain text")[better]
    asked = run.respondent.ask(run.askings, 2, plain=bool(better))
    figures = ratio(
        [r.nats for r in asked], [r.tokens for r in asked], [a.question.answer for a in run.askings]
    )
    assert report.systems[1].loss.value == pytest.approx(figures.value)
    assert f"it was asked in {report.form}" in " ".join(lines_of([report]))


def test_a_checkpoint_without_a_card_gets_none(run: TunedRun) -> None:
    file = checkpoint(run, 8) / "README.md"
    file.unlink(missing_ok=True)
    run.report(checkpoint(run, 8))
    assert not file.exists()
