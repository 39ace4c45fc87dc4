"""Faults of single operations on files: each refused in turn; what a crash leaves of those unsynced; damaged files."""

from __future__ import annotations

import errno
import os
import pickle
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

from damage import BYTES
from disk import Disk, Op, crash_states, put_on_disk
from etude.run.checkpoints import list_checkpoints
from programme import Programme, Result, ended

ERRORS = (errno.EIO, errno.ENOSPC, errno.EACCES)


def refuse_an_operation(programme: Programme, path: Path, name: str, result: Result) -> Path | None:
    """The next of all operations on files, in random order, fails with the next of the errors: in a run from its
    beginning, or in one that resumes. The run ends with one line, or does without.
    """
    at, number, error = next(_operations(programme, name))
    if at == "resume":
        shutil.copytree(_half(programme, name), path)
    disk = Disk(path.parent, refuse=number, error=error)
    code, said = ended(programme.begin(path, name, disk))
    what = f"{at}, operation {number}, {errno.errorcode[error]}"
    if code not in (0, 1, 2) or "DEFECT" in said or len(said.splitlines()) > 1 or (code != 0 and not said):
        result.problems.append(f"{name}: {what}: {code} {said}")
    if (path / "run.toml").exists():
        result.count(path)
    else:
        result.injected += 1
    return path


def crash(programme: Programme, path: Path, name: str, result: Result) -> Path | None:
    """The next of the states that a file system may be in after a crash during a run, with its unsynced operations in
    part.
    """
    if "states" not in programme.kept:
        ops, root = _trace(programme, name)
        programme.kept["states"] = crash_states(ops, root, 10**6, random.Random(programme.dice.random()))
    state = next(programme.kept["states"], None)
    if state is None:
        result.impossible = "every state was tried"
        return None
    put_on_disk(state, programme.folder / "crashed")
    left = programme.folder / "crashed" / "run"
    if not (left / "run.toml").exists():
        result.injected += 1
        if left.exists() and any(left.iterdir()):
            result.problems.append(
                f"{name}: a run without settings: {sorted(p.name for p in left.iterdir())}"
            )
        return None
    shutil.copytree(left, path)
    result.count(path)
    return path


DAMAGED = ("metrics.jsonl", "samples.jsonl", "ladder.json", "manifest.json", "run.toml", "train_state.json")
"""Besides the files of the tokenizer and the weights."""


def damage_a_file(programme: Programme, path: Path, name: str, result: Result) -> Path | None:
    """One file of a run that was stopped is removed, or its bytes are changed. The run names it: either it mends
    itself, or it is refused, and resumes once the file is put back.
    """
    dice = programme.dice
    shutil.copytree(_half(programme, name), path)
    newest = list_checkpoints(path / "checkpoints")[-1]
    known = {file.name: file for file in (*path.iterdir(), *newest.iterdir()) if file.name in DAMAGED}
    tokenizer = dice.choice(sorted((path / "tokenizer").iterdir()))
    weights = dice.choice(sorted(newest.glob("*.safetensors")))
    file = dice.choice([*(known[key] for key in DAMAGED), tokenizer, weights])
    before, how = file.read_bytes(), dice.choice(("removed", "empty", "flip bits", "truncate", "number"))
    if file.name == "run.toml" and how == "removed":  # the programme begins a new run where there is none
        how = "empty"
    after = b"" if how == "removed" else BYTES[how](before, dice)
    if after == before:
        return None
    file.unlink() if how == "removed" else file.write_bytes(after)
    result.injected += 1
    code, said = ended(programme.begin(path, name))
    told = programme.printed() if code == 0 else said
    if file.name not in told or "DEFECT" in said or (code and len(said.splitlines()) != 1):
        result.problems.append(f"{name}: {file.name} ({how}) was not named: {code} {said or told}")
    if code != 0:
        file.write_bytes(before)
    return path


def _operations(programme: Programme, name: str) -> Iterator[tuple[str, int, int]]:
    """All operations of a run and of a resume, each with all errors, in random order."""
    if "operations" not in programme.kept:
        counts = {
            "run": _count(programme, name, None),
            "resume": _count(programme, name, _half(programme, name)),
        }
        cases = [(at, n, error) for at, count in counts.items() for n in range(count) for error in ERRORS]
        programme.dice.shuffle(cases)
        programme.kept["operations"] = iter(cases)
    return programme.kept["operations"]  # type: ignore[no-any-return]


def _count(programme: Programme, name: str, half: Path | None) -> int:
    """Operations of a run, or of the resume of ``half`` of one."""
    path = programme.folder / "counted" / "run"
    shutil.rmtree(path.parent, ignore_errors=True)
    path.parent.mkdir()
    if half is not None:
        shutil.copytree(half, path)
    disk, note = Disk(path.parent), programme.folder / "count"
    code, said = ended(
        programme.begin(path, name, disk, after=lambda: _write(note, str(disk.count).encode()))
    )
    assert code == 0, said
    return int(note.read_bytes())


def _half(programme: Programme, name: str) -> Path:
    """The undisturbed run as it was when its last checkpoint but one was just saved."""
    half = programme.folder / "half" / name
    if not half.exists():
        whole = programme.whole(name)
        shutil.copytree(whole, half)
        newest = list_checkpoints(half / "checkpoints")[-1]
        shutil.rmtree(newest)
        (half / "status.json").unlink()
    return half


def _trace(programme: Programme, name: str) -> tuple[list[Op], int]:
    """All that a run does to files, written down."""
    path, note = programme.folder / "traced" / "run", programme.folder / "trace"
    path.parent.mkdir()
    disk = Disk(path.parent, ops=[])
    root = disk.root
    code, said = ended(programme.begin(path, name, disk, after=lambda: _write(note, pickle.dumps(disk.ops))))
    assert code == 0, said
    ops = pickle.loads(note.read_bytes())
    return ops, root


def _write(file: Path, content: bytes) -> None:
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.write(descriptor, content)
    os.close(descriptor)
