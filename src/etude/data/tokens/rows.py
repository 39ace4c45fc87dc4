"""The rows of training steps and evaluations: windows of a text, or packed examples where a part has some."""

from __future__ import annotations

from typing import TypeAlias

from etude.data.tokens.coverage import EvaluationWindows
from etude.data.tokens.loader import BatchLoader
from etude.data.tokens.packing import PackedLoader, PackedWindows
from etude.data.tokens.parts import TokenPart

TrainingRows: TypeAlias = BatchLoader | PackedLoader
EvaluationRows: TypeAlias = EvaluationWindows | PackedWindows


def training_rows(part: TokenPart, context: int, batch_rows: int, seed: int) -> TrainingRows:
    """Return the batches of ``batch_rows`` rows of ``context`` tokens, as a function of the step.

    Raises:
        InputError: the part has too few tokens for a row, or no example that fits into one.
    """
    kind = BatchLoader if part.examples is None else PackedLoader
    return kind(part, context, batch_rows, seed)


def evaluation_windows(part: TokenPart, context: int, max_tokens: int | None = None) -> EvaluationRows:
    """Return rows over the whole part, or its first ``max_tokens`` tokens rounded down to a mark (at least one).

    Raises:
        InputError: no example fits into a row.
    """
    kind = EvaluationWindows if part.examples is None else PackedWindows
    return kind(part, context, max_tokens)
