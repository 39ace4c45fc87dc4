"""Pieces of a text give the tokens of the whole, for the pattern of every tokenizer in use."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from functools import lru_cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from etude.data.corpus.cuts import AFTER_LINE, BEFORE_SPACE, Places, pieces, segments
from etude.data.tokens.cutting import places_of
from etude.data.tokens.patterns import PATTERNS
from etude.data.tokens.tokenizer import EtudeTokenizer
from etude.data.tokens.word_pattern import Unproved, WordPattern

_ENDINGS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_AROUND = r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
O200K = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+{_ENDINGS}?|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*{_ENDINGS}?|"
    + _AROUND
)
GPT4 = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|"
    r"\s+(?!\S)|\s"
)
DEEPSEEK = (
    r"\p{N}{1,3}",
    r"[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+",
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|"
    r"\s*[\r\n]+|\s+(?!\S)|\s+",
)

BITS = [
    *"aZé1٣.,'!/-\"(_、。日あไ\u0e31한\u0301\u0958\u00b4\u212b\u037a\u00a0\u2028\u3000\x1f\x85😀\t",
    *[
        " ",
        "\n",
        "\r\n",
        "  ",
        "\n\n",
        " \n",
        "\n ",
        "/\n",
        "!\n",
        "x\n/y",
        "x\ny",
        "word word",
        "it's",
        "I'LL",
    ],
    *[
        "123456",
        "3.14",
        "foo(bar);",
        "end. New",
        "日本語。中文",
        "ab\u0301 c",
        "\n\u0301x",
        "\u017f's",
        "'\u017f",
        "\n/a",
    ],
]
NASTY = st.lists(st.sampled_from(BITS), max_size=30).map("".join)


def splitter(*expressions: str) -> object:
    steps = [pre_tokenizers.Split(Regex(one), "isolated") for one in expressions]
    return pre_tokenizers.Sequence(
        [*steps, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )


SPLITTERS: dict[str, Callable[[], object]] = {
    **{name: (lambda pattern=pattern: splitter(pattern)) for name, pattern in PATTERNS.items()},
    "o200k": lambda: splitter(O200K),
    "gpt4": lambda: splitter(GPT4),
    "deepseek": lambda: splitter(*DEEPSEEK),
    "byte level": lambda: pre_tokenizers.ByteLevel(add_prefix_space=False),
    "digits": lambda: pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    ),
    "punctuation": lambda: pre_tokenizers.Sequence(
        [pre_tokenizers.Punctuation(), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    ),
}


def training_text() -> Iterator[str]:
    """Put every fragment beside every other, so that merges occur across everything that a pattern allows."""
    rng = random.Random(3)
    for _ in range(150):
        yield "".join(rng.choice(BITS) for _ in range(60))


@lru_cache
def made(name: str) -> EtudeTokenizer:
    merges = not name.endswith("without merges")
    name = name.removesuffix(" without merges")
    normal = name.endswith("after NFC")
    name = name.removesuffix(" after NFC")
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = SPLITTERS[name]()
    backend.decoder = decoders.ByteLevel()
    if normal:
        backend.normalizer = normalizers.NFC()
    trainer = trainers.BpeTrainer(
        vocab_size=700 if merges else 257,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    backend.train_from_iterator(training_text(), trainer)
    return EtudeTokenizer(backend, kind="file:tokenizer.json")


EXACT = [
    *SPLITTERS,
    *(f"{name} after NFC" for name in ("qwen2", "o200k")),
    "byte level without merges",
]


@pytest.mark.parametrize("name", EXACT)
@settings(max_examples=60)
@given(text=NASTY, size=st.integers(1, 40))
def test_pieces_give_the_tokens_of_the_whole(name: str, text: str, size: int) -> None:
    tokenizer = made(name)
    cut = list(pieces(text, size, tokenizer.places))
    assert "".join(cut) == text
    together = [token for ids in tokenizer.encode_clean(cut) for token in ids]
    assert together == tokenizer.encode(text)


@pytest.mark.parametrize("name", EXACT)
@settings(max_examples=60)
@given(text=NASTY, others=st.booleans())
def test_every_single_place_is_safe(name: str, text: str, others: bool) -> None:
    tokenizer = made(name)
    whole = tokenizer.encode(text)
    patterns = tokenizer.places.others if others else tokenizer.places.usual
    for place in [match.start() for pattern in patterns for match in pattern.finditer(text)]:
        left, right = tokenizer.encode_clean([text[:place], text[place:]])
        assert left + right == whole, (text[:place], text[place:])


def test_what_is_proved_of_each_pattern() -> None:
    both = (AFTER_LINE, BEFORE_SPACE)
    for name in ("gpt2", "llama3", "qwen2", "gpt4", "deepseek", "byte level", "digits", "punctuation"):
        assert made(name).places.usual == both, name
        assert made(name).places.others, name
    # o200k joins a slash with the line end before it: "x\n/y"
    assert made("o200k").places.usual == (BEFORE_SPACE,)
    assert made("qwen2 after NFC").places == Places(both)


def test_a_place_that_is_not_safe_is_found_by_these_texts() -> None:
    """The proof matters: with the places of another pattern, o200k gives other tokens."""
    tokenizer = made("o200k")
    ids = tokenizer.encode_clean(list(pieces("ab!\n/cd " * 40, 8)))
    assert [token for row in ids for token in row] != tokenizer.encode("ab!\n/cd " * 40)


def test_text_of_one_script_without_spaces_is_cut_at_its_punctuation() -> None:
    text = "中文没有空格。但是有标点。" * 400
    cut = list(pieces(text, 500, made("llama3").places))
    assert len(cut) > 20
    assert [t for ids in made("llama3").encode_clean(cut) for t in ids] == made("llama3").encode(text)


def without_places() -> dict[str, Tokenizer]:
    vocabulary = {char: n for n, char in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    vocabulary["Ġx"] = len(vocabulary)

    def backend(pre_tokenizer: object, normalizer: object = None, **model: float) -> Tokenizer:
        made = Tokenizer(models.BPE(vocab=vocabulary, merges=[("Ġ", "x")], **model))
        made.pre_tokenizer = pre_tokenizer
        if normalizer is not None:
            made.normalizer = normalizer
        made.add_special_tokens(["<|endoftext|>"])
        return made

    level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    found = {
        "a space before each text": backend(pre_tokenizers.ByteLevel(add_prefix_space=True)),
        "Metaspace": backend(pre_tokenizers.Metaspace()),
        "BERT": backend(pre_tokenizers.BertPreTokenizer()),
        "rewriting": backend(level, normalizers.Lowercase()),
        "compatibility": backend(level, normalizers.NFKC()),
        "chance": backend(level, dropout=0.1),
        "look behind": backend(splitter(r"(?<=a) |\s+|\S+")),
        "words with spaces": backend(splitter(r"[\s\S]+")),
        "joined": backend(pre_tokenizers.Split(Regex(r"\n"), "merged_with_next")),
        "stretches between matches": backend(splitter(r"\p{N}+")),
        "none": backend(None),
        "greedy word": backend(level),
    }
    found["greedy word"].add_tokens([AddedToken("word", lstrip=True)])
    return found


@pytest.mark.parametrize("name", list(without_places()))
def test_without_a_proof_a_text_is_encoded_whole(name: str) -> None:
    places = places_of(without_places()[name])
    assert not places
    text = "some words and\nlines " * 5000
    assert list(pieces(text, 100, places)) == [text]
    read = text.encode()
    ranges = list(segments(lambda a, b: read[a:b], 0, len(read), 100, 10_000, places))
    assert ranges == [(0, len(read), True)]


def test_words_that_a_tokenizer_finds_in_text_are_not_cut() -> None:
    backend = made("gpt2").backend
    backend = Tokenizer.from_str(backend.to_str())
    backend.add_tokens([AddedToken("the end", normalized=False), AddedToken("\nUser:", normalized=False)])
    assert not places_of(backend).usual
    backend = Tokenizer.from_str(made("gpt2").backend.to_str())
    backend.add_tokens([AddedToken("\nUser:", normalized=False)])
    assert places_of(backend).usual == (BEFORE_SPACE,)


@pytest.mark.parametrize(
    "expression",
    [r"\bword", r"(?<!a)b|.", r"(a)\1", r"[[:alpha:]]+", r"[a-z&&[^b]]", r"(?>a|ab)c", r"a*", r"^a"],
)
def test_what_is_not_understood_proves_nothing(expression: str) -> None:
    with pytest.raises(Unproved):
        WordPattern(expression)


@given(text=NASTY, size=st.integers(4, 40), longest=st.integers(40, 200))
def test_segments_tile_a_text_and_say_where_no_place_was(text: str, size: int, longest: int) -> None:
    data = (text * 8).encode()
    places = made("llama3").places
    ranges = list(segments(lambda a, b: data[a:b], 0, len(data), size, longest, places))
    assert [a for a, _, _ in ranges] == [0, *(b for _, b, _ in ranges[:-1])]
    assert ranges[-1][1:] == (len(data), True)
    texts = [data[a:b].decode() for a, b, _ in ranges]
    if all(safe for _, _, safe in ranges):
        ids = [token for row in made("llama3").encode_clean(texts) for token in row]
        assert ids == made("llama3").encode("".join(texts))
    assert all(b - a <= longest + 3 * size for a, b, _ in ranges[:-1])


def test_a_repeated_character_is_searched_once() -> None:
    """The bytes that are read to find places grow with the text, not with its square."""
    looked = []
    for count in (100_000, 200_000, 400_000):
        data, sizes = b"Some words. " + b" " * count + b"and more words.", [0]

        def read(start: int, end: int, data: bytes = data, sizes: list[int] = sizes) -> bytes:
            sizes[0] += end - start
            return data[start:end]

        ranges = list(segments(read, 0, len(data), 1000, 1 << 22, made("llama3").places))
        assert all(safe for _, _, safe in ranges)
        looked.append(sizes[0])
    assert looked[2] < 2.1 * looked[1] < 4.5 * looked[0]
