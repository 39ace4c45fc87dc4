"""SentencePiece tokenizers from GGUF metadata: the ids of the published algorithm, of its library, and of llama.cpp."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any

import pytest
from gguf import TokenType
from hypothesis import given, settings
from hypothesis import strategies as st
from sentencepiece_files import SPACE, Token, add_tokenizer, opened, published_ids, vocabulary
from tokenizers import Tokenizer, models, trainers

from etude.data.tokens.published import model_tokenizer
from etude.errors import InputError
from etude.pretrained.gguf_model import folder_from_gguf
from etude.pretrained.gguf_tokenizer import tokenizer_of
from gguf_files import TRAINING, network_tensors, write_gguf
from hard_texts import hard_texts
from llama_cpp import LlamaCpp
from networks import make_config, make_network

TEXTS = [
    *hard_texts(600),
    *(
        "",
        " ",
        "   ",
        " a",
        "a ",
        "\n",
        "\n\na",
        "▁",
        " ▁ ",
        "<0x0A>",
        "<s>",
        "</s> ",
        "a</s>b",
        "<unk>",
        "<tag>x",
    ),
    *("<s></s>", "[INST] hi [/INST]", "</", "é" * 30, "aaaa aaaaa aaaaaa", " " * 40, "\u0301a", "\U0010ffff"),
]
ADDED = [("<tag>", TokenType.USER_DEFINED), ("\n\n", TokenType.USER_DEFINED), ("   ", TokenType.USER_DEFINED)]


def rebuilt(tokens: list[Token], **changes: Any) -> Tokenizer:
    """Return the tokenizer that a file describes, as Etude uses it: special tokens in text stay text."""
    tokenizer = Tokenizer.from_str(tokenizer_of(opened(tokens, **changes)).json)
    tokenizer.encode_special_tokens = True
    return tokenizer


def ids_of(tokenizer: Tokenizer, text: str) -> list[int]:
    return list(tokenizer.encode(text, add_special_tokens=False).ids)


@pytest.fixture(scope="module")
def trained() -> list[Token]:
    """A vocabulary of merges that were learned from text, without several characters of the texts."""
    random, words = Random(0), TRAINING.split(" ")
    lines = [SPACE + SPACE.join(random.choices(words, k=8)) for _ in range(400)]
    backend = Tokenizer(models.BPE())
    backend.train_from_iterator(lines, trainers.BpeTrainer(vocab_size=700, show_progress=False))
    pieces = sorted(backend.get_vocab().items(), key=lambda entry: entry[1])
    return vocabulary({piece: -float(rank) for rank, (piece, _) in enumerate(pieces)})


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_vocabulary_gives_the_ids_of_the_published_algorithm(data: st.DataObject) -> None:
    """With scores in any order, also where training would never give them."""
    alphabet = "ab" + SPACE
    joined = data.draw(st.lists(st.text(alphabet, min_size=2, max_size=6), unique=True, max_size=24))
    pieces = [*alphabet, *joined]
    ranks = data.draw(st.permutations(range(len(pieces))))
    scores = {piece: -float(rank) for piece, rank in zip(pieces, ranks, strict=True)}
    if data.draw(st.booleans()):  # one score for all runs of spaces, as in Llama 2
        lengths = data.draw(st.lists(st.integers(2, 12), unique=True, min_size=1))
        runs = {SPACE * length for length in lengths} | {piece for piece in joined if not piece.strip(SPACE)}
        scores |= dict.fromkeys(runs, -data.draw(st.integers(0, len(pieces))) - 0.5)
    tokens = vocabulary(scores)
    prefix = data.draw(st.booleans())
    tokenizer = rebuilt(tokens, add_space_prefix=prefix)
    for text in data.draw(st.lists(st.text("ab c", max_size=24), min_size=4, max_size=8)):
        escaped = (SPACE if prefix and text else "") + text.replace(" ", SPACE)
        assert ids_of(tokenizer, text) == published_ids(escaped, tokens)


@pytest.mark.parametrize("prefix", [True, False])
def test_a_trained_vocabulary_gives_the_ids_of_the_published_algorithm(
    prefix: bool, trained: list[Token]
) -> None:
    tokenizer = rebuilt(trained, add_space_prefix=prefix)
    byte_tokens = 0
    for text in TEXTS:
        escaped = (SPACE if prefix and text else "") + text.replace(" ", SPACE)
        ids = ids_of(tokenizer, text)
        assert ids == published_ids(escaped, trained), repr(text)
        assert tokenizer.decode(ids, skip_special_tokens=False) == text.replace(SPACE, " "), repr(text)
        assert not {0, 1, 2} & set(ids)
        byte_tokens += sum(3 <= number < 259 for number in ids)
    assert byte_tokens > 1000


def with_added(trained: list[Token], added: list[tuple[str, TokenType]]) -> list[Token]:
    names = dict(added)
    return [
        *(token for token in trained if token[0] not in names),
        *((name, -1000.0, kind) for name, kind in added),
    ]


def test_added_tokens_are_found_before_spaces_are_escaped(trained: list[Token]) -> None:
    tokens = with_added(trained, ADDED)
    tokenizer = rebuilt(tokens, add_space_prefix=False)
    number = {token: number for number, (token, _, _) in enumerate(tokens)}

    def ids(text: str) -> list[int]:
        return published_ids(text, tokens)

    assert ids_of(tokenizer, "the<tag>the") == [*ids("the"), number["<tag>"], *ids("the")]
    expected = [number["   "], *ids(SPACE + "a"), number["\n\n"], *ids("\n")]
    assert ids_of(tokenizer, "    a\n\n\n") == expected


def sentencepiece_model(tmp_path: Path, **options: Any) -> tuple[Any, list[Token]]:
    """Train a model with SentencePiece's own trainer; return it, and the tokens that llama.cpp's converter reads."""
    library = pytest.importorskip("sentencepiece")
    lines = "\n".join(
        text.replace("\n", " ") for text in [TRAINING, *hard_texts(300, seed=7)] for _ in range(3)
    )
    (tmp_path / "text").write_text(lines.replace("\0", ""))
    library.SentencePieceTrainer.train(
        **{"input": str(tmp_path / "text"), "model_prefix": str(tmp_path / "m"), "vocab_size": 1200},
        **{"model_type": "bpe", "byte_fallback": True, "character_coverage": 0.98, "minloglevel": 2},
        **{"normalization_rule_name": "identity", "remove_extra_whitespaces": False, "num_threads": 1},
        **options,
    )
    model = library.SentencePieceProcessor(str(tmp_path / "m.model"))
    tokens = []
    for number in range(model.vocab_size()):
        kind = TokenType.NORMAL
        for is_kind, named in (
            (model.IsUnknown, TokenType.UNKNOWN),
            (model.IsControl, TokenType.CONTROL),
            (model.IsByte, TokenType.BYTE),
        ):
            kind = named if is_kind(number) else kind
        tokens.append((model.IdToPiece(number), model.GetScore(number), kind))
    return model, tokens


@pytest.mark.parametrize("prefix", [True, False])
def test_ids_are_those_of_the_sentencepiece_library(prefix: bool, tmp_path: Path) -> None:
    model, tokens = sentencepiece_model(tmp_path, add_dummy_prefix=prefix, split_digits=not prefix)
    tokenizer = rebuilt(tokens, add_space_prefix=prefix)
    for text in TEXTS:
        assert ids_of(tokenizer, text) == model.Encode(text), repr(text)


@pytest.mark.parametrize("prefix", [True, False])
def test_ids_are_those_of_llama_cpp(prefix: bool, trained: list[Token], tmp_path: Path) -> None:
    tokens = with_added(trained, ADDED)
    folder = imported(tmp_path, tokens, prefix)
    tokenizer, reference = Tokenizer.from_file(str(folder / "tokenizer.json")), LlamaCpp(tmp_path / "a.gguf")
    texts = [text for text in TEXTS if "\0" not in text]
    for specials in (True, False):
        tokenizer.encode_special_tokens = not specials
        expected = reference.token_ids(texts, specials=specials)
        for text, theirs in zip(texts, expected, strict=True):
            if specials or not {0, 1, 2} & set(theirs):  # it may make a special token from text
                assert ids_of(tokenizer, text) == theirs, repr(text)


def imported(tmp_path: Path, tokens: list[Token], prefix: bool) -> Path:
    config = make_config("llama-plain", vocab_size=len(tokens))
    write_gguf(
        tmp_path / "a.gguf",
        config,
        network_tensors(make_network(config), config),
        tokenizer=lambda writer: add_tokenizer(writer, tokens, space_prefix=prefix),
    )
    folder_from_gguf(tmp_path / "a.gguf", tmp_path / "a")
    return tmp_path / "a"


def test_a_model_folder_with_its_roles(trained: list[Token], tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    folder = imported(tmp_path, trained, True)
    tokenizer = model_tokenizer(folder)
    assert (tokenizer.roles.document, tokenizer.roles.stop_ids) == ("<s>", frozenset({1, 2}))
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    for text in TEXTS[:200]:
        assert tokenizer.encode(text) == published_ids(SPACE + text.replace(" ", SPACE), trained)
        assert theirs(text).input_ids == tokenizer.backend.encode(text).ids or "<" in text
    assert theirs("a").input_ids[0] == theirs.bos_token_id == 1
    assert json.loads((folder / "origin.json").read_text())["pre_tokenizer"] is None


REFUSED: dict[str, tuple[dict[str, float], list[tuple[str, TokenType]], dict[str, Any], str]] = {
    "white space": ({}, [], {"remove_extra_whitespaces": True}, "with remove_extra_whitespaces"),
    "a table": ({}, [], {"precompiled_charsmap": b"x"}, "with a table that replaces characters"),
    "a splitter": ({}, [], {"pre": "llama-bpe"}, "with the pre-tokenizer 'llama-bpe'"),
    "no scores": ({}, [], {"scores": None}, r"damaged \(tokenizer.ggml.scores"),
    "one score": ({"ab": -1.0, "ba": -1.0}, [], {}, "with the same score for 'ab' and 'ba'"),
    "a character": ({"ax": -1.0}, [], {}, "with the token 'ax', of which a character is no token"),
    "escaped": ({}, [(SPACE * 2, TokenType.USER_DEFINED)], {}, "with the added token '▁▁'"),
    "unused": ({}, [("aab", TokenType.UNUSED)], {}, ""),
    "unused that occurs": ({"aa": -1.0}, [("aab", TokenType.UNUSED)], {}, "with the unused token 'aab'"),
    "a special character": ({}, [("x", TokenType.CONTROL)], {}, "with the special token 'x'"),
    "long": ({"a" * 10_000: -1.0}, [], {}, "with too many or too long tokens"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_certain_is_refused_by_name(case: str) -> None:
    pieces, added, changes, expected = REFUSED[case]
    tokens = vocabulary({"a": -100.0, "b": -101.0, SPACE: -102.0, **pieces}, added)
    if not expected:
        assert ids_of(rebuilt(tokens, **changes), "aab") == published_ids(SPACE + "aab", tokens)
        return
    with pytest.raises(InputError, match=expected) as refusal:
        tokenizer_of(opened(tokens, **changes))
    assert "\n" not in str(refusal.value)


def test_every_byte_must_have_a_token() -> None:
    tokens = [token for token in vocabulary({"a": -1.0}) if token[0] != "<0x41>"]
    with pytest.raises(
        InputError, match="with 255 of the 256 tokens that stand for a byte: use the original"
    ):
        tokenizer_of(opened(tokens))


def test_scores_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(InputError, match="damaged"):
        tokenizer_of(opened(vocabulary({"a": float("nan")})))


def test_a_folder_with_a_sentencepiece_model_alone_says_how_to_convert_it(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").write_bytes(b"")
    with pytest.raises(
        InputError, match=r"has a tokenizer\.model and no tokenizer\.json: write it once, with"
    ):
        model_tokenizer(tmp_path)
