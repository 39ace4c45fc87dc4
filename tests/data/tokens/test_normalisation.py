"""One normalisation for training, prompts and scored text, recorded with the tokenizer."""

from __future__ import annotations

import json
import unicodedata
from functools import lru_cache
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from corpora import line, prepared
from etude.data.corpus.clean import Form, normalise
from etude.data.tokens.normalisation import FORMS, normaliser_of
from etude.data.tokens.published import existing_tokenizer
from etude.data.tokens.tokenizer import EtudeTokenizer
from etude.data.tokens.vocabulary import train_bpe, train_char
from etude.errors import InputError

TEXT = "Zoë and André met in Ångström's café.\nSie aß süße Äpfel, für 3 €.\n" * 40
# Without characters that the two treat differently: C1 control characters, and those that one library does not know.
# Every library knows Unicode 3.2, and a character's normal forms never change once it is assigned.
CHARS = st.characters(codec="utf-8", exclude_categories=["Cn", "Co"]).filter(
    lambda char: (
        unicodedata.ucd_3_2_0.category(char) != "Cn" and (not "\x80" <= char <= "\x9f" or char == "\x85")
    )
)
BITS = [
    "e\u0301",
    "\r\n",
    "\r",
    "\x0c",
    "\ufeff",
    "\0",
    "\x1b",
    "\u0323\u0307",
    "ﬁ",
    "각",
    "\u2028",
    "\x85",
    " ",
    "ab",
]
RAW = st.lists(st.sampled_from(BITS) | CHARS, max_size=40).map("".join)


@lru_cache
def made(kind: str, form: Form | None) -> EtudeTokenizer:
    tokenizer = train_bpe([TEXT], 320, "llama3") if kind == "bpe" else train_char([TEXT])
    tokenizer.normalization = form
    return tokenizer


@pytest.mark.parametrize("form", FORMS)
@given(text=RAW)
def test_other_programs_normalise_as_cleaning_does(form: Form, text: str) -> None:
    assert normaliser_of(form).normalize_str(text) == normalise(text, form)


@pytest.mark.parametrize("kind", ["bpe", "char"])
@pytest.mark.parametrize("form", FORMS)
@given(text=RAW)
def test_any_form_of_a_text_gives_the_tokens_of_the_cleaned_one(kind: str, form: Form, text: str) -> None:
    tokenizer, clean = made(kind, form), normalise(text, form)
    ids = tokenizer.encode(text)
    assert tokenizer.normalise(text) == clean
    assert [ids] == tokenizer.encode_batch([text]) == tokenizer.encode_clean([clean])
    assert tokenizer.decode(ids) == clean


@pytest.mark.parametrize("kind", ["bpe", "char"])
def test_the_record_travels_with_the_tokenizer(kind: str, tmp_path: Path) -> None:
    tokenizer = made(kind, "NFC")
    tokenizer.save(tmp_path)
    loaded = EtudeTokenizer.load(tmp_path, made(kind, None).hash)
    theirs = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert loaded.normalization == "NFC"
    assert loaded.hash == tokenizer.hash == made(kind, None).hash
    assert loaded.backend.normalizer is None  # clean text is not normalised a second time
    for text in ("Zoe\u0308 ate\r\n", unicodedata.normalize("NFD", TEXT), "\ufeffcafe\u0301\x07"):
        ids = made(kind, None).encode(normalise(text, "NFC"))
        assert loaded.encode(text) == tokenizer.encode(text) == ids
        assert theirs.encode(text, add_special_tokens=False).ids == ids
    existing = existing_tokenizer(tmp_path)
    assert (existing.normalization, existing.hash) == ("NFC", tokenizer.hash)
    existing.save(tmp_path / "again")
    assert (tmp_path / "again" / "tokenizer.json").read_text() == (tmp_path / "tokenizer.json").read_text()


def test_transformers_normalises_too(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    made("bpe", "NFC").save(tmp_path)
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    text = unicodedata.normalize("NFD", TEXT).replace("\n", "\r\n")
    assert theirs(text, add_special_tokens=False)["input_ids"] == made("bpe", "NFC").encode(TEXT)


def test_a_tokenizer_without_a_record_does_not_normalise(tmp_path: Path) -> None:
    tokenizer = made("bpe", None)
    tokenizer.save(tmp_path)
    record = json.loads((tmp_path / "etude_tokenizer.json").read_text())
    del record["normalization"]  # as older versions of Etude wrote it
    (tmp_path / "etude_tokenizer.json").write_text(json.dumps(record))
    loaded = EtudeTokenizer.load(tmp_path)
    text = "cafe\u0301\r\n"
    assert loaded.normalization is None
    assert loaded.decode(loaded.encode(text)) == text


def published(normalizer: normalizers.Normalizer | None) -> Tokenizer:
    vocabulary = {char: n for n, char in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    if normalizer is not None:
        backend.normalizer = normalizer
    backend.add_special_tokens(["</s>"])
    return backend


@pytest.mark.parametrize("normalizer", [None, normalizers.NFC(), normalizers.Lowercase()])
def test_a_published_tokenizer_keeps_its_own_ways(
    tmp_path: Path, normalizer: normalizers.Normalizer | None
) -> None:
    backend = published(normalizer)
    backend.save(str(tmp_path / "tokenizer.json"))
    text = "Cafe\u0301\r\nA\x07"
    tokenizer = existing_tokenizer(tmp_path)
    assert tokenizer.encode(text) == backend.encode(text).ids
    assert tokenizer.normalise(text) == text


@pytest.mark.parametrize("normalizer", [None, normalizers.Lowercase()])
def test_a_published_tokenizer_used_in_training_gets_the_record(
    tmp_path: Path, normalizer: normalizers.Normalizer | None
) -> None:
    published(normalizer).save(str(tmp_path / "tokenizer.json"))
    tokenizer = existing_tokenizer(tmp_path)
    tokenizer.normalization = "NFC"
    tokenizer.save(tmp_path / "run")
    loaded = EtudeTokenizer.load(tmp_path / "run")
    assert loaded.encode("Cafe\u0301\r\n") == published(normalizer).encode("Café\n").ids
    stated = json.loads((tmp_path / "run" / "tokenizer.json").read_text())["normalizer"]["type"]
    assert stated == ("Sequence" if normalizer is None else "Lowercase")


@pytest.mark.parametrize("form", FORMS)
def test_what_training_did_is_recorded(tmp_path: Path, form: Form) -> None:
    import random

    text = "".join(line(random.Random(n)) + "cafe\u0301 ﬁ\r\n" for n in range(60))
    (tmp_path / "a.txt").write_text(text, newline="")
    data = prepared(tmp_path / "a.txt", tmp_path / "cache", split="tail", normalization=form)
    assert data.tokenizer.normalization == form
    (document,) = data.documents("train")
    tokens = data.train.window(1, data.train.num_tokens - 1).tolist()
    assert data.tokenizer.encode(document.decode()) == tokens
    assert data.tokenizer.encode(text[: text.index("\r\n", len(text) // 2)])[:100] == tokens[:100]


def test_a_damaged_record_is_refused(tmp_path: Path) -> None:
    made("bpe", "NFC").save(tmp_path)
    record = json.loads((tmp_path / "etude_tokenizer.json").read_text()) | {"normalization": "NFX"}
    (tmp_path / "etude_tokenizer.json").write_text(json.dumps(record))
    with pytest.raises(InputError, match="damaged"):
        EtudeTokenizer.load(tmp_path)
