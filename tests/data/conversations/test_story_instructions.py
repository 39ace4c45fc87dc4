"""The built-in conversations: answers are right by an independent reader, and what is held out is trained nowhere."""

from __future__ import annotations

import re
from hashlib import blake2b
from pathlib import Path

import numpy as np
import pytest

from chat_templates import BY_NAME, save_model_tokenizer
from etude.config import load_settings
from etude.data.conversations.conversation import Example
from etude.data.conversations.encode import encode_example
from etude.data.conversations.template import template_of
from etude.data.corpus.corpus import Corpus, Part, build_corpus
from etude.data.instructions.generator import (
    HELD_OUT_EVERY,
    INSTRUCTIONS,
    KINDS,
    SOURCE,
    VERBS,
    Instructed,
    documents,
    generate,
    instructed,
    is_held_out_deed,
)
from etude.data.prepared_data import NEEDS_MODEL, prepare
from etude.data.primer.exercises import _VERBS
from etude.data.primer.holdout import HELD_PAIRS, contains_held_out
from etude.data.primer.lexicon import NAMES, PLACE_NOUNS, THING_BY_NOUN
from etude.data.reading.options import ReadingOptions
from etude.data.reading.sources import Source, has_conversations, open_sources
from etude.data.tokens.published import model_tokenizer
from etude.errors import InputError
from etude.evaluate.questions import suites_for

PAST_OF = {present: past for _, present, past, _ in _VERBS} | {
    "has": "had", "is": "was", "lies": "lay", "gives": "gave", "hands": "handed", "asks": "asked", "gets": "got",
}  # fmt: skip


@pytest.fixture(scope="module")
def made() -> list[Instructed]:
    return list(generate(7, max_bytes=300_000))


def story_of(item: Instructed) -> str:
    """Return the story in a question, by the wording of its instruction."""
    for form in INSTRUCTIONS[item.kind]:
        pattern = re.escape(form).replace(r"\{noun\}", r"\w+").replace(r"\{story\}", "(.*)")
        match = re.fullmatch(pattern, item.question)
        if match is not None:
            return match[1]
    raise AssertionError(item.question)


def holders_of(story: str) -> dict[str, str]:
    """Read a story on its own terms: who has each thing after the last sentence."""
    holders: dict[str, str] = {}
    for sentence in re.findall(r"[^.]+\.", story):
        names = [word for word in re.findall(r"\w+", sentence) if word in NAMES]
        nouns = [word for word in re.findall(r"\w+", sentence) if word in THING_BY_NOUN]
        if not nouns:
            continue
        if len(names) == 1:
            assert nouns[0] not in holders, story
            holders[nouns[0]] = names[0]
        else:
            giver, taker = names if re.search(r" (gives|gave|hands|handed) the ", sentence) else names[::-1]
            assert holders[nouns[0]] == giver, story
            holders[nouns[0]] = taker
    return holders


def test_the_same_seed_gives_the_same_bytes_everywhere(made: list[Instructed]) -> None:
    assert made[:50] == [instructed(7, index) for index in range(50)]
    assert made[:50] != [instructed(8, index) for index in range(50)]
    text = "\n".join(document.text for document in documents(7, 30_000))
    assert blake2b(text.encode(), digest_size=8).hexdigest() == "423b47bea5ee83da"


def test_who_has_it_is_who_took_it_last(made: list[Instructed]) -> None:
    asked = [item for item in made if item.kind == "who has it"]
    for item in asked:
        holders = holders_of(story_of(item))
        pairs = [(item.question, item.answer), *item.further]
        nouns = [re.search(r"Who has the (\w+) (?:now|at the end)\?", question)[1] for question, _ in pairs]
        assert [answer for _, answer in pairs] == [f"{holders[noun]} has the {noun}." for noun in nouns]
        if item.held_out:
            assert len(nouns) == 1
            assert len(set(holders.values())) == 2, "the noun in the question matters"
        else:
            assert sorted(nouns) == sorted(holders), "each thing once"
    assert {len(item.further) for item in asked} == {0, 1, 2, 3}
    assert len(asked) > 200


def test_only_verbs_change_in_the_past(made: list[Instructed]) -> None:
    seen = set()
    for item in made:
        if item.kind != "past":
            continue
        pairs = zip(re.findall(r"\w+|\W", story_of(item)), re.findall(r"\w+|\W", item.answer), strict=True)
        for now, then in pairs:
            if now in PAST_OF:
                assert then == PAST_OF[now], item
                seen.add(now)
            else:
                assert now == then, item
    assert len(seen) > 20
    assert {verb.split("/")[0]: verb.split("/")[1] for verb in VERBS}.items() <= PAST_OF.items()


def test_who_is_in_it_are_all_who_are_named(made: list[Instructed]) -> None:
    sizes = set()
    for item in made:
        if item.kind == "who is in it":
            named = list(dict.fromkeys(word for word in re.findall(r"\w+", story_of(item)) if word in NAMES))
            assert re.findall(r"\w+", item.answer.replace(" and ", " ")) == named
            sizes.add(len(named))
    assert sizes == {2, 3}


def deeds_of(item: Instructed) -> set[tuple[str, str]]:
    pattern = (
        rf"({'|'.join(f'{now}|{then}' for now, then in (verb.split('/') for verb in VERBS))}) \w+ the (\w+)\."
    )
    written = re.findall(pattern, story_of(item))
    forms = {form: verb for verb in VERBS for form in verb.split("/")}
    return {(forms[verb], place) for verb, place in written if place in PLACE_NOUNS}


def test_what_is_held_out_is_trained_nowhere(made: list[Instructed]) -> None:
    trained = [item for item in made if not item.held_out]
    held_out = [item for item in made if item.held_out]
    assert [item.held_out for item in made[: 2 * HELD_OUT_EVERY]].count(True) == 2
    assert not any(item.further for item in held_out)
    assert not any(contains_held_out(item.text) for item in trained)
    for item in held_out:
        holders = holders_of(story_of(item))
        assert all((name, noun) in HELD_PAIRS for noun, name in holders.items())
    deeds = {deed for item in trained for deed in deeds_of(item)}
    kept = {deed for item in held_out for deed in deeds_of(item)}
    assert len(deeds) > 80
    assert len(kept) > 5
    assert not deeds & kept
    assert not any(is_held_out_deed(*deed) for deed in deeds)


def test_exactly_the_answer_is_trained(made: list[Instructed], tmp_path: Path) -> None:
    tokenizer = model_tokenizer(save_model_tokenizer(tmp_path, BY_NAME["chatml"], "bytes"))
    template = template_of(tokenizer)
    for item in made[:60]:
        encoded = encode_example(Example.from_json(item.text), tokenizer, template, "assistant")
        ids = np.array(encoded.ids)
        answers = [item.answer, *(answer for _, answer in item.further)]
        trained = "".join(f"{answer}<|im_end|>" for answer in answers)
        assert tokenizer.decode(ids[encoded.trained].tolist()) == trained
        edges = np.flatnonzero(np.diff(np.concatenate([[0], encoded.trained, [0]])))
        assert len(edges) == 2 * len(answers), "one stretch for each answer"


def opened(folder: Path, *, examples: bool, max_bytes: int = 20_000) -> list[Source]:
    options = ReadingOptions(examples=examples)
    return open_sources([SOURCE], options=options, max_bytes=max_bytes, seed=7, spool=folder)


def test_the_corpus_has_the_stated_parts(made: list[Instructed], tmp_path: Path) -> None:
    sources = opened(tmp_path, examples=True)
    assert has_conversations(sources)
    folder = tmp_path / "corpus"
    folder.mkdir()
    build_corpus(folder, sources, load_settings(values={"data.sources": (SOURCE,)}).data, lambda *_: None)
    corpus = Corpus(folder)
    parts: dict[Part, bool] = {"train": False, "validation": True}
    num = sum(corpus.facts["split"][part]["documents"] for part in parts)
    assert num > 2 * HELD_OUT_EVERY
    for part, held_out in parts.items():
        lines = [line.decode() for line in corpus.documents(part)]
        assert lines == [item.text for item in made[:num] if item.held_out == held_out]


def test_as_text_it_is_refused_with_what_it_needs(tmp_path: Path) -> None:
    settings = load_settings(values={"data.sources": (SOURCE,), "data.max_bytes": 20_000})
    with pytest.raises(InputError, match=re.escape(NEEDS_MODEL)):
        prepare(settings.data, settings.tokenizer, family_pattern="", seed=0, cache=tmp_path)


def test_the_probes_of_the_stories_fit_it_once() -> None:
    settings = load_settings(values={"data.sources": ("builtin:primer", SOURCE)})
    assert suites_for(settings) == ("text", "world")
    assert set(KINDS) == set(INSTRUCTIONS)
