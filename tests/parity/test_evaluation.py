"""Etude's evaluation against the same model folder in `transformers`, scored by independent code."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from etude.data.primer.generator import documents
from etude.data.tokens.tokenizer import EtudeTokenizer
from etude.data.tokens.vocabulary import train_bpe, train_char
from etude.evaluate.items import Candidate, Item, Probe, choice
from etude.evaluate.network_answerer import ModelAnswerer
from etude.evaluate.results import measure
from etude.evaluate.text_scoring import measure_text
from etude.model.folder import save_model_folder
from etude.pretrained.load_model import load_trained
from networks import make_config, make_network

transformers = pytest.importorskip("transformers")
transformers.utils.logging.disable_progress_bar()

TEXTS = [document.text[:500] for document in documents(5, 5_000)] + ["Ünïcödé 🦊, naïve\n\n", "x"]
CONTEXT = 256
VOCABULARIES: dict[str, Callable[[], EtudeTokenizer]] = {
    "char": lambda: train_char(TEXTS[:-2]),
    "bpe": lambda: train_bpe(TEXTS, 600, "llama3"),
    "bytes": lambda: train_bpe(TEXTS, 257, "llama3"),
}


def saved(folder: Path, tokenizer: EtudeTokenizer, seed: int = 0, uniform: bool = False) -> tuple[Any, Any]:
    """Load the folder's model and tokenizer in `transformers`."""
    config = make_config(
        "llama-grouped-tied" if seed == 1 else "llama",
        vocab_size=tokenizer.vocab_size,
        max_position_embeddings=CONTEXT,
        eos_token_id=tokenizer.roles.document_id,
    )
    model = make_network(config, seed)
    if uniform:
        with torch.no_grad():
            model.unembedding()[0].zero_()
    tokenizer.save(folder / "tokenizer")
    save_model_folder(folder / "model", model, config, folder / "tokenizer")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder / "model", attn_implementation="eager")
    return theirs.eval(), transformers.AutoTokenizer.from_pretrained(folder / "model")


def log_probabilities(model: Any, tokenizer: Any, text: str) -> tuple[np.ndarray, list[tuple[int, int]]]:
    """Return the loss of each token after the first, and the character offsets of the tokens."""
    encoded = tokenizer(
        text, add_special_tokens=False, split_special_tokens=True, return_offsets_mapping=True
    )
    ids = [tokenizer.eos_token_id, *encoded["input_ids"]]
    actual: list[float] = []
    begin, done = 0, 1
    while done < len(ids):  # the second window and those after it begin half a context later
        end = min(len(ids), begin + CONTEXT + 1)
        begin = max(0, end - CONTEXT - 1)
        with torch.no_grad():
            logprobs = model(torch.tensor([ids[begin : end - 1]])).logits[0].double().log_softmax(-1)
        actual += [float(logprobs[at - begin - 1, ids[at]]) for at in range(done, end)]
        begin, done = begin + CONTEXT // 2, end
    return np.array(actual), encoded["offset_mapping"]


@pytest.mark.parametrize("kind", VOCABULARIES)
def test_bits_per_byte(kind: str, tmp_path: Path) -> None:
    tokenizer = VOCABULARIES[kind]()
    assert kind != "bytes" or tokenizer.vocab_size == 257
    model, theirs = saved(tmp_path, tokenizer)
    nats = [-log_probabilities(model, theirs, text)[0] for text in TEXTS]
    num_bytes = sum(len(text.encode("utf-8")) for text in TEXTS)
    ours = load_trained(tmp_path / "model")
    actual = measure_text(ours.model, ours.tokenizer, [(str(at), text) for at, text in enumerate(TEXTS)])
    assert actual.num_bytes == num_bytes
    assert actual.tokens == sum(map(len, nats))
    assert max(map(len, nats)) > CONTEXT or kind == "bpe"  # some documents are longer than the context
    total = sum(part.sum() for part in nats)
    assert actual.bits_per_byte.value == pytest.approx(total / math.log(2) / num_bytes, rel=1e-5)
    assert actual.nats_per_token.value == pytest.approx(total / actual.tokens, rel=1e-5)


SHARED_GIVEN = (
    choice("Ann gives the ball to Ben. Who has it? ", "Ben", "Ann", "Mia"),
    choice("", "Once upon a time", "time a upon Once"),
    choice("The fox said: ", "no", "no"),  # a tie
    choice("One, two, ", "three", "three", "four", "thr"),  # a tie of two, or below a third
)
SHARED_SAID = (
    Item((Candidate("The red fox. The ", "red fox"), Candidate("The old owl. The ", "red fox")), 0),
    Item((Candidate("one two ", "three"), Candidate("two one ", "three")), 1),
    Item((Candidate("Mia sat. ", "Mia"), Candidate("Mia sat. ", "Mia"), Candidate("Tom sat. ", "Mia")), 1),
)


def scored(model: Any, tokenizer: Any, candidate: Candidate) -> float:
    """log P(said | given): the tokens that reach beyond `given`."""
    logprobs, places = log_probabilities(model, tokenizer, candidate.given + candidate.said)
    return sum(
        logprob for logprob, (_, end) in zip(logprobs, places, strict=True) if end > len(candidate.given)
    )


def share_right(values: list[float], right: int) -> float:
    best = [at for at, value in enumerate(values) if abs(value - max(values)) < 1e-4]
    return 1 / len(best) if right in best else 0.0


@pytest.mark.parametrize("kind", VOCABULARIES)
@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("items", [SHARED_GIVEN, SHARED_SAID], ids=["given", "said"])
def test_probes(kind: str, seed: int, items: tuple[Item, ...], tmp_path: Path) -> None:
    model, theirs = saved(tmp_path, VOCABULARIES[kind](), seed)
    ours = load_trained(tmp_path / "model")
    scores = ModelAnswerer(ours.model, ours.tokenizer).answer(items)
    expected = [[scored(model, theirs, candidate) for candidate in item.candidates] for item in items]
    for score, values in zip(scores, expected, strict=True):
        np.testing.assert_allclose(
            score.logprobs - score.logprobs[0], np.array(values) - values[0], atol=1e-3, rtol=1e-5
        )
    actual = measure(Probe("p", "", "?", items), scores)
    rights = [share_right(values, item.right) for values, item in zip(expected, items, strict=True)]
    assert actual.accuracy.value == pytest.approx(np.mean(rights))
    shares = [
        math.exp(values[item.right] - max(values)) / sum(math.exp(v - max(values)) for v in values)
        for values, item in zip(expected, items, strict=True)
    ]
    margins = [math.log(share * len(item.candidates)) for share, item in zip(shares, items, strict=True)]
    assert actual.margin.value == pytest.approx(np.mean(margins), rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("kind", VOCABULARIES)
def test_uniform_logits_tie_in_both(kind: str, tmp_path: Path) -> None:
    model, theirs = saved(tmp_path, VOCABULARIES[kind](), uniform=True)
    ours = load_trained(tmp_path / "model")
    for items in (SHARED_SAID, SHARED_GIVEN[2:3]):
        expected = [[scored(model, theirs, candidate) for candidate in item.candidates] for item in items]
        assert [share_right(values, 0) for values in expected] == [1 / len(i.candidates) for i in items]
        actual = measure(Probe("p", "", "?", items), ModelAnswerer(ours.model, ours.tokenizer).answer(items))
        assert actual.accuracy.value == pytest.approx(np.mean([1 / len(i.candidates) for i in items]))
