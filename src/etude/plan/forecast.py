"""Forecast the loss of a network that has not been trained yet from small pilots that have.

The pilots are the narrowest shape, trained on the text in question for a moment and for four such moments. What the
longer one gains says how much this text gives to those who read on. Over runs of several texts, shapes and lengths,
with N the parameters outside the embeddings, D the tokens seen, and N0, D0 the longer pilot's, it is about ::

    g = s (a x - c x^2 + b ln(N*/N0*))          x = ln(D*/D0),  s = ln(short pilot's / long pilot's) / ln 4
    bits per byte = long pilot's * exp(-g / (1 + k g))

c is how a network fills up, k how gains wear off as a text's own entropy comes nearer. D* counts repeated text for less
(:func:`effective_tokens`), N* parameters for less that a small text cannot teach (:func:`effective_parameters`). The
numbers below are fitted by ``bench/forecast.py`` to the runs in ``bench/results/forecast.json``, and tested against
them.

Which network is best depends on a x - c x^2 + b ln(N*/N0*) alone (:func:`potential`), and so not on the pilots: where
no pilot can be trained, the network is chosen all the same, and only the loss is not foretold. Where the time is too
short for whole pilots, shorter ones stand in; before a whole pilot's end the parabola has constants of its own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from etude.plan.sizes import SHAPES, Size

SHORT_PILOT, LONG_PILOT = Size(SHAPES[0], 131_072), Size(SHAPES[0], 524_288)
LEAST_PILOT = 262_144
"""Tokens of the longer pilot where there is no time for more; fewer say too little of what a text has to give."""
TOKENS, FILLING, PARAMETERS, WEAR = 1.263, 0.102, 0.524, 0.548
"""a, c, b and k."""
EARLY_TOKENS, EARLY_FILLING = 0.886, 0.082
"""a and c before a whole pilot's end. With them pilots of all lengths give one slope (notebook)."""
BAND, BAND_OF_SLOPE = 0.04, 0.4
"""Half the width of the band, relative: so wide that it holds every run under a fit to the other texts only."""
BAND_OF_CUT = 0.03
"""More of it for each e-fold that the longer pilot is shorter than it should be."""
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
    short_tokens: int | None = None  # of the shorter one; None: a fourth of the longer one's

    @property
    def slope(self) -> float:
        """ln of the loss for each ln of the tokens, as whole pilots would have it (SHORT_PILOT and LONG_PILOT)."""
        short_tokens = self.short_tokens or self.tokens / 4
        gained = max(0.0, math.log(self.short_bits_per_byte / self.bits_per_byte))
        between = _by_tokens(self.tokens) - _by_tokens(short_tokens)
        return gained / between


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
    slope = pilot.slope
    reached = _by_tokens(pilot.tokens)  # 0 for a whole pilot
    gain = slope * (potential(parameters, tokens, train_tokens, pilot.parameters) - reached)
    middle = pilot.bits_per_byte * math.exp(-gain / (1 + WEAR * max(0.0, gain)))
    width = BAND + BAND_OF_SLOPE * slope + BAND_OF_CUT * max(0.0, math.log(LONG_PILOT.tokens / pilot.tokens))
    return Forecast(middle * (1 - width), middle, middle * (1 + width))


def potential(parameters: int, tokens: float, train_tokens: int, pilot_parameters: int) -> float:
    """How far beyond a whole pilot a network comes, in slopes of the text: the larger, the lower the loss.

    A function of structure alone: of parameters (outside the embeddings), tokens seen, and tokens of the text.
    """
    able, pilot_able = (effective_parameters(count, train_tokens) for count in (parameters, pilot_parameters))
    return _by_tokens(effective_tokens(tokens, train_tokens)) + PARAMETERS * math.log(able / pilot_able)


def _by_tokens(tokens: float) -> float:
    """a x - c x^2: what a network has gained since a whole pilot's end, or had not yet, in slopes."""
    more_text = math.log(tokens / LONG_PILOT.tokens)
    if more_text < 0:
        return EARLY_TOKENS * more_text - EARLY_FILLING * more_text**2
    more_text = min(more_text, TOKENS / (2 * FILLING))  # the parabola's top: far outside what was measured
    return TOKENS * more_text - FILLING * more_text**2


def effective_parameters(parameters: int, train_tokens: int, room: float = PARAMETERS_PER_TOKEN) -> float:
    """What ``parameters`` are worth when there are ``train_tokens`` to learn from.

    M (1 - exp(-N / M)) with N parameters and M = ``room`` for each token: excess parameters are worth less and less, as
    in Muennighoff et al. 2023, with the text's own tokens as the measure.
    """
    most = room * train_tokens
    return most * (1 - math.exp(-parameters / most))


def effective_tokens(tokens: float, train_tokens: int, decay: float = REPETITION_DECAY) -> float:
    """What ``tokens`` are worth when only ``train_tokens`` of them differ.

    U + U R* (1 - exp(-R / R*)) with U different tokens, R repetitions and R* their ``decay`` (Muennighoff et al. 2023,
    equation 5).
    """
    if tokens <= train_tokens:
        return float(tokens)
    repetitions = tokens / train_tokens - 1
    return train_tokens * (1 + decay * (1 - math.exp(-repetitions / decay)))
