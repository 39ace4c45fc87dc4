"""Tokenizers from GGUF metadata: the ids of the tokenizer.json that the file was made from, and of llama.cpp."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from gguf import GGUFWriter
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from etude.data.tokens.published import existing_tokenizer
from etude.errors import InputError
from etude.pretrained.gguf_model import folder_from_gguf
from etude.pretrained.pre_tokenizers import PRE_TOKENIZERS
from gguf_files import PUBLISHED, network_tensors, published_tokenizer, write_gguf
from hard_texts import hard_texts
from llama_cpp import LlamaCpp
from networks import make_config, make_network

VOCAB = 700
TEXTS = hard_texts(1000)
CASES = [(pre, after) for pre in PUBLISHED for after in (False, True)]
ALIKE = {"llama3": "llama-bpe", "llama-v3": "llama-bpe", "starcoder": "smollm", "refact": "smollm"}
"""Other names for the same rules."""


def write(
    path: Path,
    pre: str,
    stated: dict[str, Any] | None = None,
    extra: Callable[[GGUFWriter], None] = lambda writer: None,
    rows: int = VOCAB,
    config_name: str = "llama-plain",
) -> None:
    config = make_config(config_name, vocab_size=rows)
    tensors = network_tensors(make_network(config), config)
    write_gguf(path, config, tensors, pre=pre, stated=stated or published_tokenizer(pre, VOCAB), extra=extra)


def import_tokenizer(tmp_path: Path, pre: str, **options: Any) -> Path:
    write(tmp_path / "a.gguf", pre, **options)
    folder_from_gguf(tmp_path / "a.gguf", tmp_path / "a")
    return tmp_path / "a"


def read(folder: Path) -> Tokenizer:
    return Tokenizer.from_file(str(folder / "tokenizer.json"))


@pytest.mark.parametrize(("pre", "after"), CASES)
def test_ids_are_those_of_the_original_tokenizer(pre: str, after: bool, tmp_path: Path) -> None:
    stated = published_tokenizer(pre, VOCAB, after)
    folder = import_tokenizer(tmp_path, pre, stated=stated)
    original, rebuilt = Tokenizer.from_str(json.dumps(stated)), read(folder)
    for tokenizer in (original, rebuilt):
        assert tokenizer.get_vocab_size() == VOCAB
    for specials_are_text in (False, True):
        original.encode_special_tokens = rebuilt.encode_special_tokens = specials_are_text
        for text in TEXTS:
            expected = original.encode(text, add_special_tokens=False)
            found = rebuilt.encode(text, add_special_tokens=False)
            assert found.ids == expected.ids, repr(text)
            assert rebuilt.decode(found.ids, skip_special_tokens=False) == original.decode(
                expected.ids, skip_special_tokens=False
            )
    assert existing_tokenizer(folder).encode("<|im_end|>") == original.encode("<|im_end|>").ids


@pytest.mark.parametrize("pre", PUBLISHED)
def test_ids_of_any_text(pre: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    stated = published_tokenizer(pre, VOCAB)
    original = Tokenizer.from_str(json.dumps(stated))
    rebuilt = read(import_tokenizer(tmp_path_factory.mktemp("a"), pre, stated=stated))

    @settings(max_examples=300, deadline=None)
    @given(st.text(max_size=40))
    def compare(text: str) -> None:
        found = rebuilt.encode(text, add_special_tokens=False).ids
        assert found == original.encode(text, add_special_tokens=False).ids

    compare()


@pytest.mark.parametrize(("pre", "after"), CASES)
def test_ids_are_those_of_llama_cpp(pre: str, after: bool, tmp_path: Path) -> None:
    """Except for what llama.cpp does not do: Qwen2's NFC, and U+017F as an "s" after an apostrophe."""
    stated = published_tokenizer(pre, VOCAB, after)
    folder = import_tokenizer(tmp_path, pre, stated=stated)
    reference, tokenizer = LlamaCpp(tmp_path / "a.gguf"), read(folder)
    texts = (
        [unicodedata.normalize("NFC", text) for text in TEXTS if "ſ" not in text] if pre == "qwen2" else TEXTS
    )
    for specials in (True, False):
        tokenizer.encode_special_tokens = not specials
        found = [tokenizer.encode(text, add_special_tokens=False).ids for text in texts]
        expected = reference.token_ids(texts, specials=specials)
        wrong = [text for text, ours, theirs in zip(texts, found, expected, strict=True) if ours != theirs]
        assert wrong == []


@pytest.mark.parametrize("name", ALIKE)
def test_names_of_the_same_rules(name: str) -> None:
    assert PRE_TOKENIZERS[name] == PRE_TOKENIZERS[ALIKE[name]]


def test_every_pre_tokenizer_is_compared() -> None:
    assert set(PRE_TOKENIZERS) == set(PUBLISHED) | set(ALIKE)


def test_transformers_reads_the_files_and_takes_the_roles(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    template = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    folder = import_tokenizer(tmp_path, "smollm", extra=lambda writer: writer.add_chat_template(template))
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    ours = read(folder)
    assert (theirs.bos_token_id, theirs.eos_token_id, theirs.pad_token_id) == (1, 2, 0)
    for text in TEXTS[:300]:
        assert theirs(text).input_ids == ours.encode(text).ids
    rendered = theirs.apply_chat_template([{"role": "user", "content": "Hi"}], tokenize=False)
    assert rendered == "<|im_start|>user\nHi<|im_end|>\n"
    assert json.loads((folder / "generation_config.json").read_text()) == {
        "bos_token_id": 1,
        "pad_token_id": 0,
        "eos_token_id": [2, 0],
    }


@pytest.mark.parametrize(("stated_bos", "begins"), [(None, True), (True, True), (False, False)])
def test_the_token_that_begins_a_text(stated_bos: bool | None, begins: bool, tmp_path: Path) -> None:
    """Where the file does not specify it, Llama 3's tokenizer begins a text with bos, as in llama.cpp."""

    def extra(writer: GGUFWriter) -> None:
        if stated_bos is not None:
            writer.add_add_bos_token(stated_bos)

    tokenizer = read(import_tokenizer(tmp_path, "llama-bpe", extra=extra))
    assert (tokenizer.encode("Hello").ids[0] == 1) is begins
    assert tokenizer.encode("Hello", add_special_tokens=False).ids[0] != 1


def test_placeholders_of_unused_ids_are_no_tokens(tmp_path: Path) -> None:
    """Converters fill the rows of the embedding that no token has with [PAD700], [PAD701], ..."""
    stated = published_tokenizer("qwen2", VOCAB)
    config = make_config("llama-plain", vocab_size=VOCAB + 8)
    tensors = network_tensors(make_network(config), config)
    write_gguf(tmp_path / "a.gguf", config, tensors, pre="qwen2", stated=stated, unused=8)
    folder_from_gguf(tmp_path / "a.gguf", tmp_path / "a")
    assert read(tmp_path / "a").get_vocab_size() == VOCAB
    assert json.loads((tmp_path / "a" / "config.json").read_text())["vocab_size"] == VOCAB + 8
    assert (
        read(tmp_path / "a").encode("[PAD701]").ids
        == Tokenizer.from_str(json.dumps(stated)).encode("[PAD701]").ids
    )


def test_a_whole_tokenizer_in_the_file_is_taken_as_it_is(tmp_path: Path) -> None:
    stated = published_tokenizer("gpt-2", VOCAB)
    stated["normalizer"] = {"type": "Lowercase"}
    text = json.dumps(stated)
    key = "tokenizer.huggingface.json"
    folder = import_tokenizer(tmp_path, "gpt-2", extra=lambda writer: writer.add_string(key, text))
    assert (folder / "tokenizer.json").read_text() == text
    for other in (
        "{}",
        text.replace('"!":', '"xyz":'),
        json.dumps(published_tokenizer("gpt-2", VOCAB - 1)),
        "[",
    ):
        write(tmp_path / "b.gguf", "gpt-2", extra=lambda writer, other=other: writer.add_string(key, other))
        with pytest.raises(InputError, match=r"b\.gguf is damaged \(its tokenizer"):
            folder_from_gguf(tmp_path / "b.gguf", tmp_path / "b")


def test_what_is_not_proved_is_refused_by_name(tmp_path: Path) -> None:
    stated = published_tokenizer("qwen2", VOCAB)
    config = make_config("llama-plain", vocab_size=VOCAB)
    tensors = network_tensors(make_network(config), config)
    write_gguf(tmp_path / "a.gguf", config, tensors, pre="qwen35", stated=stated)
    with pytest.raises(
        InputError, match=r"has the pre-tokenizer 'qwen35': only gpt-2, llama-bpe, .* can be read"
    ):
        folder_from_gguf(tmp_path / "a.gguf", tmp_path / "a")
    content = (tmp_path / "a.gguf").read_bytes()
    key = b"tokenizer.ggml.model" + (8).to_bytes(4, "little") + (4).to_bytes(8, "little")
    assert key + b"gpt2" in content
    (tmp_path / "a.gguf").write_bytes(content.replace(key + b"gpt2", key + b"bert"))
    with pytest.raises(InputError, match=r"has a tokenizer of the kind 'bert': only 'gpt2'"):
        folder_from_gguf(tmp_path / "a.gguf", tmp_path / "a")
    assert not (tmp_path / "a").exists()
