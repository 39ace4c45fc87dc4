"""How replayed steps compare with the record of the run."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

_MACHINE_FACTS = ("processor", "accelerator", "device", "dtype", "threads")
"""What may change the last bits of a result, besides the versions of libraries."""


@dataclass(frozen=True)
class Comparison:
    """One step as (recorded, replayed) pairs; None where the record has no value."""

    step: int
    loss: tuple[float | None, float]
    grad_norm: tuple[float | None, float]
    checksum: tuple[str | None, str | None]
    skipped: bool = False  # the record has it as skipped: its loss or gradient was not finite

    @property
    def holds(self) -> bool:
        """True if every recorded value equals the replayed one bit for bit, and a skipped step is skipped again."""
        return not self.differing

    @property
    def differing(self) -> tuple[str, ...]:
        """Names of the values that differ."""
        pairs = {
            "loss": self.loss,
            "gradient norm": self.grad_norm,
            "checksum of all parameters": self.checksum,
        }
        names = [
            name
            for name, (recorded, replayed) in pairs.items()
            if recorded is not None and recorded != replayed
        ]
        if self.skipped == (math.isfinite(self.loss[1]) and math.isfinite(self.grad_norm[1])):
            names.append("whether its update was skipped")
        return tuple(names)

    @property
    def was_recorded(self) -> bool:
        """True if the record has this step at all."""
        return self.skipped or self.loss[0] is not None


@dataclass(frozen=True)
class Proof:
    """The replayed steps since a checkpoint, and how each compares with the record."""

    from_step: int
    other_machine: tuple[str, ...]  # what differs from the machine that trained
    compared: tuple[Comparison, ...]

    @classmethod
    def nothing_yet(cls) -> Proof:
        """Return the proof of a time machine that has replayed nothing."""
        return cls(0, (), ())

    def after(self, comparison: Comparison) -> Proof:
        """Return this proof with one more replayed step."""
        return replace(self, compared=(*self.compared, comparison))

    @property
    def holds(self) -> bool:
        """True if every recorded value since the checkpoint was replayed bit for bit."""
        return all(comparison.holds for comparison in self.compared)

    @property
    def checksums(self) -> int:
        """Number of equal checksums of all parameters."""
        return sum(
            recorded is not None and recorded == replayed
            for recorded, replayed in (c.checksum for c in self.compared)
        )

    @property
    def largest_loss_difference(self) -> float:
        """Largest relative difference of a loss; 0 if all are equal."""
        return max((_relative_difference(*c.loss) for c in self.compared), default=0.0)

    @property
    def largest_norm_difference(self) -> float:
        """Largest relative difference of a gradient norm; 0 if all are equal."""
        return max((_relative_difference(*c.grad_norm) for c in self.compared), default=0.0)

    def __str__(self) -> str:
        count = len(self.compared)
        if not count:
            return f"as saved at step {self.from_step} (the checksums of its files are correct)"
        since = f"{count} step{'s' * (count > 1)} replayed from the checkpoint of step {self.from_step}"
        unrecorded = sum(not c.was_recorded for c in self.compared)
        if unrecorded:
            since += f" ({unrecorded} of them not in the record)"
        skipped = sum(c.skipped for c in self.compared)
        if skipped:
            since += f" ({skipped} skipped in training as not finite, and skipped again)"
        if self.holds and unrecorded + skipped == count and not self.checksums:
            return f"nothing to compare with: {since}"
        if self.holds:
            many = "s" * (self.checksums > 1)
            with_sums = f" and {self.checksums} checksum{many} of all parameters" if self.checksums else ""
            return (
                f"proved: {since}, every loss and gradient norm{with_sums} equal to the record, bit for bit"
            )
        changed = f" (the machine differs: {'; '.join(self.other_machine)})" if self.other_machine else ""
        first = next(c for c in self.compared if not c.holds)
        return (
            f"not bit for bit: {since}; from step {first.step} on they differ{changed}, first in "
            f"{' and '.join(first.differing)}; relative differences are at most {self.largest_loss_difference:.1e} for "
            f"losses and {self.largest_norm_difference:.1e} for gradient norms"
        )


def machine_differences(
    session: Mapping[str, Any], now: Mapping[str, Any], compiled: bool
) -> tuple[str, ...]:
    """Return what may change the last bits: processor, device, threads, compiler, versions of libraries."""
    trained_on = session.get("machine")
    if not isinstance(trained_on, Mapping):
        return ()
    differences = [
        f"{name} {trained_on.get(name)}, now {now[name]}"
        for name in _MACHINE_FACTS
        if trained_on.get(name) != now[name]
    ]
    versions = trained_on.get("versions")
    for library, version in now["versions"].items():
        trained_with = versions.get(library) if isinstance(versions, Mapping) else None
        if trained_with != version:
            differences.append(f"{library} {trained_with}, now {version}")
    if bool(session.get("compiled")) != compiled:
        differences.append("compiled in training, not now" if not compiled else "not compiled in training")
    processes = session.get("processes", 1)
    if processes != 1:
        differences.append(f"{processes} processes, now 1")
    return tuple(differences)


def _relative_difference(recorded: float | None, replayed: float) -> float:
    if recorded is None or recorded == replayed:
        return 0.0
    difference = abs(recorded - replayed) / max(abs(recorded), abs(replayed))
    return difference if math.isfinite(difference) else 1.0
