"""How a replayed step compares with what was written down when it was made."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

_TELLING = ("processor", "accelerator", "device", "dtype", "threads")


@dataclass(frozen=True)
class Comparison:
    """One step: (told then, computed now). None where nothing was told."""

    step: int
    loss: tuple[float | None, float]
    grad_norm: tuple[float | None, float]
    checksum: tuple[str | None, str | None]
    left_out: bool = False  # its numbers were not finite, then and now nothing was changed

    @property
    def holds(self) -> bool:
        """Whether all that was told is the same to the bit; of a step that was left out, that it is again."""
        return not self.differing

    @property
    def differing(self) -> tuple[str, ...]:
        """What is not as it was told."""
        told = {
            "loss": self.loss,
            "gradient norm": self.grad_norm,
            "checksum of all parameters": self.checksum,
        }
        found = [name for name, (then, now) in told.items() if then is not None and then != now]
        if self.left_out == (math.isfinite(self.loss[1]) and math.isfinite(self.grad_norm[1])):
            found.append("whether its update was left out")
        return tuple(found)

    @property
    def was_told(self) -> bool:
        """Whether the record has this step at all."""
        return self.left_out or self.loss[0] is not None


@dataclass(frozen=True)
class Proof:
    """The steps that were made again, from a checkpoint on, and how each compares with the record."""

    from_step: int
    other_machine: tuple[str, ...]  # what is not as it was when the run trained
    compared: tuple[Comparison, ...]

    @classmethod
    def nothing_yet(cls) -> Proof:
        return cls(0, (), ())

    def after(self, comparison: Comparison) -> Proof:
        return replace(self, compared=(*self.compared, comparison))

    @property
    def holds(self) -> bool:
        """Whether every number that was told since the checkpoint came out the same, to the bit."""
        return all(comparison.holds for comparison in self.compared)

    @property
    def checksums(self) -> int:
        """Checksums of all parameters that came out the same."""
        return sum(told is not None and told == seen for told, seen in (c.checksum for c in self.compared))

    @property
    def largest_loss_difference(self) -> float:
        """Relative; 0 where all are the same."""
        return max((_apart(*c.loss) for c in self.compared), default=0.0)

    @property
    def largest_norm_difference(self) -> float:
        """Of the gradient norms, relative."""
        return max((_apart(*c.grad_norm) for c in self.compared), default=0.0)

    def __str__(self) -> str:
        count = len(self.compared)
        if not count:
            return f"as saved at step {self.from_step} (checksums of its files are right)"
        since = f"{count} step{'s' * (count > 1)} made again from the checkpoint of step {self.from_step}"
        untold = sum(not c.was_told for c in self.compared)
        if untold:
            since += f" ({untold} of them with no line in the record)"
        left_out = sum(c.left_out for c in self.compared)
        if left_out:
            since += f" ({left_out} left out then, being not finite, and again now)"
        if self.holds and untold + left_out == count and not self.checksums:
            return f"nothing to compare with: {since}"
        if self.holds:
            many = "s" * (self.checksums > 1)
            with_sums = f" and {self.checksums} checksum{many} of all parameters" if self.checksums else ""
            return (
                f"proved: {since}, every loss and gradient norm{with_sums} equal to the record, bit for bit"
            )
        changed = f" (not as then: {'; '.join(self.other_machine)})" if self.other_machine else ""
        first = next(c for c in self.compared if not c.holds)
        return (
            f"not the same bits: {since}, from step {first.step} on they differ{changed}: there in "
            f"{' and '.join(first.differing)}; losses by at most "
            f"{self.largest_loss_difference:.1e} of themselves, gradient norms by "
            f"{self.largest_norm_difference:.1e}"
        )


def machine_differences(
    session: Mapping[str, Any], now: Mapping[str, Any], compiled: bool
) -> tuple[str, ...]:
    """What could change the last bits: processor, device, threads, compiler, versions of the libraries."""
    then = session.get("machine")
    if not isinstance(then, Mapping):
        return ()
    found = [f"{name} {then.get(name)}, now {now[name]}" for name in _TELLING if then.get(name) != now[name]]
    versions = then.get("versions")
    for library, version in now["versions"].items():
        before = versions.get(library) if isinstance(versions, Mapping) else None
        if before != version:
            found.append(f"{library} {before}, now {version}")
    if bool(session.get("compiled")) != compiled:
        found.append("compiled then, not now" if not compiled else "not compiled then")
    processes = session.get("processes", 1)
    if processes != 1:
        found.append(f"{processes} processes, now 1")
    return tuple(found)


def _apart(told: float | None, seen: float) -> float:
    if told is None or told == seen:
        return 0.0
    apart = abs(told - seen) / max(abs(told), abs(seen))
    return apart if math.isfinite(apart) else 1.0
