"""A text continued, with the odds that every new token had."""

from __future__ import annotations

from collections.abc import Callable, Generator

import numpy as np
import torch
from numpy.typing import NDArray

from etude.data.tokens.tokenizer import EtudeTokenizer
from etude.errors import InputError
from etude.generate.engine import FinishReason, stream
from etude.generate.sampling import SamplingSettings
from etude.model.language_model import LanguageModel
from etude.serve.look_types import Candidate, TokenLine
from etude.serve.request import Asked

OTHERS = 5
MOST_NEW = 1_000


def continued(
    model: LanguageModel, tokenizer: EtudeTokenizer, asked: Asked, tell: Callable[[TokenLine], None]
) -> Generator[None, None, tuple[str, FinishReason]]:
    """Continue a text, a token for each ``next``; the return value is the whole continuation and why it ended.

    ``tell`` is called with each new token and the model's own probabilities, before any setting. ``taken`` are new
    tokens that the user has chosen already: the continuation is behind them.

    Raises:
        InputError: settings that mean nothing, or ids that the vocabulary has not.
    """
    taken = asked.numbers("taken") if "taken" in asked else []
    if any(token >= tokenizer.vocab_size for token in taken):
        raise InputError(f"token ids go from 0 to {tokenizer.vocab_size - 1}")
    settings = SamplingSettings(
        temperature=asked.real("temperature", 0.8),
        top_p=asked.real("top_p", 0.95),
        max_new_tokens=min(MOST_NEW, asked.number("count", 100)),
    )

    def told(row: int, token: int, logits: NDArray[np.float32]) -> None:
        probabilities = torch.from_numpy(logits).softmax(-1)
        likeliest = probabilities.argsort(descending=True, stable=True)[:OTHERS].tolist()
        others: list[Candidate] = [
            {"id": other, "text": tokenizer.decode([other]), "probability": float(probabilities[other])}
            for other in likeliest
        ]
        text, probability = tokenizer.decode([token]), float(probabilities[token])
        tell({"token": {"id": token, "text": text, "probability": probability, "others": others}})

    prompt = [tokenizer.eos_id, *tokenizer.encode(asked.text("text")), *taken]
    tokens = stream(
        model,
        prompt,
        settings,
        eos_id=tokenizer.eos_id,
        seed=asked.number("seed", 0) + len(taken),
        compile=False,
        on_prediction=told,
    )
    while True:
        try:
            next(tokens)
        except StopIteration as end:
            found = end.value
            break
        yield
    return tokenizer.decode([*taken, *found.token_ids]), found.finish_reason
