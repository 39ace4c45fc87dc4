"""Text and items in parts: the figures equal those of one pass, whatever was interrupted or shared."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from corpora import prepared, write_documents
from etude.data.primer.generator import documents
from etude.data.tokens.vocabulary import train_bpe
from etude.device import available_cores
from etude.errors import InputError
from etude.evaluate import resumable_evaluation
from etude.evaluate.answerers import ItemScore
from etude.evaluate.items import choice
from etude.evaluate.network_answerer import ModelAnswerer
from etude.evaluate.resumable_evaluation import CorpusDocuments, PartsAnswerer, measure_text_in_parts
from etude.evaluate.resumable_parts import Workers
from etude.evaluate.text_scoring import measure_text
from etude.model.folder import save_model_folder
from etude.pretrained.load_model import load_trained
from networks import make_config, make_network

TEXTS = [(f"story {at}", one.text[:400]) for at, one in enumerate(documents(3, 4_000))]
ITEMS = [choice(f"{name}: ", "The fox", "An owl", "Nobody at all") for name, _ in TEXTS] * 2


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    work = tmp_path_factory.mktemp("model")
    tokenizer = train_bpe([text for _, text in TEXTS], 300, "llama3")
    config = make_config("llama", vocab_size=tokenizer.vocab_size, max_position_embeddings=64)
    tokenizer.save(work / "tokenizer")
    save_model_folder(work / "model", make_network(config, 2), config, work / "tokenizer")
    return work / "model"


def flat(scores: list[ItemScore]) -> list[float]:
    return [
        number
        for one in scores
        for part in (one.logprobs, one.units, one.answer_logprobs, one.answer_credits)
        for number in part.tolist()
    ]


def test_text_in_parts(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resumable_evaluation, "PART_BYTES", 500)
    trained = load_trained(folder)
    counts = np.arange(trained.tokenizer.vocab_size)
    whole = measure_text(trained.model, trained.tokenizer, TEXTS, token_counts=counts)
    reports: list[tuple[int, int]] = []
    found = measure_text_in_parts(
        folder, TEXTS, tmp_path, token_counts=counts, report=lambda *now: reports.append(now)
    )
    number = len(list(tmp_path.glob("*/part-*.json")))
    assert number >= 3
    assert reports == [(at, number) for at in range(number + 1)]
    for name in ("bits_per_byte", "nats_per_token", "first_guess", "brier", "calibration_error"):
        ours, direct = getattr(found, name), getattr(whole, name)
        assert (ours.value, ours.standard_error) == pytest.approx(
            (direct.value, direct.standard_error), rel=1e-5
        )
    assert (found.documents, found.tokens, found.num_bytes) == (
        whole.documents,
        whole.tokens,
        whole.num_bytes,
    )
    assert [one.name for one in found.by_document.worst] == [one.name for one in whole.by_document.worst]

    def refuse(*_: object) -> None:
        raise AssertionError

    sorted(tmp_path.glob("*/part-*.json"))[1].unlink()  # as if killed while computing it
    again = measure_text_in_parts(folder, TEXTS, tmp_path, token_counts=counts)
    assert again == found
    monkeypatch.setattr(resumable_evaluation, "load_trained", refuse)
    assert measure_text_in_parts(folder, TEXTS, tmp_path, token_counts=counts) == found
    with pytest.raises(AssertionError):  # another text is another evaluation
        measure_text_in_parts(folder, TEXTS[:-1], tmp_path, token_counts=counts)


def test_two_processes_give_what_one_gives(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resumable_evaluation, "PART_ITEMS", 4)
    trained = load_trained(folder)
    direct = ModelAnswerer(trained.model, trained.tokenizer).answer(ITEMS)
    one = PartsAnswerer(folder, tmp_path / "one").answer(ITEMS)
    two = PartsAnswerer(folder, tmp_path / "two", workers=Workers(2)).answer(ITEMS)
    assert len(two) == len(ITEMS)
    assert flat(one) == pytest.approx(flat(direct), abs=1e-4)
    assert flat(two) == pytest.approx(flat(one), abs=1e-4)
    assert [score.cut for score in two] == [score.cut for score in direct]


def test_threads_are_those_requested(folder: Path, tmp_path: Path) -> None:
    """Two programs that each use every core wait for one another: a sweep with one thread must use only one."""
    before = torch.get_num_threads()
    try:
        for name, workers, threads in (
            ("one", Workers(1, 1), 1),
            ("all", Workers(), available_cores()),
            ("three", Workers(1, 3), 3),
        ):
            PartsAnswerer(folder, tmp_path / name, workers).answer(ITEMS)
            assert torch.get_num_threads() == threads
            measure_text_in_parts(folder, TEXTS[:1], tmp_path / name, workers=workers)
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert Workers(4, 8).threads_each == 2
    assert Workers(4, 3).threads_each == 1


def test_other_items_are_another_evaluation(folder: Path, tmp_path: Path) -> None:
    answerer = PartsAnswerer(folder, tmp_path)
    first = answerer.answer(ITEMS[:3])
    assert flat(answerer.answer(ITEMS[:3])) == flat(first)
    answerer.answer(ITEMS[1:4])
    assert len(list(tmp_path.iterdir())) == 2


def test_documents_of_a_corpus(tmp_path: Path) -> None:
    write_documents(tmp_path / "texts", 40)
    data = prepared(tmp_path / "texts", tmp_path / "cache", tokenizer={"kind": "char"})
    expected = [one.decode() for one in data.documents("validation")]
    found = CorpusDocuments(data.corpus.folder)
    assert [text for _, text in found] == expected
    assert found[0][0] == data.corpus.name("validation", 0)[0]
    assert [text for _, text in pickle.loads(pickle.dumps(found))[:2]] == expected[:2]
    size = len(expected[0].encode())
    assert [text for _, text in CorpusDocuments(data.corpus.folder, max_bytes=size)] == expected[:1]
    assert [text for _, text in CorpusDocuments(data.corpus.folder, max_bytes=10)] == [expected[0][:10]]


def test_no_text_has_no_measures(folder: Path, tmp_path: Path) -> None:
    for nothing in ([], [("a", "")]):
        with pytest.raises(InputError, match="empty"):
            measure_text_in_parts(folder, nothing, tmp_path)
