"""Open the tokenizer of a published model, whose files every checkpoint of a run on it carries unchanged."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from etude.data.conversations.template import template_source
from etude.data.tokens.roles import DOCUMENT_TOKENS, Roles, published_roles, token_name
from etude.data.tokens.tokenizer import CARRIED, EOS, RECORD, EtudeTokenizer, form_of, hash_before_saving
from etude.data.tokens.tokenizer_json import FILE, hash_text, parse_backend, read_backend
from etude.errors import InputError
from etude.files import read_json
from etude.run.published_history import tokenizer_folder
from etude.untrusted import MAX_JSON_BYTES, read_plain


def existing_tokenizer(path: Path) -> EtudeTokenizer:
    """Open an existing tokenizer.json, or the folder with it, for a new network.

    What begins a document is the ``eos_token`` of the tokenizer_config.json beside it, else the first of
    :data:`DOCUMENT_TOKENS` in the vocabulary, else a new token ``<|endoftext|>``. It also stops generation.

    Raises:
        InputError: no such file, or not a tokenizer.
    """
    file = path / FILE if path.is_dir() else path
    text = read_backend(file)
    backend = parse_backend(text, file)
    eos = token_name(_object(file.parent / "tokenizer_config.json").get("eos_token"))
    candidates = ([eos] if eos else []) + [*DOCUMENT_TOKENS]
    document = next((token for token in candidates if backend.token_to_id(token) is not None), EOS)
    from tokenizers import AddedToken

    # Even if the vocabulary has the token: only tokens marked as special are never matched in text.
    backend.add_special_tokens([AddedToken(document, special=True, normalized=False)])
    roles = Roles.of(backend, document)
    record = _record_of(file.parent / RECORD, text, document)
    if record is None:
        return EtudeTokenizer(backend, kind=f"file:{file.name}", roles=roles)
    return EtudeTokenizer(
        backend,
        kind=f"file:{file.name}",
        roles=roles,
        recorded_hash=hash_before_saving(record),
        normalization=form_of(record.get("normalization"), file.parent / RECORD),
    )


def model_tokenizer(folder: Path) -> EtudeTokenizer:
    """Open the tokenizer of the model in ``folder``: one that Etude saved, or a published model's own.

    That of one of several saved versions may lie beside another
    (:func:`~etude.run.published_history.tokenizer_folder`).

    Raises:
        InputError: the folder holds no usable tokenizer.json, or no token that can begin a document.
    """
    folder = tokenizer_folder(folder)
    if (folder / RECORD).is_file():
        return EtudeTokenizer.load(folder)
    text = read_backend(folder / FILE)
    backend = parse_backend(text, folder / FILE)
    roles = _roles(backend, folder)
    if roles is None:
        raise InputError(
            f"{folder / FILE} has no token that begins or ends a text: name one as eos_token in tokenizer_config.json"
        )
    carried = {name: content for name in CARRIED if (content := _content(folder / name)) is not None}
    return EtudeTokenizer(
        backend, kind="published", roles=roles, recorded_hash=hash_text(text), carried=carried
    )


def _content(file: Path) -> bytes | None:
    if not file.is_file():
        return None
    try:
        return read_plain(file, MAX_JSON_BYTES)
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror or error}") from None


def _roles(backend: Any, folder: Path) -> Roles | None:
    config = _object(folder / "tokenizer_config.json")
    return published_roles(
        backend, config, _object(folder / "generation_config.json"), chat_template(folder, config)
    )


def chat_template(folder: Path, config: Mapping[str, Any]) -> str | None:
    """Return the chat template of a model folder, from its own file or from ``config``, its tokenizer_config.json."""
    files = {name: _content(folder / name) for name in ("chat_template.jinja", "chat_template.json")}
    # A damaged template must not keep the model from opening: rendering reads the file again.
    known = {name: content.decode("utf-8", "replace").encode() for name, content in files.items() if content}
    return template_source({**known, "tokenizer_config.json": json.dumps(config).encode()})


def _object(path: Path) -> dict[str, Any]:
    """Return a JSON object; an empty one where the file is missing or holds something else."""
    try:
        value = read_json(path)
    except InputError:
        return {}
    return value if isinstance(value, dict) else {}


def _record_of(path: Path, text: str, document: str) -> dict[str, Any] | None:
    """Return what :meth:`EtudeTokenizer.save` recorded for ``text``; None for a tokenizer that it did not save."""
    record = _object(path)
    return record if record.get("hash") == hash_text(text) and record.get("eos") == document else None
