"""Networks with random weights, whose scores are shown next to those of a model of the same shape."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from etude.config import DeviceSettings
from etude.data.tokens.tokenizer import EtudeTokenizer
from etude.device import choose_device
from etude.evaluate.answerers import ItemScore, Report
from etude.evaluate.items import Item
from etude.evaluate.network_answerer import ModelAnswerer
from etude.model.build import build_model
from etude.model.config import ModelConfig
from etude.model.cost import count_parameters
from etude.setting_types import Auto

SEEDS = range(1_000_003, 1_000_006)
"""Seeds of the networks with random weights, unlikely to be the seed of a run."""
SMALL = 30_000_000
"""Up to this many parameters, several networks answer all items. Three of 135 M parameters take an hour of one core."""
LARGE = 1_000_000_000
"""Above this many parameters, a second network may not fit the memory beside the model."""
FEW_ITEMS = 32
USUAL_ITEMS = 256
ITEMS_OF_A_LARGE_MODEL = 64


@dataclass(frozen=True)
class RandomAnswerer:
    """A network of the same shape with random weights, in memory only while it answers."""

    config: ModelConfig
    tokenizer: EtudeTokenizer
    seed: int
    threads: int | Auto = "auto"

    def answer(self, items: Sequence[Item], report: Report | None = None) -> list[ItemScore]:
        # Reset the threads: the previous network used one process's share of them.
        choose_device(DeviceSettings(threads=self.threads))
        model = build_model(self.config, seed=self.seed)
        return ModelAnswerer(model, self.tokenizer).answer(items, report)


@dataclass(frozen=True)
class RandomNull:
    """The networks for comparison, and at most how many items of each probe they answer (None: all).

    reason: why there are fewer networks or items than usual; "" if there are not.
    """

    networks: Sequence[RandomAnswerer]
    num_items: int | None = None
    reason: str = ""


def random_null(config: ModelConfig, tokenizer: EtudeTokenizer, threads: int | Auto) -> RandomNull:
    """Return three networks, since a single one may happen to prefer something; fewer for a large model."""
    size = count_parameters(config).total
    networks = [RandomAnswerer(config, tokenizer, seed, threads) for seed in SEEDS]
    if size <= SMALL:
        return RandomNull(networks)
    if size <= LARGE:
        reason = (
            f"one network with random weights, on at most {FEW_ITEMS} items of each probe, because networks of "
            f"{size:,} parameters are slow"
        )
        return RandomNull(networks[:1], FEW_ITEMS, reason)
    return RandomNull(
        (), None, f"not compared with random weights, because a second network has {size:,} parameters too"
    )


def usual_items(config: ModelConfig) -> int:
    """Return how many items a probe has at most if the user gives no number."""
    return USUAL_ITEMS if count_parameters(config).total <= SMALL else ITEMS_OF_A_LARGE_MODEL
