"""A batch that requests join and leave while it runs: continuous batching over one cache of a fixed number of rows.

The rows of requests that generate come first in the cache, so one forward pass computes the next token of all of them
(Yu et al. 2022, Orca). The rows after them are idle. They keep the tokens of the requests that left, and a new prompt
reuses the longest beginning that any row holds. So shared prompts are read once, and need no memory of their own.

A row's tokens depend on its prompt, seed and settings. Other rows change only how sums are rounded: matrix products of
another number of rows may add in another order (about 1e-6 of a logit in fp32).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from etude.generate.decoder import FEWEST_STEPS, Decoder
from etude.generate.sampling import SamplingSettings, choose, likeliest, log_probabilities
from etude.model.config import ModelConfig
from etude.model.language_model import LanguageModel

READ_AT_ONCE = 128
"""Most tokens of a prompt that are read between two tokens of the other requests."""


class Constraint(Protocol):
    """Restricts the next token: a grammar, for example."""

    def allowed(self) -> NDArray[np.intp]:
        """Return the ids allowed next, ascending; none: the text is complete."""

    def accept(self, token: int) -> None:
        """Note a token that was taken."""


@dataclass(frozen=True, slots=True)
class Predicted:
    """A token with its log-probability under the model, and the likeliest tokens at its place with theirs.

    ``logprob`` is None for the first token of a prompt, which nothing precedes.
    """

    token: int
    logprob: float | None
    likeliest: list[tuple[int, float]]


@dataclass(eq=False)
class Request:
    """One row to generate.

    Attributes:
        prompt: its tokens, at least one.
        settings: how to sample, and how many tokens at most.
        seed: of this row alone.
        stop_ids: tokens that end it, and are not part of it.
        alternatives: how many likeliest tokens each prediction reports.
        score_prompt: whether the tokens of the prompt are predicted too.
        bias: added to logits, by token.
        presence, frequency: subtracted for a generated token, once and for each time.
        ignore_end: whether tokens of ``stop_ids`` are taken like any other.
        on_prompt: called once with the predictions of the prompt, empty without ``score_prompt``.
        on_token: called with each new token; returns True to end the row with it.
        on_end: called once, with the reason: "eos", "length", "stop", "cancelled", or an exception.
    """

    prompt: Sequence[int]
    settings: SamplingSettings
    seed: int
    stop_ids: frozenset[int]
    on_token: Callable[[Predicted], bool]
    on_end: Callable[[str | Exception], None]
    on_prompt: Callable[[list[Predicted]], None] = lambda predictions: None
    alternatives: int = 0
    score_prompt: bool = False
    bias: Mapping[int, float] = field(default_factory=dict)
    presence: float = 0.0
    frequency: float = 0.0
    ignore_end: bool = False
    constraint: Constraint | None = None
    cancelled: bool = False

    @property
    def cost(self) -> int:
        """Most tokens that it reads and generates."""
        return len(self.prompt) + self.settings.max_new_tokens


@dataclass(eq=False)
class _Row:
    """A request in the batch."""

    request: Request
    generator: torch.Generator
    seen: set[int]
    tokens: list[int]
    """The prompt, and the new tokens."""
    scored: list[Predicted] = field(default_factory=list)
    counts: dict[int, int] = field(default_factory=dict)
    newest_logits: NDArray[np.float32] | None = None


class RunningBatch:
    """The rows of one model.

    Args:
        rows: most requests that generate together.
        capacity: most tokens of a request, prompt included.
    """

    def __init__(self, model: LanguageModel, rows: int, capacity: int) -> None:
        self.model = model
        self.capacity = min(capacity, model.config.max_position_embeddings)
        self._decoder = Decoder(model, rows, self.capacity, FEWEST_STEPS, compile=False)
        self._cache = self._decoder.cache
        self._held: list[list[int]] = [[] for _ in range(rows)]
        """For each row of the cache, the tokens that it holds."""
        self._generating: list[_Row] = []  # in the first rows of the cache
        self._reading: _Row | None = None  # in the row after them
        self.reused_tokens = 0
        self.read_tokens = 0
        self.new_tokens = 0

    @property
    def free(self) -> bool:
        """Whether a request can join: a row is idle, and no prompt is being read."""
        return self._reading is None and len(self._generating) < len(self._held)

    @property
    def idle(self) -> bool:
        """Whether no request is in the batch."""
        return self._reading is None and not self._generating

    @torch.inference_mode()
    def join(self, request: Request) -> None:
        """Give a request the row after the generating ones, with the longest beginning of its prompt that any holds."""
        place = len(self._generating)
        generator = torch.Generator().manual_seed(request.seed)
        prompt = list(request.prompt)
        row = _Row(request, generator, set(prompt), prompt)
        # The last token is always read, for its logits. Scored prompts are read whole.
        most = 0 if request.score_prompt else len(prompt) - 1
        shared = [_shared(prompt[:most], held) for held in self._held]
        best = max(range(len(shared)), key=lambda at: (shared[at], at >= place, -len(self._held[at])))
        if best > place:
            self._cache.swap_rows(best, place)
            self._held[best], self._held[place] = self._held[place], self._held[best]
            self._cut(place, shared[best])
        elif best == place:
            self._cut(place, shared[best])
        else:
            self._cache.copy_tokens(best, place, shared[best])
            self._held[place] = prompt[: shared[best]]
        self.reused_tokens += shared[best]
        self._reading = row

    @torch.inference_mode()
    def step(self) -> None:
        """Read some of a prompt, then generate one token of every request that has read its own."""
        self._drop_cancelled()
        if self._reading is not None:
            self._read_some(self._reading)
        if self._generating:
            self._generate_one()

    def end_all(self, error: Exception) -> None:
        """End every request with ``error``."""
        rows = [*self._generating, *([self._reading] if self._reading else [])]
        self._generating, self._reading = [], None
        self._held = [[] for _ in self._held]
        for place in range(len(self._held)):
            self._cut(place, 0)
        for row in rows:
            row.request.on_end(error)

    def _cut(self, place: int, count: int) -> None:
        self._cache.lengths[place] = count
        del self._held[place][count:]

    def _read_some(self, row: _Row) -> None:
        place, request = len(self._generating), row.request
        done = self._cache.lengths[place]
        piece = row.tokens[done : done + READ_AT_ONCE]
        view = self._cache.row(place)
        hidden = self.model.hidden(torch.tensor([piece], device=self._decoder.device), cache=view)[0]
        self._cache.lengths[place] = view.lengths[0]
        self._held[place].extend(piece)
        self.read_tokens += len(piece)
        if request.score_prompt:
            logits = self.model.head(hidden).float().cpu().numpy()
            if done == 0:
                row.scored.append(Predicted(piece[0], None, []))
            following = row.tokens[done + 1 : done + len(piece) + 1]
            row.scored += [
                _predicted(own, token, request.alternatives)
                for own, token in zip(logits, following, strict=False)
            ]
        if done + len(piece) < len(row.tokens):
            return
        self._reading = None
        request.on_prompt(row.scored)
        row.scored = []
        self._generating.append(row)
        if request.settings.max_new_tokens == 0:
            self._leave(row, "length")
            return
        row.newest_logits = self.model.head(hidden[-1:]).float().cpu().numpy()[0]
        self._take(row, row.newest_logits)

    def _generate_one(self) -> None:
        rows = list(self._generating)
        view = self._cache.leading(len(rows))
        self._decoder.cache = view
        newest = [row.tokens[-1] for row in rows]
        logits = self._decoder.next_logits(newest).numpy()
        self._cache.lengths[: len(rows)] = view.lengths
        for place, token in enumerate(newest):
            self._held[place].append(token)
        for row, own in zip(rows, logits, strict=True):
            self._take(row, own)

    def _take(self, row: _Row, logits: NDArray[np.float32]) -> None:
        """Choose the next token of a row from its logits."""
        request = row.request
        try:
            constraint = request.constraint
            allowed = None if constraint is None else constraint.allowed()
            if allowed is not None and not len(allowed):
                return self._leave(row, "eos")
            offered = self._adjusted(row, logits)
            token, logprob = choose(offered, request.settings, row.generator, seen=row.seen, allowed=allowed)
            if token in request.stop_ids and not request.ignore_end:
                return self._leave(row, "eos")
            if constraint is not None:
                constraint.accept(token)
            row.tokens.append(token)
            row.seen.add(token)
            row.counts[token] = row.counts.get(token, 0) + 1
            self.new_tokens += 1
            if offered is logits and not request.alternatives:
                predicted = Predicted(token, logprob, [])  # already known
            else:
                predicted = _predicted(logits, token, request.alternatives)
            ended = request.on_token(predicted)
        except Exception as error:  # one request must not end the others
            return self._leave(row, error)
        if ended:
            return self._leave(row, "stop")
        made = len(row.tokens) - len(request.prompt)
        if made >= request.settings.max_new_tokens or len(row.tokens) >= self.capacity:
            self._leave(row, "length")

    def _adjusted(self, row: _Row, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        request = row.request
        if not (request.bias or request.presence or request.frequency):
            return logits
        logits = logits.copy()
        for token, bias in request.bias.items():
            logits[token] += bias
        for token, count in row.counts.items():
            logits[token] -= request.presence + request.frequency * count
        return logits

    def _leave(self, row: _Row, reason: str | Exception) -> None:
        """End a row: the last generating row takes its place, and its own tokens stay in the idle row after them."""
        place, last = self._generating.index(row), len(self._generating) - 1
        if place != last:
            self._cache.swap_rows(place, last)
            self._held[place], self._held[last] = self._held[last], self._held[place]
            self._generating[place] = self._generating[last]
        self._generating.pop()
        if self._reading is not None:  # it is in the row after the generating ones
            self._cache.swap_rows(last, last + 1)
            self._held[last], self._held[last + 1] = self._held[last + 1], self._held[last]
        row.request.on_end(reason)

    def _drop_cancelled(self) -> None:
        if self._reading is not None and self._reading.request.cancelled:
            request, self._reading = self._reading.request, None
            request.on_end("cancelled")
        for row in [row for row in self._generating if row.request.cancelled]:
            self._leave(row, "cancelled")


def cache_bytes(config: ModelConfig, rows: int, capacity: int) -> int:
    """Return the bytes of the cache of a :class:`RunningBatch` in fp32."""
    if not config.family.has_attention:
        return 8 * rows * capacity
    width = config.num_key_value_heads * config.head_dim
    return 2 * 4 * config.num_hidden_layers * width * rows * capacity


def _shared(prompt: Sequence[int], held: Sequence[int]) -> int:
    """Return how many tokens two sequences begin with in common."""
    count = 0
    for one, other in zip(prompt, held, strict=False):
        if one != other:
            break
        count += 1
    return count


def _predicted(logits: NDArray[np.float32], token: int, alternatives: int) -> Predicted:
    logprobs = log_probabilities(logits)
    return Predicted(token, float(logprobs[token]), likeliest(logprobs, alternatives) if alternatives else [])
