"""The roles of tokens in published tokenizers, and the files that are carried unchanged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from etude.data.tokens.published import existing_tokenizer, model_tokenizer
from etude.data.tokens.tokenizer import CARRIED, RECORD, EtudeTokenizer
from etude.errors import InputError

CHATML = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
LLAMA3 = "{{ bos_token }}{% for m in messages %}{{ m.content }}<|eot_id|>{% endfor %}"


def backend(special: list[str], begins_with: str | None = None, plain: tuple[str, ...] = ()) -> Tokenizer:
    """Return a byte-level tokenizer with these special tokens, which begins texts with one of them or none."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(special_tokens=special, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(["some text"], trainer)
    tokenizer.add_tokens([AddedToken(token, special=False) for token in plain])
    if begins_with is not None:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{begins_with} $A", special_tokens=[(begins_with, tokenizer.token_to_id(begins_with))]
        )
    return tokenizer


def save(
    folder: Path,
    tokenizer: Tokenizer,
    config: dict[str, Any],
    template: str | None = None,
    generation: dict[str, Any] | None = None,
) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    if template is not None:
        (folder / "chat_template.jinja").write_text(template)
    if generation is not None:
        (folder / "generation_config.json").write_text(json.dumps(generation))
    return folder


def tokens_of(tokenizer: EtudeTokenizer) -> tuple[str, str | None, set[str]]:
    roles = tokenizer.roles
    return roles.document, roles.end_of_turn, {tokenizer.token(token_id) for token_id in roles.stop_ids}


CHAT = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
LLAMA = ["<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"]
GEMMA = ["<pad>", "<eos>", "<bos>", "<end_of_turn>"]
PUBLISHED: dict[str, tuple[Any, ...]] = {
    "GPT-2": (["<|endoftext|>"], None, "<|endoftext|>", None, None, "<|endoftext|>", None, set()),
    "a base of Qwen2": (CHAT, None, "<|endoftext|>", None, None, "<|endoftext|>", None, set()),
    "SmolLM2-Instruct": (CHAT, None, "<|im_end|>", CHATML, 2, "<|endoftext|>", "<|im_end|>", {"<|im_end|>"}),
    "Llama 3": (LLAMA, LLAMA[0], "<|end_of_text|>", None, 1, LLAMA[0], None, {"<|end_of_text|>"}),
    "Llama 3 Instruct": (
        LLAMA,
        LLAMA[0],
        "<|eot_id|>",
        LLAMA3,
        [1, 2],
        LLAMA[0],
        "<|eot_id|>",
        set(LLAMA[1:]),
    ),
    "Gemma 3 it": (
        *(GEMMA, "<bos>", "<eos>", "{{ bos_token }}<end_of_turn>", [1, 3]),
        *("<bos>", "<end_of_turn>", {"<eos>", "<end_of_turn>"}),
    ),
}  # special tokens, before a text, eos_token, template, eos_token_id; document, end of turn, stops besides


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_tokenizer_has_three_roles(name: str, tmp_path: Path) -> None:
    special, begins_with, eos, template, stops, document, turn, besides = PUBLISHED[name]
    generation = None if stops is None else {"eos_token_id": stops}
    folder = save(tmp_path, backend(special, begins_with), {"eos_token": eos}, template, generation)
    assert tokens_of(model_tokenizer(folder)) == (document, turn, {document, *besides})


def test_a_template_in_the_configuration_counts_as_well(tmp_path: Path) -> None:
    config = {"eos_token": {"content": "<|im_end|>"}, "chat_template": CHATML}
    assert model_tokenizer(save(tmp_path / "one", backend(CHAT), config)).roles.end_of_turn == "<|im_end|>"
    config["chat_template"] = [{"name": "default", "template": CHATML}, {"name": "tool_use", "template": "x"}]
    assert model_tokenizer(save(tmp_path / "list", backend(CHAT), config)).roles.end_of_turn == "<|im_end|>"


@pytest.mark.parametrize("stops", [[2, 99999], "2", [True, -1, 2**40], [None], {"a": 1}])
def test_stop_tokens_outside_the_vocabulary_are_no_stop_tokens(stops: Any, tmp_path: Path) -> None:
    folder = save(tmp_path, backend(CHAT), {"eos_token": "<|endoftext|>"}, None, {"eos_token_id": stops})
    assert model_tokenizer(folder).roles.stop_ids <= {0, 2}


def test_a_tokenizer_without_such_a_token_is_refused_with_the_remedy(tmp_path: Path) -> None:
    folder = save(tmp_path, backend(["<odd>"]), {})
    with pytest.raises(InputError, match="eos_token"):
        model_tokenizer(folder)
    assert existing_tokenizer(folder).roles.document == "<|endoftext|>"  # a new network gets a new token


def test_text_never_becomes_a_token_with_a_role(tmp_path: Path) -> None:
    """Even where the published file does not mark the token as special."""
    folder = save(
        tmp_path, backend(["<|endoftext|>"], plain=("<|im_end|>",)), {"eos_token": "<|im_end|>"}, CHATML
    )
    tokenizer = model_tokenizer(folder)
    text = "a<|im_end|>b<|endoftext|>c"
    ids = tokenizer.encode(text)
    assert not tokenizer.roles.stop_ids & set(ids)
    assert tokenizer.decode(ids) == text


def test_the_files_of_a_published_tokenizer_are_carried_unchanged(tmp_path: Path) -> None:
    generation = {"eos_token_id": [2, 0], "temperature": 0.2, "top_p": 0.9}
    config = {"eos_token": "<|im_end|>", "model_max_length": 8192, "extra": [1, 2]}
    folder = save(tmp_path / "theirs", backend(CHAT), config, CHATML, generation)
    (folder / "unrelated.bin").write_bytes(b"x")
    first = model_tokenizer(folder)
    first.normalization = "NFC"  # as text is cleaned for training
    first.save(tmp_path / "once")
    again = EtudeTokenizer.load(tmp_path / "once", first.hash)
    again.save(tmp_path / "twice")
    written = {file.name for file in (tmp_path / "twice").iterdir()}
    assert written == {RECORD, *(name for name in CARRIED if (folder / name).is_file())}
    for name in written - {RECORD}:
        assert (tmp_path / "twice" / name).read_bytes() == (folder / name).read_bytes()
    assert again.roles == first.roles
    assert again.hash == first.hash
    assert model_tokenizer(tmp_path / "twice").roles == first.roles


@pytest.mark.parametrize(
    "change",
    [
        {"stop_ids": [99999]},
        {"stop_ids": ["x"]},
        {"end_of_turn": "no such token"},
        {"end_of_turn": 5},
        {"carried": ["../tokenizer.json"]},
        {"carried": ["gone.json"]},
        {"carried": ["tokenizer.json", "train_state.json"]},
        {"carried": "all"},
        {"eos": "no such token"},
    ],
    ids=str,
)
def test_a_damaged_record_is_refused(change: dict[str, Any], tmp_path: Path) -> None:
    model_tokenizer(save(tmp_path / "theirs", backend(CHAT), {"eos_token": "<|im_end|>"}, CHATML)).save(
        tmp_path / "saved"
    )
    record = json.loads((tmp_path / "saved" / RECORD).read_text())
    (tmp_path / "saved" / RECORD).write_text(json.dumps(record | change))
    with pytest.raises(InputError, match="restore"):
        EtudeTokenizer.load(tmp_path / "saved")
