"""What loss to expect of a network that has not been trained yet, from a pilot that has.

A pilot is the narrowest shape, trained for a few seconds on the text in question. Over runs of several texts, shapes
and lengths, with N the parameters outside the embeddings, D the tokens seen, and N0, D0 the pilot's, it is about ::

    ln(pilot's bits per byte / bits per byte) = r (a ln(D*/D0) + b ln(N/N0) + c ln(D*/D0) ln(N/N0))

``r`` is how far the pilot itself came below a count of single bytes, ln(unigram's / pilot's): a text on which the
pilot is fast has more to give. D* counts repeated text for less (:func:`effective_tokens`). The numbers below are
fitted by ``bench/forecast.py`` to the runs in ``bench/results/forecast.json``, and tested against them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from etude.train.sizes import SHAPES, Size

PILOT = Size(SHAPES[0], 131_072)
TOKENS_EXPONENT, PARAMETERS_EXPONENT, JOINT_EXPONENT = 0.1, 0.05, 0.01
"""a, b and c."""
BAND = 0.1
"""How far, relative to the forecast, a run of a text that the fit has not seen fell at most."""
REPETITION_DECAY = 15.4
"""R* of Muennighoff et al. 2023: after so many repetitions, more of them teach next to nothing."""


@dataclass(frozen=True)
class Pilot:
    """A short run that was made to see what a text has to give."""

    bits_per_byte: float
    unigram_bits_per_byte: float  # of the same held-out text, by a count of single bytes
    parameters: int  # outside the embeddings
    tokens: int


@dataclass(frozen=True)
class Forecast:
    """Bits per byte of held-out text to expect at the end of a run."""

    low: float
    middle: float
    high: float

    def holds(self, bits_per_byte: float) -> bool:
        return self.low <= bits_per_byte <= self.high


def forecast(pilot: Pilot, parameters: int, tokens: int, train_tokens: int) -> Forecast:
    """The loss of a network of ``parameters`` (outside the embeddings) after ``tokens`` of a text that has
    ``train_tokens``.
    """
    pace = math.log(pilot.unigram_bits_per_byte / pilot.bits_per_byte)
    more_text = math.log(effective_tokens(tokens, train_tokens) / pilot.tokens)
    more_network = math.log(parameters / pilot.parameters)
    gain = (
        TOKENS_EXPONENT * more_text
        + PARAMETERS_EXPONENT * more_network
        + JOINT_EXPONENT * more_text * more_network
    )
    middle = pilot.bits_per_byte * math.exp(-pace * gain)
    return Forecast(middle * (1 - BAND), middle, middle * (1 + BAND))


def effective_tokens(tokens: int, train_tokens: int) -> float:
    """What ``tokens`` are worth when only ``train_tokens`` of them differ.

    U + U R* (1 - exp(-R / R*)) with U different tokens, R repetitions (Muennighoff et al. 2023, equation 5).
    """
    if tokens <= train_tokens:
        return float(tokens)
    repetitions = tokens / train_tokens - 1
    return train_tokens * (1 + REPETITION_DECAY * (1 - math.exp(-repetitions / REPETITION_DECAY)))
