"""What a run wrote down while it trained, as far as a replay needs it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from etude.config import Settings
from etude.errors import InputError
from etude.model.build import empty_model
from etude.model.folder import load_config
from etude.model.language_model import LanguageModel
from etude.run import RunFolder
from etude.train.checkpoint import list_checkpoints, step_of
from etude.train.frozen import own_settings, settings_for_step
from etude.train.schedule import Revision

FOREVER = 2**62
"""A step that no run comes to."""


@dataclass(frozen=True)
class Recorded:
    """A run's settings, manifest and metrics. Nothing is computed."""

    run: RunFolder
    settings: Settings  # as they are now
    manifest: dict[str, Any]
    losses: Mapping[int, float]  # by step, nats per token
    grad_norms: Mapping[int, float]
    checksums: Mapping[int, str]
    left_out: frozenset[int]  # steps whose loss or gradient was not finite
    revisions: tuple[Revision, ...]
    micro_batches: tuple[tuple[int, int], ...]  # after this step, so many rows at once
    stamp: tuple[int, int]  # of the record when it was read

    @classmethod
    def of(cls, path: Path) -> Recorded:
        """Read the run at ``path``, which may still be training.

        Raises:
            InputError: no run there, or its settings or manifest are damaged.
        """
        run = RunFolder.open(path)
        settings, manifest = own_settings(run)
        stamp = cls.stamp_of(run)
        losses, norms, checksums = {}, {}, {}
        left_out, revisions, micro = set(), {}, {}
        for event in run.metrics.events():
            kind, step = event.get("event"), event.get("step")
            if type(step) is not int or step < 0:
                continue
            if kind == "step" and _number(event.get("loss")) and _number(event.get("grad_norm")):
                losses[step], norms[step] = float(event["loss"]), float(event["grad_norm"])
            elif kind == "checksum" and isinstance(event.get("parameters"), str):
                checksums[step] = event["parameters"]
            elif kind == "left_out":
                left_out.add(step)
            elif kind == "length" and _count(event.get("num_steps")) and event["num_steps"] > step:
                revisions[step] = event["num_steps"]
            elif kind == "micro_batch" and _count(event.get("micro_batch_rows")):
                micro[step] = event["micro_batch_rows"]
        return cls(
            run,
            settings,
            manifest,
            losses,
            norms,
            checksums,
            frozenset(left_out),
            tuple(sorted(revisions.items())),
            tuple(sorted(micro.items())),
            stamp,
        )

    def continues(self, earlier: Recorded) -> bool:
        """Whether all that ``earlier`` told stands here too: the run has gone on, and not back."""
        sittings = self.sittings_before(FOREVER)
        return (
            self.settings == earlier.settings
            and self.manifest.get("data_fingerprint") == earlier.manifest.get("data_fingerprint")
            and sittings[: len(earlier.sittings_before(FOREVER))] == earlier.sittings_before(FOREVER)
            and earlier.losses.items() <= self.losses.items()
            and earlier.left_out <= self.left_out
            and self.revisions[: len(earlier.revisions)] == earlier.revisions
            and self.micro_batches[: len(earlier.micro_batches)] == earlier.micro_batches
        )

    @staticmethod
    def stamp_of(run: RunFolder) -> tuple[int, int]:
        """Size and time of the record: another one after something was written."""
        try:
            found = run.metrics.path.stat()
        except OSError:
            return 0, 0
        return found.st_size, found.st_mtime_ns

    @property
    def checkpoints(self) -> dict[int, Path]:
        """Folders of the checkpoints that are there, by step, oldest first."""
        return {step_of(folder): folder for folder in list_checkpoints(self.run.checkpoints)}

    @property
    def last_step(self) -> int:
        """The last step that is told of. A record cannot tell of more steps than it has lines."""
        told = {*self.losses, *self.left_out}
        return min(max(told), min(told) - 1 + len(told)) if told else 0

    def settings_for(self, step: int) -> Settings:
        """What was set when the update was made that led to ``step``, on the threads of that time."""
        settings = settings_for_step(self.settings, self.manifest, step)
        machine = self.sitting(step).get("machine")
        threads = machine.get("threads") if isinstance(machine, dict) else None
        if type(threads) is int and 0 < threads <= 1024:
            device = settings.device.model_copy(update={"threads": threads})
            settings = settings.model_copy(update={"device": device})
        return settings

    def sittings_before(self, step: int) -> list[dict[str, Any]]:
        """What the manifest says of each time at work that began before ``step``; what is damaged is left out."""
        told = self.manifest.get("sittings")
        return [
            sitting
            for sitting in (told if isinstance(told, list) else [])
            if isinstance(sitting, dict)
            and type(sitting.get("from_step")) is int
            and sitting["from_step"] < step
        ]

    def sitting(self, step: int) -> dict[str, Any]:
        """The one in which ``step`` was made; empty if nothing is known of it."""
        return next(reversed(self.sittings_before(step)), {})

    def empty_model(self) -> LanguageModel:
        """The run's network without numbers: its names and shapes.

        Raises:
            InputError: there is no checkpoint yet, or its configuration is damaged.
        """
        folder = next(iter(self.checkpoints.values()), None)
        if folder is None:
            raise InputError(f"{self.run.path} has no checkpoint yet: train it for a while first")
        return empty_model(load_config(folder))

    def micro_batch_rows(self, step: int) -> int | None:
        """Rows at once in ``step``, where they were fewer than planned."""
        return next((rows for after, rows in reversed(self.micro_batches) if after < step), None)

    def require_step(self, step: int) -> None:
        """Raises InputError when the update that led to ``step`` cannot be made again."""
        first = min(self.checkpoints, default=None)
        if first is None:
            raise InputError(f"{self.run.path} has no checkpoint yet: train it for a while first")
        if self.last_step <= first:
            raise InputError(f"{self.run.path} has made no step since its first checkpoint: train it first")
        if not first < step <= self.last_step:
            raise InputError(
                f"{self.run.path} has no step {step} to look at: choose one from {first + 1} to {self.last_step}"
            )


def _number(value: Any) -> bool:
    """Whether it is a finite one that fp32 can hold."""
    return type(value) in (int, float) and abs(value) < 1e39


def _count(value: Any) -> bool:
    return type(value) is int and 0 < value < 2**48
