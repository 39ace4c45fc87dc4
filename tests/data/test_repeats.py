"""The text of the induction study: every string twice, each new, the same on any machine."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import pytest

from etude.config import load_settings
from etude.data.prepared_data import prepare
from etude.data.studies.repeats import CHARACTERS, LONGEST, SHORTEST, document, documents
from etude.errors import InputError
from etude.settings_file import recipe_file


def test_every_string_comes_twice() -> None:
    made = [one.text for one in islice(documents(3), 500)]
    for text in made:
        half = len(text) // 2
        assert text[:half] == text[half:]
        assert SHORTEST <= half <= LONGEST
        assert set(text) <= set(CHARACTERS)
    assert len(set(made)) == len(made)
    assert {len(text) // 2 for text in made} == set(range(SHORTEST, LONGEST + 1))


def test_the_same_bytes_for_the_same_seed() -> None:
    assert document(1337, 7).text == "tDeq9pw0ntDeq9pw0n"
    assert document(1337, 7) == next(islice(documents(1337), 7, 8))
    assert document(1338, 7).text != document(1337, 7).text
    size = sum(len(one.text) for one in documents(5, 1000))
    assert 1000 - 2 * LONGEST < size <= 1000


def test_the_recipe_reads_it_document_by_document(tmp_path: Path) -> None:
    settings = load_settings(recipe_file("induction"), ["data.max_bytes=20000"])
    data = prepare(settings.data, settings.tokenizer, family_pattern="llama3", seed=1, cache=tmp_path)
    texts = [one.decode() for one in data.documents("train")]
    assert all(text[: len(text) // 2] == text[len(text) // 2 :] for text in texts)
    held_out = {one.decode() for one in data.documents("validation")}
    assert held_out
    assert not held_out & set(texts)
    assert data.train.num_tokens == sum(len(text) + 1 for text in texts)


def test_every_recipe_is_a_file_of_settings() -> None:
    folder = recipe_file("induction").parent
    for file in folder.iterdir():
        settings = load_settings(recipe_file(file.stem))
        assert settings != load_settings()
    with pytest.raises(InputError, match="there is no recipe 'grok': choose grokking or induction"):
        recipe_file("grok")
    with pytest.raises(InputError, match="there is no recipe"):
        recipe_file("../config")
