"""Log-probabilities in the two shapes of the API."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from etude.generate.running_batch import Predicted
from etude.serve.api.models import Served


def token_text(served: Served, token: int) -> str:
    """Return the text of a token; ``bytes:\\xe2\\x96`` for bytes that are only a part of a character."""
    data = served.token_bytes.get(token)
    if data is None:  # a special token, or a vocabulary whose tokens depend on neighbours
        return served.tokenizer.backend.id_to_token(token) or ""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in data)


def chat_logprobs(served: Served, tokens: Sequence[Predicted]) -> dict[str, Any]:
    """Return the shape of chat completions."""

    def one(token: int, logprob: float | None) -> dict[str, Any]:
        text = token_text(served, token)
        data = served.token_bytes.get(token, text.encode("utf-8", "replace"))
        return {"token": text, "logprob": logprob, "bytes": list(data)}

    return {
        "content": [
            {
                **one(predicted.token, predicted.logprob),
                "top_logprobs": [one(token, logprob) for token, logprob in predicted.likeliest],
            }
            for predicted in tokens
        ],
        "refusal": None,
    }


def completion_logprobs(served: Served, tokens: Sequence[Predicted], offset: int = 0) -> dict[str, Any]:
    """Return the shape of completions. ``offset`` is that of the first token in the text."""
    texts = [token_text(served, predicted.token) for predicted in tokens]
    offsets = []
    for text in texts:
        offsets.append(offset)
        offset += len(text)
    return {
        "tokens": texts,
        "token_logprobs": [predicted.logprob for predicted in tokens],
        "top_logprobs": [
            None if predicted.logprob is None else _by_text(served, predicted) for predicted in tokens
        ],
        "text_offset": offsets,
    }


def _by_text(served: Served, predicted: Predicted) -> dict[str, float]:
    """Return the likeliest tokens by text. Of two tokens with one text, the likelier one counts."""
    result: dict[str, float] = {}
    for token, logprob in predicted.likeliest:
        result.setdefault(token_text(served, token), logprob)
    return result
