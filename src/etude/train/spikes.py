"""Detect spikes of the training loss, by comparing each loss with those of the steps before it.

A step of a tuning may train samples of its base beside the answers (``data.replay``). Their loss is another than that
of answers, and varies more, and their share of the trained tokens changes from step to step. So a loss is compared with
those of steps with nearly the same share, moved along the line of losses over shares.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from statistics import median

import numpy as np

from etude.config import Resolved
from etude.data.conversations.conversation import is_sampled
from etude.data.prepared_data import PreparedData
from etude.data.tokens.packing import PackedLoader

WINDOW, FEWEST = 64, 16
"""Most and fewest earlier steps that a loss is compared with."""
DEVIATIONS, SHARE = 8.0, 0.05
"""A spike exceeds the median by this many standard deviations, and by this fraction of the median."""
_NORMAL = 1.4826
"""Ratio of standard deviation to median absolute deviation in a normal distribution."""
MEMORY = 4 * WINDOW
"""Earlier steps among which those with nearly the same share of samples are found."""
NEARLY = 0.1
"""Largest difference of two shares that are nearly the same."""
Shares = Callable[[int], float]
"""Returns the share of a step's trained tokens that its base model wrote."""


class LossWatch:
    """Find losses that are spikes.

    Median and median absolute deviation (Hampel 1974) instead of mean and variance: spikes hardly change them. A new
    level of the loss counts as usual after half a window.

    Args:
        before: (step, loss) of the newest earlier steps.
        shares: of samples of the base; None: a run without such samples.
    """

    def __init__(self, before: Iterable[tuple[int, float]] = (), shares: Shares | None = None) -> None:
        self._share_of = shares or (lambda step: 0.0)
        memory = WINDOW if shares is None else MEMORY
        self._before = deque(((loss, self._share_of(step)) for step, loss in before), maxlen=memory)

    def spike(self, step: int, loss: float) -> float | None:
        """Add the loss of the next step. Returns the usual loss, a median of those before, if it is a spike, else None.

        A loss is no spike where too few steps before had nearly the same share of samples.
        """
        share = self._share_of(step)
        near = [pair for pair in self._before if abs(pair[1] - share) <= NEARLY][-WINDOW:]
        slope = slope_of(list(self._before)[-WINDOW:]) if len(near) >= FEWEST else 0.0
        self._before.append((loss, share))
        if len(near) < FEWEST:
            return None
        before = [own + slope * (share - other) for own, other in near]
        usual = median(before)
        deviation = _NORMAL * median(abs(value - usual) for value in before)
        return usual if loss > usual + max(DEVIATIONS * deviation, SHARE * usual) else None


def slope_of(steps: Sequence[tuple[float, float]]) -> float:
    """Return by how much the loss rises with the share, of (loss, share) of steps; 0 where all shares are equal.

    It is the weighted median of the slopes between all pairs of steps, each with the difference of its shares as its
    weight (Theil 1950, Sen 1968, Jaeckel 1972): spikes hardly change it.
    """
    losses, shares = np.array(steps).T
    if (shares == shares[0]).all():
        return 0.0
    first, second = np.triu_indices(len(shares), 1)
    rises, runs = losses[first] - losses[second], shares[first] - shares[second]
    slopes, weights = rises[runs != 0] / runs[runs != 0], np.abs(runs[runs != 0])
    order = np.argsort(slopes)
    summed = np.cumsum(weights[order])
    return float(slopes[order][np.searchsorted(summed, summed[-1] / 2)])


def sampled_shares(data: PreparedData, settings: Resolved) -> Shares | None:
    """Return the share of samples of the base in each step of a run; None for a run without such samples."""
    if not settings.data.replay or data.train.examples is None:
        return None
    train = settings.train
    loader = PackedLoader(data.train, train.context, train.batch_rows, settings.run.seed)
    origins = (data.corpus.name("train", number)[1] for number in range(data.train.num_documents))
    share = loader.share_of(np.array([is_sampled(origin) for origin in origins], bool))
    return lambda step: share(step - 1)  # the loader counts steps from 0
