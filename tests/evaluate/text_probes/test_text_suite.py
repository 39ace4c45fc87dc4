"""The suite from held-out text: its questions, what cannot be gamed, what is skipped; with planted answerers."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import islice

import numpy as np
import pytest
import torch

from etude.data.primer.generator import documents
from etude.data.primer.rng import Rng
from etude.data.tokens.tokenizer import EtudeTokenizer
from etude.data.tokens.vocabulary import train_bpe, train_char
from etude.errors import InputError
from etude.evaluate.answerers import CountingAnswerer, ItemScore
from etude.evaluate.items import Candidate, Item, Probe, frozen
from etude.evaluate.network_answerer import ModelAnswerer
from etude.evaluate.ngram import MAX_ORDER, KneserNey
from etude.evaluate.results import measure
from etude.evaluate.text_probes.passages import SHARED_CHARS
from etude.evaluate.text_probes.proposal import TextSuite
from etude.evaluate.text_probes.suite import text_probes
from networks import make_config, make_network

TITLES = [
    "wordness",
    "word order, far",
    "word order, adjacent",
    "far context",
    "induction",
    "entity recall",
    "closure, which kind",
    "closure, open or not",
]
TIED = TITLES[3:]
"""Candidates of these share the scored part and the characters before it."""


def with_brackets(text: str, number: int) -> str:
    """Turn every other quotation into a remark in brackets, and make some words unlike any other."""
    kinds = iter(["(", ")", '"', '"'] * text.count('"'))
    rng = Rng(f"strange words {number}")
    strange = "".join(rng.pick("aeioubdfgklmnprstz") for _ in range(8))
    return re.sub('"', lambda _: next(kinds), text) + f"\nThey called it {strange} in those days."


@pytest.fixture(scope="module")
def texts() -> list[str]:
    return [with_brackets(one.text, at) for at, one in enumerate(islice(documents(0), 500))]


@pytest.fixture(scope="module")
def suite(texts: list[str]) -> TextSuite:
    return text_probes(lambda: texts[:350], texts[350:], max_items=64, seed=3)


def probe_of(suite: TextSuite, title: str) -> Probe:
    return next(probe for probe in suite.probes if probe.title == title)


def test_every_probe_is_made_of_a_text_that_has_all(suite: TextSuite) -> None:
    assert [probe.title for probe in suite.probes] == TITLES
    assert not suite.skipped
    for probe in suite.probes:
        assert 16 <= len(probe.items) <= 64
        assert len(set(probe.items)) == len(probe.items)
        assert probe.chance == 0.5
        for item in probe.items:
            assert max(len(one.given + one.said) for one in item.candidates) <= 256
            if not probe.per_token:
                assert len({len(one.said.encode()) for one in item.candidates}) == 1


@pytest.mark.parametrize("title", TIED)
def test_counting_is_at_one_half_by_construction(suite: TextSuite, texts: list[str], title: str) -> None:
    """For every order, in every single item, and with a margin of zero."""
    probe = probe_of(suite, title)
    for item in probe.items:
        (a, b) = item.candidates
        assert a.said == b.said
        assert a.given != b.given
        assert a.given[-8:] == b.given[-8:]
    counts = KneserNey.fit([one.encode() for one in texts[:350]], MAX_ORDER)
    for order in (2, 6, MAX_ORDER):
        scores = CountingAnswerer(counts, order).answer(probe.items)
        assert all(score.logprobs[0] == score.logprobs[1] for score in scores)
        found = measure(probe, scores)
        assert found.accuracy.value == 0.5
        assert found.accuracy.interval.holds(0.5)


def test_counting_tells_words_and_their_order(suite: TextSuite, texts: list[str]) -> None:
    """These two can never be called beyond counting: they are here for comparison."""
    counts = KneserNey.fit([one.encode() for one in texts[:350]], 6)
    for title in TITLES[:3]:
        probe = probe_of(suite, title)
        assert measure(probe, CountingAnswerer(counts, 6).answer(probe.items)).accuracy.interval.low > 0.5


class Planted:
    """An answerer whose probability of `said` is a given function of `given` and `said`."""

    def __init__(self, likes: Callable[[Candidate], float]) -> None:
        self.likes = likes

    def answer(self, items: Sequence[Item]) -> list[ItemScore]:
        return [
            ItemScore(
                np.array([self.likes(one) for one in item.candidates]),
                np.array([len(one.said.encode()) for one in item.candidates]),
                np.zeros(1),
                np.empty(0),
            )
            for item in items
        ]


def test_who_copies_gets_induction_and_names(suite: TextSuite) -> None:
    """Copying: `said` occurred before, after the same characters (or anywhere, for a name)."""
    for title, before in (("induction", 8), ("entity recall", 0)):
        copier = Planted(
            lambda one, before=before: float(one.given[len(one.given) - before :] + one.said in one.given)
        )
        probe = probe_of(suite, title)
        assert measure(probe, copier.answer(probe.items)).accuracy.value > 0.98


def test_who_only_prefers_what_has_come_before_gets_no_induction(suite: TextSuite) -> None:
    """Count how often each character occurred before, in any order: one layer of attention can do that."""
    bag = Planted(lambda one: sum(math.log1p(one.given.count(character)) for character in one.said))
    probe = probe_of(suite, "induction")
    assert measure(probe, bag.answer(probe.items)).accuracy.value == 0.5


def test_who_remembers_the_passage_gets_far_context(suite: TextSuite, texts: list[str]) -> None:
    """An answerer that remembers no more than the shared characters does not."""
    probe = probe_of(suite, "far context")
    held_out = texts[350:]

    def reads(most: int) -> float:
        reader = Planted(
            lambda one: float(any(one.given[-most:] + one.said in document for document in held_out))
        )
        return measure(probe, reader.answer(probe.items)).accuracy.value

    assert reads(200) == 1.0
    assert reads(SHARED_CHARS) == 0.5


def test_who_counts_openers_gets_closure(suite: TextSuite) -> None:
    pairs = {")": "(", '"': '"'}
    opened = Planted(lambda one: float(last_mark(one.given) == pairs[one.said]))
    for title in ("closure, which kind", "closure, open or not"):
        probe = probe_of(suite, title)
        # Without the opener, an earlier quote may seem to be open: that one is tied.
        assert measure(probe, opened.answer(probe.items)).accuracy.value >= (1.0 if "which" in title else 0.8)


def test_each_kind_of_opener_is_right_as_often_as_wrong(suite: TextSuite) -> None:
    items = probe_of(suite, "closure, which kind").items
    right = Counter(last_mark(item.candidates[0].given) for item in items)
    wrong = Counter(last_mark(item.candidates[1].given) for item in items)
    assert right == wrong
    assert set(right) == {"(", '"'}


def test_scrambled_letters_that_training_contains_are_not_used(suite: TextSuite, texts: list[str]) -> None:
    """An anagram may be a word."""
    scrambles = [item.candidates[1].said for item in probe_of(suite, "wordness").items]
    train = [*texts[:350], "".join(scrambles).upper()]
    again = text_probes(lambda: train, texts[350:], max_items=64, seed=3)
    offered = [item.candidates[1].said for item in probe_of(again, "wordness").items]
    assert len(offered) >= 16
    assert not set(offered) & set(scrambles)


def last_mark(text: str) -> str:
    return next((char for char in reversed(text) if char in '()"'), "")


def test_names_are_matched_and_only_they_differ(suite: TextSuite, texts: list[str]) -> None:
    for first, second in zip(*[iter(probe_of(suite, "entity recall").items)] * 2, strict=True):
        (mine, theirs), (a, b) = first.candidates, second.candidates
        name, other = mine.said.strip(), a.said.strip()
        assert re.sub(rf"\b{name}\b", other, mine.given) == theirs.given == a.given
        assert b.given == mine.given
        assert not re.search(rf"\b{other}\b", mine.given)
        assert any(mine.given + mine.said in document for document in texts[350:])


def test_a_frequent_name_stands_against_a_frequent_one(suite: TextSuite, texts: list[str]) -> None:
    """Make every second name a hundred times as frequent in training."""
    names = sorted({item.answer.said for item in probe_of(suite, "entity recall").items})
    frequent = set(names[::2])
    train = [*texts[:350], "".join(frequent) * 5_000]
    items = probe_of(text_probes(lambda: train, texts[350:], max_items=64), "entity recall").items
    both = [
        (a.answer.said in frequent, b.answer.said in frequent)
        for a, b in zip(*[iter(items)] * 2, strict=True)
    ]
    assert {True, False} == {one for one, _ in both}
    assert sum(one == other for one, other in both) > 0.9 * len(both)


def test_scrambles_and_orders_are_balanced(suite: TextSuite, texts: list[str]) -> None:
    known = set(re.findall(r"\w+", " ".join(texts[:350]).casefold()))
    for item in probe_of(suite, "wordness").items:
        word, scramble = (one.said.strip() for one in item.candidates)
        assert sorted(word) == sorted(scramble)
        assert word != scramble
        assert not known & {word, scramble}
    for condition in ("far", "adjacent"):
        for item in probe_of(suite, f"word order, {condition}").items:
            right, wrong = (one.said.split(" ") for one in item.candidates)
            assert sorted(right) == sorted(wrong)
            assert right[-1] == wrong[-1]
            moved = [at for at, (a, b) in enumerate(zip(right, wrong, strict=True)) if a != b]
            assert moved == [1, 2] if condition == "adjacent" else 2 * len(moved) >= len(right) - 2
            assert any(item.answer.given + item.answer.said in document for document in texts[350:])


def uniform(tokenizer: EtudeTokenizer) -> ModelAnswerer:
    config = make_config(
        "llama", vocab_size=tokenizer.vocab_size, max_position_embeddings=320, num_hidden_layers=1
    )
    model = make_network(config, 0)
    with torch.no_grad():
        model.unembedding()[0].zero_()
    return ModelAnswerer(model, tokenizer)


@pytest.mark.parametrize("kind", ["bpe", "char"])
def test_a_network_of_uniform_logits_is_at_chance(texts: list[str], kind: str) -> None:
    tokenizer = train_char(texts) if kind == "char" else train_bpe(texts[:120], 600, "llama3")
    small = text_probes(lambda: texts[:350], texts[350:], max_items=16)
    answerer = uniform(tokenizer)
    for probe in small.probes:
        scores = answerer.answer(probe.items)
        found = measure(probe, scores)
        assert found.accuracy.value == 0.5, probe.title
        assert found.margin.value == pytest.approx(0.0, abs=1e-6)
        assert found.num_cut == 0
        if not probe.per_token:
            assert all(len(set(score.units.tolist())) == 1 for score in scores), probe.title


def test_the_same_texts_and_seed_make_the_same_items(suite: TextSuite, texts: list[str]) -> None:
    again = text_probes(lambda: iter(texts[:350]), texts[350:], max_items=64, seed=3)
    other = text_probes(lambda: texts[:350], texts[350:], max_items=64, seed=4)
    assert again == suite
    assert frozen(again.probes) == frozen(suite.probes)
    for a, b in zip(suite.probes, other.probes, strict=True):
        assert a.hash != b.hash


def test_items_are_those_of_yesterday() -> None:
    """A result belongs to its items: a change in how they are made must change this on purpose."""
    made = [in_script("arabic", at) for at in range(40)]
    found = text_probes(lambda: made[:20], made[20:], max_items=16)
    assert frozen(found.probes) == "efd8347479d6736e"


def test_what_training_has_is_dropped_and_counted(texts: list[str]) -> None:
    """Put a third of the held-out documents into training, in the middle of one long document."""
    held_out = texts[350:]
    leaked = held_out[::3]
    train = [*texts[:350], "x " * 270_000 + "\n".join(leaked) + " y" * 270_000]
    clean = text_probes(lambda: texts[:350], held_out, max_items=64)
    found = text_probes(lambda: train, held_out, max_items=64)
    for before, after in zip(clean.probes, found.probes, strict=True):
        assert (after.dropped > before.dropped) == (after.name != "induction"), after.title
        for item in after.items:
            question = item.answer.given[-SHARED_CHARS - 12 :] + item.answer.said
            if after.name in {"far context", "entity recall"}:
                assert not any(question in document for document in train), question
            if after.name == "wordness":
                assert not any(re.search(rf"\b{item.answer.said[1:]}\b", document) for document in leaked)
    everything = text_probes(lambda: texts, held_out, max_items=64)
    assert [probe.title for probe in everything.probes] == ["induction"]
    assert "more are in the training text" in everything.skipped["far context"]


def test_training_is_read_once_and_may_be_a_stream(texts: list[str]) -> None:
    opened = 0

    def train() -> Iterator[str]:
        nonlocal opened
        opened += 1
        yield from texts[:350]

    found = text_probes(train, texts[350:], max_items=16)
    assert opened == 1
    assert found.train_chars >= sum(map(len, texts[:350]))


LETTERS = {
    "chinese": [chr(0x4E00 + 7 * at) for at in range(300)],
    "hindi": [chr(0x915 + at) + vowel for at in range(30) for vowel in ("", "ा", "ि", "ी", "ु", "े", "ो")],
    "arabic": [chr(0x627 + at) for at in range(20)],
}


def in_script(script: str, number: int) -> str:
    """Make a document of made-up words in sentences with quotes, in the style of its script."""
    rng = Rng(f"{script} {number}")
    stop, comma, quotes = {
        "chinese": ("。", "\uff0c", "「」"),
        "hindi": ("।", ",", '""'),
        "arabic": (".", "،", "«»"),
    }[script]
    space = "" if script == "chinese" else " "
    sentences = []
    for _ in range(12):
        words = ["".join(rng.some(LETTERS[script], rng.between(2, 6))) for _ in range(rng.between(7, 12))]
        words[3] += comma
        sentence = space.join(words) + stop
        sentences.append(f"{quotes[0]}{sentence}{quotes[1]}" if rng.chance(0.4) else sentence)
    return space.join(sentences)


@pytest.mark.parametrize("script", LETTERS)
def test_other_scripts_yield_what_they_can_and_say_what_they_cannot(script: str) -> None:
    made = [in_script(script, at) for at in range(90)]
    found = text_probes(lambda: made[:50], made[50:], max_items=32)
    titles = {probe.title for probe in found.probes}
    expected = {"far context", "induction", "closure, open or not"}
    if script != "chinese":
        expected |= {"wordness", "word order, far", "word order, adjacent"}
    assert titles == expected
    assert "capitalised" in found.skipped["entity recall"]
    assert "of two kinds" in found.skipped["closure, which kind"]
    assert set(found.skipped) | titles == set(TITLES)
    if script == "chinese":
        assert found.skipped["wordness"].startswith("the text does not put spaces between its words")
    counts = KneserNey.fit([one.encode() for one in made[:50]], MAX_ORDER)
    answerer = uniform(train_bpe(made, 400, "llama3"))
    for probe in found.probes:
        if probe.title in TIED:
            scores = CountingAnswerer(counts, MAX_ORDER).answer(probe.items)
            assert measure(probe, scores).accuracy.value == 0.5
        assert measure(probe, answerer.answer(probe.items)).accuracy.value == 0.5


def test_scrambles_keep_the_signs_of_hindi_with_their_letters() -> None:
    made = [in_script("hindi", at) for at in range(60)]
    found = text_probes(lambda: made[:30], made[30:], max_items=32)
    for item in probe_of(found, "wordness").items:
        words = [re.findall("[\u0904-\u0939][\u093e-\u094c]*", one.said) for one in item.candidates]
        assert sorted(words[0]) == sorted(words[1])


def test_a_long_document_is_cut_into_groups(texts: list[str]) -> None:
    found = text_probes(lambda: texts[:350], ["\n\n".join(texts[350:])], max_items=64)
    assert [probe.title for probe in found.probes] == TITLES
    assert all(len({item.group for item in probe.items}) >= 8 for probe in found.probes)


def test_items_fit_a_small_context(texts: list[str]) -> None:
    found = text_probes(lambda: texts[:350], texts[350:], max_items=32, context_chars=64)
    assert {"wordness", "far context", "induction"} <= {probe.title for probe in found.probes}
    for probe in found.probes:
        assert max(len(one.given + one.said) for item in probe.items for one in item.candidates) <= 64


def test_too_little_text_is_one_line(texts: list[str]) -> None:
    with pytest.raises(InputError, match=r"has 5 characters, but probes need 2,000: use more text"):
        text_probes(lambda: texts, ["short"])
    with pytest.raises(InputError, match="training text is empty"):
        text_probes(lambda: [], texts[350:])
    with pytest.raises(InputError, match="at least 16 items"):
        text_probes(lambda: texts, texts, max_items=3)
    with pytest.raises(InputError, match="room for 64 characters"):
        text_probes(lambda: texts, texts, context_chars=10)
    digits = text_probes(lambda: texts, ["1234567890 " * 300])
    assert digits.probes == ()
    assert set(digits.skipped) == set(TITLES)
    assert "different letters" in digits.skipped["induction"]
