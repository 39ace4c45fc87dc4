"""An untrusted tokenizer.json cannot make a short text longer than memory."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from etude.data.tokens.growth import MOST_GROWTH, growth_of
from etude.data.tokens.normalisation import FORMS, normaliser_of
from etude.data.tokens.published import existing_tokenizer
from etude.errors import InputError

Replace = normalizers.Replace


def stated(part: Any) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(part.__getstate__())
    return value


def saved(folder: Path, **parts: Any) -> Path:
    backend = Tokenizer(models.BPE(vocab={char: n for n, char in enumerate("abo")}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.normalizer = parts.get("normalizer")
    backend.decoder = parts.get("decoder")
    backend.save(str(folder / "tokenizer.json"))
    return folder / "tokenizer.json"


@pytest.mark.parametrize(
    "rules",
    [
        [Replace("o", "oo")] * 12,
        [Replace("o", "a" * 40), Replace("a", "b" * 40)],
        [Replace(Regex("b*"), "abababab")] * 5,
        [Replace(Regex("(?=.)"), "xxxx")] * 5,
        [normalizers.Sequence([Replace("o", "oooo"), Replace("o", "oooo")])] * 4,
        [normalizers.Prepend("x" * 5000)],
    ],
)
def test_rules_that_multiply_are_refused(tmp_path: Path, rules: list[Any]) -> None:
    with pytest.raises(InputError, match="more than a thousand") as caught:
        existing_tokenizer(saved(tmp_path, normalizer=normalizers.Sequence(rules)))
    assert "\n" not in str(caught.value)


def test_rules_of_the_decoder_too(tmp_path: Path) -> None:
    rules = decoders.Sequence([decoders.Replace("o", "oo")] * 12)
    with pytest.raises(InputError, match="more than a thousand"):
        existing_tokenizer(saved(tmp_path, decoder=rules))


def test_a_table_counts_with_its_longest_text() -> None:
    table = (8).to_bytes(4, "little") + bytes(8) + b"short\0" + b"l" * 2000 + b"\0"
    part = {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(table).decode()}
    assert growth_of(part) == 2000
    assert growth_of({"type": "Precompiled", "precompiled_charsmap": "not base64!"}) == 1


def test_what_published_tokenizers_do_is_allowed(tmp_path: Path) -> None:
    spaces = [
        Replace(Regex(" {2,}"), " "),
        Replace(Regex(r"\s+"), " "),
        Replace(Regex(r"[\u200b\u200c]"), ""),
    ]
    rules: list[Any] = [
        normalizers.Sequence([normalizers.Prepend("▁"), Replace(" ", "▁")]),
        normalizers.Sequence(
            [Replace("``", '"'), Replace("''", '"'), normalizers.NFKD(), normalizers.Lowercase()]
        ),
        normalizers.Sequence([normalizers.NFKC(), *spaces * 5]),
        *map(normaliser_of, FORMS),
    ]
    for rule in rules:
        assert growth_of(stated(rule)) <= 54 < MOST_GROWTH
        assert existing_tokenizer(saved(tmp_path, normalizer=rule))


STEPS = st.one_of(
    st.tuples(st.text("ab", min_size=1, max_size=3), st.text("abc", max_size=4)).map(
        lambda pair: Replace(*pair)
    ),
    st.tuples(st.sampled_from(["a+", "[ab]", "a|b", "ab*"]), st.text("ab", max_size=3)).map(
        lambda pair: Replace(Regex(pair[0]), pair[1])
    ),
    st.sampled_from([normalizers.NFKC(), normalizers.NFD(), normalizers.NFC()]),
)


@given(st.lists(STEPS, max_size=4), st.text("abcé\ufdfa\u0344", max_size=12))
def test_no_text_grows_beyond_the_bound(steps: list[Any], text: str) -> None:
    rules = normalizers.Sequence(steps)
    assert len(rules.normalize_str(text)) <= growth_of(stated(rules)) * len(text)


def test_rules_on_which_the_library_fails_are_one_line(tmp_path: Path) -> None:
    """An expression that matches nothing makes the library panic when bytes become characters."""
    backend = Tokenizer(models.BPE(vocab={char: n for n, char in enumerate("abo")}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.normalizer = Replace(Regex("x*"), "y")
    backend.save(str(tmp_path / "tokenizer.json"))
    tokenizer = existing_tokenizer(tmp_path / "tokenizer.json")
    for encode in (tokenizer.encode, lambda text: tokenizer.encode_clean([text])):
        with pytest.raises(InputError, match="fail on this text") as caught:
            encode("a bob")
        assert "\n" not in str(caught.value)
