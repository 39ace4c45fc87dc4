"""Answers that follow a JSON schema, through llguidance."""

from __future__ import annotations

import functools
import json
from typing import Any

import numpy as np
from numpy.typing import NDArray

from etude.data.tokens.tokenizer import EtudeTokenizer
from etude.serve.api.fields import Fields
from etude.serve.api.models import Served
from etude.serve.api.problem import Problem
from etude.untrusted import shown


class SchemaConstraint:
    """The tokens that may follow, for one answer."""

    def __init__(self, served: Served, schema: Any) -> None:
        import llguidance
        import llguidance.numpy

        self._numpy = llguidance.numpy
        try:
            grammar = llguidance.LLMatcher.grammar_from_json_schema(
                # Free whitespace would let a small model write blanks for ever.
                json.dumps(schema),
                overrides={"whitespace_flexible": False},
            )
            self._matcher = llguidance.LLMatcher(
                _grammar_tokenizer(served.tokenizer, served.vocab_size), grammar
            )
            problem = self._matcher.get_error()
        except (ValueError, TypeError, RuntimeError) as error:
            problem = str(error)
        if problem:
            raise Problem(
                f"the JSON schema cannot be followed: {shown(problem.splitlines()[0])}",
                param="response_format",
            )
        self._mask = self._numpy.allocate_token_bitmask(1, served.vocab_size)
        self._vocab_size = served.vocab_size

    def allowed(self) -> NDArray[np.intp]:
        """Return the ids that may come next; none at the end."""
        if self._matcher.is_stopped():
            return np.zeros(0, np.intp)
        self._numpy.fill_next_token_bitmask(self._matcher, self._mask, 0)
        bits = np.unpackbits(self._mask.view(np.uint8), bitorder="little")[: self._vocab_size]
        return np.flatnonzero(bits)

    def accept(self, token: int) -> None:
        """Advance by a token."""
        self._matcher.consume_token(token)


@functools.lru_cache(maxsize=8)
def _grammar_tokenizer(tokenizer: EtudeTokenizer, vocab_size: int) -> Any:
    import llguidance

    end = min(tokenizer.roles.stop_ids)
    return llguidance.LLTokenizer(tokenizer.backend.to_str(), n_vocab=vocab_size, eos_token=end)


def schema_of(fields: Fields) -> Any:
    """Return the schema of ``response_format``; None for plain text.

    Raises:
        Problem: another format, or llguidance is not installed.
    """
    value = fields.take("response_format")
    if value is None or value == {"type": "text"}:
        return None
    kind = value.get("type") if isinstance(value, dict) else None
    schema: Any = {"type": "object"} if kind == "json_object" else None
    if kind == "json_schema" and isinstance(value.get("json_schema"), dict):
        schema = value["json_schema"].get("schema")
    if not isinstance(schema, dict | bool):
        raise Problem(
            "response_format must be text, json_object, or json_schema with json_schema.schema",
            param="response_format",
        )
    try:
        import llguidance  # noqa: F401
    except ImportError:
        raise Problem(
            "response_format needs llguidance on the server: pip install 'etude[structured]'",
            param="response_format",
            code="unsupported_parameter",
        ) from None
    return schema
