"""Rebuild the tokenizer files of a model folder from the metadata of a GGUF file.

GGUF has tokens, their types, merges or scores, and names: of the algorithm and of the pre-tokenizer. Only names whose
meaning is proved are accepted, since a tokenizer that is almost right gives a model that is silently wrong.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from etude.data.tokens.tokenizer_json import begins_with, usable_backend
from etude.errors import InputError
from etude.files import write_atomic, write_json
from etude.model.folder import GENERATION
from etude.pretrained.gguf_file import GgufFile
from etude.pretrained.pre_tokenizers import PRE_TOKENIZERS, PreTokenizer
from etude.pretrained.sentencepiece_bpe import (
    BYTE,
    CONTROL,
    DEFAULT_ROLES,
    NORMAL,
    UNKNOWN,
    UNUSED,
    USER_DEFINED,
    merges_of,
    rules_of,
)
from etude.untrusted import shown

BYTE_LEVEL, SENTENCEPIECE = "gpt2", "llama"
"""Names of algorithms in ``tokenizer.ggml.model``."""
_ADDED = (UNKNOWN, CONTROL, USER_DEFINED)
"""Types of the tokens that are found in a text before it is encoded, if at all."""
_ROLE_KEYS = {
    "bos": "bos_token_id",
    "eos": "eos_token_id",
    "eot": "eot_token_id",
    "eom": "eom_token_id",
    "unk": "unknown_token_id",
    "sep": "seperator_token_id",
    "pad": "padding_token_id",
    "mask": "mask_token_id",
}
_STOP_ROLES = ("eos", "eot", "eom")
STOP_TOKENS = (
    *("<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<|end|>", "<|return|>", "<|call|>", "<end_of_turn>"),
    *("<|endoftext|>", "<|end_of_text|>", "<EOT>", "_<EOT>", "<end_of_utterance>"),
    "<\uff5cend\u2581of\u2581sentence\uff5c>",
)
"""Tokens that end a turn or a text wherever a vocabulary has them. llama.cpp stops at them, and never finds them in
text, whatever their type; so GGUF files often name only one of them."""
_TEMPLATE = "tokenizer.chat_template"
_TEMPLATE_NAME = re.compile(r"[A-Za-z0-9_-]{1,60}")


@dataclass(frozen=True)
class GgufTokenizer:
    """A tokenizer as its files describe it.

    Attributes:
        json: the text of tokenizer.json.
        pre: the name of its pre-tokenizer; None where the file holds a whole tokenizer.json, and for SentencePiece.
        roles: ids of special tokens by role: "bos", "eos", "eot", "eom", "unk", "sep", "pad", "mask".
        stops: ids of the tokens that end generation, "eos" first.
        tokens: the text of each of these, by id.
        templates: chat templates by name; "" is the default one.
        num_ids: the highest id of a token plus one.
        adds_bos: whether other programs begin a text with the bos token.
    """

    json: str
    pre: str | None
    roles: dict[str, int]
    stops: list[int]
    tokens: dict[int, str]
    templates: dict[str, str]
    num_ids: int
    adds_bos: bool

    def save(self, folder: Path, max_positions: int) -> None:
        """Write tokenizer.json, tokenizer_config.json, generation_config.json and the chat templates."""
        write_atomic(folder / "tokenizer.json", self.json)
        names = {f"{role}_token": self.tokens[self.roles[role]] for role in _HF_ROLES if role in self.roles}
        config = names | {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "clean_up_tokenization_spaces": False,
            "add_bos_token": self.adds_bos,
            "add_prefix_space": False,
            "model_max_length": max_positions,
        }
        write_json(folder / "tokenizer_config.json", config)
        write_json(folder / "special_tokens_map.json", names)
        ids: dict[str, Any] = {
            f"{role}_token_id": self.roles[role] for role in ("bos", "pad") if role in self.roles
        }
        if self.stops:
            ids["eos_token_id"] = self.stops if len(self.stops) > 1 else self.stops[0]
        write_json(folder / GENERATION, ids)
        for name, template in self.templates.items():
            place = (
                folder / "additional_chat_templates" / f"{name}.jinja"
                if name
                else folder / "chat_template.jinja"
            )
            place.parent.mkdir(exist_ok=True)
            write_atomic(place, template)


_HF_ROLES = ("bos", "eos", "unk", "sep", "pad", "mask")
"""Roles that tokenizer_config.json can name."""


def tokenizer_of(file: GgufFile) -> GgufTokenizer:
    """Return the tokenizer that the metadata describes.

    Raises:
        InputError: an algorithm or a pre-tokenizer that is not supported, or contradictory metadata.
    """
    tokens = _texts(file, "tokenizer.ggml.tokens")
    types = _types(file, len(tokens))
    defaults = DEFAULT_ROLES if _is_sentencepiece(file) else {}
    roles = {
        role: number
        for role, key in _ROLE_KEYS.items()
        if (number := _role(file, key, tokens, defaults.get(role))) is not None
    }
    ids = {token: number for number, token in enumerate(tokens) if token and types[number] != UNUSED}
    if len(ids) != sum(bool(token) and kind != UNUSED for token, kind in zip(tokens, types, strict=True)):
        raise file.damaged("its vocabulary has a token twice")
    roles = {role: number for role, number in roles.items() if ids.get(tokens[number]) == number}
    stops = list(dict.fromkeys(roles[role] for role in _STOP_ROLES if role in roles))
    stops += [ids[token] for token in STOP_TOKENS if token in ids and ids[token] not in stops]
    for number in stops:
        types[number] = CONTROL
    whole, pre = file.get("tokenizer.huggingface.json", str), None
    if whole is None:
        if _is_sentencepiece(file):
            rules, merges = rules_of(file), merges_of(file, ids, types)
        else:
            (pre, rules), merges = _pre_tokenizer(file), _merges(file)
        adds_bos = file.get("tokenizer.ggml.add_bos_token", bool, rules.adds_bos) and "bos" in roles
        begin = roles["bos"] if adds_bos else None
        text = _rebuilt(ids, types, rules, merges, begin)
    else:
        adds_bos, text = file.get("tokenizer.ggml.add_bos_token", bool, False), whole
    _require_usable(file, text, ids)
    named = {number: tokens[number] for number in (*roles.values(), *stops)}
    return GgufTokenizer(text, pre, roles, stops, named, _templates(file), max(ids.values()) + 1, adds_bos)


def _texts(file: GgufFile, key: str) -> list[str]:
    texts: list[str] | None = file.get(key, list)
    if not texts:
        raise file.damaged(f"it has no {key}")
    return texts


def _types(file: GgufFile, count: int) -> list[int]:
    """Return the type of each token; every token is a normal one where the file has no types."""
    stored = file.get("tokenizer.ggml.token_type", np.ndarray)
    if stored is None:
        return [NORMAL] * count
    types: list[int] = stored.tolist()
    known = {NORMAL, UNUSED, *_ADDED} | ({BYTE} if _is_sentencepiece(file) else set())
    if len(types) != count or not set(types) <= known:
        raise file.damaged("tokenizer.ggml.token_type does not fit its tokens")
    return types


def _is_sentencepiece(file: GgufFile) -> bool:
    return bool(file.get("tokenizer.ggml.model", str) == SENTENCEPIECE)


def _role(file: GgufFile, key: str, tokens: list[str], default: int | None) -> int | None:
    """Return the id of a special token; None where the file has none in its vocabulary, as llama.cpp reads it."""
    number: int | None = file.get(f"tokenizer.ggml.{key}", int, default)
    return number if number is not None and 0 <= number < len(tokens) and tokens[number] else None


def _pre_tokenizer(file: GgufFile) -> tuple[str, PreTokenizer]:
    model = file.get("tokenizer.ggml.model", str)
    if model != BYTE_LEVEL:
        raise InputError(
            f"{file.path} has a tokenizer of the kind {shown(repr(model))}: only 'gpt2' (byte-level BPE) and 'llama' "
            "(SentencePiece) can be read; use the original folder of the model"
        )
    pre = file.get("tokenizer.ggml.pre", str)
    if pre not in PRE_TOKENIZERS:
        raise InputError(
            f"{file.path} has the pre-tokenizer {shown(repr(pre))}: only {', '.join(PRE_TOKENIZERS)} can be read; "
            "use the original folder of the model"
        )
    return pre, PRE_TOKENIZERS[pre]


def _merges(file: GgufFile) -> list[tuple[str, str]]:
    """Return the merges that the file lists."""
    merges = []
    for merge in _texts(file, "tokenizer.ggml.merges"):
        split = merge.find(" ", 1)
        if split < 0:
            raise file.damaged(f"{shown(repr(merge))} is not a merge of two tokens")
        merges.append((merge[:split], merge[split + 1 :]))
    return merges


def _rebuilt(
    ids: dict[str, int],
    types: list[int],
    rules: PreTokenizer,
    merges: list[tuple[str, str]],
    begin: int | None,
) -> str:
    """Return the text of a tokenizer.json.

    Args:
        ids: the id of each token in use.
        begin: id of the token that begins a text, or None.
    """
    added = [
        {
            "id": number,
            "content": token,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": types[number] != USER_DEFINED,
        }
        for token, number in ids.items()
        if types[number] in _ADDED
    ]
    outside, token_of = _outside_vocabulary(ids, types), {number: token for token, number in ids.items()}
    content = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": rules.normalizer,
        "pre_tokenizer": rules.splitter,
        "post_processor": None if begin is None else begins_with(token_of[begin], begin),
        "decoder": rules.decoder,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": rules.byte_fallback,
            "ignore_merges": rules.ignore_merges,
            "vocab": {token: number for token, number in ids.items() if number not in outside},
            "merges": merges,
        },
    }
    return json.dumps(content, ensure_ascii=False)


def _outside_vocabulary(ids: dict[str, int], types: list[int]) -> range:
    """Return the ids of added tokens that the vocabulary of the BPE need not hold: those after all others.

    The `tokenizers` library gives a token that is not in the vocabulary the next free id. Where ids are unused, only
    the vocabulary can hold the right ones.
    """
    if len(ids) != max(ids.values()) + 1:
        return range(0)
    begin = len(ids)
    while begin and types[begin - 1] in _ADDED:
        begin -= 1
    return range(begin, len(ids))


def _require_usable(file: GgufFile, text: str, ids: dict[str, int]) -> None:
    """Raise InputError unless the `tokenizers` library reads the tokenizer and gives every token its id."""
    try:
        vocabulary = usable_backend(text).get_vocab(with_added_tokens=True)
    except ValueError as error:
        raise file.damaged(f"its tokenizer is not usable: {error}") from None
    if vocabulary != ids:
        wrong = next(iter(vocabulary.items() ^ ids.items()))[0]
        raise file.damaged(f"its tokenizer does not give the token {shown(repr(wrong))} its id")


def _templates(file: GgufFile) -> dict[str, str]:
    """Return the chat templates by name."""
    templates = {}
    for key, value in file.metadata.items():
        name = key.removeprefix(_TEMPLATE).removeprefix(".")
        if (
            key.startswith(_TEMPLATE)
            and isinstance(value, str)
            and (not name or _TEMPLATE_NAME.fullmatch(name))
        ):
            templates[name] = value
    return templates
