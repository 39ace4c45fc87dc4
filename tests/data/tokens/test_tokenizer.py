"""Any text goes in and comes out unchanged, and transformers sees the same tokens."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

from corpora import line
from etude.data.corpus.cuts import last_safe_byte, pieces
from etude.data.tokens.patterns import PATTERNS
from etude.data.tokens.published import existing_tokenizer
from etude.data.tokens.tokenizer import EOS, EtudeTokenizer
from etude.data.tokens.vocabulary import (
    LONGEST_WORD,
    _without_endless_words,
    auto_vocab_size,
    check_kind,
    train_bpe,
    train_char,
)
from etude.errors import InputError
from etude.model.families import family_named

TEXT = "\n".join(line(random.Random(n)) for n in range(300)) + "\nIt's café; don't naïve-ly 日本語 😀!\n"
TORTURE = [
    "",
    " ",
    "  two  spaces  ",
    "\n\n\n",
    "\tx = 1\n\ty = 22222\r\n",
    "I'm you'LL we'D don'T 'tis",
    "1234567890 3.14 \uff11\uff12\uff13",
    "e\u0301 vs é, ﬁ, \u200b\u200d",
    "日本語テキスト 中文 한국어 العربية हिन्दी",
    "👨‍👩‍👧‍👦🇩🇪😀",
    "\u0000\u0001\x7f\ufffd\ufeff",
    "a" * 500,
    "http://x.y/z?a=b&c=d#e <0x41> <0xFF>",
    "\u00a0nbsp\u3000ideographic\u2028line",
]
MODELS = {"char": lambda: train_char([TEXT]), **{
    name: (lambda name=name: train_bpe([TEXT], 600, name)) for name in PATTERNS
}}  # fmt: skip
_made: dict[str, EtudeTokenizer] = {}
ANY_UNICODE = st.text(st.characters(codec="utf-8"), max_size=120) | st.lists(
    st.sampled_from([EOS, "<0x41>", "<|endof", "text|>", " ", "\n", "'s", "é", "\u0301", "😀", "12", "ab"]),
    max_size=20,
).map("".join)


def made(name: str) -> EtudeTokenizer:
    if name not in _made:
        _made[name] = MODELS[name]()
    return _made[name]


@pytest.mark.parametrize("name", list(MODELS))
@given(text=ANY_UNICODE)
def test_any_text_comes_back_exactly(name: str, text: str) -> None:
    tokenizer = made(name)
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert tokenizer.roles.document_id not in ids
    assert all(0 <= token < tokenizer.vocab_size for token in ids)
    assert tokenizer.encode_batch([text, text]) == [ids, ids]


@pytest.mark.parametrize("name", list(MODELS))
def test_the_name_of_the_special_token_is_only_text(name: str, tmp_path: Path) -> None:
    made(name).save(tmp_path)
    for tokenizer in (made(name), EtudeTokenizer.load(tmp_path)):
        ids = tokenizer.encode(f"before {EOS} after")
        assert tokenizer.roles.document_id not in ids
        assert tokenizer.decode(ids) == f"before {EOS} after"
        assert tokenizer.decode([tokenizer.roles.document_id]) == EOS
        assert (
            tokenizer.decode([tokenizer.roles.document_id, *ids], skip_special_tokens=True)
            == f"before {EOS} after"
        )


@pytest.mark.parametrize("name", list(MODELS))
def test_half_a_surrogate_pair_becomes_the_replacement_character(name: str) -> None:
    assert made(name).decode(made(name).encode("a\ud83db")) == "a\ufffdb"


@pytest.mark.parametrize("name", list(MODELS))
def test_transformers_gives_the_same_ids(name: str, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = made(name)
    tokenizer.save(tmp_path)
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    assert theirs.eos_token_id == theirs.bos_token_id == tokenizer.roles.document_id
    assert len(theirs) == tokenizer.vocab_size
    for text in [*TORTURE, TEXT]:
        ids = tokenizer.encode(text)
        assert theirs(text)["input_ids"] == [tokenizer.roles.document_id, *ids], repr(text)
        assert theirs(text, add_special_tokens=False)["input_ids"] == ids, repr(text)
        assert theirs.decode(ids) == tokenizer.decode(ids) == text


@pytest.mark.parametrize("name", list(MODELS))
@given(
    parts=st.lists(
        st.sampled_from([*TORTURE, "word word", "a\nb", "!\nx", " \n y", "x\n\n y", "ab cd"]), max_size=30
    )
)
def test_pieces_encode_to_the_tokens_of_the_whole(name: str, parts: list[str]) -> None:
    tokenizer = made(name)
    text = "".join(parts)
    cut = list(pieces(text, 24, tokenizer.places))
    assert "".join(cut) == text
    assert [token for ids in tokenizer.encode_batch(cut) for token in ids] == tokenizer.encode(text)


def test_pieces_of_ordinary_text_are_short() -> None:
    cut = list(pieces(TEXT * 20, 2000))
    assert max(len(one.encode()) for one in cut) <= 2100
    assert len(cut) < len((TEXT * 20).encode()) / 1500
    assert list(pieces("x" * 10_000, 100)) == ["x" * 10_000]


@given(st.text(st.sampled_from("ab é日\n .1"), max_size=200), st.integers(0, 3))
def test_a_safe_place_in_bytes_is_one_in_text(text: str, shift: int) -> None:
    data = text.encode()[shift:]
    cut = last_safe_byte(data)
    if cut is not None:
        assert 0 < cut < len(data)
        whole = data.decode("utf-8", "ignore")
        left = data[:cut].decode("utf-8", "ignore")
        for name in PATTERNS:
            tokenizer = made(name)
            assert tokenizer.encode(left) + tokenizer.encode(whole[len(left) :]) == tokenizer.encode(whole)


def test_growing_a_vocabulary_is_repeatable() -> None:
    assert train_bpe([TEXT], 600, "llama3").hash == made("llama3").hash
    assert train_char([TEXT]).hash == made("char").hash
    assert train_bpe(iter([TEXT]), 600, "gpt2").hash == made("gpt2").hash


def test_a_poor_text_gives_a_smaller_vocabulary() -> None:
    assert 257 <= train_bpe(["aaaa"], 5000, "gpt2").vocab_size < 300


def test_char_knows_the_characters_of_its_text() -> None:
    tokenizer = made("char")
    assert tokenizer.vocab_size == 1 + 256 + len(set(TEXT))
    assert len(tokenizer.encode(TEXT)) == len(TEXT)
    assert len(tokenizer.encode("ж")) == 2


def test_numbers_are_cut_as_the_family_expects() -> None:
    numbers = " ".join(str(n) for n in range(2000))
    longest = {}
    for name in PATTERNS:
        tokenizer = train_bpe([numbers] * 3, 1500, name)
        tokens = [tokenizer.token(n).lstrip("Ġ") for n in range(1, tokenizer.vocab_size)]
        longest[name] = max(len(token) for token in tokens if token.isdigit())
    assert longest["qwen2"] == 1
    assert longest["llama3"] == 3
    assert longest["gpt2"] == 4
    families = ("llama", "qwen3", "gpt2", "mlp")
    assert [family_named(name).tokenizer_pattern for name in families] == ["llama3", "qwen2", "gpt2", "gpt2"]


def test_the_automatic_vocabulary_grows_slowly_with_the_text() -> None:
    sizes = [auto_vocab_size(10**n) for n in range(3, 13)]
    assert sizes == sorted(sizes)
    assert [auto_vocab_size(n) for n in (10_000, 100_000, 1_000_000, 12_000_000, 10**9)] == [
        384,
        512,
        1024,
        2048,
        8192,
    ]
    assert sizes[-1] == 32_768


@pytest.mark.parametrize("damage", ["truncate", "flip", "remove", "record"])
def test_a_damaged_tokenizer_is_refused(tmp_path: Path, damage: str) -> None:
    made("gpt2").save(tmp_path)
    file = tmp_path / "tokenizer.json"
    text = file.read_text()
    if damage == "truncate":
        file.write_text(text[: len(text) // 2])
    elif damage == "flip":
        file.write_text(text.replace('"a": ', '"a":  ', 1))
    elif damage == "remove":
        file.unlink()
    else:
        (tmp_path / "etude_tokenizer.json").write_text("{}")
    with pytest.raises(InputError) as caught:
        EtudeTokenizer.load(tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_another_tokenizer_than_the_expected_is_refused(tmp_path: Path) -> None:
    made("gpt2").save(tmp_path)
    assert EtudeTokenizer.load(tmp_path, made("gpt2").hash).hash == made("gpt2").hash
    with pytest.raises(InputError, match="another tokenizer"):
        EtudeTokenizer.load(tmp_path, made("llama3").hash)


def foreign(*, eos: str | None, normal: bool = False) -> Tokenizer:
    vocabulary = {char: n for n, char in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    if normal and eos:
        vocabulary[eos] = len(vocabulary)
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    if eos and not normal:
        backend.add_special_tokens([eos])
    return backend


@pytest.mark.parametrize(
    ("eos", "normal"), [("</s>", False), ("<|end_of_text|>", False), ("</s>", True), (None, False)]
)
def test_an_existing_tokenizer_finds_or_gets_its_end_token(
    tmp_path: Path, eos: str | None, normal: bool
) -> None:
    foreign(eos=eos, normal=normal).save(str(tmp_path / "tokenizer.json"))
    tokenizer = existing_tokenizer(tmp_path / "tokenizer.json")
    assert tokenizer.roles.document == (eos or EOS)
    assert tokenizer.vocab_size == 257
    text = f"any {tokenizer.roles.document} text, 日本語"
    ids = tokenizer.encode(text)
    assert tokenizer.roles.document_id not in ids
    assert tokenizer.decode(ids) == text
    tokenizer.save(tmp_path / "saved")
    assert EtudeTokenizer.load(tmp_path / "saved").encode(text) == ids


def test_the_configured_end_token_comes_first(tmp_path: Path) -> None:
    backend = foreign(eos="</s>")
    backend.add_special_tokens(["<stop>"])
    backend.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": {"content": "<stop>"}}))
    assert existing_tokenizer(tmp_path).roles.document == "<stop>"


@pytest.mark.parametrize("content", [None, "", "{}", "[1, 2]", "not json"])
def test_a_bad_tokenizer_file_gets_one_line(tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "tokenizer.json"
    if content is not None:
        file.write_text(content)
    with pytest.raises(InputError) as caught:
        existing_tokenizer(file)
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unknown_kind_lists_the_known() -> None:
    with pytest.raises(InputError, match="bpe, char"):
        check_kind("bep")


RUNS = [
    "e",
    "7",
    " ",
    "\t",
    "\n",
    "\r\n",
    " \n",
    ".",
    "_",
    "é",
    "語",
    "😀",
    "\u0301",
    "\u00a0",
    "\x1f",
    "!\x1f",
    "abcdefgh",
]


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("pattern", list(PATTERNS))
def test_no_word_that_training_reads_grows_with_a_run(run: str, pattern: str) -> None:
    """Merging takes quadratic time in a word's length, so this bounds the work whatever is repeated."""
    splitter = pre_tokenizers.Split(Regex(PATTERNS[pattern]), "isolated")
    longest = 0
    for text in _without_endless_words([f"Before it.{run * (20_000 // len(run))}and after it."]):
        longest = max(longest, *(len(word) for word, _ in splitter.pre_tokenize_str(text)))
    assert longest <= 2 * LONGEST_WORD + 2


def test_ordinary_text_is_not_parted_for_training() -> None:
    text = TEXT + "    " * 40 + "def indented():\n" + "\n" * 100 + "-" * 150 + "\n"
    assert "".join(_without_endless_words([text])) == text
    assert list(_without_endless_words([text])) == [text]


@pytest.mark.parametrize("run", ["a", " ", "語"])
def test_a_long_run_trains_and_encodes_in_linear_time(run: str) -> None:
    """A million spaces once took twelve minutes."""
    text = f"Once. {run * 300_000} More.\n"
    tokenizer = train_bpe([text], 320, "llama3")
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert "".join(pieces(text, 1000, tokenizer.places)) == text
