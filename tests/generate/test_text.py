"""Streamed text equals the text decoded at once, and never has half a character."""

from __future__ import annotations

import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from etude.generate.text import TokenStreamDecoder

CORPUS = ["the cat sat on the mat", "naïve café, déjà vu", "日本語のテキスト", "👩‍👩‍👧 🎉 zwölf"] * 4
EOS = "<|endoftext|>"


def byte_level() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=330,
        special_tokens=[EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.add_tokens([AddedToken("añb", special=False), AddedToken("語x", special=False)])
    return tokenizer


def characters() -> Tokenizer:
    letters = sorted(set("".join(CORPUS[:2])))
    tokens = [EOS, *(f"<0x{byte:02X}>" for byte in range(256)), *letters]
    vocab = {token: number for number, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[], byte_fallback=True))
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.add_special_tokens([AddedToken(EOS, special=True, normalized=False)])
    return tokenizer


def pieces_of_sentences() -> Tokenizer:
    """A vocabulary like SentencePiece's, whose decoder works across tokens."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<unk>", *(f"<0x{byte:02X}>" for byte in range(256))],
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS[:2], trainer)
    stated = json.loads(tokenizer.to_str())
    stated["added_tokens"] = stated["added_tokens"][:1]  # the bytes are no special tokens, <unk> is
    tokenizer = Tokenizer.from_str(json.dumps(stated))
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    return tokenizer


def words() -> Tokenizer:
    tokenizer = Tokenizer(models.WordLevel(unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"\w+|\W+"), behavior="isolated")
    tokenizer.train_from_iterator(
        CORPUS, trainers.WordLevelTrainer(special_tokens=["?"], show_progress=False)
    )
    return tokenizer


TOKENIZERS = {
    "byte level": byte_level(),
    "characters": characters(),
    "sentence pieces": pieces_of_sentences(),
    "words": words(),
}


@pytest.mark.parametrize("name", ["byte level", "characters", "sentence pieces"])
@settings(max_examples=150)
@given(
    text=st.text(
        st.sampled_from("abc tnéñ日語👩‍🎉\n.") | st.characters(exclude_categories=["Cs"]), max_size=25
    )
)
def test_any_text_survives_a_round_trip(name: str, text: str) -> None:
    tokenizer = TOKENIZERS[name]
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    pieces = list(TokenStreamDecoder(tokenizer).decode(ids))
    whole = tokenizer.decode(ids)
    assert "".join(pieces) == whole
    assert sum(piece.count("\ufffd") for piece in pieces) == whole.count("\ufffd")


@pytest.mark.parametrize("seed", range(40))
def test_any_ids_decode_as_at_once(seed: int) -> None:
    """Tokens of a fresh model: mostly invalid bytes, with special and added tokens between them."""
    tokenizer = TOKENIZERS["byte level"]
    ids = random.Random(seed).choices(range(tokenizer.get_vocab_size()), k=60)
    for skip in (True, False):
        decoder = TokenStreamDecoder(tokenizer, skip_special_tokens=skip)
        pieces = [decoder.feed(token) for token in ids]
        assert "".join(pieces) + decoder.finish() == tokenizer.decode(ids, skip_special_tokens=skip)


def test_words_without_a_decoder_are_joined_as_the_tokenizer_does() -> None:
    tokenizer = TOKENIZERS["words"]
    ids = tokenizer.encode("the cat sat, déjà vu").ids
    assert "".join(TokenStreamDecoder(tokenizer).decode(ids)) == tokenizer.decode(ids)


@pytest.mark.parametrize("name", ["byte level", "characters", "sentence pieces"])
def test_text_is_held_no_longer_than_a_character(name: str) -> None:
    tokenizer = TOKENIZERS[name]
    text = "a 語é👧 b" * 3
    decoder = TokenStreamDecoder(tokenizer)
    shown = ""
    for index, token in enumerate(ids := tokenizer.encode(text).ids):
        shown += decoder.feed(token)
        sound = tokenizer.decode(ids[: index + 1]).rstrip("\ufffd")
        assert "\ufffd" not in shown
        assert len(sound) - len(shown) <= 1 or shown.startswith(sound)
    assert shown + decoder.finish() == tokenizer.decode(ids)


@pytest.mark.parametrize("name", ["byte level", "characters", "sentence pieces"])
def test_invalid_bytes_are_emitted_and_not_held_forever(name: str) -> None:
    tokenizer = TOKENIZERS[name]
    broken = tokenizer.token_to_id("<0xFF>") or tokenizer.token_to_id("ÿ")
    assert broken is not None
    decoder = TokenStreamDecoder(tokenizer)
    shown = "".join(decoder.feed(broken) for _ in range(50))
    assert shown.count("\ufffd") >= 46
    assert "".join([shown, decoder.finish()]).count("\ufffd") == 50


def test_valid_characters_in_an_invalid_run_of_bytes_stay() -> None:
    tokenizer = TOKENIZERS["characters"]
    ids = [tokenizer.token_to_id(f"<0x{byte:02X}>") for byte in "語".encode() + b"\xff"]
    assert "".join(TokenStreamDecoder(tokenizer).decode(ids)) == "語\ufffd"
