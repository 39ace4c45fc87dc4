"""The tokens with a role: what begins a document, what ends a turn, and what stops generation.

They are three things. A tokenizer trained here has one special token, which begins documents and stops generation.
A published model may have more: SmolLM2-Instruct was pretrained with ``<|endoftext|>`` before each document, ends
the turns of a conversation with ``<|im_end|>``, and stops at either.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tokenizers import Tokenizer

DOCUMENT_TOKENS = (
    "<|endoftext|>",
    "</s>",
    "<|end_of_text|>",
    "<|im_end|>",
    "<eos>",
    "[EOS]",
    "<|eot_id|>",
    "[SEP]",
)
"""Tokens that separate documents where nothing states one, in the order of preference."""
TURN_TOKENS = ("<|im_end|>", "<|eot_id|>", "<end_of_turn>", "<|end|>", "<|eot|>")
"""Tokens that end a turn in the templates of published models."""


@dataclass(frozen=True, slots=True)
class Roles:
    """The tokens of a tokenizer that have a role.

    Attributes:
        document: begins every document. It precedes the first token that is scored, and every prompt.
        end_of_turn: ends a turn of a conversation; None for a model that knows no turns.
        stop_ids: end a generation. ``document_id`` is always one: after it another document would begin.
    """

    document: str
    document_id: int
    end_of_turn: str | None
    end_of_turn_id: int | None
    stop_ids: frozenset[int]

    @classmethod
    def of(
        cls, backend: Tokenizer, document: str, end_of_turn: str | None = None, stops: Iterable[int] = ()
    ) -> Roles:
        """Look up the tokens in the vocabulary of ``backend``.

        Raises:
            ValueError: it has no such token.
        """
        document_id = _required_id(backend, document)
        turn_id = None if end_of_turn is None else _required_id(backend, end_of_turn)
        stop_ids = {document_id, *stops} | ({turn_id} if turn_id is not None else set())
        for token_id in stop_ids:
            if backend.id_to_token(token_id) is None:
                raise ValueError(f"the tokenizer has no token {token_id}")
        return cls(document, document_id, end_of_turn, turn_id, frozenset(stop_ids))


def _required_id(backend: Tokenizer, token: str) -> int:
    token_id = backend.token_to_id(token)
    if token_id is None:
        raise ValueError(f"the tokenizer has no token {token!r}")
    return int(token_id)


def published_roles(
    backend: Tokenizer, config: Mapping[str, Any], generation: Mapping[str, Any], template: str | None
) -> Roles | None:
    """Return the roles of the tokens of a published model; None if no token can begin a document.

    1. What begins a document: the token that the tokenizer itself puts before a text (``<|begin_of_text|>`` of
       Llama 3, ``<bos>`` of Gemma). Else the ``eos_token``, which separated the documents of pretraining, unless it
       ends turns; then the first of :data:`DOCUMENT_TOKENS` in the vocabulary.
    2. What ends a turn: only a model with a chat template knows turns. Its ``eos_token`` if the template writes it,
       else the first of :data:`TURN_TOKENS` that it writes.
    3. What stops generation: ``eos_token_id`` of generation_config.json, which may be a list, and all of the above.

    Args:
        backend: the tokenizer.
        config: tokenizer_config.json.
        generation: generation_config.json.
        template: the chat template.
    """
    eos = token_name(config.get("eos_token"))
    if eos is not None and backend.token_to_id(eos) is None:
        eos = None
    turn = _end_of_turn(backend, eos, template)
    document = _token_before_texts(backend)
    candidates = ([eos] if eos not in (None, turn) else []) + [*DOCUMENT_TOKENS] + ([eos] if eos else [])
    if document is None:
        document = next((t for t in candidates if t is not None and backend.token_to_id(t) is not None), None)
    if document is None:
        return None
    stated = generation.get("eos_token_id")
    listed = stated if isinstance(stated, list) else [stated]
    stops = {i for i in listed if isinstance(i, int) and not isinstance(i, bool) and _is_token(backend, i)}
    if eos is not None:
        stops.add(_required_id(backend, eos))
    return Roles.of(backend, document, turn, stops)


def _is_token(backend: Tokenizer, token_id: int) -> bool:
    return 0 <= token_id < 2**32 and backend.id_to_token(token_id) is not None


def _end_of_turn(backend: Tokenizer, eos: str | None, template: str | None) -> str | None:
    if template is None:
        return None
    known = [token for token in TURN_TOKENS if backend.token_to_id(token) is not None]
    if eos is not None and (eos in known or eos in template or "eos_token" in template):
        return eos
    return next((token for token in known if token in template), None)


def _token_before_texts(backend: Tokenizer) -> str | None:
    """Return the special token that the tokenizer puts before every text; None if it puts none."""
    ids = backend.encode("a", add_special_tokens=True).ids[:1]
    special = {token_id for token_id, token in backend.get_added_tokens_decoder().items() if token.special}
    return token_of(backend, ids[0]) if ids and ids[0] in special else None


def token_of(backend: Tokenizer, token_id: int) -> str:
    """Return a token as the text that stands for it: ``id_to_token`` normalises the names of some added tokens."""
    added = backend.get_added_tokens_decoder().get(token_id)
    return str(backend.id_to_token(token_id)) if added is None else str(added.content)


def token_name(value: Any) -> str | None:
    """Return a token of tokenizer_config.json: a string, or an object with its ``content``."""
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) and value and _is_utf8(value) else None


def _is_utf8(text: str) -> bool:
    try:
        json.dumps(text, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
