"""Sample the next token from logits: the settings, the resulting probabilities, and the draw.

The settings apply in this order, each to the result of the one before; the final probabilities are normalised:

0. repetition_penalty: for every token in the text so far, prompt included, divide positive logits by it and multiply
   negative ones (Keskar et al. 2019; `transformers` and vLLM do the same);
1. temperature: divide logits by it; 0 always takes the most probable token;
2. top_k: keep the k most probable tokens;
3. top_p: keep the fewest most probable tokens whose probabilities reach p (Holtzman et al. 2020);
4. min_p: keep tokens that are at least min_p times as probable as the most probable one (Nguyen et al. 2024).

Among equally probable tokens the lower id counts as more probable. At least one token always remains.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, fields, replace
from numbers import Integral, Real
from typing import Any, TypedDict

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from etude.errors import EtudeError, InputError
from etude.untrusted import shown

_LEAST_PENALTY, _MOST_PENALTY = 0.01, 100.0
_LEAST_SEED, _MOST_SEED = -(2**63), 2**64 - 1
"""Range of seeds that a PyTorch generator accepts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingSettings:
    """How to sample tokens, and how many. Raises InputError for invalid values."""

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    max_new_tokens: int = 256

    def __post_init__(self) -> None:
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise InputError(
                f"temperature must be 0 (always the likeliest token) or above, not {self.temperature}"
            )
        if self.top_k is not None and self.top_k < 1:
            raise InputError(f"top_k must be at least 1, or omitted to keep every token, not {self.top_k}")
        if not 0 < self.top_p <= 1:
            raise InputError(f"top_p must be above 0 and at most 1 (keep every token), not {self.top_p}")
        if not 0 <= self.min_p <= 1:
            raise InputError(f"min_p must be from 0 (keep every token) to 1, not {self.min_p}")
        if not _LEAST_PENALTY <= self.repetition_penalty <= _MOST_PENALTY:
            raise InputError(
                f"repetition_penalty must be from {_LEAST_PENALTY:g} to {_MOST_PENALTY:g} (1: none; 1.1 is usual), "
                f"not {self.repetition_penalty}"
            )
        if self.max_new_tokens < 0:
            raise InputError(f"max_new_tokens must be 0 or above, not {self.max_new_tokens}")


USUAL_SAMPLING = SamplingSettings(temperature=0.8, top_p=0.95)
"""The default: a temperature slightly below 1, without the least likely 5 %."""


CHAT_SAMPLING = SamplingSettings(temperature=0.0, top_p=0.95)
"""The default for answers: the likeliest one is most often right."""


class SamplingChanges(TypedDict, total=False):
    """Settings by name, as keyword arguments; see `SamplingSettings`."""

    temperature: float
    top_k: int | None
    top_p: float
    min_p: float
    repetition_penalty: float
    max_new_tokens: int


def changed(settings: Any, changes: Mapping[str, Any]) -> SamplingSettings:
    """Return `settings` (None: the default) with `changes` by name.

    Raises:
        InputError: an invalid value.
        TypeError: an unknown name, as for any keyword argument.
    """
    base = USUAL_SAMPLING if settings is None else settings
    if not isinstance(base, SamplingSettings):
        raise InputError(
            f"the settings must be SamplingSettings, not {shown(settings)}: give values by name, such as "
            "max_new_tokens=50"
        )
    known = [field.name for field in fields(SamplingSettings)]
    for name in changes:
        if name not in known:
            raise TypeError(f"there is no setting {name!r}: {', '.join(known)}, seed or stop")
    return replace(base, **{name: _value(name, value) for name, value in changes.items()})


def _value(name: str, value: Any) -> Any:
    if name == "top_k" and value is None:
        return None
    return whole_number(name, value) if name in ("top_k", "max_new_tokens") else _number(name, value)


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, Real):
        raise InputError(f"{name} must be a number, not {shown(value)}")
    try:
        return float(value)
    except OverflowError:
        raise InputError(f"{name} is too large a number") from None


def whole_number(name: str, value: Any) -> int:
    """Return `value` as an int. Raises InputError, with `name`, if it is not a whole number."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise InputError(f"{name} must be a whole number, not {shown(value)}")
    return int(value)


def require_seed(seed: Any) -> int:
    """Return a valid seed for a generator. Raises InputError for another value."""
    number = whole_number("seed", seed)
    if not _LEAST_SEED <= number <= _MOST_SEED:
        raise InputError("seed must be from 0 to 2**64 - 1 (or down to -2**63): choose a smaller number")
    return number


def token_probabilities(logits: Float[Tensor, "B V"], settings: SamplingSettings) -> Float[Tensor, "B V"]:
    """Return the distribution from which tokens are drawn, in float64 on the CPU; 0 for excluded tokens.

    It is that of an empty text, so the repetition penalty has no effect.
    """
    probabilities = torch.zeros(logits.shape, dtype=torch.float64)
    for row, own in enumerate(logits.detach().to("cpu").double().numpy()):
        ids, remaining = possible_tokens(own, settings)
        probabilities[row, torch.from_numpy(ids)] = torch.from_numpy(remaining)
    return probabilities


class NotFinite(EtudeError):
    """The logits of a network are not finite, so no token can be drawn."""


def choose(
    logits: NDArray[np.float32],
    settings: SamplingSettings,
    generator: torch.Generator,
    *,
    seen: Collection[int] = (),
    allowed: NDArray[np.intp] | None = None,
) -> tuple[int, float]:
    """Draw a token from one row of logits (V,). Returns its id and its log-probability under the model itself.

    Args:
        seen: the tokens of the text so far, for `repetition_penalty`.
        allowed: restricts the choice to these ids.

    Raises:
        NotFinite: not all logits are finite.
    """
    exact = logits.astype(np.float64)
    largest = exact.max()
    total = np.exp(exact - largest).sum() if np.isfinite(largest) else np.nan
    if not (np.isfinite(total) and np.isfinite(logits.min())):
        raise NotFinite("the model's predictions are not finite numbers: use an earlier checkpoint")
    offered: NDArray[np.floating] = logits
    if settings.repetition_penalty != 1 and seen:
        offered = penalised(exact, seen, settings.repetition_penalty)
    if allowed is not None:
        offered = offered[allowed]
    if settings.temperature == 0:
        place = int(offered.argmax())  # the first of equals
    else:
        ids, probabilities = possible_tokens(offered, settings)
        place = int(ids[draw(probabilities, generator)])
    token = place if allowed is None else int(allowed[place])
    return token, float(exact[token] - largest - np.log(total))


def log_probabilities(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the log-probabilities of a row of logits (V,)."""
    exact = logits.astype(np.float64)
    exact -= exact.max()
    exact -= np.log(np.exp(exact).sum())
    return exact


def likeliest(logprobs: NDArray[np.float64], count: int) -> list[tuple[int, float]]:
    """Return the `count` most likely tokens of log-probabilities (V,) with theirs; the lower id first if equal."""
    best = np.argsort(-logprobs, kind="stable")[:count]
    return [(int(token), float(logprobs[token])) for token in best]


def penalised(logits: NDArray[np.float64], seen: Iterable[int], penalty: float) -> NDArray[np.float64]:
    """Return a copy of a row of logits (V,) with the penalty applied to the tokens `seen`."""
    ids = np.fromiter(seen, dtype=np.intp)
    result = logits.copy()
    result[ids] = np.where(logits[ids] > 0, logits[ids] / penalty, logits[ids] * penalty)
    return result


def possible_tokens(
    logits: NDArray[np.floating], settings: SamplingSettings
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Return the ids that the settings keep of one row of finite logits (V,), ascending, and their probabilities."""
    if settings.temperature == 0:
        return np.array([logits.argmax()]), np.ones(1)  # argmax is the first of equals
    ids = _kept_ids(logits, settings)
    weights = _weights(logits if ids is None else logits[ids], logits.max(), settings)
    probabilities = weights / weights.sum()
    return (np.arange(len(logits)) if ids is None else ids), probabilities


def _weights(
    logits: NDArray[np.floating], largest: np.floating, settings: SamplingSettings
) -> NDArray[np.float64]:
    """Return unnormalised probabilities, 1 for the largest logit, so that a tiny temperature cannot overflow."""
    with np.errstate(over="ignore"):
        return np.exp((logits.astype(np.float64) - np.float64(largest)) / settings.temperature)


def _kept_ids(logits: NDArray[np.floating], settings: SamplingSettings) -> NDArray[np.intp] | None:
    """Return the ids that top_k, top_p and min_p keep; None for all of them.

    Each of the three keeps the most likely tokens, so together they keep a prefix of the tokens in descending order:
    all logits from a threshold on. Only logits that may be in this prefix are sorted.
    """
    if settings.top_k is None and settings.top_p == 1 and settings.min_p == 0:
        return None
    largest = logits.max()
    candidates = logits
    if settings.top_k is not None and settings.top_k < len(logits):
        candidates = np.partition(logits, -settings.top_k)[-settings.top_k :]
    weights = _weights(candidates, largest, settings)
    total = weights.sum()
    # All tokens below this weight together have at most half of the mass that top_p may drop.
    slight = (1 - settings.top_p) / 2 * total / len(weights)
    falling = np.sort(candidates[weights >= max(slight, settings.min_p)])[::-1]
    count = len(falling)
    if settings.top_p < 1:
        reached = _weights(falling, largest, settings).cumsum()
        count = min(count, 1 + int(np.searchsorted(reached, settings.top_p * total)))
    ids = np.flatnonzero(logits >= falling[count - 1])
    if len(ids) > count:  # ties at the threshold: keep the lower ids
        border = np.flatnonzero(logits[ids] == falling[count - 1])
        ids = np.delete(ids, border[count - len(ids) :])
    return ids


def draw(probabilities: NDArray[np.float64], generator: torch.Generator) -> int:
    """Draw an index into `probabilities` (N,), from one uniform number and the cumulative distribution.

    The result depends on the probabilities and that number alone, and not on the device or on other rows.
    """
    cumulative = probabilities.cumsum()
    point = torch.rand((), generator=generator, dtype=torch.float64).item() * cumulative[-1]
    index = int(np.searchsorted(cumulative, point, side="right"))
    # Rounding may move the point to the end, beyond the last token with a probability above 0.
    return index if index < len(cumulative) else int(np.flatnonzero(probabilities)[-1])


def row_seed(seed: int, row: int) -> int:
    """Return the seed of one row of a batch: row 0 has `seed` itself, the others hashes of it and their index."""
    if row == 0:
        return seed
    digest = hashlib.sha256(f"{seed}:{row}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1
