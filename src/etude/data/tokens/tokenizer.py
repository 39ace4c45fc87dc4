"""Text to tokens and back: byte-level BPE, characters, or an existing tokenizer.json.

Whatever the user types is text: ``<|endoftext|>`` inside a document becomes ordinary tokens, never the end of the
document. The tokenizer is a folder that ``transformers.AutoTokenizer`` opens unchanged.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from etude.data.corpus.clean import Form, normalise
from etude.data.corpus.cuts import Places
from etude.data.tokens.cutting import places_of
from etude.data.tokens.growth import MOST_GROWTH, growth_of
from etude.data.tokens.normalisation import FORMS, add_normaliser, remove_normaliser
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
    """A ``tokenizers.Tokenizer`` with a known end-of-document token, which never reads text as special tokens.

    ``normalization`` is the form in which its training text was cleaned; None when unknown, as for a published
    tokenizer, whose text is encoded without normalisation.
    """

    def __init__(
        self,
        backend: Tokenizer,
        *,
        kind: str,
        eos: str = EOS,
        recorded_hash: str | None = None,
        normalization: Form | None = None,
    ) -> None:
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
        self._recorded_hash = recorded_hash
        self.normalization = normalization
        if normalization is not None:
            remove_normaliser(backend, normalization)

    @cached_property
    def vocab_size(self) -> int:
        """Number of rows an embedding needs: the highest id plus one."""
        return max(self.backend.get_vocab(with_added_tokens=True).values()) + 1

    @cached_property
    def hash(self) -> str:
        """BLAKE2b-128 of tokenizer.json before :meth:`save` added a normaliser and the token that begins a document.

        Runs are compared by this hash, including runs of versions that added neither.
        """
        return self._recorded_hash or _hash_text(self.to_json())

    @cached_property
    def begins_documents(self) -> bool:
        """Whether other programs that read this tokenizer.json begin every text with the token that begins a document.

        :meth:`encode` never does.
        """
        return list(self.backend.encode("a", add_special_tokens=True).ids[:1]) == [self.eos_id]

    def normalise(self, text: str) -> str:
        """Clean ``text`` as the training text was, with ``\\n`` line ends; unchanged when the form is unknown."""
        return text if self.normalization is None else normalise(text, self.normalization)

    def encode(self, text: str) -> list[int]:
        """Return the token ids of the normalised ``text``, without special tokens or a leading space."""
        with _failures_in_one_line():
            return list(self.backend.encode(_encodable(self.normalise(text)), add_special_tokens=False).ids)

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Return :meth:`encode` of several texts."""
        return self.encode_clean([self.normalise(text) for text in texts])

    def encode_clean(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the token ids of several texts, or parts of texts, that are already normalised."""
        with _failures_in_one_line():
            encodings = self.backend.encode_batch_fast(
                [_encodable(t) for t in texts], add_special_tokens=False
            )
        return [encoding.ids for encoding in encodings]

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool = False) -> str:
        """Return the text of token ids; bytes that are not UTF-8 become U+FFFD."""
        return str(self.backend.decode(list(ids), skip_special_tokens=skip_special_tokens))

    @cached_property
    def places(self) -> Places:
        """The places where a text can be cut without changing its tokens; none when not proved."""
        return places_of(self.backend)

    def token(self, token_id: int) -> str:
        """Return a token as the vocabulary writes it; empty for an unused id."""
        return str(self.backend.id_to_token(token_id) or "")

    def to_json(self) -> str:
        """Return the backend as the JSON of a tokenizer.json."""
        return str(self.backend.to_str(pretty=True))

    def save(self, folder: Path) -> None:
        """Write tokenizer.json, the two files that ``transformers`` reads beside it, and the hash of the first.

        In other programs, the saved tokenizer normalises a text and begins it with the end-of-document token, as in
        training.
        """
        folder.mkdir(parents=True, exist_ok=True)
        text = _as_saved(self.to_json(), self.eos, self.eos_id, self.normalization)
        write_atomic(folder / "tokenizer.json", text)
        write_json(folder / "tokenizer_config.json", self._config())
        specials = dict.fromkeys(("bos_token", "eos_token", "pad_token"), self.eos)
        write_json(folder / "special_tokens_map.json", specials)
        record = {
            "schema": SCHEMA,
            "kind": self.kind,
            "eos": self.eos,
            "hash": _hash_text(text),
            "hash_without_beginning": self.hash,
            "normalization": self.normalization,
        }
        write_json(folder / _RECORD, record)

    @classmethod
    def load(cls, folder: Path, expected_hash: str | None = None) -> EtudeTokenizer:
        """Load the tokenizer that :meth:`save` wrote.

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
        current_hash = _hash_text(text)
        if current_hash != record["hash"]:
            raise InputError(
                f"{folder / 'tokenizer.json'} is damaged or was changed (its hash is not the recorded one): "
                "restore it or use another checkpoint"
            )
        known_as = _hash_without_beginning(record)
        if expected_hash is not None and known_as != expected_hash:
            raise InputError(
                f"{folder} holds another tokenizer than the one this model was trained with: "
                "use the tokenizer folder of its own run"
            )
        if backend.token_to_id(record["eos"]) is None:
            raise InputError(
                f"{folder / 'tokenizer.json'} has no token {shown(record['eos'])}, which {_RECORD} beside it names: "
                "restore both or use another checkpoint"
            )
        return cls(
            backend,
            kind=record["kind"],
            eos=record["eos"],
            recorded_hash=known_as,
            normalization=_form(record.get("normalization"), folder / _RECORD),
        )

    def _config(self) -> dict[str, Any]:
        return {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": self.eos,
            "eos_token": self.eos,
            "pad_token": self.eos,
            "clean_up_tokenization_spaces": False,
            "add_bos_token": True,
            "add_eos_token": False,
            "add_prefix_space": False,
            "model_max_length": 1_000_000_000,
        }


def existing_tokenizer(path: Path) -> EtudeTokenizer:
    """Open an existing tokenizer.json (or the folder with it) as an :class:`EtudeTokenizer`.

    The end-of-document token is the ``eos_token`` of the tokenizer_config.json beside it, else the first well-known
    one in the vocabulary (``</s>``, ``<|end_of_text|>``, ...), else a new token ``<|endoftext|>``.

    Raises:
        InputError: no such file, or not a tokenizer.
    """
    file = path / "tokenizer.json" if path.is_dir() else path
    text = _read_text(file)
    backend = _parse(text, file)
    eos = _configured_eos(file.parent / "tokenizer_config.json")
    candidates = ([eos] if eos else []) + list(_KNOWN_EOS)
    chosen = next((token for token in candidates if backend.token_to_id(token) is not None), None)
    if chosen is None:
        chosen = EOS
    from tokenizers import AddedToken

    # Even if the vocabulary has the token: only tokens marked as special are never matched in text.
    backend.add_special_tokens([AddedToken(chosen, special=True, normalized=False)])
    record = _record_of(file.parent / _RECORD, text, chosen)
    if record is None:
        return EtudeTokenizer(backend, kind=f"file:{file.name}", eos=chosen)
    return EtudeTokenizer(
        backend,
        kind=f"file:{file.name}",
        eos=chosen,
        recorded_hash=_hash_without_beginning(record),
        normalization=_form(record.get("normalization"), file.parent / _RECORD),
    )


def _record_of(path: Path, text: str, eos: str) -> dict[str, Any] | None:
    """Return what :meth:`EtudeTokenizer.save` recorded for ``text``; None for a tokenizer that it did not save."""
    try:
        record: dict[str, Any] = read_json(path)
        ours = record.get("hash") == _hash_text(text) and record.get("eos") == eos
    except (InputError, AttributeError):
        return None
    return record if ours else None


def _form(value: Any, path: Path) -> Form | None:
    """Return a recorded normalisation; None for a tokenizer of a version of Etude that recorded none."""
    if value is None:
        return None
    for form in FORMS:
        if value == form:
            return form
    raise InputError(f"{path} is damaged (its normalization is none): restore it or use another checkpoint")


def _hash_without_beginning(record: dict[str, Any]) -> str:
    """Return the hash by which a saved tokenizer is compared; older versions recorded only one hash."""
    return str(record.get("hash_without_beginning", record["hash"]))


def _as_saved(text: str, eos: str, eos_id: int, normalization: Form | None) -> str:
    """Return a tokenizer.json that normalises a text and puts ``eos`` before it, and before each text of a pair.

    An existing normaliser stays. Other tokens that the tokenizer put before a text are removed. GPT-2's ``ByteLevel``
    post-processor, which concerns only offsets, stays.
    """
    from tokenizers import Tokenizer

    stated = json.loads(text)
    begin = [{"SpecialToken": {"id": eos, "type_id": number}} for number in range(2)]
    texts = [{"Sequence": {"id": name, "type_id": number}} for number, name in enumerate("AB")]
    template = {
        "type": "TemplateProcessing",
        "single": [begin[0], texts[0]],
        "pair": [begin[0], texts[0], begin[1], texts[1]],
        "special_tokens": {eos: {"id": eos, "ids": [eos_id], "tokens": [eos]}},
    }
    current = stated.get("post_processor") or {}
    offsets = [step for step in current.get("processors", [current]) if step.get("type") == "ByteLevel"]
    stated["post_processor"] = (
        {"type": "Sequence", "processors": [*offsets, template]} if offsets else template
    )
    backend = Tokenizer.from_str(json.dumps(stated))
    if normalization is not None:
        add_normaliser(backend, normalization)
    return str(backend.to_str(pretty=True))


def _configured_eos(config: Path) -> str | None:
    try:
        value = read_json(config).get("eos_token")
    except (InputError, AttributeError):
        return None
    if isinstance(value, dict):
        value = value.get("content")
    return value if _is_name(value) else None


def _is_name(value: Any) -> bool:
    """Return whether the value is text that can be written, which JSON's half surrogate pairs cannot."""
    return isinstance(value, str) and bool(value) and _encodable(value) == value


def _encodable(text: str) -> str:
    """Replace half surrogate pairs, which cannot be written as UTF-8, by U+FFFD."""
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


@contextmanager
def _failures_in_one_line() -> Iterator[None]:
    """Turn a failure of the library, caused by the rules of an untrusted tokenizer, into one clear line.

    Raises:
        InputError: the library failed on this text.
    """
    try:
        yield
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # a BaseException, from a module that cannot be imported
            raise
        raise InputError(
            f"the rules of this tokenizer fail on this text ({shown(str(error))}): use another tokenizer"
        ) from None


def _parse(text: str, path: Path) -> Tokenizer:
    from tokenizers import Tokenizer

    try:
        backend = Tokenizer.from_str(text)
        if not backend.get_vocab_size(with_added_tokens=True):
            raise ValueError("it has no tokens")
        _require_bounded(backend)
        return backend
    except BaseException as error:  # the library raises plain Exception, or a BaseException when it panics
        if isinstance(error, KeyboardInterrupt | SystemExit):
            raise
        reason = shown((str(error).splitlines() or ["not a tokenizer"])[0])
        raise InputError(
            f"{path} is not a usable tokenizer.json ({reason}): restore it or train a new one"
        ) from None


def _require_bounded(backend: Tokenizer) -> None:
    """Raise ValueError for rules that could make a short text too long for any memory."""
    for part in (backend.normalizer, backend.pre_tokenizer, backend.decoder):
        if part is not None and growth_of(json.loads(part.__getstate__())) > MOST_GROWTH:
            raise ValueError("its rules turn one character into more than a thousand")


def _hash_text(text: str) -> str:
    return hashlib.blake2b(text.encode("utf-8"), digest_size=16).hexdigest()
