"""Read the fields of a request; what is wrong or not supported is refused by name."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from etude.data.tokens.tokenizer_json import encodable
from etude.errors import InputError
from etude.generate.sampling import SamplingSettings, require_seed
from etude.generate.stop import stop_strings
from etude.serve.api.problem import Problem
from etude.untrusted import shown

IGNORED = frozenset(
    (
        "user",
        "metadata",
        "store",
        "service_tier",
        "parallel_tool_calls",
        "safety_identifier",
        "prompt_cache_key",
    )
)
"""Fields that say something about the request, and nothing about its answer."""
MOST_ALTERNATIVES = 20
MOST_ROWS = 128
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "tools": ([],),
    "functions": ([],),
    "tool_choice": ("none", "auto"),
    "function_call": ("none", "auto"),
    "modalities": (["text"],),
    "suffix": ("",),
    "response_format": ({"type": "text"},),
}
"""Values of fields that ask for nothing, although the field is not supported."""


class Fields:
    """The fields of a request's body. Each is taken once; :meth:`require_no_more` refuses the rest."""

    def __init__(self, body: Any) -> None:
        if not isinstance(body, Mapping):
            raise Problem("the body must be a JSON object")
        self._left = dict(body)

    def take(self, name: str) -> Any:
        """Return a field, None if it is missing or null."""
        return self._left.pop(name, None)

    def number(self, name: str, default: float, least: float, most: float) -> float:
        """Return a number between two bounds."""
        value = self.take(name)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
            raise Problem(
                f"{name} must be a number from {least:g} to {most:g}, not {shown(value)}", param=name
            )
        return float(value)

    def whole(self, name: str, default: int | None, least: int, most: int) -> int | None:
        """Return a whole number between two bounds."""
        value = self.take(name)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise Problem(
                f"{name} must be a whole number from {least} to {most}, not {shown(value)}", param=name
            )
        return value

    def truth(self, name: str) -> bool:
        """Return true or false; false by default."""
        value = self.take(name)
        if value is None:
            return False
        if not isinstance(value, bool):
            raise Problem(f"{name} must be true or false, not {shown(value)}", param=name)
        return value

    def text(self, name: str) -> str:
        """Return a text that must be there."""
        value = self.take(name)
        if not isinstance(value, str):
            what = "is missing" if value is None else f"must be text, not {shown(value)}"
            raise Problem(
                f"{name} {what}", param=name, code="missing_required_parameter" if value is None else None
            )
        return encodable(value)

    def require_no_more(self) -> None:
        """Refuse fields that were not taken, unless they ask for nothing."""
        for name, value in self._left.items():
            if value is None or name in IGNORED or value in _NEUTRAL.get(name, ()):
                continue
            raise Problem(
                f"{shown(name)} is not supported by this server: leave it out",
                param=str(name)[:100],
                code="unsupported_parameter",
            )


def sampling(fields: Fields, most_new: int) -> SamplingSettings:
    """Return how to sample. ``temperature`` is 1 by default, as in the API."""
    top_k = fields.whole("top_k", None, -1, 2**31)
    return SamplingSettings(
        temperature=fields.number("temperature", 1.0, 0.0, 100.0),
        top_p=max(fields.number("top_p", 1.0, 0.0, 1.0), 1e-9),  # 0 means the likeliest token alone
        top_k=None if top_k in (None, -1, 0) else top_k,  # both spellings of "all" are in use
        min_p=fields.number("min_p", 0.0, 0.0, 1.0),
        repetition_penalty=fields.number("repetition_penalty", 1.0, 0.01, 100.0),
        max_new_tokens=most_new,
    )


def seed_of(fields: Fields) -> int | None:
    """Return the seed, None without one."""
    value = fields.take("seed")
    try:
        return None if value is None else require_seed(value)
    except InputError as error:
        raise Problem(str(error), param="seed") from None


def stops_of(fields: Fields) -> tuple[str, ...]:
    """Return the stop strings."""
    try:
        stops = stop_strings(fields.take("stop"))
    except InputError as error:
        raise Problem(str(error), param="stop") from None
    if len(stops) > 64 or any(len(stop) > 1_000 for stop in stops):
        raise Problem("stop may have up to 64 texts of up to 1,000 characters", param="stop")
    return stops


def bias_of(fields: Fields, vocab_size: int) -> dict[int, float]:
    """Return the numbers to add to logits, by token."""
    value = fields.take("logit_bias")
    if value is None:
        return {}
    problem = Problem(
        f"logit_bias must map token ids from 0 to {vocab_size - 1} to numbers from -100 to 100",
        param="logit_bias",
    )
    if not isinstance(value, Mapping):
        raise problem
    biases = {}
    for token, bias in value.items():
        if not (token.isascii() and token.isdecimal() and len(token) < 10 and int(token) < vocab_size):
            raise problem
        if isinstance(bias, bool) or not isinstance(bias, int | float) or not math.fabs(bias) <= 100:
            raise problem
        biases[int(token)] = float(bias)
    return biases


def new_tokens(fields: Fields, default: int | None, room: int, prompt: int, context: int) -> int:
    """Return how many tokens to generate at most.

    Raises:
        Problem: prompt and answer do not fit the context.
    """
    later = fields.whole("max_completion_tokens", None, 0, 2**31)
    earlier = fields.whole("max_tokens", None, 0, 2**31)
    requested = later if later is not None else earlier
    if prompt > context or (prompt == context and requested != 0):
        requested = max(requested or 1, 1)
    elif requested is None:
        return room if default is None else min(default, room)
    if prompt + requested > context:
        raise Problem(
            f"This model's maximum context length is {context} tokens. However, you requested {prompt + requested} "
            f"tokens ({prompt} in the prompt, {requested} in the completion). Please shorten the prompt or the "
            "completion.",
            param="messages" if default is None else "prompt",
            code="context_length_exceeded",
        )
    return requested
