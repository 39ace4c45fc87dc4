"""Commands that a verdict advises. Every value in them passes :func:`bounded`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from etude.config import Resolved, get_value
from etude.messages import command
from etude.plan.base_values import dial_rates

RATES_APART = 8
"""Around the dial's rates the loss is flat: four times AdamW's or 1.6 times Muon's changes it by at most half a percent
(lab notebook, 2026-11-24)."""
LOWEST_RATE = 1e-3
"""Share of the dial's rate: below it, a run of any length that this program is for hardly moves."""

SANE: Mapping[str, tuple[float, float]] = {
    "train.steps": (1, 10**9),
    "train.context": (2, 2**20),
    "train.batch_rows": (1, 2**20),
    "train.micro_batch_rows": (1, 2**20),
    "train.eval_tokens": (1, 10**9),
    "data.validation_fraction": (0.001, 0.5),
}
"""Bounds of each numeric setting in advice; for learning rates see :func:`sane`."""


def sane(key: str, settings: Resolved) -> tuple[float, float]:
    """Return the lowest and the highest value to advise; a rate's bounds are relative to its update rule's default."""
    rate = dial_rates(settings).get(key)
    return SANE[key] if rate is None else (LOWEST_RATE * rate.value, RATES_APART * rate.value)


def bounded(key: str, value: float, settings: Resolved) -> float:
    """Return ``value``, clamped to the sane range of the setting."""
    low, high = sane(key, settings)
    return min(max(value, low), high)


def lowered(settings: Resolved, times: float) -> dict[str, float]:
    """Return learning rates ``times`` below a run's, or the dial's own where the run's are far above those.

    Empty if no sane rate is lower.
    """
    lower = {}
    for key, dial in dial_rates(settings).items():
        rate = get_value(settings, key)
        value = dial.value if rate > RATES_APART * dial.value else rate / times
        value = bounded(key, value, settings)
        if value < rate:
            lower[key] = value
    return lower


def lower_rates(path: Path, name: str, settings: Resolved, times: float) -> str:
    """Return the advice to train again with lower learning rates."""
    changes = lowered(settings, times)
    if not changes:
        return (
            "its learning rates are already low: check the text with `etude data report`, and test the machine with "
            "`etude doctor`"
        )
    ranges = {key: sane(key, settings) for key in changes}
    outside = [key for key, (_, high) in ranges.items() if high < get_value(settings, key)]
    action = f"try learning rates {times:g} times lower"
    if outside:
        bounds = " and ".join(f"{key} from {ranges[key][0]:g} to {ranges[key][1]:g}" for key in outside)
        action = f"try lower learning rates (runs learn with {bounds})"
    return f"{action}: {rerun_command(path, name, settings, changes)}"


def rerun_command(
    path: Path, name: str, settings: Resolved, changes: Mapping[str, float | str | bool]
) -> str:
    """Return the command that trains a run again, as ``NAME-again``, with changes to its ``settings``."""
    pairs = [f"{key}={_plain(key, value, settings)}" for key, value in changes.items()]
    overrides = [word for pair in pairs for word in ("--set", pair)]
    return command("train", "--config", path / "run.toml", "--name", f"{name}-again", *overrides)


def _plain(key: str, value: float | str | bool, settings: Resolved) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return value
    near = bounded(key, value, settings)
    return str(int(near)) if isinstance(value, int) else f"{near:.3g}"
