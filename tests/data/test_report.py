"""The report of a text: everything skipped or dropped is listed, with the true reason."""

from __future__ import annotations

import json
import random
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from corpora import line, prepared, write_documents
from etude.config import Settings, load_settings
from etude.data.report import DataReport
from etude.errors import InputError
from etude.files import write_json
from etude.places import cache_folder
from etude.workflow.jobs import report_data
from etude.workflow.prepare import make_plan
from etude.workflow.start import manifest


def write_rows(path: Path, texts: list[str]) -> None:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write twelve usable files, three binary ones, one of an unknown kind; four of the rows cannot be used."""
    monkeypatch.setenv("ETUDE_CACHE", str(tmp_path / "cache"))
    write_documents(tmp_path / "text", 12)
    for number in range(3):
        (tmp_path / "text" / f"image{number}.txt").write_bytes(bytes(range(256)) * 20)
    (tmp_path / "text" / "sheet.unknown").write_text("x")
    rng = random.Random(4)
    long = " ".join(line(rng) for _ in range(20))
    write_rows(
        tmp_path / "text" / "rows.jsonl", [long, long, long + " end", " ", line(rng), line(rng), "caf\ue000"]
    )
    return tmp_path / "text"


def test_the_line_counts_everything_by_reason(folder: Path, tmp_path: Path) -> None:
    report = prepared(folder, tmp_path / "cache").report
    said = report.summary()
    assert "\n" not in said
    assert f"text: {report.facts['kept']['documents']} documents" in said
    assert "skipped: binary (3), unknown ending .unknown (1)" in said
    assert "dropped: " in said
    for reason in ("exact copy (1)", "near copy (1)", "blank (1)", "unreadable characters (1)"):
        assert reason in said
    assert "near copies: 1" in said
    kept, dropped = report.facts["kept"]["documents"], report.facts["dropped"].values()
    assert kept + sum(one["documents"] for one in dropped) == report.facts["read"]["documents"]


def test_the_line_is_printed_when_nothing_was_skipped(tmp_path: Path) -> None:
    write_documents(tmp_path / "text", 30)
    said = prepared(tmp_path / "text", tmp_path / "cache").report.summary()
    assert "from 30 files; skipped: nothing; dropped: nothing; near copies: none" in said
    said = prepared(tmp_path / "text", tmp_path / "cache", deduplicate="exact").report.summary()
    assert "near copies: not searched for" in said


def settings_for(folder: Path, *overrides: str) -> Settings:
    return load_settings(
        None, ["train.steps=2", "model.size=nano", *overrides], {"data.sources": (str(folder),)}
    )


def test_a_run_prints_the_line_and_keeps_the_report(folder: Path) -> None:
    page = StringIO()
    settings = settings_for(folder, "data.min_chars=2", "tokenizer.vocab_size=300")
    plan, _ = make_plan(settings, Console(file=page, width=80))
    said = page.getvalue().splitlines()
    assert [line for line in said if "skipped: binary (3)" in line], said
    report = plan.data.report
    command = f"etude data report {folder} --set data.min_chars=2 --set tokenizer.vocab_size=300"
    assert any(line.endswith(command) for line in said), said
    assert manifest(plan)["data_report"] == report.as_json()
    # The printed command finds exactly the text that the run reads.
    words = command.split()[5::2]
    again = load_settings(None, words, {"data.sources": (str(folder),)})
    made = sorted((cache_folder() / "tokens").iterdir())
    report_data(again, None, None)
    assert sorted((cache_folder() / "tokens").iterdir()) == made


def test_a_name_with_spaces_is_quoted(folder: Path) -> None:
    spaced = folder.rename(folder.with_name("my text"))
    page = StringIO()
    make_plan(settings_for(spaced), Console(file=page, width=80))
    assert f"etude data report '{spaced}'" in page.getvalue().replace("\n", " ")


def a_run(folder: Path, record: dict[str, object]) -> Path:
    folder.mkdir(parents=True)
    (folder / "run.toml").write_text("")
    write_json(folder / "manifest.json", record)
    return folder


def test_the_report_of_a_run_is_printed_from_its_manifest(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = prepared(folder, tmp_path / "cache").report
    run = a_run(tmp_path / "runs" / "one", {"data_report": report.as_json()})
    for path in sorted(folder.iterdir()):
        path.unlink()
    report_data(settings_for(run), None, tmp_path / "report.json")
    assert "skipped: binary" in capsys.readouterr().out
    assert DataReport(json.loads((tmp_path / "report.json").read_text())) == report


@pytest.mark.parametrize(
    ("record", "said"),
    [({}, "kept no report"), ({"data_report": 7}, "damaged"), ({"data_report": {"sources": []}}, "damaged")],
)
def test_a_run_without_a_report_is_one_line(tmp_path: Path, record: dict[str, object], said: str) -> None:
    run = a_run(tmp_path / "runs" / "old", record)
    with pytest.raises(InputError, match=said):
        report_data(settings_for(run), None, None)


def test_equal_lines_are_called_equal(tmp_path: Path) -> None:
    text = "The same forty letters stand on every line.\n"
    (tmp_path / "a.txt").write_text(text * 3000)
    with pytest.raises(
        InputError, match=r"no text can be held out: [\d,]+ of its [\d,]+ parts are the same"
    ) as found:
        prepared(tmp_path / "a.txt", tmp_path / "cache")
    assert "64" not in str(found.value).split("parts")[1]


def test_a_common_long_line_is_called_that(tmp_path: Path) -> None:
    common = line(random.Random(0))
    rows = [f"{common}\nrow {number} of the table" for number in range(200)]
    write_rows(tmp_path / "a.jsonl", rows)
    with pytest.raises(InputError, match="shares a line of 64 or more characters"):
        prepared(tmp_path / "a.jsonl", tmp_path / "cache", deduplicate="exact")


@pytest.mark.parametrize("split", ["hash", "tail"])
def test_too_little_text_says_what_was_dropped(tmp_path: Path, split: str) -> None:
    write_rows(tmp_path / "a.jsonl", ["x" * 65] * 1000)
    with pytest.raises(InputError) as found:
        prepared(tmp_path / "a.jsonl", tmp_path / "cache", split=split)
    assert "only 65 bytes of usable text, after 999 of 1,000 documents (64,935 bytes) were dropped" in str(
        found.value
    )
    assert "exact copy: 999" in str(found.value)
    assert "data.deduplicate=none" in str(found.value)
