"""Score texts: the log-probability of each token under a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from etude.errors import InputError
from etude.model.language_model import LanguageModel

_HEAD_ELEMENTS = 2**22
"""Most logits in float64 at a time: 32 MiB."""


@dataclass(frozen=True, slots=True)
class TokenScores:
    """`logprobs[i]` is the natural log-probability of token i + 1 given those before it, in float64.

    `credits[i]` is the accuracy of the top prediction: 1 if token i + 1 alone has the highest logit, 1/k if it is one
    of k tokens with it, else 0. `confidences[i]` is the probability of the top prediction, `briers[i]` the squared
    distance between the distribution and the one-hot target (Brier 1950).
    """

    logprobs: NDArray[np.float64]
    credits: NDArray[np.float64]
    confidences: NDArray[np.float64]
    briers: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class _Window:
    """A window of a sequence: reads tokens [begin, end), and scores the targets from `first` on."""

    sequence: int
    begin: int
    end: int
    first: int


def score_tokens(
    model: LanguageModel, token_ids: Sequence[int], *, context: int | None = None, batch_size: int = 8
) -> TokenScores:
    """Return the log-probability of every token but the first, which is context: usually it begins the document.

    Each token is scored once. The first C tokens (C = `context`, default max_position_embeddings) are scored in one
    window, each from all tokens before it. Then the window moves by C - C // 2, so that each further token has at least
    C // 2 tokens before it. The last window ends with the text.

    Raises:
        InputError: no token to score, or an impossible context.
    """
    return score_sequences(model, [token_ids], context=context, batch_size=batch_size)[0]


def score_sequences(
    model: LanguageModel,
    sequences: Sequence[Sequence[int]],
    *,
    context: int | None = None,
    batch_size: int = 8,
    firsts: Sequence[int] | None = None,
) -> list[TokenScores]:
    """Return `score_tokens` of several texts, computed `batch_size` windows at a time.

    Windows of similar length form a batch, padded on the right; results do not depend on that.

    Args:
        firsts: for each text, the index of the first token to score. Those before it are read, and score 0. The head,
            most of the work of a small model, is computed for scored tokens only.
    """
    most = model.config.max_position_embeddings
    length = most if context is None else context
    if not 1 <= length <= most:
        raise InputError(f"the context must be from 1 to the model's {most} tokens, not {length}")
    for tokens in sequences:
        if len(tokens) < 2:
            raise InputError("there is nothing to score: a text needs at least one token after the first")
    results = [TokenScores(*np.zeros((4, len(tokens) - 1))) for tokens in sequences]
    windows = [
        replace(window, first=max(window.first, first - 1))
        for index, (tokens, first) in enumerate(zip(sequences, firsts or [1] * len(sequences), strict=True))
        for window in _windows(index, len(tokens) - 1, length)
        if first - 1 < window.end
    ]
    windows.sort(key=lambda window: window.begin - window.end)
    for start in range(0, len(windows), batch_size):
        _score_batch(model, sequences, windows[start : start + batch_size], results)
    return results


def first_beyond(whole: Sequence[int], given: Sequence[int]) -> int:
    """Return the index of the first token of a continuation: the first at which `whole` differs from `given`.

    `given` are the tokens of a context alone, `whole` those of the context with its continuation. A token that spans
    the boundary belongs to the continuation, and so do all tokens after the first difference, since `whole` does not
    contain the last tokens of `given` then. It is len(whole) if the continuation has no token of its own.
    """
    pairs = enumerate(zip(whole, given, strict=False))
    return next((at for at, (a, b) in pairs if a != b), min(len(whole), len(given)))


def tokens_seen(count: int, context: int) -> NDArray[np.int64]:
    """Return how many tokens precede each of `count` targets in the window that scores it."""
    seen = np.zeros(count, np.int64)
    for window in _windows(0, count, context):
        seen[window.first : window.end] = np.arange(window.first, window.end) - window.begin + 1
    return seen


def _windows(sequence: int, count: int, length: int) -> list[_Window]:
    """Windows over `count` inputs; target i follows input i."""
    windows = [_Window(sequence, 0, min(length, count), 0)]
    while windows[-1].end < count:
        done = windows[-1].end
        end = min(done + length - length // 2, count)
        windows.append(_Window(sequence, end - length, end, done))
    return windows


@torch.inference_mode()
def _score_batch(
    model: LanguageModel,
    sequences: Sequence[Sequence[int]],
    windows: list[_Window],
    results: list[TokenScores],
) -> None:
    longest = max(window.end - window.begin for window in windows)
    inputs = torch.zeros(len(windows), longest, dtype=torch.long)
    targets = torch.zeros(len(windows), longest, dtype=torch.long)
    wanted = torch.zeros(len(windows), longest, dtype=torch.bool)
    for row, window in enumerate(windows):
        tokens = torch.tensor(sequences[window.sequence][window.begin : window.end + 1])
        inputs[row, : len(tokens) - 1] = tokens[:-1]
        targets[row, : len(tokens) - 1] = tokens[1:]
        wanted[row, window.first - window.begin : window.end - window.begin] = True
    device = model.unembedding()[0].device
    hidden = model.hidden(inputs.to(device))[wanted.to(device)]
    figures = target_scores(model, hidden, targets[wanted].to(device))
    lengths = [window.end - window.first for window in windows]
    for window, *parts in zip(windows, *(torch.split(figure, lengths) for figure in figures), strict=True):
        result, to = results[window.sequence], slice(window.first, window.end)
        for own, part in zip(
            (result.logprobs, result.credits, result.confidences, result.briers), parts, strict=True
        ):
            own[to] = part.numpy()


def target_scores(
    model: LanguageModel, hidden: Float[Tensor, "N D"], targets: Int[Tensor, " N"]
) -> tuple[Float[Tensor, " N"], ...]:
    """Log-probabilities, credits, confidences and Brier scores, float64 on the CPU.

    The vocabulary projection is done a few positions at a time to bound its memory.
    """
    scores = []
    count = max(1, _HEAD_ELEMENTS // model.config.vocab_size)
    for states, tokens in zip(torch.split(hidden, count), torch.split(targets, count), strict=True):
        logits = model.head(states).float().cpu().double()
        chosen = logits.gather(-1, tokens.cpu()[:, None])[:, 0]
        highest = logits.amax(dim=-1)
        tied = (logits == highest[:, None]).sum(dim=-1)
        shares = (logits - highest[:, None]).exp_()  # relative to the probability of the top prediction
        total = shares.sum(dim=-1)
        logprobs = chosen - highest - total.log()
        squares = torch.linalg.vecdot(shares, shares) / total.square()
        credits = (chosen == highest).double() / tied
        scores.append((logprobs, credits, 1 / total, squares - 2 * logprobs.exp() + 1))
    return tuple(torch.cat(part) for part in zip(*scores, strict=True))
