"""Generate continuations of several prompts as one batch; each row's result is independent of the others."""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Sequence
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
"""Called with row and new token. If it returns True, the row ends with this token."""
FirstTokens = Sequence[NDArray[np.intp] | None]
"""For each row, the ids allowed for its first new token, ascending; None: all."""
OnPrediction = Callable[[int, int, NDArray[np.float32]], None]
"""Called with row, new token, and the logits (V,) from which it was drawn."""


@dataclass(frozen=True, slots=True)
class Generation:
    """The tokens generated for one prompt.

    `token_ids` excludes the prompt and a final end-of-text token. `logprobs` are natural log-probabilities of these
    tokens under the model itself, before temperature and the other settings.
    """

    token_ids: list[int]
    logprobs: list[float]
    finish_reason: FinishReason


def generate(
    model: LanguageModel,
    prompts: Sequence[Sequence[int]],
    settings: SamplingSettings,
    *,
    stop_ids: Collection[int],
    seed: int | Sequence[int] = 0,
    at_context_end: ContextRule = "slide",
    compile: Compile = "auto",
    dtype: Dtype = "fp32",
    first_tokens: FirstTokens | None = None,
    on_token: OnToken | None = None,
    on_prediction: OnPrediction | None = None,
) -> list[Generation]:
    """Continue every prompt until a token of `stop_ids`, `settings.max_new_tokens`, or the end of the context.

    The result of a row depends on its prompt, its seed and the settings, but not on the other rows. The network reads
    at most C = max_position_embeddings tokens; of a longer prompt, the last C.

    Args:
        seed: row i has `row_seed(seed, i)`; a sequence has one seed for each row.
        at_context_end: what to do when the context holds C tokens. "slide" continues from the last C // 2 of them,
            read again from position 0 (so that each further token costs one position instead of C); "stop" ends the
            row with finish_reason "context".
        compile: run the forward pass of a new token as one graph of `torch.compile`. The first time takes 10 to 30 s
            for each network shape, number of rows and capacity. So "auto" compiles from COMPILE_FROM_STEPS new tokens
            on, where that is faster. Logits differ only by rounding.
        dtype: "bf16" rounds the large matrices of a transformer to bf16, which halves the bytes to read for a token.
            Prompts, and continuations of a few tokens, use the original weights.
        first_tokens: restricts the first new token of each row.
        on_token: called for each new token; ends the row with finish_reason "stop" if it returns True.
        on_prediction: called before `on_token`, with the unmodified logits.

    Raises:
        InputError: an empty prompt, one longer than C with "stop", or bf16 where it would be slower.
        EtudeError: predictions that are not finite, or a requested compilation that fails.
    """
    rows = _start(model, prompts, seed, at_context_end, first_tokens)
    new_tokens = _run(model, rows, settings, stop_ids, at_context_end, compile, dtype, on_prediction)
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
    stop_ids: Collection[int],
    seed: int = 0,
    at_context_end: ContextRule = "slide",
    compile: Compile = "auto",
    dtype: Dtype = "fp32",
    first_tokens: NDArray[np.intp] | None = None,
    on_prediction: OnPrediction | None = None,
) -> Generator[int, None, Generation]:
    """Yield the new tokens of one prompt as they are generated: the same tokens as from `generate`.

    The return value of the generator is the `Generation` of the prompt.
    """
    rows = _start(model, [prompt], seed, at_context_end, [first_tokens])
    for _, token in _run(model, rows, settings, stop_ids, at_context_end, compile, dtype, on_prediction):
        yield token
    (row,) = rows
    return _generation(row)


@dataclass(slots=True, eq=False)
class _Row:
    """The state of one row."""

    index: int
    context: list[int]
    """The tokens that the network reads: the end of the prompt, and the new tokens."""
    generator: torch.Generator
    seen: set[int]
    """All tokens of the prompt and all new ones, also those that have left the context."""
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
    stop_ids: Collection[int],
    at_context_end: ContextRule,
    compile: Compile,
    dtype: Dtype,
    on_prediction: OnPrediction | None = None,
) -> Generator[tuple[int, int], bool | None]:
    """Yield (row, token) for each new token, and fill `rows`. A row ends if the consumer sends True."""
    most = model.config.max_position_embeddings
    if settings.max_new_tokens and rows:
        longest = max(len(row.context) for row in rows) + settings.max_new_tokens
        decoder = Decoder(model, len(rows), longest, settings.max_new_tokens, compile, dtype)
        decoder.read([row.context[:-1] for row in rows])  # the last token is read by the first step
        active = list(rows)
        while any(row.finish_reason is None for row in active):
            for row, logits in zip(active, _next_logits(decoder, active, most), strict=True):
                if row.finish_reason is not None:
                    continue
                allowed = None if row.token_ids else row.first_tokens
                token, logprob = choose(logits, settings, row.generator, seen=row.seen, allowed=allowed)
                if token in stop_ids:
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
            active = _drop_finished(decoder, active)


def _start(
    model: LanguageModel,
    prompts: Sequence[Sequence[int]],
    seed: int | Sequence[int],
    at_context_end: ContextRule,
    first_tokens: FirstTokens | None,
) -> list[_Row]:
    """Check the prompts and seeds, and return a row for each."""
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
    """Read the last token of each row; return the logits of the next one, (rows, V). Slides full contexts."""
    for place, row in enumerate(rows):
        if decoder.lengths[place] == most:
            row.context = row.context[-max(1, most // 2) :]
            decoder.reread(place, row.context[:-1])
    logits: NDArray[np.float32] = decoder.next_logits([row.context[-1] for row in rows]).numpy()
    return logits


def _drop_finished(decoder: Decoder, rows: list[_Row]) -> list[_Row]:
    """Drop finished rows from the batch. If their number is fixed, finished rows stay and are ignored."""
    unfinished = [place for place, row in enumerate(rows) if row.finish_reason is None]
    if decoder.fixed or len(unfinished) in (0, len(rows)):
        return rows
    decoder.keep(unfinished)
    return [rows[place] for place in unfinished]
