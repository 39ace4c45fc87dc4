"""Continue a text, with the probabilities of every new token."""

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
from etude.serve.request import Question

OTHERS = 5
"""Most likely tokens reported beside each new one."""
MOST_NEW = 1_000
"""New tokens in one answer."""


def continued(
    model: LanguageModel,
    tokenizer: EtudeTokenizer,
    question: Question,
    emit: Callable[[TokenLine], None],
) -> Generator[None, None, tuple[str, FinishReason]]:
    """Continue a text, one token for each ``next``; the return value is the whole continuation and why it ended.

    ``emit`` is called with each new token and the model's probabilities before temperature and top-p. ``taken`` are new
    tokens that the user has already chosen: the continuation follows them.

    Raises:
        InputError: invalid sampling settings, or ids outside the vocabulary.
    """
    taken = question.numbers("taken") if "taken" in question else []
    if any(token >= tokenizer.vocab_size for token in taken):
        raise InputError(f"token ids go from 0 to {tokenizer.vocab_size - 1}")
    settings = SamplingSettings(
        temperature=question.real("temperature", 0.8),
        top_p=question.real("top_p", 0.95),
        max_new_tokens=min(MOST_NEW, question.number("count", 100)),
    )

    def on_prediction(row: int, token: int, logits: NDArray[np.float32]) -> None:
        probabilities = torch.from_numpy(logits).softmax(-1)
        likeliest = probabilities.argsort(descending=True, stable=True)[:OTHERS].tolist()
        others: list[Candidate] = [
            {"id": other, "text": tokenizer.decode([other]), "probability": float(probabilities[other])}
            for other in likeliest
        ]
        text, probability = tokenizer.decode([token]), float(probabilities[token])
        emit({"token": {"id": token, "text": text, "probability": probability, "others": others}})

    prompt = [tokenizer.roles.document_id, *tokenizer.encode(question.text("text")), *taken]
    tokens = stream(
        model,
        prompt,
        settings,
        stop_ids=tokenizer.roles.stop_ids,
        seed=question.number("seed", 0) + len(taken),
        compile=False,
        on_prediction=on_prediction,
    )
    while True:
        try:
            next(tokens)
        except StopIteration as end:
            result = end.value
            break
        yield
    return tokenizer.decode([*taken, *result.token_ids]), result.finish_reason
