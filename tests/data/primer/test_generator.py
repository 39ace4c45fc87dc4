"""The built-in corpus: the same bytes everywhere, varied, consistent with its own world, in constant memory."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tracemalloc
import zlib
from itertools import islice

import pytest

from etude.data.primer.generator import Tale, documents, generate, tale
from etude.data.primer.lexicon import BOYS, GIRLS, NAMES, NUMBER_OF_WORD, OBJECT_FORMS, PET_NAMES, PLACE_NOUNS

_DIGEST = """
from hashlib import blake2b
from etude.data.primer.generator import generate
digest = blake2b(digest_size=16)
for made in generate(3, max_bytes=200_000):
    digest.update(made.id.encode() + made.text.encode() + repr(sorted(made.facts.name_objects)).encode())
print(digest.hexdigest())
"""


@pytest.fixture(scope="module")
def tales() -> list[Tale]:
    return list(generate(11, max_bytes=2_000_000))


def test_same_bytes_in_any_process() -> None:
    digests = set()
    for hash_seed in ("0", "1", "12345"):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        done = subprocess.run(
            [sys.executable, "-c", _DIGEST], env=environment, capture_output=True, text=True, check=True
        )
        digests.add(done.stdout)
    assert len(digests) == 1


def test_any_document_can_be_made_alone(tales: list[Tale]) -> None:
    for index in (0, 7, 500, 1000):
        assert tale(11, index) == tales[index]
        assert tales[index].id == f"primer-11-{index}"
    assert tale(12, 0).text != tale(11, 0).text


def test_max_bytes_is_a_bound_without_cutting() -> None:
    made = list(generate(5, max_bytes=30_000))
    size = sum(len(one.text.encode()) for one in made)
    assert size <= 30_000 < size + len(tale(5, len(made)).text.encode())
    assert list(generate(5, max_bytes=0)) == []
    assert [one.text for one in documents(5, 30_000)] == [one.text for one in made]
    assert {one.origin for one in documents(5, 30_000)} == {"builtin:primer"}


def test_memory_is_constant() -> None:
    stream = generate(2)
    for _ in islice(stream, 300):
        pass
    tracemalloc.start()
    try:
        for _ in islice(stream, 100):
            pass
        early, _ = tracemalloc.get_traced_memory()
        for _ in islice(stream, 700):
            pass
        late, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert late - early < 100_000
    assert peak < 2_000_000


def test_variety(tales: list[Tale]) -> None:
    text = "\n\n".join(made.text for made in tales)
    assert len(set(re.findall(r"[a-z]+", text.lower()))) >= 1200
    stories = [made.text for made in tales if made.kind == "story"]
    assert len(stories) - len(set(stories)) < 0.01 * len(stories)
    assert sum(map(len, stories)) > 0.7 * len(text)
    assert 0.2 < len(zlib.compress(text.encode(), 9)) / len(text) < 0.4
    assert {made.kind for made in tales} == {
        "story", "exercise", "sums", "counting", "letter", "dialogue", "description",
    }  # fmt: skip


def _shape(sentence: str) -> str:
    words = re.findall(r"[A-Za-z]+", sentence)
    return " ".join("N" if word in NAMES else "O" if word in OBJECT_FORMS else "P" if word in PLACE_NOUNS else word
                    for word in words)  # fmt: skip


def test_many_sentence_shapes(tales: list[Tale]) -> None:
    sentences = [
        _shape(sentence)
        for made in tales
        if made.kind == "story"
        for sentence in re.split(r"(?<=[.!?])\s+", made.text)
    ]
    assert len(set(sentences)) > 8000
    assert len({" ".join(shape.split()[:4]) for shape in sentences}) > 1200


def test_form_of_the_text(tales: list[Tale]) -> None:
    for made in tales:
        assert made.text.isascii(), made.id
        assert not re.search(r"[{}\[\]<>|~]|  | [.,!?]|\.\.", made.text), made.id
        assert made.text == made.text.strip(), made.id
        assert made.text.count('"') % 2 == 0, made.id
        if made.kind in ("story", "description"):
            for paragraph in made.text.split("\n\n"):
                assert re.match(r'"?[A-Z]', paragraph), (made.id, paragraph)
                assert re.search(r'[.!?:]"?$', paragraph), (made.id, paragraph)
                assert paragraph.count('"') % 2 == 0, (made.id, paragraph)
                assert not re.search(r"[.!?] [a-z]", paragraph), (made.id, paragraph)
                assert not re.search(r'[a-z]"', paragraph), (made.id, paragraph)


def test_articles_and_agreement(tales: list[Tale]) -> None:
    numbers = "|".join(word for word in NUMBER_OF_WORD if word not in ("one", "zero"))
    singular = {noun for form, noun in OBJECT_FORMS.items() if form != noun}
    for made in tales:
        assert not re.search(r"\b[Aa] [aeiou]", made.text), made.id
        assert not re.search(r"\b[Aa]n [^aeiou]", made.text.replace("an hour", "")), made.id
        assert not re.search(r"\b(they|we|you|[Tt]here (?:two|three)) (was|is|has)\b", made.text), made.id
        assert not re.search(r"(?<!if )\b(he|she|it) (were|are|have)\b", made.text), made.id
        assert not re.search(r"\b(asked|with|of|for|gave|told) (they|he|she) (?!had|was)", made.text), made.id
        for match in re.finditer(rf"\b(?:{numbers}) (?:[a-z-]+ )?([a-z]+)", made.text):
            assert match[1] not in singular, (made.id, match[0])
        assert not re.search(
            rf"(?<!-)\bone ({'|'.join(f for f, n in OBJECT_FORMS.items() if f != n)})\b", made.text
        ), made.id


def test_pronouns_agree_when_one_person_is_in_a_paragraph(tales: list[Tale]) -> None:
    others = re.compile(
        r"\b(Mum|Dad|Grand\w+|Mrs?|Miss|Captain|Aunt|Uncle|mother|father|sister|brother|grand\w+|boy|girl|wolf|"
        r"dog|cat|man|woman|aunts|neighbour|everyone|two friends)\b"
    )
    checked = 0
    for made in tales:
        if made.kind != "story":
            continue
        for paragraph in made.text.split("\n\n"):
            named = {word for word in re.findall(r"[A-Z][a-z]+", paragraph) if word in NAMES}
            if len(named) != 1 or others.search(paragraph) or "lived" in paragraph:
                continue
            spoken = re.sub(r'"[^"]*"', "", paragraph)
            name = named.pop()
            wrong = r"\b(he|him|his|himself)\b" if name in GIRLS else r"\b(she|her|herself)\b"
            if any(pet in paragraph for pet in PET_NAMES):
                continue
            assert name in GIRLS or name in BOYS
            assert not re.search(wrong, spoken), (made.id, paragraph)
            checked += 1
    assert checked > 150
