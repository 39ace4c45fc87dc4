"""Check every file of a run against the hashes in its manifest and its checkpoints. Changes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from etude.errors import InputError
from etude.files import hash_file
from etude.run import JsonLines, RunFolder
from etude.run.checkpoints import Checkpoint, checkpoint_folders, verify_checkpoint
from etude.run.provenance import (
    expected_files,
    expected_prefix,
    log_damage,
    require_saved_with,
    token_count_check,
)
from etude.run.settings import verified_settings
from etude.run.weight_files import BASE_FOLDER


@dataclass(frozen=True)
class Check:
    """The result for a file or checkpoint of the run, ``thing``. ``problem`` is empty if it verifies."""

    thing: str
    problem: str = ""
    note: str = ""

    @property
    def ok(self) -> bool:
        return not self.problem


def verify(run: RunFolder) -> Iterator[Check]:
    """Yield the checks of settings and manifest, tokenizer, ladder, logs and checkpoints."""
    settings, manifest = None, None
    problem = ""
    try:
        settings, manifest = verified_settings(run)
    except InputError as error:
        problem = str(error)
    yield Check("run.toml and manifest.json", problem)
    checkpoints: list[Checkpoint] = []
    checkpoint_checks = []
    if (base := run.checkpoints / BASE_FOLDER).is_dir():  # of a fork with an adapter
        checkpoint_checks.append(_check_base(run, base))
    for folder in checkpoint_folders(run.checkpoints):
        try:
            checkpoint = verify_checkpoint(folder)
            if settings is not None and manifest is not None:
                require_saved_with(checkpoint, run, manifest)
                token_count_check(run, settings, manifest)(checkpoint)
            checkpoints.append(checkpoint)
            checkpoint_checks.append(Check(_name(run, folder), note=_verified_parts(checkpoint)))
        except InputError as error:
            checkpoint_checks.append(Check(_name(run, folder), str(error)))
    if manifest is not None:
        yield from _check_files(run, manifest, checkpoints[-1] if checkpoints else None)
        for log in run.logs.values():
            yield _check_log(log, manifest, checkpoints)
    if run.probes.path.exists():
        yield _check_lines(run.probes)
    yield from checkpoint_checks
    if not checkpoint_checks:
        yield Check(run.checkpoints.name, note="none yet")
    if run.set_aside_folder.is_dir():
        names = sorted(entry.name for entry in run.set_aside_folder.iterdir())
        yield Check(run.set_aside_folder.name, note=f"kept, and not part of the run: {', '.join(names)}")


def _check_base(run: RunFolder, base: Path) -> Check:
    try:
        return Check(
            _name(run, base), note=f"{len(verify_checkpoint(base).checksums)} files of the base model"
        )
    except InputError as error:
        return Check(_name(run, base), str(error))


def _name(run: RunFolder, path: Path) -> str:
    return path.relative_to(run.path).as_posix()


def _verified_parts(checkpoint: Checkpoint) -> str:
    """Return what was verified of a checkpoint, in words."""
    files = f"{len(checkpoint.checksums)} files"
    if checkpoint.provenance.run:
        return f"{files}, its commit marker, and the run that it was saved with"
    return f"{files}; saved by the first edition, without hashes of the run and its logs"


def _check_files(run: RunFolder, manifest: dict[str, Any], newest: Checkpoint | None) -> Iterator[Check]:
    """Check the tokenizer's files and the ladder."""
    expected = expected_files(newest, manifest)
    for name, value in expected.items():
        file = run.path / name
        if not file.is_file():
            yield Check(name, "missing")
        else:
            try:
                same = hash_file(file) == value
                yield Check(name, "" if same else "damaged or edited since the run began")
            except OSError as error:
                yield Check(name, f"cannot be read ({error.strerror})")
    if run.ladder_file.name not in expected:
        note = "exists; a run of the first edition has no checksum of it"
        yield Check(run.ladder_file.name, "" if run.ladder_file.is_file() else "missing", note)


def _check_log(log: JsonLines, manifest: dict[str, Any], checkpoints: list[Checkpoint]) -> Check:
    """Check a log against every checkpoint, in one pass over its bytes."""
    prefixes = {c.step: expected_prefix(c, manifest, log.path.name) for c in checkpoints if c.step > 0}
    known = {step: prefix for step, prefix in prefixes.items() if prefix is not None}
    hashes = log.prefixes(prefix.num_bytes for prefix in known.values())
    bad = [step for step, prefix in known.items() if hashes[prefix.num_bytes] != prefix.hash]
    newest = max(checkpoints, key=lambda checkpoint: checkpoint.step, default=None)
    problem = None if newest is None or newest.step in known else log_damage(log, newest, manifest)
    if bad:
        first = next(checkpoint for checkpoint in checkpoints if checkpoint.step == bad[0])
        problem = f"{log_damage(log, first, manifest)}, with which step {bad[0]} was saved"
    if problem is not None:
        return Check(log.path.name, problem)
    lines = _check_lines(log)
    return (
        lines
        if lines.problem
        else Check(log.path.name, note=f"matches {len(known)} checkpoints; {lines.note}")
    )


def _check_lines(log: JsonLines) -> Check:
    """Check that every line is valid. An incomplete last line is allowed: a process that is killed may leave one."""
    if not log.path.is_file():
        return Check(log.path.name, note="not written yet")
    valid, count, incomplete = len(log.read()), 0, False
    with log.path.open("rb") as file:
        for count, line in enumerate(file, start=1):  # noqa: B007  (the number of the last line counts them)
            incomplete = not line.endswith(b"\n")
    damaged = count - valid - incomplete
    if damaged > 0:
        return Check(log.path.name, f"{damaged} of {count} lines cannot be read")
    return Check(log.path.name, note=f"{valid} lines")
