"""What loss to expect of a network that has not been trained yet, from pilots that have.

The pilots are the narrowest shape, trained on the text in question for a moment and for four such moments. What the
longer one gains says how much this text gives to those who read on. Over runs of several texts, shapes and lengths,
with N the parameters outside the embeddings, D the tokens seen, and N0, D0 the longer pilot's, it is about ::

    g = s (a x - c x^2 + b ln(N*/N0*))          x = ln(D*/D0),  s = ln(short pilot's / long pilot's) / ln 4
    bits per byte = long pilot's * exp(-g / (1 + k g))

c is how a network fills up, k how gains wear off as a text's own entropy comes nearer. D* counts repeated text for less
(:func:`effective_tokens`), N* parameters for less that a small text cannot teach (:func:`effective_parameters`). The
numbers below are fitted by ``bench/forecast.py`` to the runs in ``bench/results/forecast.json``, and tested against
them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from etude.train.sizes import SHAPES, Size

SHORT_PILOT, LONG_PILOT = Size(SHAPES[0], 131_072), Size(SHAPES[0], 524_288)
TOKENS, FILLING, PARAMETERS, WEAR = 1.263, 0.102, 0.524, 0.548
"""a, c, b and k."""
BAND, BAND_OF_SLOPE = 0.04, 0.4
"""Half the width of the band, relative: so wide that it holds every run under a fit to the other texts only."""
PARAMETERS_PER_TOKEN = 1.398
"""Of a text: a network with many more of them than that learns no more from it."""
REPETITION_DECAY = 3.054
"""R* of Muennighoff et al. 2023 (15.4 there, of large texts): after so many repetitions, more teach next to nothing."""


@dataclass(frozen=True)
class Pilot:
    """Two short runs that were made to see what a text has to give."""

    short_bits_per_byte: float
    bits_per_byte: float  # of the longer one
    parameters: int  # outside the embeddings
    tokens: int  # of the longer one


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
    slope = max(0.0, math.log(pilot.short_bits_per_byte / pilot.bits_per_byte)) / math.log(4)
    more_text = math.log(effective_tokens(tokens, train_tokens) / pilot.tokens)
    more_text = min(more_text, TOKENS / (2 * FILLING))  # the parabola's top: far outside what was measured
    able, pilot_able = (effective_parameters(count, train_tokens) for count in (parameters, pilot.parameters))
    more_network = math.log(able / pilot_able)
    gain = slope * (TOKENS * more_text - FILLING * more_text**2 + PARAMETERS * more_network)
    middle = pilot.bits_per_byte * math.exp(-gain / (1 + WEAR * max(0.0, gain)))
    width = BAND + BAND_OF_SLOPE * slope
    return Forecast(middle * (1 - width), middle, middle * (1 + width))


def effective_parameters(parameters: int, train_tokens: int, room: float = PARAMETERS_PER_TOKEN) -> float:
    """What ``parameters`` are worth when there are ``train_tokens`` to learn from.

    M (1 - exp(-N / M)) with N parameters and M = ``room`` for each token: excess parameters are worth less and less, as
    in Muennighoff et al. 2023, with the text's own tokens as the measure.
    """
    most = room * train_tokens
    return most * (1 - math.exp(-parameters / most))


def effective_tokens(tokens: int, train_tokens: int, decay: float = REPETITION_DECAY) -> float:
    """What ``tokens`` are worth when only ``train_tokens`` of them differ.

    U + U R* (1 - exp(-R / R*)) with U different tokens, R repetitions and R* their ``decay`` (Muennighoff et al. 2023,
    equation 5).
    """
    if tokens <= train_tokens:
        return float(tokens)
    repetitions = tokens / train_tokens - 1
    return train_tokens * (1 + decay * (1 - math.exp(-repetitions / decay)))
