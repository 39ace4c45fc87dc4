"""BLiMP's pairs: read, filtered and scored, on our own sentences in its format, and on the real ones if available."""

from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from etude.data.tokens.tokenizer import EtudeTokenizer
from etude.data.tokens.vocabulary import train_bpe
from etude.errors import InputError
from etude.evaluate.answerers import CountingAnswerer, ItemScore
from etude.evaluate.blimp import (
    Paradigm,
    blimp_probe,
    blimp_result,
    by_phenomenon,
    covered,
    measure_blimp,
    read_blimp,
    words_in,
)
from etude.evaluate.network_answerer import ModelAnswerer
from etude.evaluate.ngram import KneserNey
from etude.evaluate.statistics import wilson
from etude.evaluate.word_coverage import known_words, words_of
from etude.model.language_model import LanguageModel
from minimal_pairs import OURS, write_paradigms
from networks import make_config, make_network

BESIDE = Path(__file__).resolve().parents[3] / "shared" / "data"
REAL = Path(os.environ.get("ETUDE_TEST_DATA", BESIDE)) / "blimp.zip"


@pytest.fixture(scope="module")
def tokenizer() -> EtudeTokenizer:
    return train_bpe([" ".join(pair) for one in OURS for pair in one.pairs] * 2, 290, "llama3")


def uniform(vocab_size: int) -> LanguageModel:
    model = make_network(make_config("llama", vocab_size=vocab_size, max_position_embeddings=128), 0)
    with torch.no_grad():
        model.unembedding()[0].zero_()
    return model


def test_a_folder_and_a_zip_hold_the_same(tmp_path: Path) -> None:
    folder = write_paradigms(tmp_path / "data", OURS)
    (folder / "._hidden.jsonl").write_bytes(b"\xb0\x00")
    archive = tmp_path / "pairs.zip"
    with zipfile.ZipFile(archive, "w") as out:
        for file in folder.iterdir():
            out.write(file, f"data/{file.name}")
        out.writestr("__MACOSX/data/._agreement.jsonl", b"\xb0\x00")
    expected = sorted(OURS, key=lambda one: one.name)
    assert read_blimp(folder) == expected
    assert read_blimp(archive) == expected


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{}", "line 1 is not a pair"),
        ("\n[1]", "line 2 is not a pair"),
        ('{"sentence_good": "a"', "line 1 is not a pair"),
        (
            json.dumps({"sentence_good": "", "sentence_bad": "b", "UID": "u", "linguistics_term": "t"}),
            "line 1 is not a pair",
        ),
        ("", "not one paradigm"),
    ],
)
def test_damaged_files_are_named(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "x.jsonl").write_text(content)
    with pytest.raises(InputError, match=message) as caught:
        read_blimp(tmp_path)
    assert "x.jsonl" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_pairs_at_all(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no \.jsonl"):
        read_blimp(tmp_path)
    (tmp_path / "no.zip").write_bytes(b"PK not really")
    for name in ("no.zip", "missing.zip"):
        with pytest.raises(InputError, match="cannot be read as BLiMP"):
            read_blimp(tmp_path / name)


def test_words() -> None:
    assert words_of("Ann hasn't seen HER well-known, 'old' fox.") == {
        "ann", "hasn't", "seen", "her", "well-known", "old", "fox",
    }  # fmt: skip


def test_only_pairs_of_known_words_are_kept() -> None:
    pairs = (("The fox runs.", "The fox run."), ("The emu runs.", "The emu run."))
    paradigms = [Paradigm("a", "x", pairs), Paradigm("b", "x", (("Emus run.", "Emus runs."),))]
    text = [b"the fox", b"can RUN; it runs", "été".encode()]
    known = known_words(text, words_in(paradigms))
    assert known == {"the", "fox", "run", "runs"}
    found = covered(paradigms, known)
    assert found.paradigms == (Paradigm("a", "x", pairs[:1]),)
    assert (found.total, found.kept, found.share) == (3, 1, pytest.approx(1 / 3))
    assert covered(paradigms, known - {"run"}).paradigms == ()  # the wrong sentence's words count too


def test_uniform_logits_are_at_chance_by_our_rule_and_not_by_the_librarys(tokenizer: EtudeTokenizer) -> None:
    results = measure_blimp(OURS, ModelAnswerer(uniform(tokenizer.vocab_size), tokenizer))
    assert [one.per_token.accuracy.value for one in results] == [0.5] * len(OURS)
    for paradigm, result in zip(OURS, results, strict=True):
        lengths = np.array([[len(tokenizer.encode(one)) for one in pair] for pair in paradigm.pairs])
        good, bad = lengths.T
        assert result.library == (good <= bad).mean()
        assert result.whole.accuracy.value == ((good < bad) + 0.5 * (good == bad)).mean()
    overall = by_phenomenon(OURS, results)["all"]
    assert overall.per_token == 0.5
    assert overall.library > 0.6


def test_figures_are_those_of_the_log_probabilities(tokenizer: EtudeTokenizer) -> None:
    model = make_network(
        make_config("llama", vocab_size=tokenizer.vocab_size, max_position_embeddings=128), 3
    )
    results = measure_blimp(OURS, ModelAnswerer(model, tokenizer))
    for paradigm, result in zip(OURS, results, strict=True):
        whole, mean = [], []
        for pair in paradigm.pairs:
            sums, lengths = [], []
            for sentence in pair:
                ids = [tokenizer.roles.document_id, *tokenizer.encode(sentence)]
                with torch.no_grad():
                    logprobs = model(torch.tensor([ids[:-1]]))[0].double().log_softmax(-1)
                sums.append(float(logprobs[range(len(ids) - 1), ids[1:]].sum()))
                lengths.append(len(ids) - 1)
            whole.append(sums[0] > sums[1])
            mean.append(sums[0] / lengths[0] > sums[1] / lengths[1])
        assert result.whole.accuracy.value == result.library == np.mean(whole)
        assert result.per_token.accuracy.value == np.mean(mean)


def test_means_over_paradigms_have_equal_weights() -> None:
    scores = {
        name: [
            ItemScore(
                np.array([0.0, -1.0] if right else [-1.0, 0.0]), np.array([1, 1]), np.zeros(1), np.ones(1)
            )
            for right in rights
        ]
        for name, rights in {"a": [1, 1, 1, 0], "b": [0, 0], "c": [1]}.items()
    }
    paradigms = [
        Paradigm(name, "x" if name in "ab" else "y", (("g", "h"),) * len(some))
        for name, some in scores.items()
    ]
    results = [blimp_result(blimp_probe(one), scores[one.name]) for one in paradigms]
    found = by_phenomenon(paradigms, results)
    assert list(found) == ["x", "y", "all"]
    assert found["x"].per_token == pytest.approx((0.75 + 0) / 2)
    assert found["all"].per_token == pytest.approx((0.75 + 0 + 1) / 3)
    assert found["all"].pairs == 7
    intervals = [wilson(3, 4), wilson(0, 2)]
    half = [(one.high - one.low) / 2 / 1.96 for one in intervals]
    assert found["x"].standard_error == pytest.approx(np.hypot(*half) / 2, rel=1e-3)
    assert 0 < found["y"].standard_error < 0.5  # one pair


def test_counting_answers_too() -> None:
    order = next(one for one in OURS if one.name == "order")
    counts = KneserNey.fit([good.encode() for good, _ in order.pairs], 5)
    (found,) = measure_blimp([order], CountingAnswerer(counts, 5))
    assert found.per_token.accuracy.value == 1.0


@pytest.mark.skipif(not REAL.is_file(), reason="blimp.zip is not beside this repository (../shared/data)")
def test_the_real_pairs() -> None:
    paradigms = read_blimp(REAL)
    assert len(paradigms) == 67
    assert {len(one.pairs) for one in paradigms} == {1000}
    assert len({one.phenomenon for one in paradigms}) == 13
    few = [Paradigm(one.name, one.phenomenon, one.pairs[:4]) for one in paradigms]
    tokenizer = train_bpe([good for one in few for good, _ in one.pairs], 400, "llama3")
    results = measure_blimp(few, ModelAnswerer(uniform(tokenizer.vocab_size), tokenizer, batch_size=64))
    assert {one.per_token.accuracy.value for one in results} == {0.5}
    assert by_phenomenon(few, results)["all"].library > 0.6
