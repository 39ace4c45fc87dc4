"""Forecast the loss of a network that has not been trained yet from small pilots that have.

The pilots are two short runs of the narrowest shape on the text itself, the second four times as long as the first. The
gain of the longer one measures how much can still be learned from this text. Over runs of several texts, shapes and
lengths, with N the parameters outside the embeddings, D the tokens seen, and N0, D0 those of the longer pilot::

    g = s (a x - c x^2 + b ln(N*/N0*))          x = ln(D*/D0),  s = ln(short pilot's / long pilot's) / ln 4
    bits per byte = long pilot's * exp(-g / (1 + k g))

c describes the saturation of a network, k how gains shrink as the loss approaches the entropy of the text. D* discounts
repeated text (:func:`effective_tokens`), N* parameters in excess of a small text (:func:`effective_parameters`).
``bench/forecast.py`` fits the constants to the runs in ``bench/results/forecast.json``; a test checks them.

The best network maximises a x - c x^2 + b ln(N*/N0*) (:func:`potential`), which does not depend on the pilots. So
without time for pilots the choice of network is the same, and only the forecast of the loss is missing. In a short time
the pilots are shorter; for fewer tokens than a whole pilot's, the parabola has other constants.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from etude.plan.sizes import SHAPES, Size

SHORT_PILOT, LONG_PILOT = Size(SHAPES[0], 131_072), Size(SHAPES[0], 524_288)
LEAST_PILOT = 262_144
"""Fewest tokens of the longer pilot: fewer are not informative."""
TOKENS, FILLING, PARAMETERS, WEAR = 1.263, 0.102, 0.524, 0.548
"""a, c, b and k."""
EARLY_TOKENS, EARLY_FILLING = 0.886, 0.082
"""a and c for fewer tokens than a whole pilot's. With them, pilots of all lengths give the same slope (notebook)."""
BAND, BAND_OF_SLOPE = 0.04, 0.4
"""Half the relative width of the band: it contains every run under a fit to the other texts alone."""
BAND_OF_CUT = 0.03
"""Additional width for each factor e that the longer pilot is shorter than a whole one."""
PARAMETERS_PER_TOKEN = 1.398
"""Useful parameters per token of the text: many more do not lower the loss."""
REPETITION_DECAY = 3.054
"""R* of Muennighoff et al. 2023 (15.4 there, for large texts): repetitions beyond it have little value."""


@dataclass(frozen=True)
class Pilot:
    """The results of the two pilots: short runs of the narrowest shape on the text."""

    short_bits_per_byte: float
    bits_per_byte: float  # of the longer one
    parameters: int  # outside the embeddings
    tokens: int  # of the longer one
    short_tokens: int | None = None  # of the shorter one; None: a fourth of the longer one's

    @property
    def slope(self) -> float:
        """Decrease of ln loss per unit of ln tokens, normalised to whole pilots (SHORT_PILOT and LONG_PILOT)."""
        short_tokens = self.short_tokens or self.tokens / 4
        gained = max(0.0, math.log(self.short_bits_per_byte / self.bits_per_byte))
        between = _by_tokens(self.tokens) - _by_tokens(short_tokens)
        return gained / between


@dataclass(frozen=True)
class Forecast:
    """Expected bits per byte of held-out text at the end of a run, with a band."""

    low: float
    middle: float
    high: float

    def holds(self, bits_per_byte: float) -> bool:
        """Return whether a result is in the band."""
        return self.low <= bits_per_byte <= self.high


def forecast(pilot: Pilot, parameters: int, tokens: int, train_tokens: int) -> Forecast:
    """Forecast the loss of a network after training on ``tokens`` of a text with ``train_tokens``.

    ``parameters`` are those outside the embeddings.
    """
    slope = pilot.slope
    reached = _by_tokens(pilot.tokens)  # 0 for a whole pilot
    gain = slope * (potential(parameters, tokens, train_tokens, pilot.parameters) - reached)
    middle = pilot.bits_per_byte * math.exp(-gain / (1 + WEAR * max(0.0, gain)))
    width = BAND + BAND_OF_SLOPE * slope + BAND_OF_CUT * max(0.0, math.log(LONG_PILOT.tokens / pilot.tokens))
    return Forecast(middle * (1 - width), middle, middle * (1 + width))


def potential(parameters: int, tokens: float, train_tokens: int, pilot_parameters: int) -> float:
    """Return the expected gain over a whole pilot, in units of the text's slope: the larger, the lower the loss.

    It depends on parameters (outside the embeddings), tokens seen and tokens of the text, but not on any run.
    """
    able, pilot_able = (effective_parameters(count, train_tokens) for count in (parameters, pilot_parameters))
    return _by_tokens(effective_tokens(tokens, train_tokens)) + PARAMETERS * math.log(able / pilot_able)


def _by_tokens(tokens: float) -> float:
    """Return a x - c x^2: the gain since the end of a whole pilot (negative before it), in slopes."""
    more_text = math.log(tokens / LONG_PILOT.tokens)
    if more_text < 0:
        return EARLY_TOKENS * more_text - EARLY_FILLING * more_text**2
    more_text = min(more_text, TOKENS / (2 * FILLING))  # the top of the parabola, far beyond the measurements
    return TOKENS * more_text - FILLING * more_text**2


def effective_parameters(parameters: int, train_tokens: int, room: float = PARAMETERS_PER_TOKEN) -> float:
    """Discount parameters in excess of a small text of ``train_tokens``.

    M (1 - exp(-N / M)) with N parameters and M = ``room`` * ``train_tokens``: the form of Muennighoff et al. 2023, with
    the tokens of the text as the unit.
    """
    most = room * train_tokens
    return most * (1 - math.exp(-parameters / most))


def effective_tokens(tokens: float, train_tokens: int, decay: float = REPETITION_DECAY) -> float:
    """Discount repeated tokens, where only ``train_tokens`` of the ``tokens`` are different.

    U + U R* (1 - exp(-R / R*)) with U different tokens, R repetitions and R* their ``decay`` (Muennighoff et al. 2023,
    equation 5).
    """
    if tokens <= train_tokens:
        return float(tokens)
    repetitions = tokens / train_tokens - 1
    return train_tokens * (1 + decay * (1 - math.exp(-repetitions / decay)))
