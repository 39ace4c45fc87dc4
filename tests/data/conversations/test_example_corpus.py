"""Files of rows as a corpus of examples: detection, reading, copies and the split."""

from __future__ import annotations

import csv
import gzip
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etude.config import load_settings
from etude.data.conversations.conversation import SAMPLED, Example
from etude.data.corpus.corpus import EXAMPLES, Corpus, Part, build_corpus
from etude.data.corpus.example_split import part_of
from etude.data.reading.options import ReadingOptions
from etude.data.reading.piece import SourceLog
from etude.data.reading.sources import Source, has_conversations, open_sources
from etude.errors import InputError


def pair(number: int, question: str = "What is the number of the day?") -> dict[str, Any]:
    answer = f"It is {number}, as every child of the village knows and sings."
    return {
        "messages": [
            {"role": "user", "content": f"{question} ({number})"},
            {"role": "assistant", "content": answer},
        ]
    }


def write_rows(path: Path, rows: list[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def opened(*names: Path | str, spool: Path, **options: Any) -> list[Source]:
    chosen = replace(ReadingOptions(), **options)
    return open_sources([str(name) for name in names], options=chosen, max_bytes=None, seed=1, spool=spool)


def built(folder: Path, *names: Path | str, **settings: Any) -> Corpus:
    data = load_settings(None, [f"data.{key}={value}" for key, value in settings.items()], {}).data
    sources = opened(*names, spool=folder, examples=True)
    target = folder / "corpus"
    target.mkdir()
    build_corpus(target, sources, data, lambda *_: None)
    return Corpus(target)


def examples_of(corpus: Corpus, part: Part) -> list[Example]:
    return [Example.from_json(line.decode()) for line in corpus.documents(part)]


ROWS = {
    "messages": [pair(1)],
    "sharegpt": [{"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]}],
    "alpaca": [{"instruction": "Hi", "input": "", "output": "Hello"}],
    "completion": [{"prompt": "2+2=", "completion": "4"}],
    "preference": [{"prompt": "Hi", "chosen": "Hello", "rejected": "Go"}],
    "question": [{"question": "Hi", "answer": "Hello"}],
}


@pytest.mark.parametrize("ending", [".jsonl", ".json", ".parquet", ".jsonl.gz", ".csv", "-object.json"])
@pytest.mark.parametrize("form", sorted(ROWS))
def test_every_format_is_found_in_every_kind_of_file(form: str, ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"rows{ending}"
    rows = ROWS[form]
    if ending == ".jsonl":
        write_rows(path, rows)
    elif ending == ".json":
        path.write_text(json.dumps(rows))
    elif ending == "-object.json":
        path.write_text(json.dumps({"version": 1, "data": rows}))
    elif ending == ".jsonl.gz":
        path.write_bytes(gzip.compress("\n".join(map(json.dumps, rows)).encode()))
    elif ending == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.Table.from_pylist([{**row, "id": 1} for row in rows]), path)
    else:
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, [*rows[0], "id"])
            writer.writeheader()
            for row in rows:
                writer.writerow({k: v if isinstance(v, str) else json.dumps(v) for k, v in row.items()})
    assert has_conversations(opened(path, spool=tmp_path))
    log = SourceLog()
    (source,) = opened(path, spool=tmp_path, examples=True)
    (piece,) = source.pieces(log)
    assert not log.skipped
    expected = opened(write_rows(tmp_path / "plain.jsonl", rows), spool=tmp_path, examples=True)[0]
    assert [piece.document.text] == [other.document.text for other in expected.pieces(SourceLog())]


def test_text_is_not_taken_for_conversations(tmp_path: Path) -> None:
    with_text = write_rows(tmp_path / "a.jsonl", [{"text": "Once", "messages": pair(1)["messages"]}] * 30)
    other = write_rows(tmp_path / "b.jsonl", [{"title": "x", "body": "y"}] * 30)
    strings = write_rows(tmp_path / "c.jsonl", ["one", "two"])
    (tmp_path / "d.txt").write_text('{"messages": []}')
    (tmp_path / "e.csv").write_text("text,label\nOnce,1\n")
    (tmp_path / "f.json").write_text('{"text": "Once"}')
    (tmp_path / "g.jsonl").write_text("not JSON\n" * 100)
    assert not has_conversations(opened(tmp_path, spool=tmp_path / "spool"))
    assert not has_conversations(opened("builtin:repeats", spool=tmp_path))
    for path in (with_text, other, strings):
        assert not has_conversations(opened(path, spool=tmp_path))
    rows = write_rows(tmp_path / "h.jsonl", [pair(1)])
    assert has_conversations(opened(rows, spool=tmp_path))
    assert not has_conversations(opened(rows, spool=tmp_path, text_field="messages.content"))
    assert has_conversations(opened(tmp_path, spool=tmp_path / "spool"))


def test_the_identity_of_examples_is_another(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "a.jsonl", [pair(1)])
    assert (
        opened(path, spool=tmp_path)[0].identity()
        != opened(path, spool=tmp_path, examples=True)[0].identity()
    )


def test_bad_rows_are_counted_and_kinds_are_mixed(tmp_path: Path) -> None:
    rows: list[Any] = [pair(number) for number in range(10)]
    rows += [
        {"text": "Once upon a time\x00."},
        {"prompt": "2+2=", "completion": "4"},
        {"messages": []},
        {"tools": [1]},
    ]
    rows += [
        {"messages": [{"role": "tool", "content": "x"}]},
        3,
        pair(3),
        {"x": 1},
        {"messages": [{"role": "user"}]},
    ]
    corpus = built(tmp_path, write_rows(tmp_path / "rows.jsonl", rows))
    assert corpus.facts[EXAMPLES] is True
    assert corpus.facts["kinds"] == {"conversation": 10, "text": 1, "completion": 1}
    assert corpus.facts["dropped"]["exact copy"]["documents"] == 1
    skipped = corpus.facts["sources"]["skipped"]
    assert skipped == {"no known format": 2, "tools": 2, "bad JSON line": 1, "empty message": 1}
    both = examples_of(corpus, "train") + examples_of(corpus, "validation")
    assert len(both) == 12
    assert Example("text", text="Once upon a time.") in both
    assert corpus.facts["sources"]["changed"] == {"NUL characters removed": 1}


def test_preferences_are_found_by_their_keys(tmp_path: Path) -> None:
    rows = [{"prompt": f"say {n}", "chosen": "b", "rejected": "c"} for n in range(3)]
    path = write_rows(tmp_path / "p.jsonl", [*rows, {"prompt": "say", "chosen": "b", "rejected": "b"}])
    assert has_conversations(opened(path, spool=tmp_path))
    corpus = built(tmp_path, path)
    assert corpus.facts["kinds"] == {"preference": 3}
    assert corpus.facts["sources"]["skipped"] == {"equal answers": 1}


def test_near_copies_stay_and_stand_on_one_side(tmp_path: Path) -> None:
    words = "the quick brown fox jumps over the lazy dog near the old river bank while seven small birds sing"
    rows = []
    for number in range(40):
        base = " ".join(f"{word}{chr(97 + number // 26)}{chr(97 + number % 26)}" for word in words.split())
        for ending in ("now", "then", "always"):
            rows.append({"question": base, "answer": f"{base} {base} {ending}"})
    corpus = built(tmp_path, write_rows(tmp_path / "rows.jsonl", rows), validation_fraction=0.2)
    train, validation = examples_of(corpus, "train"), examples_of(corpus, "validation")
    assert len(train) + len(validation) == 120
    assert 12 <= len(validation) <= 36
    assert not {e.messages[0].content for e in train} & {e.messages[0].content for e in validation}
    assert corpus.facts["near_copies"] > 100
    assert corpus.facts["split"]["near_copies_apart"] == 0


@pytest.mark.parametrize("held_out", ["valid", "validation", "dev-00000-of-00001"])
def test_the_split_of_a_folder_is_honoured(held_out: str, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    write_rows(folder / "train.jsonl", [pair(number) for number in range(10)])
    write_rows(folder / f"{held_out}.jsonl", [pair(number) for number in range(10, 13)])
    write_rows(folder / "test.jsonl", [pair(number) for number in range(20, 25)])
    corpus = built(tmp_path, folder)
    assert [len(examples_of(corpus, part)) for part in ("train", "validation", "test")] == [10, 3, 5]
    assert corpus.facts["split"]["rule"] == "files"
    assert corpus.facts["test"] == 5
    assert any("5 test examples" in note for note in corpus.facts["notes"])
    assert "20" in examples_of(corpus, "test")[0].messages[0].content


def test_a_folder_with_a_test_file_alone_holds_out_of_training(tmp_path: Path) -> None:
    write_rows(tmp_path / "data/train.jsonl", [pair(number) for number in range(30)])
    write_rows(tmp_path / "data/test.jsonl", [pair(number) for number in range(30, 35)])
    corpus = built(tmp_path, tmp_path / "data", validation_fraction=0.2)
    counts = [len(examples_of(corpus, part)) for part in ("train", "validation", "test")]
    assert counts[2] == 5
    assert sum(counts[:2]) == 30
    assert 3 <= counts[1] <= 9


def test_one_file_called_test_is_trained_on(tmp_path: Path) -> None:
    corpus = built(tmp_path, write_rows(tmp_path / "test.jsonl", [pair(number) for number in range(10)]))
    assert len(examples_of(corpus, "train")) + len(examples_of(corpus, "validation")) == 10
    assert examples_of(corpus, "validation")
    assert "test" not in corpus.ranges


def test_one_example_is_too_few(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="at least 2 are needed"):
        built(tmp_path, write_rows(tmp_path / "rows.jsonl", [pair(1), pair(1)]))


def test_a_budget_ends_before_an_example_that_would_be_cut(tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", [pair(number) for number in range(50)])
    corpus = built(tmp_path, rows, max_bytes=1000)
    both = examples_of(corpus, "train") + examples_of(corpus, "validation")
    assert 2 < len(both) < 10


def test_other_files_beside_rows_are_plain_text(tmp_path: Path) -> None:
    write_rows(tmp_path / "data/rows.jsonl", [pair(number) for number in range(5)])
    (tmp_path / "data/book.txt").write_text("Once upon a time.\r\n")
    (tmp_path / "data/empty.txt").write_text(" \n")
    corpus = built(tmp_path, tmp_path / "data", "builtin:modular")
    kinds = corpus.facts["kinds"]
    assert kinds["conversation"] == 5
    assert kinds["text"] > 1
    assert corpus.facts["sources"]["skipped"] == {"blank": 1}
    both = examples_of(corpus, "train") + examples_of(corpus, "validation")
    assert Example("text", text="Once upon a time.\n") in both


@pytest.mark.parametrize(
    ("origin", "part"),
    [
        ("data/train.jsonl", "train"),
        ("data/train-00000-of-00002.parquet", "train"),
        ("data/train/a.jsonl", "train"),
        ("data/validation.jsonl.gz", "validation"),
        ("Valid.jsonl", "validation"),
        ("data/test/part1.json", "test"),
        ("data/training_set.jsonl", "train"),
        ("data/latest.jsonl", None),
        ("data/trainer.jsonl", None),
        ("rows.jsonl", None),
    ],
)
def test_the_part_of_a_file(origin: str, part: str | None) -> None:
    assert part_of(origin, ["data"]) == part


def test_folders_above_the_sources_do_not_state_a_part() -> None:
    assert part_of("test/rows.jsonl", ["test/rows.jsonl"]) is None
    assert part_of("test/project/rows.jsonl", ["test/project"]) is None
    assert part_of("test/project/train/rows.jsonl", ["test/project/"]) == "train"


@given(
    st.lists(
        st.tuples(st.integers(0, 6), st.sampled_from(["", "train", "valid", "test"])), min_size=2, max_size=30
    )
)
def test_no_example_is_lost_or_on_two_sides(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[int, str]]
) -> None:
    folder = tmp_path_factory.mktemp("rows")
    for name in {name for _, name in rows}:
        write_rows(
            folder / f"data/{name or 'other'}.jsonl", [pair(number) for number, part in rows if part == name]
        )
    distinct = {number for number, _ in rows}
    try:
        corpus = built(folder, folder / "data")
    except InputError as error:
        assert "needed" in str(error) or "remains" in str(error)  # noqa: PT017
        return
    parts: tuple[Part, ...] = ("train", "validation", *(("test",) if "test" in corpus.ranges else ()))  # type: ignore[assignment]
    seen = [example.messages[0].content for part in parts for example in examples_of(corpus, part)]
    assert len(seen) == len(set(seen)) == len(distinct)
    assert examples_of(corpus, "train")
    assert examples_of(corpus, "validation")


def test_a_file_named_valid_is_held_out_beside_files_of_any_name(tmp_path: Path) -> None:
    write_rows(tmp_path / "rows" / "faq.jsonl", [pair(number) for number in range(30)])
    held_out = [pair(number, "Which one is it?") for number in range(100, 110)]
    write_rows(tmp_path / "rows" / "valid.jsonl", held_out)
    corpus = built(tmp_path, tmp_path / "rows")
    asked = [example.messages[0].content for example in examples_of(corpus, "validation")]
    assert sorted(asked) == sorted(row["messages"][0]["content"] for row in held_out)
    assert len(examples_of(corpus, "train")) == 30


def test_wordings_with_a_shared_answer_are_no_near_copies(tmp_path: Path) -> None:
    answer = (
        "It rises over the hill, passes the mill and the old bridge, and ends at the lantern by the sea. " * 3
    )
    rows = [
        {"question": question, "answer": answer}
        for question in ("Where does the tram go?", "What is the last stop?", "How do I reach the sea?")
    ]
    corpus = built(tmp_path, write_rows(tmp_path / "faq.jsonl", [*rows, pair(1), pair(2)]))
    assert corpus.facts["near_copies"] == 0


def test_samples_of_the_base_come_before_the_limit_of_bytes(tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", [pair(number) for number in range(30)])
    samples = write_rows(
        tmp_path / SAMPLED, [{"text": f"Sample {number} of the base."} for number in range(3)]
    )
    names = [source.name for source in opened(rows, samples, spool=tmp_path, examples=True)]
    assert names == [str(samples), str(rows)]
