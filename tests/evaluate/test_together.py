"""Several models answer the same items: a run beside a model without one, with nulls and paired differences."""

from __future__ import annotations

import io
import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from etude.data.primer.generator import generate
from etude.errors import InputError
from etude.evaluate import random_null
from etude.evaluate.items import Probe, choice
from etude.evaluate.named_text import named_text
from etude.evaluate.network_answerer import ModelAnswerer
from etude.evaluate.null_comparison import first_groups
from etude.evaluate.output import UNKNOWN
from etude.evaluate.questions import questions_from
from etude.evaluate.reading_curve import (
    EDGES,
    bits_of_counting,
    bits_of_network,
    difference,
    passages_of,
    reading_curve,
)
from etude.evaluate.reading_together import Reader, read_together, table_of
from etude.evaluate.results import measure
from etude.evaluate.resumable_parts import Workers
from etude.evaluate.statistics import mean, mean_difference
from etude.evaluate.text_scoring import measure_text
from etude.evaluate.together import TogetherRequest, evaluate_together, open_models, probe_source
from etude.pretrained.load_model import load_trained
from etude.run.checkpoints import list_checkpoints
from watched import Watched, train_run

ITEMS = 16
ONE = Workers(threads=1)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Watched:
    return train_run(tmp_path_factory.mktemp("together"), "llama", {"train.checkpoint_every": 8})


@pytest.fixture(scope="module")
def other(run: Watched, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder without a run: an earlier checkpoint, copied."""
    checkpoint = list_checkpoints(run.path / "checkpoints")[1]
    return shutil.copytree(
        checkpoint,
        tmp_path_factory.mktemp("other") / "model",
        ignore=shutil.ignore_patterns("train_state.json", "optimizer.safetensors"),
    )


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stories of another seed than those of the run, one to a line."""
    file = tmp_path_factory.mktemp("text") / "stories.jsonl"
    stories = (tale.text for tale in generate(99, max_bytes=120_000))
    file.write_text("".join(json.dumps({"text": story}) + "\n" for story in stories))
    return file


@pytest.fixture(autouse=True)
def cache(run: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ETUDE_CACHE", str(run.cache))


def said(request: TogetherRequest) -> str:
    out = io.StringIO()
    evaluate_together(request, Console(file=out, width=160))
    return out.getvalue()


def as_json(capsys: pytest.CaptureFixture[str], request: TogetherRequest) -> dict[str, Any]:
    said(request)
    content: dict[str, Any] = json.loads(capsys.readouterr().out)
    return content


def test_a_model_without_a_run_answers_probes_from_a_named_text(
    other: Path, text: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its nulls are measured; nothing is claimed about what it has read; no item is in the counted part."""
    request = TogetherRequest((other,), ("text",), ITEMS, (str(text),), ONE, as_json=True)
    content = as_json(capsys, request)
    assert any(note == UNKNOWN for note in content["notes"])
    assert {"far context", "word order"} <= {probe["probe"] for probe in content["probes"]}
    assert all(probe["held_out"] == "" for probe in content["probes"])
    assert all(probe["counting"] and probe["random"] for probe in content["probes"])
    source = content["probes_from"]
    assert source["name"] == str(text)
    assert 0.1 < source["probed_bytes"] / (source["probed_bytes"] + source["counted_bytes"]) < 0.5
    with named_text([str(text)]) as named:
        counted = [document.decode() for document in named.counted()]
        probed = set(named.probed())
        assert not probed & set(counted)
        assert named.corpus.num_bytes("train") == source["counted_bytes"]
        models = open_models([other])
        probes = questions_from(probe_source(models, named)[0], ("text",), ITEMS).probes
        far = next(probe for probe in probes if probe.name == "far context")
        for item in far.items:
            assert any(item.answer.said in document for document in probed)
        trained, answered = load_trained(other, 1), {probe["items"]: probe for probe in content["probes"]}
        for probe in probes:
            scores = ModelAnswerer(trained.model, trained.tokenizer).answer(probe.items)
            expected = measure(probe, scores).accuracy.value
            assert answered[probe.hash]["accuracy"]["value"] == pytest.approx(expected)
            null = measure(probe, named.counting.answer(probe.items)).accuracy.value
            assert answered[probe.hash]["counting"]["accuracy"]["value"] == pytest.approx(null)


def test_two_models_answer_the_same_items(
    run: Watched, other: Path, text: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    request = TogetherRequest((run.path, other), ("text",), ITEMS, (str(text),), ONE, as_json=True)
    before = {file.name for file in run.path.iterdir()}
    content = as_json(capsys, request)
    ours, theirs = content["models"]
    assert [probe["items"] for probe in ours["probes"]] == [probe["items"] for probe in theirs["probes"]]
    assert (ours["notes"], theirs["notes"]) == ([], [UNKNOWN])
    assert (ours["step"], theirs["step"]) == (40, None)
    assert all(probe["held_out"] for probe in ours["probes"])
    assert [probe["counting"] for probe in ours["probes"]] == [
        probe["counting"] for probe in theirs["probes"]
    ]
    for a, b, share in zip(ours["probes"], theirs["probes"], content["differences"], strict=True):
        assert share["value"] == pytest.approx(b["accuracy"]["value"] - a["accuracy"]["value"])
        assert -1 <= share["low"] <= share["value"] <= share["high"] <= 1
    assert {file.name for file in run.path.iterdir()} == before


def test_without_a_text_it_is_that_of_the_run(run: Watched, other: Path) -> None:
    output = said(TogetherRequest((run.path, other), ("text",), ITEMS, workers=ONE))
    assert f"text: that of {run.path}, which read the rest of it" in output
    assert "difference: share right minus that of" in output
    assert f"model: {UNKNOWN}" in output
    with pytest.raises(InputError, match="--text FILE"):
        said(TogetherRequest((other,), ("text",), ITEMS))
    with pytest.raises(InputError, match="is named twice"):
        said(TogetherRequest((other, other), ("world",), ITEMS))


def test_a_large_model_has_fewer_nulls_and_says_so(
    other: Path, text: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(random_null, "SMALL", 0)
    monkeypatch.setattr(random_null, "FEW_ITEMS", 16)
    content = as_json(capsys, TogetherRequest((other,), ("text",), None, (str(text),), ONE, as_json=True))
    assert any("one network with random weights, on at most 16 items" in note for note in content["notes"])
    assert max(probe["num_items"] for probe in content["probes"]) == random_null.ITEMS_OF_A_LARGE_MODEL
    assert all(probe["random"]["accuracy"]["count"] <= 16 for probe in content["probes"])
    monkeypatch.setattr(random_null, "LARGE", 0)
    model = open_models([other])[0]
    null = random_null.random_null(model.config, model.tokenizer, 1)
    assert not null.networks
    assert "not compared with random weights" in null.reason


def test_groups_stay_whole_where_items_are_fewer() -> None:
    items = tuple(choice("a", "b", "c", group=str(at // 3)) for at in range(12))
    probe = Probe("p", "", "?", items)
    assert first_groups(probe, None) is probe
    assert [item.group for item in first_groups(probe, 7).items] == ["0", "0", "0", "1", "1", "1"]
    assert len(first_groups(probe, 1).items) == 3


def test_a_paired_difference_has_an_interval_of_known_coverage() -> None:
    """Of independent pairs it holds the true difference at least 93 % of the time, also for few and for equal ones."""
    rng = np.random.default_rng(0)
    for count, chances in ((16, (0.1, 0.3, 0.6)), (40, (0.02, 0.02, 0.96)), (16, (0.0, 0.0, 1.0))):
        truth = chances[1] - chances[0]
        held = 0
        for _ in range(2000):
            estimate = mean_difference(rng.choice([-1.0, 1.0, 0.0], count, p=chances).tolist())
            held += estimate.interval.holds(truth)
        assert held / 2000 > 0.93
    same = mean_difference([0.0] * 16)
    assert same.interval.low < 0 < same.interval.high
    grouped = mean_difference([1.0, 1.0, 0.0, 0.0], ["a", "a", "b", "b"])
    assert grouped.count == 2
    assert grouped.standard_error == pytest.approx(mean([1.0, 0.0]).standard_error)


def test_reading_is_measured_in_bytes(
    run: Watched, other: Path, text: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The whole is that of `measure_text`, the bins add up to it, and counting is Kneser-Ney's own figure."""
    trained = load_trained(other, 1)
    with named_text([str(text)]) as named:
        passages = passages_of(named.probed(), 20_000)
        curve = reading_curve(passages, bits_of_network(trained.model, trained.tokenizer))
        counted = reading_curve(passages, bits_of_counting(named.counting))
        nats = named.counting.counts.score_all([p.encode() for p in passages], named.counting.order)
    expected = measure_text(trained.model, trained.tokenizer, [(str(at), p) for at, p in enumerate(passages)])
    assert curve.whole.value == pytest.approx(expected.bits_per_byte.value)
    assert curve.sizes.sum() == sum(len(passage.encode()) for passage in passages)
    assert counted.whole.value == pytest.approx(np.concatenate(nats).mean() / math.log(2))
    sizes = [
        sum(max(0, min(size, high) - low) for size in curve.sizes)
        for low, high in zip(EDGES, (*EDGES[1:], math.inf), strict=True)
    ]
    values = [0.0 if estimate is None else estimate.value for estimate in curve.bins]
    assert np.dot(sizes, values) == pytest.approx(curve.bits.sum())
    read_together(
        TogetherRequest((run.path, other), (), None, (str(text),), ONE, as_json=True),
        Console(file=io.StringIO()),
    )
    content = json.loads(capsys.readouterr().out)
    ours, theirs, null = (reader["bits_per_byte"]["value"] for reader in content["readers"])
    assert [entry["value"] for entry in content["differences"]] == pytest.approx([theirs - ours, null - ours])
    readers = [Reader(name, curve) for name, curve in (("ours", curve), ("n-gram", counted))]
    out = io.StringIO()
    Console(file=out, width=200).print(table_of(readers))
    assert f"{counted.whole.value:.3f}" in out.getvalue()
    assert f"{difference(counted, curve).value:+.3f}" in out.getvalue()
