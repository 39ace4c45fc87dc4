"""Continue a text or answer in a conversation, with the probabilities of every new token."""

from __future__ import annotations

from collections.abc import Callable, Generator

import numpy as np
import torch
from numpy.typing import NDArray

from etude.data.tokens.tokenizer import EtudeTokenizer
from etude.errors import InputError
from etude.generate.chat_prompt import Chatter, answer_sampling
from etude.generate.engine import FinishReason, Generation, OnPrediction, stream
from etude.generate.sampling import SamplingSettings, row_seed
from etude.model.language_model import LanguageModel
from etude.serve.look_types import Candidate, ConversationLine, TokenLine
from etude.serve.request import Question

OTHERS = 5
"""Most likely tokens reported beside each new one."""
MOST_NEW = 1_000
"""New tokens in one answer."""
MOST_ANSWERS = 1_000_000
"""Answers to one question: the number of an answer decides its seed."""
Emit = Callable[[TokenLine | ConversationLine], None]


def continued(
    model: LanguageModel, tokenizer: EtudeTokenizer, question: Question, emit: Emit
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
    tokens = stream(
        model,
        [tokenizer.roles.document_id, *tokenizer.encode(question.text("text")), *taken],
        _sampling(question),
        stop_ids=tokenizer.roles.stop_ids,
        seed=question.number("seed", 0) + len(taken),
        compile=False,
        on_prediction=_reporting(tokenizer, emit),
    )
    result = yield from _each_token(tokens)
    return tokenizer.decode([*taken, *result.token_ids]), result.finish_reason


def answered(
    model: LanguageModel, tokenizer: EtudeTokenizer, question: Question, emit: Emit, name: str
) -> Generator[None, None, tuple[str, FinishReason]]:
    """Answer the last message of a conversation, one token for each ``next``; returns as :func:`continued`.

    The tokens of the conversation are emitted first. The same seed gives the same answers as ``etude chat``;
    ``retries`` counts the answers to this question that were replaced.

    Raises:
        InputError: the model has no chat template, the conversation does not fit, or invalid sampling settings.
    """
    messages, settings = question.messages(), _sampling(question)
    chatter = Chatter.of(tokenizer, model.config.max_position_embeddings, name)
    prompt = chatter.prompt(messages, settings.max_new_tokens)
    emit({"conversation": {"ids": prompt.ids, "dropped": prompt.dropped}})
    answers = sum(message.role == "assistant" for message in messages)
    retries = min(question.number("retries", 0), MOST_ANSWERS)
    tokens = stream(
        model,
        prompt.ids,
        answer_sampling(settings, retries),
        stop_ids=chatter.stop_ids,
        seed=row_seed(row_seed(question.number("seed", 0), answers), retries),
        at_context_end="stop",
        compile=False,
        on_prediction=_reporting(tokenizer, emit),
    )
    result = yield from _each_token(tokens)
    return tokenizer.decode(result.token_ids, skip_special_tokens=True), result.finish_reason


def _each_token(tokens: Generator[int, None, Generation]) -> Generator[None, None, Generation]:
    """Generate one token for each ``next``; return the whole."""
    while True:
        try:
            next(tokens)
        except StopIteration as end:
            result: Generation = end.value
            return result
        yield


def _sampling(question: Question) -> SamplingSettings:
    return SamplingSettings(
        temperature=question.real("temperature", 0.8),
        top_p=question.real("top_p", 0.95),
        max_new_tokens=min(MOST_NEW, question.number("count", 100)),
    )


def _reporting(tokenizer: EtudeTokenizer, emit: Emit) -> OnPrediction:
    """Return what emits each new token with the most likely ones."""

    def on_prediction(row: int, token: int, logits: NDArray[np.float32]) -> None:
        probabilities = torch.from_numpy(logits).softmax(-1)
        likeliest = probabilities.argsort(descending=True, stable=True)[:OTHERS].tolist()
        others: list[Candidate] = [
            {"id": other, "text": tokenizer.decode([other]), "probability": float(probabilities[other])}
            for other in likeliest
        ]
        text, probability = tokenizer.decode([token]), float(probabilities[token])
        emit({"token": {"id": token, "text": text, "probability": probability, "others": others}})

    return on_prediction
