"""Check every file of a run against what the run says of it. Nothing is changed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from etude.errors import InputError
from etude.files import hash_file
from etude.run import JsonLines, RunFolder
from etude.run.checkpoints import Checkpoint, begun_checkpoints, verify_checkpoint
from etude.run.provenance import (
    damage_of_log,
    expected_files,
    expected_prefix,
    require_own,
    tokens_agree,
)
from etude.run.settings import own_settings


@dataclass(frozen=True)
class Check:
    """The result for one thing of the run: ``problem`` is empty where it is as it should be."""

    thing: str
    problem: str = ""
    note: str = ""

    @property
    def ok(self) -> bool:
        return not self.problem


def verify(run: RunFolder) -> Iterator[Check]:
    """Yield all checks: settings, manifest, tokenizer, ladder, record, checkpoints."""
    settings, manifest = None, None
    problem = ""
    try:
        settings, manifest = own_settings(run)
    except InputError as error:
        problem = str(error)
    yield Check("run.toml and manifest.json", problem)
    checkpoints: list[Checkpoint] = []
    found = []
    for folder in begun_checkpoints(run.checkpoints):
        try:
            checkpoint = verify_checkpoint(folder)
            if settings is not None and manifest is not None:
                require_own(checkpoint, run, manifest)
                tokens_agree(run, settings, manifest)(checkpoint)
            checkpoints.append(checkpoint)
            found.append(Check(_name(run, folder), note=_known(checkpoint)))
        except InputError as error:
            found.append(Check(_name(run, folder), str(error)))
    if manifest is not None:
        yield from _files(run, manifest, checkpoints[-1] if checkpoints else None)
        for log in run.logs.values():
            yield _log(log, manifest, checkpoints)
    if run.probes.path.exists():
        yield _lines(run.probes)
    yield from found
    if not found:
        yield Check(run.checkpoints.name, note="there is none yet")
    if run.aside.is_dir():
        kept = sorted(entry.name for entry in run.aside.iterdir())
        yield Check(run.aside.name, note=f"kept, and not a part of the run: {', '.join(kept)}")


def _name(run: RunFolder, path: Path) -> str:
    return path.relative_to(run.path).as_posix()


def _known(checkpoint: Checkpoint) -> str:
    """Return how much the checkpoint vouches for, in words."""
    files = f"{len(checkpoint.checksums)} files"
    if checkpoint.provenance.run:
        return f"{files}, its marker, the run that it was saved with"
    return f"{files}; saved by the first edition, which vouches for no more"


def _files(run: RunFolder, manifest: dict[str, Any], newest: Checkpoint | None) -> Iterator[Check]:
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
        note = "there, but a run of the first edition has no checksum of it"
        yield Check(run.ladder_file.name, "" if run.ladder_file.is_file() else "missing", note)


def _log(log: JsonLines, manifest: dict[str, Any], checkpoints: list[Checkpoint]) -> Check:
    """Check a log against every checkpoint, in one reading."""
    prefixes = {c.step: expected_prefix(c, manifest, log.path.name) for c in checkpoints if c.step > 0}
    known = {step: prefix for step, prefix in prefixes.items() if prefix is not None}
    hashes = log.prefixes(prefix.num_bytes for prefix in known.values())
    bad = [step for step, prefix in known.items() if hashes[prefix.num_bytes] != prefix.hash]
    newest = max(checkpoints, key=lambda checkpoint: checkpoint.step, default=None)
    problem = None if newest is None or newest.step in known else damage_of_log(log, newest, manifest)
    if bad:
        first = next(checkpoint for checkpoint in checkpoints if checkpoint.step == bad[0])
        problem = f"{damage_of_log(log, first, manifest)}, with which step {bad[0]} was saved"
    if problem is not None:
        return Check(log.path.name, problem)
    whole = _lines(log)
    return (
        whole
        if whole.problem
        else Check(log.path.name, note=f"as {len(known)} checkpoints know it; {whole.note}")
    )


def _lines(log: JsonLines) -> Check:
    """Check that every line can be read; a last line that a killed process left torn is usual."""
    if not log.path.is_file():
        return Check(log.path.name, note="not begun")
    whole, count, torn = len(log.read()), 0, False
    with log.path.open("rb") as file:
        for count, line in enumerate(file, start=1):  # noqa: B007  (the number of the last line counts them)
            torn = not line.endswith(b"\n")
    lost = count - whole - torn
    if lost > 0:
        return Check(log.path.name, f"{lost} of {count} lines cannot be read")
    return Check(log.path.name, note=f"{whole} lines")
