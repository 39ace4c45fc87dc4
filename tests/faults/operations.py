"""Faults of single file operations: each refused in turn; lost in part by a crash if unsynced; damaged files."""

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
from etude.run.checkpoints import list_checkpoints, verify_checkpoint
from programme import Programme, Result, ended

ERRORS = (errno.EIO, errno.ENOSPC, errno.EACCES)


def refuse_an_operation(programme: Programme, path: Path, name: str, result: Result) -> Path | None:
    """Let the next of all file operations (in random order) fail with an error, in a new run or in a resumed one.

    The run must end with a one-line error, or continue without the operation.
    """
    at, number, error = next(_operations(programme, name))
    if at == "resume":
        shutil.copytree(_half(programme, name), path)
    disk = Disk(path.parent, refuse=number, error=error)
    code, message = ended(programme.begin(path, name, disk))
    what = f"{at}, operation {number}, {errno.errorcode[error]}"
    if (
        code not in (0, 1, 2)
        or "DEFECT" in message
        or len(message.splitlines()) > 1
        or (code != 0 and not message)
    ):
        result.problems.append(f"{name}: {what}: {code} {message}")
    if (path / "run.toml").exists():
        result.count(path)
    else:
        result.injected += 1
    return path


def crash(programme: Programme, path: Path, name: str, result: Result) -> Path | None:
    """Continue from the next of the states in which a crash may leave the file system: unsynced operations are lost in
    part.
    """
    if "states" not in programme.memory:
        ops, root = _trace(programme, name)
        programme.memory["states"] = crash_states(ops, root, 10**6, random.Random(programme.dice.random()))
    state = next(programme.memory["states"], None)
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
"""Files that may be damaged, besides those of the tokenizer and the weights."""


def damage_a_file(programme: Programme, path: Path, name: str, result: Result) -> Path | None:
    """Remove or change one file of a stopped run.

    The run must name the file. It either repairs itself, or is refused and resumes once the file is restored.
    """
    dice = programme.dice
    shutil.copytree(_half(programme, name), path)
    newest = list_checkpoints(path / "checkpoints")[-1]
    known = {file.name: file for file in (*path.iterdir(), *newest.iterdir()) if file.name in DAMAGED}
    tokenizer = dice.choice(sorted((path / "tokenizer").iterdir()))
    weights = dice.choice(sorted(newest.glob("*.safetensors")))
    file = dice.choice([*(known[key] for key in DAMAGED), tokenizer, weights])
    before, how = file.read_bytes(), dice.choice(("removed", "empty", "flip bits", "truncate", "number"))
    # Of a log, only the part that the newest checkpoint was saved with: a resume drops the rest unread.
    kept = verify_checkpoint(newest).provenance.logs.get(file.name)
    rest = b"" if kept is None else before[kept.num_bytes :]
    if file.name == "run.toml" and how == "removed":  # the programme begins a new run where there is none
        how = "empty"
    damaged = before.removesuffix(rest)
    after = b"" if how == "removed" else BYTES[how](damaged, dice)
    if after == damaged:
        return None
    if how in ("flip bits", "number"):
        after += rest
    file.unlink() if how == "removed" else file.write_bytes(after)
    result.injected += 1
    code, message = ended(programme.begin(path, name))
    output = programme.printed() if code == 0 else message
    if file.name not in output or "DEFECT" in message or (code and len(message.splitlines()) != 1):
        result.problems.append(f"{name}: {file.name} ({how}) was not named: {code} {message or output}")
    if code != 0:
        file.write_bytes(before)
    return path


def _operations(programme: Programme, name: str) -> Iterator[tuple[str, int, int]]:
    """Return all operations of a new and of a resumed run, each with all errors, in random order."""
    if "operations" not in programme.memory:
        counts = {
            "run": _count(programme, name, None),
            "resume": _count(programme, name, _half(programme, name)),
        }
        cases = [(at, n, error) for at, count in counts.items() for n in range(count) for error in ERRORS]
        programme.dice.shuffle(cases)
        programme.memory["operations"] = iter(cases)
    return programme.memory["operations"]  # type: ignore[no-any-return]


def _count(programme: Programme, name: str, half: Path | None) -> int:
    """Count the operations of a new run, or of a resume of ``half``."""
    path = programme.folder / "counted" / "run"
    shutil.rmtree(path.parent, ignore_errors=True)
    path.parent.mkdir()
    if half is not None:
        shutil.copytree(half, path)
    disk, note = Disk(path.parent), programme.folder / "count"
    code, message = ended(
        programme.begin(path, name, disk, after=lambda: _write(note, str(disk.count).encode()))
    )
    assert code == 0, message
    return int(note.read_bytes())


def _half(programme: Programme, name: str) -> Path:
    """Return a copy of the undisturbed run from when its last checkpoint but one had just been saved."""
    half = programme.folder / "half" / name
    if not half.exists():
        whole = programme.whole(name)
        shutil.copytree(whole, half)
        newest = list_checkpoints(half / "checkpoints")[-1]
        shutil.rmtree(newest)
        (half / "status.json").unlink()
    return half


def _trace(programme: Programme, name: str) -> tuple[list[Op], int]:
    """Record all file operations of a run. Returns them, and the number of the root folder."""
    path, note = programme.folder / "traced" / "run", programme.folder / "trace"
    path.parent.mkdir()
    disk = Disk(path.parent, ops=[])
    root = disk.root
    code, message = ended(
        programme.begin(path, name, disk, after=lambda: _write(note, pickle.dumps(disk.ops)))
    )
    assert code == 0, message
    ops = pickle.loads(note.read_bytes())
    return ops, root


def _write(file: Path, content: bytes) -> None:
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.write(descriptor, content)
    os.close(descriptor)
