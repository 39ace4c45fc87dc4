"""Generation: several prompts at once, one forward pass per new token, each row as if it were alone."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from etude.device import Dtype
from etude.errors import InputError
from etude.generate.decoder import Compile, Decoder
from etude.generate.sampling import SamplingSettings, choose, require_seed, row_seed
from etude.model.language_model import LanguageModel

FinishReason = Literal["eos", "length", "context", "stop"]
ContextRule = Literal["slide", "stop"]
OnToken = Callable[[int, int], bool | None]
"""Told the row and the new token; where it returns True, the row ends with it."""
FirstTokens = Sequence[NDArray[np.intp] | None]
"""Of each row the ids among which its first new token is chosen, rising; None: any."""
OnPrediction = Callable[[int, int, NDArray[np.float32]], None]


@dataclass(frozen=True, slots=True)
class Generation:
    """What was generated for one prompt.

    `token_ids` leaves the prompt and the closing end-of-text token out. `logprobs` are the model's own
    natural log-probabilities of those tokens, before temperature and the other settings.
    """

    token_ids: list[int]
    logprobs: list[float]
    finish_reason: FinishReason


def generate(
    model: LanguageModel,
    prompts: Sequence[Sequence[int]],
    settings: SamplingSettings,
    *,
    eos_id: int | None,
    seed: int | Sequence[int] = 0,
    at_context_end: ContextRule = "slide",
    compile: Compile = "auto",
    dtype: Dtype = "fp32",
    first_tokens: FirstTokens | None = None,
    on_token: OnToken | None = None,
    on_prediction: OnPrediction | None = None,
) -> list[Generation]:
    """Continue every prompt until `eos_id`, `settings.max_new_tokens`, or the end of the context.

    A row's result depends on its prompt, its seed and the settings, not on the rows beside it. With one
    `seed` for all, row i has `row_seed(seed, i)`; a sequence gives each row its own. `on_token(row, id)` is
    called for each new token as it comes, and ends the row with finish_reason "stop" where it returns True; before it
    `on_prediction(row, id, logits)` is called with the (V,) that the token was drawn from, as the network gave them.

    The network reads at most C = max_position_embeddings tokens. Of a longer prompt it reads the last C. When
    C tokens stand in the context and more are wanted, "slide" goes on from the last C // 2 of them, read anew
    from position 0 (so that a token costs one position again, and not C); "stop" ends with finish_reason
    "context".

    `compile`: run each new token's forward pass as one graph of `torch.compile`. The first time for a network's
    shape, number of rows and capacity takes 10 to 30 s; so "auto" does it from COMPILE_FROM_STEPS new tokens on,
    and only where it gains anything. Logits are the same but for rounding.

    `dtype`: "bf16" reads a transformer's large matrices rounded to 8 bits, half the bytes a token. The prompt, and
    answers of a few tokens, are read with the weights as they are.

    Raises InputError for an empty prompt, or with "stop" one that is longer than C, and for bf16 where it would be
    slower; EtudeError when the network's predictions are not finite, or when compilation was asked for and fails.
    """
    rows = _start(model, prompts, seed, at_context_end, first_tokens)
    new_tokens = _run(model, rows, settings, eos_id, at_context_end, compile, dtype, on_prediction)
    ended: bool | None = None
    while True:
        try:
            row, token = new_tokens.send(ended)
        except StopIteration:
            break
        ended = on_token is not None and on_token(row, token)
    return [_generation(row) for row in rows]


def stream(
    model: LanguageModel,
    prompt: Sequence[int],
    settings: SamplingSettings,
    *,
    eos_id: int | None,
    seed: int = 0,
    at_context_end: ContextRule = "slide",
    compile: Compile = "auto",
    dtype: Dtype = "fp32",
    first_tokens: NDArray[np.intp] | None = None,
    on_prediction: OnPrediction | None = None,
) -> Generator[int, None, Generation]:
    """The new tokens of one prompt as they come: the same ones, by the same rules, as `generate` gives.

    The generator's return value is what `generate` returns for the prompt.
    """
    rows = _start(model, [prompt], seed, at_context_end, [first_tokens])
    for _, token in _run(model, rows, settings, eos_id, at_context_end, compile, dtype, on_prediction):
        yield token
    (row,) = rows
    return _generation(row)


@dataclass(slots=True, eq=False)
class _Row:
    index: int
    context: list[int]
    """What the network may read: the end of the prompt and every new token."""
    generator: torch.Generator
    seen: set[int]
    """Every token of the prompt and after it, also of those that no longer stand in the context."""
    first_tokens: NDArray[np.intp] | None
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    finish_reason: FinishReason | None = None


def _generation(row: _Row) -> Generation:
    return Generation(row.token_ids, row.logprobs, row.finish_reason or "length")


def _run(
    model: LanguageModel,
    rows: list[_Row],
    settings: SamplingSettings,
    eos_id: int | None,
    at_context_end: ContextRule,
    compile: Compile,
    dtype: Dtype,
    on_prediction: OnPrediction | None = None,
) -> Generator[tuple[int, int], bool | None]:
    """Yield (row, token) as they come, and fill `rows`; a row ends where True is sent back."""
    most = model.config.max_position_embeddings
    if settings.max_new_tokens and rows:
        longest = max(len(row.context) for row in rows) + settings.max_new_tokens
        decoder = Decoder(model, len(rows), longest, settings.max_new_tokens, compile, dtype)
        decoder.read([row.context[:-1] for row in rows])
        active = list(rows)
        while any(row.finish_reason is None for row in active):
            for row, logits in zip(active, _next_logits(decoder, active, most), strict=True):
                if row.finish_reason is not None:
                    continue
                allowed = None if row.token_ids else row.first_tokens
                token, logprob = choose(logits, settings, row.generator, seen=row.seen, allowed=allowed)
                if token == eos_id:
                    row.finish_reason = "eos"
                    continue
                if on_prediction is not None:
                    on_prediction(row.index, token, logits)
                row.context.append(token)
                row.seen.add(token)
                row.token_ids.append(token)
                row.logprobs.append(logprob)
                if len(row.token_ids) == settings.max_new_tokens:
                    row.finish_reason = "length"
                elif at_context_end == "stop" and len(row.context) > most:
                    row.finish_reason = "context"
                if (yield row.index, token):
                    row.finish_reason = "stop"
            active = _staying(decoder, active)


def _start(
    model: LanguageModel,
    prompts: Sequence[Sequence[int]],
    seed: int | Sequence[int],
    at_context_end: ContextRule,
    first_tokens: FirstTokens | None,
) -> list[_Row]:
    most = model.config.max_position_embeddings
    seeds = [row_seed(seed, row) for row in range(len(prompts))] if isinstance(seed, int) else list(seed)
    if len(seeds) != len(prompts):
        raise ValueError(f"{len(seeds)} seeds for {len(prompts)} prompts")
    rows = []
    firsts = first_tokens or [None] * len(prompts)
    for index, (prompt, own_seed, first) in enumerate(zip(prompts, seeds, firsts, strict=True)):
        if not prompt:
            raise InputError(
                "the prompt is empty: give some text, or the end-of-text token to begin a document"
            )
        if at_context_end == "stop" and len(prompt) > most:
            raise InputError(f"the prompt has {len(prompt)} tokens and the model reads {most}: shorten it")
        generator = torch.Generator().manual_seed(require_seed(own_seed))
        rows.append(_Row(index, list(prompt[-most:]), generator, set(prompt), first))
    return rows


def _next_logits(decoder: Decoder, rows: Sequence[_Row], most: int) -> NDArray[np.float32]:
    """Read each row's last token; the logits of the one after it, (rows, V)."""
    for place, row in enumerate(rows):
        if decoder.lengths[place] == most:
            row.context = row.context[-max(1, most // 2) :]
            decoder.reread(place, row.context[:-1])
    logits: NDArray[np.float32] = decoder.next_logits([row.context[-1] for row in rows]).numpy()
    return logits


def _staying(decoder: Decoder, rows: list[_Row]) -> list[_Row]:
    """The rows that go on. Where their number is fixed all do, and nobody looks at the finished ones."""
    staying = [place for place, row in enumerate(rows) if row.finish_reason is None]
    if decoder.fixed or len(staying) in (0, len(rows)):
        return rows
    decoder.keep(staying)
    return [rows[place] for place in staying]
