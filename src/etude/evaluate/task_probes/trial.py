"""What a probe of tasks must pass to be registered: some probes of it are made, twice."""

from __future__ import annotations

from typing import Any

from etude.errors import InputError
from etude.evaluate.items import FEWEST_ITEMS, Probe
from etude.registry import checked_call

SEED, MAX_ITEMS = 0, 32


def require_complete(make: Any) -> None:
    """Raise InputError unless ``make`` is a `TaskProbe` that keeps to the number of items and to its seed."""
    if not callable(make):
        raise InputError(f"a probe of tasks is a function from a seed and a number of items, not {make!r}")
    name = getattr(make, "__name__", type(make).__name__)
    probes = checked_call(f"the probe {name}", make, SEED, MAX_ITEMS)
    if not isinstance(probes, list) or not all(isinstance(probe, Probe) for probe in probes) or not probes:
        raise InputError(f"the probe {name} must return a list of etude.evaluate.items.Probe")
    for probe in probes:
        if not FEWEST_ITEMS <= len(probe.items) <= MAX_ITEMS:
            raise InputError(
                f"the probe {name} makes {len(probe.items)} items of '{probe.title}' where {FEWEST_ITEMS} to "
                f"{MAX_ITEMS} were requested"
            )
    again = checked_call(f"the probe {name}", make, SEED, MAX_ITEMS)
    if [probe.hash for probe in again] != [probe.hash for probe in probes]:
        raise InputError(
            f"the probe {name} makes other items from the same seed: draw by etude.data.primer.rng.Rng"
        )
