"""Commands that a verdict advises; every value in one passes :func:`bounded`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from etude.config import Settings, resolved
from etude.messages import command
from etude.plan.dial import LR, MUON_LR

RATES_APART = 8
"""Around the dial's rates the loss is flat: four times `lr` or 1.6 times `muon_lr` change it by half a percent or less
(notebook, 2026-11-24)."""
LOWEST_RATE = 1e-3
"""Of the dial's: with less, a run of any length that this program is for stays where it began."""

SANE: Mapping[str, tuple[float, float]] = {
    "train.lr": (LOWEST_RATE * LR, RATES_APART * LR),
    "train.muon_lr": (LOWEST_RATE * MUON_LR, RATES_APART * MUON_LR),
    "train.steps": (1, 10**9),
    "train.context": (2, 2**20),
    "train.batch_rows": (1, 2**20),
    "train.micro_batch_rows": (1, 2**20),
    "train.eval_tokens": (1, 10**9),
    "data.validation_fraction": (0.001, 0.5),
}
"""What may be advised of each setting that is a number."""


def bounded(key: str, value: float) -> float:
    """Return ``value``, or the nearest that is sane for the setting."""
    low, high = SANE[key]
    return min(max(value, low), high)


def lowered(settings: Settings, times: float) -> dict[str, float]:
    """Return learning rates so many times below a run's; the dial's own where the run's are far above these.

    Empty where no sane rate is lower.
    """
    train = settings.train
    rates = {"train.lr": (resolved(train.lr, "train.lr"), LR)}
    if train.optimizer == "muon":
        rates["train.muon_lr"] = (resolved(train.muon_lr, "train.muon_lr"), MUON_LR)
    wanted = {
        key: bounded(key, dial if rate > RATES_APART * dial else rate / times)
        for key, (rate, dial) in rates.items()
    }
    return {key: value for key, value in wanted.items() if value < rates[key][0]}


def lower_rates(path: Path, name: str, settings: Settings, times: float) -> str:
    """Return the advice to train again with lower learning rates."""
    changes = lowered(settings, times)
    if not changes:
        return (
            "its learning rates are low already: look at the text with `etude data report`, and test the machine with "
            "`etude doctor`"
        )
    train = settings.train
    far = [key for key in changes if SANE[key][1] < resolved(getattr(train, key.partition(".")[2]), key)]
    what = f"try learning rates {times:g} times lower"
    if far:
        ranges = " and ".join(f"{key} from {SANE[key][0]:g} to {SANE[key][1]:g}" for key in far)
        what = f"try lower learning rates (runs learn with {ranges})"
    return f"{what}: {again(path, name, changes)}"


def again(path: Path, name: str, changes: Mapping[str, float | str | bool]) -> str:
    """Return the command that trains a run once more, as ``NAME-again``, with other settings."""
    overrides = [word for key, value in changes.items() for word in ("--set", f"{key}={_plain(key, value)}")]
    return command("train", "--config", path / "run.toml", "--name", f"{name}-again", *overrides)


def _plain(key: str, value: float | str | bool) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return value
    sane = bounded(key, value)
    return str(int(sane)) if isinstance(value, int) else f"{sane:.3g}"
