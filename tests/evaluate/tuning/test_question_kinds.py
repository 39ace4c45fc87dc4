"""Right answers by kind of question: named by the rows of a file, or by the instruction of a built-in conversation."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from tuned_folders import FACTS, corpus_of, make_run, rows

from etude.config import load_settings
from etude.data.conversations.conversation import Example, Message
from etude.data.corpus.corpus import Corpus, build_corpus
from etude.data.instructions.generator import INSTRUCTIONS, SOURCE
from etude.data.reading.options import ReadingOptions
from etude.data.reading.sources import open_sources
from etude.evaluate.statistics import proportion
from etude.evaluate.tuning.held_out import held_out_questions
from etude.evaluate.tuning.kinds import kind_of
from etude.evaluate.tuning.prompting import is_right
from etude.evaluate.tuning.records import from_json
from etude.evaluate.tuning.report import TunedRun
from etude.evaluate.tuning.tables import print_reports


def write_jsonl(file: Path, lines: list[dict[str, Any]]) -> None:
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))


def write_csv(file: Path, lines: list[dict[str, Any]]) -> None:
    cells = [
        (line["messages"][0]["content"], line["messages"][1]["content"], line["category"]) for line in lines
    ]
    text = "".join(
        ",".join(f'"{cell}"' for cell in row) + "\n" for row in [("question", "answer", "Category"), *cells]
    )
    file.write_text(text)


def write_parquet(file: Path, lines: list[dict[str, Any]]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_pylist(lines), file)


def rows_with_kinds(part: str) -> list[dict[str, Any]]:
    """Return rows that call themselves odd or even."""
    return [{**row, "category": ("even", "odd")[number % 2]} for number, row in enumerate(rows(part))]


@pytest.mark.parametrize(
    ("ending", "write"), [("jsonl", write_jsonl), ("csv", write_csv), ("parquet", write_parquet)]
)
def test_rows_name_their_kind(
    tmp_path: Path, ending: str, write: Callable[[Path, list[dict[str, Any]]], None]
) -> None:
    (tmp_path / "rows").mkdir()
    for part in ("train", "valid"):
        write(tmp_path / "rows" / f"{part}.{ending}", rows_with_kinds(part))
    corpus = corpus_of(tmp_path, tmp_path / "rows")
    questions, _ = held_out_questions(corpus.documents("validation"), 100, partial(kind_of, corpus))
    assert len(questions) == FACTS
    for question in questions:
        number = int("".join(filter(str.isdigit, question.asked)))
        assert question.kind == ("even", "odd")[number % 2]
    assert corpus.name("train", 0)[1].endswith(f"train.{ending}")


def test_the_kind_is_no_part_of_the_text(tmp_path: Path) -> None:
    hashes = []
    for name, keys in (("with", {"kind": "a\tb  c"}), ("without", {}), ("long", {"kind": "x" * 100})):
        folder = tmp_path / name
        (folder / "rows").mkdir(parents=True)
        lines = [{**row, **keys} for row in rows("train")]
        write_jsonl(folder / "rows" / "talk.jsonl", lines)
        corpus = corpus_of(folder, folder / "rows")
        hashes.append(corpus.hash)
        assert corpus.kind("train", 0) == ("a b c" if name == "with" else "")
    assert len(set(hashes)) == 1


def test_every_built_in_instruction_is_of_its_kind(tmp_path: Path) -> None:
    kinds = {
        form.format(story="Max has a ball. Who has the lamp? Mia sleeps.", noun="ball"): kind
        for kind, forms in INSTRUCTIONS.items()
        for form in forms
    }
    lines = [
        Example("conversation", (Message("user", asked), Message("assistant", "So."))).to_json().encode()
        for asked in kinds
    ]
    corpus = built_in(tmp_path)
    questions, _ = held_out_questions(lines, 100, lambda _, question: kind_of(corpus, 0, question))
    assert len(questions) == len(lines) > len(INSTRUCTIONS)
    assert {question.asked: question.kind for question in questions} == kinds


def built_in(folder: Path) -> Corpus:
    """Build a corpus of built-in conversations."""
    data = load_settings(None, ["data.max_bytes=20000"]).data
    sources = open_sources(
        [SOURCE], options=ReadingOptions(examples=True), max_bytes=20_000, seed=1, spool=folder / "spool"
    )
    (folder / "corpus").mkdir()
    build_corpus(folder / "corpus", sources, data, lambda *_: None)
    return Corpus(folder / "corpus")


def test_the_held_out_built_in_conversations_have_kinds(tmp_path: Path) -> None:
    corpus = built_in(tmp_path)
    held_out = corpus.documents("validation")
    questions, number = held_out_questions(held_out, 100, partial(kind_of, corpus))
    assert number > 2
    assert all(question.kind in INSTRUCTIONS for question in questions)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> TunedRun:
    folder = tmp_path_factory.mktemp("kinds")
    made = make_run(folder)
    (folder / "other" / "rows").mkdir(parents=True)
    for part in ("train", "valid"):
        write_jsonl(folder / "other" / "rows" / f"{part}.jsonl", rows_with_kinds(part))
    corpus: Corpus = corpus_of(folder / "other", folder / "other" / "rows")
    tokenizer = made.respondent.trained.tokenizer
    opened = TunedRun.opened(made.folder, corpus, tokenizer, made.base, threads=1)
    opened.texts = ()
    return opened


def test_the_report_has_a_row_for_each_kind(run: TunedRun) -> None:
    report = run.report(run.folder / "checkpoints" / "step-00000004")
    details = json.loads((run.folder / "derived" / "tuning" / "step-00000004.json").read_text())
    right: dict[str, list[float]] = {"even": [], "odd": []}
    for answer in details["answers"]:
        number = int("".join(filter(str.isdigit, answer["question"])))
        written = answer["systems"]["tuned"]["answer"]
        right[("even", "odd")[number % 2]].append(float(is_right(written, answer["reference"])))
    assert [(kind.name, kind.asked) for kind in report.kinds] == [("even", FACTS // 2), ("odd", FACTS // 2)]
    for kind in report.kinds:
        expected = proportion(right[kind.name])
        assert (kind.tuned.value, kind.tuned.interval) == (expected.value, expected.interval)
    recorded = from_json(json.loads(json.dumps(report.to_json())))
    assert [kind.name for kind in recorded.kinds] == ["even", "odd"]
    assert recorded.kinds[0].tuned.value == report.kinds[0].tuned.value
    out = io.StringIO()
    print_reports([report], False, Console(file=out, width=150))
    assert "right answers, step 4" in out.getvalue()
    assert any(line.split()[:2] == ["odd", str(FACTS // 2)] for line in out.getvalue().splitlines())


def test_one_kind_or_none_is_no_table(run: TunedRun) -> None:
    for asking in run.askings:
        object.__setattr__(asking.question, "kind", "odd")
    assert run.report(run.folder / "checkpoints" / "step-00000004").kinds == ()
