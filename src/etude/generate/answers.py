"""Read prompts once, then score given continuations of each and generate its likeliest continuation, in batches."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from etude.device import Dtype
from etude.generate.decoder import Decoder
from etude.generate.sampling import NotFinite
from etude.generate.scoring import target_scores
from etude.model.language_model import LanguageModel

TOKENS_AT_ONCE = 8192
"""Most tokens of a batch, padding included: they are held in the cache."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A prompt with the continuations to score, and the most tokens to generate after it (0: none)."""

    prompt: Sequence[int]
    continuations: Sequence[Sequence[int]]
    max_new_tokens: int = 0

    @property
    def longest(self) -> int:
        """Most tokens that are read: the last of a continuation is not."""
        return len(self.prompt) + max([self.max_new_tokens, *map(len, self.continuations)]) - 1


@dataclass(frozen=True, slots=True)
class Answered:
    """nats: of each continuation, summed over its tokens; token_ids: generated; ended: by a stop token."""

    nats: list[float]
    token_ids: list[int]
    ended: bool


def answer(
    model: LanguageModel, asked: Sequence[Asked], stop_ids: Collection[int], dtype: Dtype = "fp32"
) -> list[Answered]:
    """Return the scores and the greedy answer of each; up to rounding, they do not depend on the other rows.

    Args:
        dtype: "bf16" reads and scores with products in bf16, which changes a loss by some thousandths of a nat per
            token, and generates with weights rounded to bf16 (:func:`etude.generate.engine.generate`).

    Raises:
        InputError: bf16 where it would be slower, or no memory for rounded copies of the weights.
        ValueError: more tokens than max_position_embeddings, an empty prompt, or an empty continuation.
        NotFinite: the network's predictions are not finite.
    """
    if any(not row.prompt or not all(row.continuations) for row in asked):
        raise ValueError("a prompt and a continuation need at least one token")
    order = sorted(range(len(asked)), key=lambda row: len(asked[row].prompt))
    answered: dict[int, Answered] = {}
    batch: list[int] = []
    for row in order:
        if batch and not _fits(model, [asked[number] for number in (*batch, row)]):
            _answer_batch(model, asked, batch, stop_ids, dtype, answered)
            batch = []
        batch.append(row)
    if batch:
        _answer_batch(model, asked, batch, stop_ids, dtype, answered)
    return [answered[row] for row in range(len(asked))]


def _fits(model: LanguageModel, rows: Sequence[Asked]) -> bool:
    """Return whether rows fit into one batch. Padding counts: a short prompt's continuation may be the longest."""
    longest = _capacity(rows)
    return longest <= model.config.max_position_embeddings and len(rows) * longest <= TOKENS_AT_ONCE


def _capacity(rows: Sequence[Asked]) -> int:
    return max(len(row.prompt) for row in rows) + max(row.longest - len(row.prompt) for row in rows)


@torch.inference_mode()
def _answer_batch(
    model: LanguageModel,
    asked: Sequence[Asked],
    numbers: Sequence[int],
    stop_ids: Collection[int],
    dtype: Dtype,
    answered: dict[int, Answered],
) -> None:
    rows = [asked[number] for number in numbers]
    steps = max(row.max_new_tokens for row in rows)
    decoder = Decoder(model, len(rows), _capacity(rows), steps, False, dtype)
    nats: list[list[float]] = [[] for _ in rows]
    with (
        warnings.catch_warnings(),
        torch.autocast(decoder.device.type, torch.bfloat16, enabled=decoder.rounded),
    ):
        # PyTorch warns that a norm of fp32 weights and bf16 inputs is not fused.
        warnings.filterwarnings("ignore", "Mismatch dtype between input and weight")
        decoder.read([row.prompt[:-1] for row in rows])  # the last token is read with what follows it
        for number in range(max(len(row.continuations) for row in rows)):
            _score(model, decoder, rows, number, nats)
    token_ids, ended = _generate(decoder, rows, stop_ids)
    for at, number in enumerate(numbers):
        answered[number] = Answered(nats[at], token_ids[at], ended[at])


def _score(
    model: LanguageModel, decoder: Decoder, rows: Sequence[Asked], number: int, nats: list[list[float]]
) -> None:
    """Score the continuation with this number of every row that has one, and leave the cache as it was."""
    before = decoder.lengths.copy()
    given = [row.continuations[number] if number < len(row.continuations) else () for row in rows]
    inputs = torch.zeros(len(rows), max(map(len, given)), dtype=torch.long)
    targets, wanted = torch.zeros_like(inputs), torch.zeros_like(inputs, dtype=torch.bool)
    for at, (row, tokens) in enumerate(zip(rows, given, strict=True)):
        count = len(tokens)
        if count:
            inputs[at, :count] = torch.tensor([row.prompt[-1], *tokens[:-1]])
            targets[at, :count] = torch.tensor(tokens)
            wanted[at, :count] = True
    hidden = model.hidden(inputs.to(decoder.device), cache=decoder.cache)[wanted.to(decoder.device)]
    logprobs: Tensor = target_scores(model, hidden, targets[wanted].to(decoder.device))[0]
    decoder.cache.rewind(before)
    for at, part in enumerate(torch.split(logprobs, list(map(len, given)))):
        if len(part):
            nats[at].append(-float(part.sum()))


def _generate(
    decoder: Decoder, rows: Sequence[Asked], stop_ids: Collection[int]
) -> tuple[list[list[int]], list[bool]]:
    """Return the likeliest tokens after each prompt, and whether a stop token ended them."""
    token_ids: list[list[int]] = [[] for _ in rows]
    ended = [False] * len(rows)
    active = [at for at, row in enumerate(rows) if row.max_new_tokens]
    if not active:
        return token_ids, ended
    if len(active) < len(rows):
        decoder.keep(active)
    while active:
        newest = [token_ids[at][-1] if token_ids[at] else rows[at].prompt[-1] for at in active]
        logits = decoder.next_logits(newest)
        if not bool(torch.isfinite(logits).all()):
            raise NotFinite("the network's predictions are not finite, so it cannot answer")
        for at, token in zip(active, logits.numpy().argmax(-1).tolist(), strict=True):
            if token in stop_ids:
                ended[at] = True
            else:
                token_ids[at].append(token)
        kept = [
            place
            for place, at in enumerate(active)
            if not ended[at] and len(token_ids[at]) < rows[at].max_new_tokens
        ]
        if kept and len(kept) < len(active):
            decoder.keep(kept)
        active = [active[place] for place in kept]
    return token_ids, ended
