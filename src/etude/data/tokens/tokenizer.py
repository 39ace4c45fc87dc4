"""Text to tokens and back: byte-level BPE, characters, or somebody's tokenizer.json.

Whatever a person types is text: ``<|endoftext|>`` written inside a document becomes ordinary tokens, never the end of
a document. The tokenizer is a folder that ``transformers.AutoTokenizer`` opens as it is.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from etude.errors import InputError
from etude.files import read_json, write_atomic, write_json
from etude.untrusted import MAX_JSON_BYTES, read_plain, shown

if TYPE_CHECKING:
    from tokenizers import Tokenizer

EOS = "<|endoftext|>"
"""Begins every document; the only special token of the tokenizers trained here."""
_KNOWN_EOS = (EOS, "</s>", "<|end_of_text|>", "<|im_end|>", "<eos>", "[EOS]", "<|eot_id|>", "[SEP]")
_RECORD = "etude_tokenizer.json"
SCHEMA = 1


class EtudeTokenizer:
    """A ``tokenizers.Tokenizer`` that knows its end-of-document token and never reads text as special tokens."""

    def __init__(self, backend: Tokenizer, *, kind: str, eos: str = EOS) -> None:
        eos_id = backend.token_to_id(eos)
        if eos_id is None:
            raise ValueError(f"the tokenizer has no token {eos!r}")
        backend.no_truncation()
        backend.no_padding()
        backend.encode_special_tokens = True  # not part of tokenizer.json, so it is set at every load
        self.backend = backend
        self.kind = kind
        self.eos = eos
        self.eos_id = int(eos_id)

    @cached_property
    def vocab_size(self) -> int:
        """Number of rows an embedding needs: the highest id plus one."""
        return max(self.backend.get_vocab(with_added_tokens=True).values()) + 1

    @cached_property
    def hash(self) -> str:
        """BLAKE2b-128 of tokenizer.json, in hexadecimal."""
        return _hash_text(self.to_json())

    def encode(self, text: str) -> list[int]:
        """Token ids of ``text``; no special token comes of it and no space is put before it."""
        return list(self.backend.encode(_encodable(text), add_special_tokens=False).ids)

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """:meth:`encode` of several texts."""
        encodings = self.backend.encode_batch_fast([_encodable(t) for t in texts], add_special_tokens=False)
        return [encoding.ids for encoding in encodings]

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool = False) -> str:
        """The text of token ids; bytes that are not UTF-8 become U+FFFD."""
        return str(self.backend.decode(list(ids), skip_special_tokens=skip_special_tokens))

    @property
    def may_be_cut(self) -> bool:
        """Whether text cut at safe places (:mod:`etude.data.corpus.cuts`) gives the tokens of the whole.

        So it is for the tokenizers trained here; of others, if they neither rewrite text nor put a space before it.
        """
        if not self.kind.startswith("file:"):
            return True
        stated = json.loads(self.to_json())
        splitter = json.dumps(stated.get("pre_tokenizer"))
        byte_level = '"ByteLevel"' in splitter and '"add_prefix_space": true' not in splitter
        return stated.get("normalizer") is None and byte_level

    def token(self, token_id: int) -> str:
        """The vocabulary's own writing of a token; empty for an id that it does not use."""
        return str(self.backend.id_to_token(token_id) or "")

    def to_json(self) -> str:
        """tokenizer.json."""
        return str(self.backend.to_str(pretty=True))

    def save(self, folder: Path) -> None:
        """Write tokenizer.json, the two files that ``transformers`` reads beside it, and the hash of the first."""
        folder.mkdir(parents=True, exist_ok=True)
        write_atomic(folder / "tokenizer.json", self.to_json())
        write_json(folder / "tokenizer_config.json", self._config())
        specials = dict.fromkeys(("bos_token", "eos_token", "pad_token"), self.eos)
        write_json(folder / "special_tokens_map.json", specials)
        record = {"schema": SCHEMA, "kind": self.kind, "eos": self.eos, "hash": self.hash}
        write_json(folder / _RECORD, record)

    @classmethod
    def load(cls, folder: Path, expected_hash: str | None = None) -> EtudeTokenizer:
        """The tokenizer that :meth:`save` wrote.

        Raises:
            InputError: missing or damaged files, or not the tokenizer with ``expected_hash``.
        """
        record = read_json(folder / _RECORD)
        if not isinstance(record, dict) or not all(
            _is_name(record.get(key)) for key in ("kind", "eos", "hash")
        ):
            raise InputError(f"{folder / _RECORD} is damaged: restore it or use another checkpoint")
        text = _read_text(folder / "tokenizer.json")
        backend = _parse(text, folder / "tokenizer.json")
        found = _hash_text(text)
        if found != record["hash"]:
            raise InputError(
                f"{folder / 'tokenizer.json'} is damaged or was changed (its hash is not the recorded one): "
                "restore it or use another checkpoint"
            )
        if expected_hash is not None and found != expected_hash:
            raise InputError(
                f"{folder} holds another tokenizer than the one this model was trained with: "
                "use the tokenizer folder of its own run"
            )
        if backend.token_to_id(record["eos"]) is None:
            raise InputError(
                f"{folder / 'tokenizer.json'} has no token {shown(record['eos'])}, which {_RECORD} beside it names: "
                "restore both or use another checkpoint"
            )
        return cls(backend, kind=record["kind"], eos=record["eos"])

    def _config(self) -> dict[str, Any]:
        return {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": self.eos,
            "eos_token": self.eos,
            "pad_token": self.eos,
            "clean_up_tokenization_spaces": False,
            "add_bos_token": False,
            "add_prefix_space": False,
            "model_max_length": 1_000_000_000,
        }


def existing_tokenizer(path: Path) -> EtudeTokenizer:
    """Somebody's tokenizer.json (or the folder with it) as an :class:`EtudeTokenizer`.

    The end of a document is the ``eos_token`` of the tokenizer_config.json beside it, else the first well-known one
    that the vocabulary has (``</s>``, ``<|end_of_text|>``, ...), else a new token ``<|endoftext|>``.

    Raises:
        InputError: no such file, or not a tokenizer.
    """
    file = path / "tokenizer.json" if path.is_dir() else path
    backend = _parse(_read_text(file), file)
    eos = _configured_eos(file.parent / "tokenizer_config.json")
    candidates = ([eos] if eos else []) + list(_KNOWN_EOS)
    chosen = next((token for token in candidates if backend.token_to_id(token) is not None), None)
    if chosen is None:
        chosen = EOS
    from tokenizers import AddedToken

    # Also when the vocabulary has it: only a token marked as special is left alone by text that spells it.
    backend.add_special_tokens([AddedToken(chosen, special=True, normalized=False)])
    return EtudeTokenizer(backend, kind=f"file:{file.name}", eos=chosen)


def _configured_eos(config: Path) -> str | None:
    try:
        value = read_json(config).get("eos_token")
    except (InputError, AttributeError):
        return None
    if isinstance(value, dict):
        value = value.get("content")
    return value if _is_name(value) else None


def _is_name(value: Any) -> bool:
    """Whether the value is text that can be written, as JSON's half surrogate pairs cannot."""
    return isinstance(value, str) and bool(value) and _encodable(value) == value


def _encodable(text: str) -> str:
    """Half a surrogate pair cannot be written as UTF-8: it becomes U+FFFD."""
    if text.isascii():
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _read_text(path: Path) -> str:
    try:
        return read_plain(path, MAX_JSON_BYTES).decode("utf-8")
    except FileNotFoundError:
        raise InputError(
            f"{path} is missing: put the tokenizer.json that belongs there back, or name another"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read as a tokenizer: {error}") from None


def _parse(text: str, path: Path) -> Tokenizer:
    from tokenizers import Tokenizer

    try:
        backend = Tokenizer.from_str(text)
        if not backend.get_vocab_size(with_added_tokens=True):
            raise ValueError("it has no tokens")
        return backend
    except BaseException as error:  # the library raises plain Exception, and a BaseException where it panics
        if isinstance(error, KeyboardInterrupt | SystemExit):
            raise
        reason = shown((str(error).splitlines() or ["not a tokenizer"])[0])
        raise InputError(
            f"{path} is not a usable tokenizer.json ({reason}): restore it or train a new one"
        ) from None


def _hash_text(text: str) -> str:
    return hashlib.blake2b(text.encode("utf-8"), digest_size=16).hexdigest()
