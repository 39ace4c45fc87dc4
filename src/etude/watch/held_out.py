"""A bounded sample of the held-out text, the same at every step, on which neurons are observed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from etude.data.tokens.coverage import IGNORE_INDEX
from etude.data.tokens.parts import TokenPart
from etude.data.tokens.rows import evaluation_windows
from etude.errors import InputError
from etude.model.config import ModelConfig
from etude.model.cost import forward_flops_per_token
from etude.plan.plan import Plan

Int64 = npt.NDArray[np.int64]
SAMPLE_TOKENS = 16_384
"""As many tokens as the smallest evaluation reads."""
SAMPLE_FLOPS = 3e11
"""Budget of the forward pass over the sample: a large network reads fewer tokens, so that it answers in seconds."""
NUMBERS_AT_ONCE = 2**24
"""Numbers of one activation in a forward pass: 64 MiB in fp32."""


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Windows of the held-out text, evenly spread over all of it.

    Attributes:
        places: (N, T) index of each input token in the part.
        inputs: (N, T) token ids.
        real: (N, T) False where a window extends beyond the text.
        document_ids: (N, T) if attention stays within documents, otherwise None.
    """

    part: TokenPart
    places: Int64
    inputs: Int64
    real: npt.NDArray[np.bool_]
    document_ids: Int64 | None

    @property
    def num_tokens(self) -> int:
        return int(self.real.sum())

    def batches(self, config: ModelConfig) -> Iterator[slice]:
        """Yield the rows that a network of this shape reads in one pass."""
        rows = rows_at_once(config, self.inputs.shape[1])
        for first in range(0, len(self.inputs), rows):
            yield slice(first, first + rows)


def rows_at_once(config: ModelConfig, length: int) -> int:
    """Return how many rows of ``length`` tokens a network of this shape reads in one pass."""
    widest = max(config.vocab_size, config.intermediate_size, config.num_attention_heads * length)
    return max(1, NUMBERS_AT_ONCE // (length * widest))


def held_out(plan: Plan, max_tokens: int | None = None) -> HeldOut:
    """Return windows of the run's context length: at least one, and at most ``max_tokens`` tokens. Deterministic.

    The default of ``max_tokens`` is :data:`SAMPLE_TOKENS`, or what :data:`SAMPLE_FLOPS` pays for if that is less.

    Raises:
        InputError: ``max_tokens`` is not positive, or there is no held-out text.
    """
    part, context = plan.data.validation, plan.settings.train.context
    if max_tokens is None:
        affordable = int(SAMPLE_FLOPS / forward_flops_per_token(plan.model, context))
        max_tokens = min(SAMPLE_TOKENS, max(1, affordable))
    if max_tokens < 1:
        raise InputError(f"max_tokens must be at least 1, not {max_tokens}")
    windows = evaluation_windows(part, context)
    if len(windows) == 0:
        raise InputError("the run has no held-out text to observe neurons on")
    num_windows = min(len(windows), max(1, max_tokens // context))
    chosen = np.linspace(0, len(windows) - 1, num_windows).round().astype(np.int64)
    pairs = [windows.batch(int(number), 1) for number in chosen]
    inputs, targets = (np.concatenate(arrays) for arrays in zip(*pairs, strict=True))
    documents = None
    if not plan.settings.data.cross_document_attention:
        documents = np.concatenate([windows.document_ids(int(number), 1) for number in chosen])
    places = np.concatenate([windows.target_places(int(number), 1) - 1 for number in chosen])
    return HeldOut(part, places, inputs, targets != IGNORE_INDEX, documents)
