"""A saved tokenizer begins texts in other programs as training did, and Etude's own use of it is unchanged."""

from __future__ import annotations

import json
from hashlib import blake2b
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

from etude.data.tokens.published import existing_tokenizer
from etude.data.tokens.tokenizer import EOS, EtudeTokenizer
from etude.data.tokens.vocabulary import train_bpe, train_char
from etude.errors import InputError

TEXT = "A heron waits by the mill, and the miller waits for the heron.\n" * 30
MADE = {"bpe": lambda: train_bpe([TEXT], 290, "llama3"), "char": lambda: train_char([TEXT])}


def saved_before(tokenizer: EtudeTokenizer, folder: Path) -> None:
    """Save a tokenizer as older versions did, for which other programs began no document, with a single hash."""
    folder.mkdir()
    text = tokenizer.to_json()
    (folder / "tokenizer.json").write_text(text)
    named = {"bos_token": EOS, "eos_token": EOS, "add_bos_token": False}
    (folder / "tokenizer_config.json").write_text(json.dumps(named))
    record = {"schema": 1, "kind": tokenizer.kind, "eos": EOS, "hash": tokenizer.hash}
    (folder / "etude_tokenizer.json").write_text(json.dumps(record))


@pytest.mark.parametrize("kind", list(MADE))
def test_other_programs_begin_a_text_and_etude_adds_nothing(kind: str, tmp_path: Path) -> None:
    tokenizer = MADE[kind]()
    tokenizer.save(tmp_path)
    loaded = EtudeTokenizer.load(tmp_path)
    assert not tokenizer.begins_documents
    assert loaded.begins_documents
    theirs = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    for text in ("", "the heron", f"{EOS}", " \n"):
        ids = tokenizer.encode(text)
        assert loaded.encode(text) == ids
        assert loaded.encode_batch([text]) == [ids]
        theirs.encode_special_tokens = True
        assert theirs.encode(text).ids == [0, *ids]
    assert theirs.encode("a", "b").ids == [0, *tokenizer.encode("a"), 0, *tokenizer.encode("b")]
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert (config["add_bos_token"], config["bos_token"]) == (True, EOS)


@pytest.mark.parametrize("kind", list(MADE))
def test_saving_again_changes_nothing(kind: str, tmp_path: Path) -> None:
    first = MADE[kind]()
    first.save(tmp_path / "first")
    EtudeTokenizer.load(tmp_path / "first", first.hash).save(tmp_path / "second")
    existing = existing_tokenizer(tmp_path / "second")
    existing.save(tmp_path / "third")
    assert existing.hash == first.hash
    for name in ("second", "third"):
        text = (tmp_path / name / "tokenizer.json").read_bytes()
        assert text == (tmp_path / "first" / "tokenizer.json").read_bytes()
        record = json.loads((tmp_path / name / "etude_tokenizer.json").read_text())
        assert record["hash"] == blake2b(text, digest_size=16).hexdigest()
        assert record["hash_without_beginning"] == first.hash


@pytest.mark.parametrize("kind", list(MADE))
def test_folders_of_earlier_versions_are_the_same_tokenizer(kind: str, tmp_path: Path) -> None:
    """An older run keeps its hash, so that it can be resumed and forked with a tokenizer rebuilt today."""
    tokenizer = MADE[kind]()
    saved_before(tokenizer, tmp_path / "before")
    loaded = EtudeTokenizer.load(tmp_path / "before", tokenizer.hash)
    assert not loaded.begins_documents
    assert existing_tokenizer(tmp_path / "before").hash == loaded.hash == tokenizer.hash
    loaded.save(tmp_path / "now")
    assert EtudeTokenizer.load(tmp_path / "now", tokenizer.hash).begins_documents


def test_a_changed_file_is_still_noticed(tmp_path: Path) -> None:
    MADE["bpe"]().save(tmp_path)
    file = tmp_path / "tokenizer.json"
    stated = json.loads(file.read_text())
    stated["post_processor"] = None
    file.write_text(json.dumps(stated))
    with pytest.raises(InputError, match="was changed"):
        EtudeTokenizer.load(tmp_path)
    assert existing_tokenizer(tmp_path).hash == MADE["bpe"]().hash  # a file of the user's own


def foreign(post_processor: Any) -> Tokenizer:
    vocabulary = {char: n for n, char in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(["<s>", "</s>"])
    if post_processor is not None:
        backend.post_processor = post_processor
    return backend


@pytest.mark.parametrize(
    "own",
    [
        None,
        processors.ByteLevel(trim_offsets=False),
        processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", 256)]),
        processors.Sequence(
            [
                processors.ByteLevel(trim_offsets=False),
                processors.TemplateProcessing("<s> $A </s>", special_tokens=[("<s>", 256), ("</s>", 257)]),
            ]
        ),
    ],
    ids=["none", "offsets", "another token", "both"],
)
def test_a_given_tokenizer_begins_a_text_as_training_did(own: Any, tmp_path: Path) -> None:
    """Training begins documents with the token that ends them, whatever the given file would begin them with."""
    foreign(own).save(str(tmp_path / "tokenizer.json"))
    tokenizer = existing_tokenizer(tmp_path / "tokenizer.json")
    assert tokenizer.roles.document_id == 257
    tokenizer.save(tmp_path / "saved")
    theirs = Tokenizer.from_file(str(tmp_path / "saved" / "tokenizer.json"))
    assert theirs.encode("a heron").ids == [257, *tokenizer.encode("a heron")]
    stated = json.loads((tmp_path / "saved" / "tokenizer.json").read_text())["post_processor"]
    kept = [step["type"] for step in stated.get("processors", [stated])]
    assert kept == (["ByteLevel"] if own and "ByteLevel" in repr(own) else []) + ["TemplateProcessing"]
