"""Text to tokens and back: byte-level BPE, characters, or an existing tokenizer.json.

Whatever the user types is text: ``<|endoftext|>`` inside a document becomes ordinary tokens, never the end of the
document. The tokenizer is a folder that ``transformers.AutoTokenizer`` opens unchanged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from etude.data.corpus.clean import Form, normalise
from etude.data.corpus.cuts import Places
from etude.data.tokens.cutting import places_of
from etude.data.tokens.normalisation import FORMS, remove_normaliser
from etude.data.tokens.roles import Roles, token_of
from etude.data.tokens.tokenizer_json import (
    FILE,
    as_saved,
    encodable,
    failures_in_one_line,
    hash_text,
    parse_backend,
    read_backend,
)
from etude.errors import InputError
from etude.files import read_json, write_atomic, write_json
from etude.untrusted import MAX_JSON_BYTES, read_plain, shown

if TYPE_CHECKING:
    from tokenizers import Tokenizer

EOS = "<|endoftext|>"
"""Begins every document; the only special token of the tokenizers trained here."""
RECORD = "etude_tokenizer.json"
SCHEMA = 1
CARRIED = (
    FILE,
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "chat_template.jinja",
    "chat_template.json",
    "generation_config.json",
)
"""Files of a model folder that describe its tokens, their roles and its conversations."""


class EtudeTokenizer:
    """A ``tokenizers.Tokenizer`` whose tokens have known roles, and which never reads text as special tokens.

    ``normalization`` is the form in which its training text was cleaned; None when unknown, as for a published
    tokenizer, whose text is encoded without normalisation. ``carried`` holds the files of a published model's
    tokenizer by name; :meth:`save` writes them unchanged.
    """

    def __init__(
        self,
        backend: Tokenizer,
        *,
        kind: str,
        roles: Roles | None = None,
        recorded_hash: str | None = None,
        normalization: Form | None = None,
        carried: Mapping[str, bytes] | None = None,
    ) -> None:
        backend.no_truncation()
        backend.no_padding()
        backend.encode_special_tokens = True  # not part of tokenizer.json, so it is set at every load
        self.backend = backend
        self.kind = kind
        self.roles = roles or Roles.of(backend, EOS)
        self._recorded_hash = recorded_hash
        self.normalization = normalization
        self.carried = carried
        if carried is not None:
            _mark_special(backend, self.roles)
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
        return self._recorded_hash or hash_text(self.to_json())

    @cached_property
    def begins_documents(self) -> bool:
        """Whether other programs that read this tokenizer.json begin every text with the token that begins a document.

        :meth:`encode` never does.
        """
        return list(self.backend.encode("a", add_special_tokens=True).ids[:1]) == [self.roles.document_id]

    def normalise(self, text: str) -> str:
        """Clean ``text`` as the training text was, with ``\\n`` line ends; unchanged when the form is unknown."""
        return text if self.normalization is None else normalise(text, self.normalization)

    def encode(self, text: str) -> list[int]:
        """Return the token ids of the normalised ``text``, without special tokens or a leading space."""
        with failures_in_one_line():
            return list(self.backend.encode(encodable(self.normalise(text)), add_special_tokens=False).ids)

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Return :meth:`encode` of several texts."""
        return self.encode_clean([self.normalise(text) for text in texts])

    def encode_clean(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the token ids of several texts, or parts of texts, that are already normalised."""
        with failures_in_one_line():
            encodings = self.backend.encode_batch_fast(
                [encodable(t) for t in texts], add_special_tokens=False
            )
        return [encoding.ids for encoding in encodings]

    def offsets(self, text: str) -> list[tuple[int, int]]:
        """Return where each token of :meth:`encode_clean` begins and ends, in characters of the normalised ``text``.

        Tokens that are parts of one character have the same place.
        """
        with failures_in_one_line():
            return list(self.backend.encode(encodable(text), add_special_tokens=False).offsets)

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
        """Write the tokenizer into ``folder``: the files of ``carried``, or those that ``transformers`` needs.

        In other programs, a tokenizer that is not carried normalises a text and begins it with the token that begins a
        document, as in training.
        """
        folder.mkdir(parents=True, exist_ok=True)
        if self.carried is None:
            text = as_saved(self.to_json(), self.roles.document, self.roles.document_id, self.normalization)
            files = {FILE: text.encode("utf-8")}
            write_json(folder / "tokenizer_config.json", self._config())
            specials = dict.fromkeys(("bos_token", "eos_token", "pad_token"), self.roles.document)
            write_json(folder / "special_tokens_map.json", specials)
        else:
            files = dict(self.carried)
        for name, content in files.items():
            write_atomic(folder / name, content)
        write_json(folder / RECORD, self._record(hash_text(files[FILE].decode("utf-8"))))

    def _record(self, saved_hash: str) -> dict[str, Any]:
        """Return what is recorded beside the tokenizer.json with the hash ``saved_hash``."""
        record: dict[str, Any] = {
            "schema": SCHEMA,
            "kind": self.kind,
            "eos": self.roles.document,
            "hash": saved_hash,
            "hash_without_beginning": self.hash,
            "normalization": self.normalization,
        }
        if self.carried is not None:
            record["end_of_turn"] = self.roles.end_of_turn
            record["stop_ids"] = sorted(self.roles.stop_ids)
            record["carried"] = sorted(self.carried)
        return record

    @classmethod
    def load(cls, folder: Path, expected_hash: str | None = None) -> EtudeTokenizer:
        """Load the tokenizer that :meth:`save` wrote.

        Raises:
            InputError: missing or damaged files, or not the tokenizer with ``expected_hash``.
        """
        record = read_json(folder / RECORD)
        if not isinstance(record, dict) or not all(
            _is_name(record.get(key)) for key in ("kind", "eos", "hash")
        ):
            raise InputError(f"{folder / RECORD} is damaged: restore it or use another checkpoint")
        text = read_backend(folder / FILE)
        backend = parse_backend(text, folder / FILE)
        if hash_text(text) != record["hash"]:
            raise InputError(
                f"{folder / FILE} is damaged or was changed (its hash is not the recorded one): "
                "restore it or use another checkpoint"
            )
        known_as = hash_before_saving(record)
        if expected_hash is not None and known_as != expected_hash:
            raise InputError(
                f"{folder} holds another tokenizer than the one this model was trained with: "
                "use the tokenizer folder of its own run"
            )
        return cls(
            backend,
            kind=record["kind"],
            roles=_recorded_roles(backend, record, folder),
            recorded_hash=known_as,
            normalization=form_of(record.get("normalization"), folder / RECORD),
            carried=_carried(record, folder),
        )

    def _config(self) -> dict[str, Any]:
        document = self.roles.document
        return {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": document,
            "eos_token": document,
            "pad_token": document,
            "clean_up_tokenization_spaces": False,
            "add_bos_token": True,
            "add_eos_token": False,
            "add_prefix_space": False,
            "model_max_length": 1_000_000_000,
        }


def _mark_special(backend: Tokenizer, roles: Roles) -> None:
    """Mark the tokens with a role as special, so that no text is read as one of them. The files do not change."""
    from tokenizers import AddedToken

    names = {token_of(backend, i) for i in roles.stop_ids} | {roles.document}
    backend.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in sorted(names)])


def _recorded_roles(backend: Tokenizer, record: Mapping[str, Any], folder: Path) -> Roles:
    """Return the roles that the record beside a tokenizer.json names."""
    turn, stops = record.get("end_of_turn"), record.get("stop_ids", [])
    right = isinstance(stops, list) and all(type(i) is int and 0 <= i < 2**32 for i in stops)
    if not right or not (turn is None or _is_name(turn)):
        raise InputError(f"{folder / RECORD} is damaged: restore it or use another checkpoint")
    try:
        return Roles.of(backend, record["eos"], turn, stops)
    except ValueError as error:
        raise InputError(
            f"{folder / FILE} does not fit {RECORD} beside it ({shown(str(error))}): "
            "restore both or use another checkpoint"
        ) from None


def _carried(record: Mapping[str, Any], folder: Path) -> dict[str, bytes] | None:
    """Return the files that the record names as carried; None for a tokenizer that Etude trained."""
    names = record.get("carried")
    if names is None:
        return None
    if not isinstance(names, list) or not set(map(str, names)) <= set(CARRIED):
        raise InputError(f"{folder / RECORD} is damaged: restore it or use another checkpoint")
    return {name: _carried_file(folder / name) for name in {FILE, *names}}


def _carried_file(file: Path) -> bytes:
    try:
        return read_plain(file, MAX_JSON_BYTES)
    except OSError:
        raise InputError(f"{file} is missing: restore it or use another checkpoint") from None


def form_of(value: Any, path: Path) -> Form | None:
    """Return a recorded normalisation; None for a tokenizer of a version of Etude that recorded none."""
    if value is None:
        return None
    for form in FORMS:
        if value == form:
            return form
    raise InputError(f"{path} is damaged (its normalization is none): restore it or use another checkpoint")


def hash_before_saving(record: dict[str, Any]) -> str:
    """Return the hash by which a saved tokenizer is compared; older versions recorded only one hash."""
    return str(record.get("hash_without_beginning", record["hash"]))


def _is_name(value: Any) -> bool:
    """Return whether the value is text that can be written, which JSON's half surrogate pairs cannot."""
    return isinstance(value, str) and bool(value) and encodable(value) == value
