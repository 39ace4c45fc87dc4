"""Generation: several prompts at once, one forward pass per new token, each row as if it were alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from etude.errors import EtudeError, InputError
from etude.generate.sampling import SamplingSettings, draw, row_seed, token_probabilities
from etude.model.cache import Cache
from etude.model.language_model import LanguageModel

FinishReason = Literal["eos", "length", "context"]
ContextRule = Literal["slide", "stop"]


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
    on_token: Callable[[int, int], None] | None = None,
) -> list[Generation]:
    """Continue every prompt until `eos_id`, `settings.max_new_tokens`, or the end of the context.

    A row's result depends on its prompt, its seed and the settings, not on the rows beside it. With one
    `seed` for all, row i has `row_seed(seed, i)`; a sequence gives each row its own. `on_token(row, id)` is
    called for each new token as it comes.

    The network reads at most C = max_position_embeddings tokens. Of a longer prompt it reads the last C. When
    C tokens stand in the context and more are wanted, "slide" goes on from the last C // 2 of them, read anew
    from position 0 (so that a token costs one position again, and not C); "stop" ends with finish_reason
    "context".

    Raises InputError for an empty prompt, or with "stop" one that is longer than C; EtudeError when the
    network's predictions are not finite.
    """
    generations: list[Generation] = []
    for row, token in _run(model, prompts, settings, eos_id, seed, at_context_end, generations):
        if on_token is not None:
            on_token(row, token)
    return generations


def stream(
    model: LanguageModel,
    prompt: Sequence[int],
    settings: SamplingSettings,
    *,
    eos_id: int | None,
    seed: int = 0,
    at_context_end: ContextRule = "slide",
) -> Iterator[int]:
    """The new tokens of one prompt as they come: the same ones, by the same rules, as `generate` gives."""
    for _, token in _run(model, [prompt], settings, eos_id, seed, at_context_end, []):
        yield token


@dataclass(slots=True, eq=False)
class _Row:
    context: list[int]
    """What the network may read: the end of the prompt and every new token."""
    generator: torch.Generator
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    finish_reason: FinishReason | None = None


def _run(
    model: LanguageModel,
    prompts: Sequence[Sequence[int]],
    settings: SamplingSettings,
    eos_id: int | None,
    seed: int | Sequence[int],
    at_context_end: ContextRule,
    generations: list[Generation],
) -> Iterator[tuple[int, int]]:
    """Yield (row, token) as they come; fill `generations` when all rows are finished."""
    rows = _start(prompts, seed, at_context_end, model.config.max_position_embeddings)
    if settings.max_new_tokens and rows:
        decoder = _Decoder(model, rows, settings.max_new_tokens)
        while decoder.active:
            chosen = _choose(decoder.next_logits(), decoder.active, settings)
            for row, (token, logprob) in zip(decoder.active, chosen, strict=True):
                if token == eos_id:
                    row.finish_reason = "eos"
                    continue
                row.context.append(token)
                row.token_ids.append(token)
                row.logprobs.append(logprob)
                if len(row.token_ids) == settings.max_new_tokens:
                    row.finish_reason = "length"
                elif at_context_end == "stop" and decoder.is_full(row):
                    row.finish_reason = "context"
                yield rows.index(row), token
            decoder.drop_finished()
    generations += [Generation(row.token_ids, row.logprobs, row.finish_reason or "length") for row in rows]


def _start(
    prompts: Sequence[Sequence[int]], seed: int | Sequence[int], at_context_end: ContextRule, most: int
) -> list[_Row]:
    seeds = [row_seed(seed, row) for row in range(len(prompts))] if isinstance(seed, int) else list(seed)
    if len(seeds) != len(prompts):
        raise ValueError(f"{len(seeds)} seeds for {len(prompts)} prompts")
    rows = []
    for prompt, own_seed in zip(prompts, seeds, strict=True):
        if not prompt:
            raise InputError(
                "the prompt is empty: give some text, or the end-of-text token to begin a document"
            )
        if at_context_end == "stop" and len(prompt) > most:
            raise InputError(f"the prompt has {len(prompt)} tokens and the model reads {most}: shorten it")
        rows.append(_Row(list(prompt[-most:]), torch.Generator().manual_seed(own_seed)))
    return rows


def _choose(logits: Tensor, rows: Sequence[_Row], settings: SamplingSettings) -> list[tuple[int, float]]:
    """For each row a token and its log-probability."""
    if not torch.isfinite(logits).all():
        raise EtudeError("the model's predictions are not finite numbers: use an earlier checkpoint")
    probabilities = token_probabilities(logits, settings)
    logprobs = logits.to("cpu").double().log_softmax(dim=-1)
    tokens = [draw(own, row.generator) for own, row in zip(probabilities, rows, strict=True)]
    return [(token, float(logprobs[index, token])) for index, token in enumerate(tokens)]


class _Decoder:
    """The cache of the rows that are not finished. It has read all of a row's context but the last token."""

    def __init__(self, model: LanguageModel, rows: list[_Row], max_new_tokens: int) -> None:
        self.model = model
        self.active = list(rows)
        self.most = model.config.max_position_embeddings
        longest = max(len(row.context) for row in rows)
        self.cache = model.new_cache(len(rows), min(self.most, longest + max_new_tokens))
        self._read([row.context[:-1] for row in rows], self.cache)

    @torch.inference_mode()
    def _read(self, contexts: list[list[int]], cache: Cache) -> None:
        """Fill an empty cache. Rows are padded on the right: what stands behind a row's end is never seen."""
        longest = max(map(len, contexts))
        if longest:
            padded = [context + [0] * (longest - len(context)) for context in contexts]
            self.model.hidden(self._tensor(padded), cache=cache)
            cache.rewind([len(context) for context in contexts])

    def is_full(self, row: _Row) -> bool:
        return self.cache.lengths[self.active.index(row)] == self.most

    @torch.inference_mode()
    def next_logits(self) -> Tensor:
        """Read each row's last token; the logits of the one after it, (rows, V)."""
        for index, row in enumerate(self.active):
            if self.is_full(row):
                self._slide(index, row)
        newest = self._tensor([[row.context[-1]] for row in self.active])
        return self.model.head(self.model.hidden(newest, cache=self.cache)[:, -1])

    def _slide(self, index: int, row: _Row) -> None:
        row.context = row.context[-max(1, self.most // 2) :]
        alone = self.cache.row(index)
        alone.rewind([0])
        self._read([row.context[:-1]], alone)
        self.cache.lengths[index] = alone.lengths[0]

    def drop_finished(self) -> None:
        staying = [index for index, row in enumerate(self.active) if row.finish_reason is None]
        if len(staying) < len(self.active):
            self.active = [self.active[index] for index in staying]
            self.cache = self.cache.select(staying)

    def _tensor(self, tokens: list[list[int]]) -> Tensor:
        return torch.tensor(tokens, device=self.model.unembedding()[0].device)
