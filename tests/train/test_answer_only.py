"""The loss on answers alone: its tokens and bytes, computed a second way from the text."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from etude.config import load_settings
from etude.data.prepared_data import PreparedData
from etude.data.tokens.loader import BatchLoader
from etude.data.tokens.parts import TokenPart
from etude.data.tokens.tokenizer import EtudeTokenizer
from etude.data.tokens.vocabulary import train_bpe, train_char
from etude.device import Device
from etude.errors import InputError
from etude.evaluate.ladder import build_ladder
from etude.evaluate.ngram import KneserNey
from etude.plan.plan import plan_on, validation_text
from etude.train.objectives import NextToken
from etude.train.objectives.answer_only import AnswerScope
from etude.train.run_text import text_of_settings
from etude.train.validation import ValidationText
from networks import make_config, make_network

CPU = Device("cpu", "fp32", 1)
TEXTS = ["the answer is forty", "this = that", "is it? it is = é = 2", "ab=c", "naïve=ß€=", "1+1=2=two"]
TOKENIZERS = {
    "bpe": train_bpe(["the answer is forty=two this=that ab=c " * 20, *TEXTS * 5], 300, "gpt2"),
    "char": train_char(["abcdefghijklmnopqrstuvwxyz =?"]),  # digits, é and ß€ are written in bytes
}


def part_of(tokenizer: EtudeTokenizer, texts: list[str]) -> TokenPart:
    sizes = [len(text.encode()) for text in texts]
    return TokenPart.from_documents(tokenizer.encode_batch(texts), tokenizer.roles.document_id, sizes)


def answer_tokens(tokenizer: EtudeTokenizer, text: str, separator: str) -> list[bool]:
    """By the tokenizer's own offsets: a token counts if it ends after the first separator."""
    end = text.index(separator) + len(separator)
    encoded = tokenizer.backend.encode(text, add_special_tokens=False)
    return [stop > end for _, stop in encoded.offsets]


def expected_mask(tokenizer: EtudeTokenizer, texts: list[str], separator: str) -> np.ndarray:
    """The mask of a whole part: each ``eos`` counts, since it ends the answer before it."""
    return np.array([flag for text in texts for flag in [True, *answer_tokens(tokenizer, text, separator)]])


@pytest.mark.parametrize("kind", TOKENIZERS)
@pytest.mark.parametrize("separator", ["=", "is", " is ", "t", "é", "e a"])
def test_tokens_count_that_end_after_the_separator(kind: str, separator: str) -> None:
    tokenizer, texts = TOKENIZERS[kind], [text for text in TEXTS if separator in text]
    part = part_of(tokenizer, texts)
    scope = AnswerScope(tokenizer, separator)
    mask = scope.mask(part, np.arange(part.num_tokens))
    assert (mask == expected_mask(tokenizer, texts, separator)).all()
    assert scope.weights(part, np.arange(part.num_tokens)) is None


def test_a_token_that_spans_the_separator_counts() -> None:
    tokenizer = TOKENIZERS["bpe"]
    ids = tokenizer.encode("the answer")
    assert [tokenizer.decode([token]) for token in ids] == ["the", " answer"]
    part = part_of(tokenizer, ["the answer"])
    for separator, expected in (("th", [1, 1, 1]), ("the", [1, 0, 1]), ("the ", [1, 0, 1]), ("r", [1, 0, 0])):
        mask = AnswerScope(tokenizer, separator).mask(part, np.arange(3))
        assert mask.tolist() == [bool(flag) for flag in expected], separator


LETTERS = st.text("ab=éß€1", max_size=12)


@settings(max_examples=150, deadline=None)
@given(
    pairs=st.lists(st.tuples(LETTERS, LETTERS), min_size=1, max_size=5),
    separator=st.sampled_from(["=", "==", "a=", "é", "bß€"]),
    kind=st.sampled_from(sorted(TOKENIZERS)),
    first_read=st.sampled_from([1, 3, 64]),
)
def test_the_mask_of_any_text(
    pairs: list[tuple[str, str]], separator: str, kind: str, first_read: int
) -> None:
    tokenizer, texts = TOKENIZERS[kind], [before + separator + after for before, after in pairs]
    part = part_of(tokenizer, texts)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("etude.train.objectives.answer_only.FIRST_READ", first_read)
        mask = AnswerScope(tokenizer, separator).mask(part, np.arange(part.num_tokens))
    assert (mask == expected_mask(tokenizer, texts, separator)).all()
    for text in texts:
        counted = AnswerScope(tokenizer, separator).bytes_counted(text.encode())
        behind = text[text.index(separator) + len(separator) :].encode()
        assert text.encode()[len(text.encode()) - len(behind) :] == behind
        assert counted.tolist() == [False] * (len(text.encode()) - len(behind)) + [True] * len(behind)


def test_places_wrap_around_in_any_shape_and_order() -> None:
    tokenizer = TOKENIZERS["char"]
    part = part_of(tokenizer, TEXTS[1:])
    whole = AnswerScope(tokenizer, "=").mask(part, np.arange(part.num_tokens))
    places = np.random.default_rng(0).integers(0, 3 * part.num_tokens, (7, 5))
    mask = AnswerScope(tokenizer, "=").mask(part, places)
    assert mask.shape == (7, 5)
    assert (mask == whole[places % part.num_tokens]).all()


def test_rows_of_packed_documents_train_answers_and_their_ends() -> None:
    """With attention within documents or not, in any micro-batches: exactly the text after a separator is trained."""
    tokenizer = TOKENIZERS["char"]
    texts = [f"{a}{b}={(a * b) % 10}" for a in range(3, 9) for b in range(9)]
    part, loader = part_of(tokenizer, texts), None
    model = make_network(make_config("llama", vocab_size=tokenizer.vocab_size))
    counted = set()
    for rows, apart in ((4, False), (1, True), (3, True)):
        loader = BatchLoader(part, 16, 4, seed=5)
        objective = NextToken(
            model,
            loader,
            CPU,
            num_steps=5,
            micro_batch_rows=rows,
            scope=AnswerScope(tokenizer, "="),
            within_documents=apart,
        )
        for step in (1, 2, 30):
            batch = objective.batch(step)
            targets, inputs = (
                torch.cat([getattr(micro, name) for micro in batch]) for name in ("targets", "inputs")
            )
            mask = torch.cat([micro.loss_mask for micro in batch])
            text = [[tokenizer.decode([token]) for token in row] for row in inputs.tolist()]
            for row in range(4):
                for place in range(16):
                    # In "ab=c" the answer comes after "=", and its end after the answer.
                    before = text[row][max(0, place - 1) : place + 1]
                    if place:
                        assert bool(mask[row, place]) == ("=" in before), (text[row], place)
            assert sum(micro.num_targets for micro in batch) == int(mask.sum())
            counted.add((step, tuple(targets.flatten().tolist())))
    assert len(counted) == 3  # of three steps, however they are divided


def test_the_answer_of_a_document_is_located_once(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = TOKENIZERS["char"]
    part, scope = part_of(tokenizer, ["a=b"] * 50), AnswerScope(tokenizer, "=")
    scope.mask(part, np.arange(part.num_tokens))
    monkeypatch.setattr(EtudeTokenizer, "decode", lambda *args, **kwargs: pytest.fail("decoded again"))
    assert scope.mask(part, np.arange(part.num_tokens)).sum() == 100


# The text as a whole: what is refused, and what is scored.


def data_of(folder: Path, texts: dict[str, str], monkeypatch: pytest.MonkeyPatch, **changes: Any) -> Any:
    """Return prepared data and its settings."""
    monkeypatch.setenv("ETUDE_CACHE", str(folder / "cache"))
    (folder / "text").mkdir()
    for name, text in texts.items():
        (folder / "text" / f"{name}.txt").write_text(text)
    values = {
        "data.sources": (str(folder / "text"),),
        "data.workers": 1,
        "data.deduplicate": "none",
        "data.validation_fraction": 0.3,
        "tokenizer.kind": "char",
        "train.objective": "answer-only",
        "train.context": 16,
        "train.eval_tokens": 300,
        "model.hidden_size": 16,
        "model.num_hidden_layers": 1,
        "model.num_attention_heads": 2,
        "device.threads": 1,
    } | changes
    chosen = load_settings(values=values)
    return text_of_settings(chosen), chosen


SUMS = {f"{a}-{b}": f"{a} plus {b} makes = {a + b}, says {a}" for a in range(10) for b in range(9)}


def test_a_document_without_an_answer_is_refused_before_a_run_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = SUMS | {"odd-one": "there is no such thing in this text"}
    data, chosen = data_of(tmp_path, texts, monkeypatch)
    with pytest.raises(
        InputError, match=r"what follows '=' in each document, and '.*odd-one\.txt' has none: set"
    ):
        plan_on(data, chosen)
    plan_on(
        data, chosen.model_copy(update={"train": chosen.train.model_copy(update={"objective": "next-token"})})
    )


def test_a_separator_that_the_tokens_do_not_spell_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, chosen = data_of(tmp_path, SUMS, monkeypatch)
    monkeypatch.setattr(data.tokenizer, "decode", lambda ids: "another text")
    with pytest.raises(
        InputError, match=r"the tokens of document '.*txt' spell no '=': set train\.answer_separator"
    ):
        plan_on(data, chosen)


def test_an_empty_separator_is_refused() -> None:
    with pytest.raises(InputError, match=r"train\.answer_separator"):
        load_settings(None, ["train.answer_separator="])


def test_evaluations_score_answers_by_definition_in_float64(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, chosen = data_of(tmp_path, SUMS, monkeypatch)
    plan = plan_on(data, chosen)
    text = validation_text(plan)
    model = make_network(make_config("llama", vocab_size=data.tokenizer.vocab_size)).double()
    score = text.score(model)

    covered = list(data.documents("validation", text.covered_bytes))
    assert b"".join(covered) and sum(map(len, covered)) == text.covered_bytes  # noqa: PT018
    stream, counts, sizes = [], [], 0
    for document in covered:
        words = document.decode()
        stream += [data.tokenizer.roles.document_id, *data.tokenizer.encode(words)]
        counts += [True, *answer_tokens(data.tokenizer, words, "=")]
        sizes += len(words.split("=", 1)[1].encode())
    nats = {"all": 0.0, "text": 0.0}
    for position in range(1, len(stream)):
        if not counts[position]:
            continue
        begin = (position - 1) // 16 * 16
        with torch.no_grad():
            logits = model(torch.tensor([stream[begin:position]]))[0, -1]
        loss = (torch.logsumexp(logits, 0) - logits[stream[position]]).item()
        nats["all"] += loss
        nats["text"] += loss * (stream[position] != data.tokenizer.roles.document_id)
    assert score.num_tokens == sum(counts[1:])
    assert score.loss == pytest.approx(nats["all"] / sum(counts[1:]), rel=1e-5)
    assert text.source_bytes == sizes
    assert score.bits_per_byte == pytest.approx(nats["text"] / math.log(2) / sizes, rel=1e-5)
    whole = ValidationText(data.validation, 16, CPU, 300).score(model)
    assert whole.num_tokens > 2 * score.num_tokens
    assert whole.bits_per_byte != score.bits_per_byte


def test_held_out_text_without_an_answer_in_it_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, chosen = data_of(tmp_path, SUMS, monkeypatch)
    scope = plan_on(data, chosen).scope
    with pytest.raises(
        InputError, match=r"counts nothing \(what follows '='\) of the held-out text.*eval_tokens"
    ):
        ValidationText(data.validation, 16, CPU, 300, scope=scope, documents=lambda size: [b"1 + 1"]).score(
            make_network(make_config("llama", vocab_size=data.tokenizer.vocab_size))
        )


def test_n_gram_models_are_scored_on_answers_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data: PreparedData = data_of(tmp_path, SUMS, monkeypatch)[0]
    scope = AnswerScope(data.tokenizer, "=")
    held_out = list(data.documents("validation"))
    ladder = build_ladder(data.documents("train"), held_out, bytes_counted=scope.bytes_counted)
    model = KneserNey.fit(data.documents("train"))
    behind = [len(document) - len(document.split(b"=", 1)[1]) for document in held_out]
    size = sum(len(document) - at for document, at in zip(held_out, behind, strict=True))
    assert ladder.validation_bytes == size
    for rung in ladder.rungs:
        scores = model.score_all(held_out, rung.order)
        nats = sum(score[at:].sum() for score, at in zip(scores, behind, strict=True))
        assert rung.bits_per_byte == pytest.approx(nats / size / math.log(2), abs=1e-12)
    with pytest.raises(ValueError, match="no whole documents"):
        build_ladder([b"a=b"], held_out, max_validation_bytes=20, bytes_counted=scope.bytes_counted)


def test_the_spread_of_the_held_out_loss_is_that_of_what_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from etude.diagnose.run.losses import spread

    data, chosen = data_of(tmp_path, SUMS, monkeypatch, **{"train.eval_tokens": 10_000})
    text = validation_text(plan_on(data, chosen))
    model = make_network(make_config("llama", vocab_size=data.tokenizer.vocab_size))
    actual, score = spread((1, model), None, text.windows, scope=text.scope), text.score(model)
    assert actual is not None
    assert actual.tokens.sum() == actual.counted == score.num_tokens
    assert actual.loss == pytest.approx(score.loss, rel=1e-6)
    assert actual.evaluated_tokens == text.windows.num_targets


def test_documents_of_validation_are_read_up_to_what_is_covered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, chosen = data_of(tmp_path, SUMS, monkeypatch)
    text = validation_text(plan_on(data, chosen))
    assert isinstance(text.documents, partial)
    assert (
        sum(map(len, text.documents(text.covered_bytes))) == text.covered_bytes < data.validation.source_bytes
    )
