"""Prompts and scored text are normalised like the training text: two encodings of a text are the same text."""

from __future__ import annotations

import io
import sys
import unicodedata
from pathlib import Path

import pytest

from etude.data.corpus.clean import Form
from etude.data.tokens.vocabulary import train_bpe
from etude.errors import InputError
from etude.evaluate.text_scoring import BytesDisagree, measure_text
from etude.generate import command
from etude.generate.language import Language
from etude.generate.sampling import SamplingSettings
from etude.watch.prompts import look
from networks import make_config, make_network

COMPOSED = "Le café est déjà fermé, la fenêtre aussi.\n"
DECOMPOSED = unicodedata.normalize("NFD", COMPOSED).replace("\n", "\r\n")
GREEDY = SamplingSettings(temperature=0.0, max_new_tokens=4)


def language(form: Form | None) -> Language:
    tokenizer = train_bpe([COMPOSED * 30], 300, "llama3")
    tokenizer.normalization = form
    config = make_config("llama", vocab_size=tokenizer.vocab_size, max_position_embeddings=128)
    return Language(Path(), make_network(config, 1), tokenizer)


def test_both_spellings_score_the_same() -> None:
    model = language("NFC")
    left, right = model.score(COMPOSED), model.score(DECOMPOSED)
    assert left == right
    assert left.num_bytes == len(COMPOSED.encode())  # of the text that was scored
    measured = [measure_text(model.model, model.tokenizer, [("a", text)]) for text in (COMPOSED, DECOMPOSED)]
    assert measured[0].to_json() == measured[1].to_json()


def test_without_a_recorded_normalisation_text_is_scored_unchanged() -> None:
    model = language(None)
    assert model.score(DECOMPOSED).num_bytes == len(DECOMPOSED.encode())
    assert model.score(DECOMPOSED) != model.score(COMPOSED)
    try:
        measure_text(model.model, model.tokenizer, [("a", DECOMPOSED)])
    except BytesDisagree:
        pytest.fail("the tokens stand for another text")


def test_both_spellings_are_the_same_prompt() -> None:
    model = language("NFC")
    assert model.generate(DECOMPOSED, GREEDY) == model.generate(COMPOSED, GREEDY)
    left, right = (look(model.model, model.tokenizer, text) for text in (COMPOSED, DECOMPOSED))
    assert left.ids.tolist() == right.ids.tolist()
    assert left.tokens == right.tokens


def test_a_carriage_return_does_not_reach_the_model(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = language("NFC")
    monkeypatch.setattr(command, "load", lambda path, dtype: model)
    printed = []
    for text in (b"Le caf\xc3\xa9\r\n", b"Le caf\xc3\xa9\n"):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text)))
        command.generate(Path(), "-", GREEDY, 0)
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1]
    assert printed[0].startswith("Le café\n")


def test_a_text_of_nothing_but_control_characters_is_refused() -> None:
    with pytest.raises(InputError, match="no text to score"):
        language("NFC").score("\x07\x1b")
