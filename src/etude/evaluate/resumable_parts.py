"""An evaluation cut into parts: what is done stays done, and several processes may share the rest.

Each part's result is a file, written whole or not at all, in a folder named by a hash of the model, the items and the
settings; a restarted evaluation takes what is there and does the rest. A process holds a lock on the part that it works
on, which ends with the process: nothing is lost when one is killed.
"""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from etude.data.files import key_of
from etude.device import available_cores
from etude.errors import InputError
from etude.files import file_lock, hash_file, read_json, write_atomic, write_failure
from etude.setting_types import MOST_THREADS, Auto
from etude.system import end_with_parent

SCHEMA = 1

Work = Callable[[int], Any]
"""Gives the result of the part with this number, as plain values that JSON can hold."""
Start = Callable[[], Work]
"""Makes ready to work, such as by loading the model; several processes must be able to import (pickle) it."""
Report = Callable[[int, int], None]
"""Told how many parts are done, and of how many."""


@dataclass(frozen=True)
class Workers:
    """The processes that share an evaluation, and the threads of all of them together (auto: one a core)."""

    processes: int = 1
    threads: int | Auto = "auto"

    @property
    def threads_each(self) -> int:
        threads = available_cores() if self.threads == "auto" else self.threads
        return max(1, min(threads // self.processes, MOST_THREADS))


ALONE = Workers()
"""This process, with a thread for each core."""


@dataclass(frozen=True)
class Parts:
    """`count` parts of one evaluation, as files in the folder ``within/identity``. identity: see `identity_of`."""

    within: Path
    identity: str
    count: int

    @property
    def folder(self) -> Path:
        return self.within / self.identity

    def file(self, number: int) -> Path:
        return self.folder / f"part-{number:05d}.json"

    def num_done(self) -> int:
        """How many have a file; whether it is a sound one is not looked at."""
        return sum(self.file(number).is_file() for number in range(self.count))

    def found(self, number: int) -> Any:
        """The part's result, wrapped in a list; None where there is none, or a damaged or another evaluation's file."""
        try:
            content = read_json(self.file(number))
        except InputError:
            return None
        if not isinstance(content, dict) or "result" not in content:
            return None
        ours = (SCHEMA, self.identity, number, self.count)
        theirs = tuple(content.get(key) for key in ("schema", "of", "part", "parts"))
        return [content["result"]] if theirs == ours else None

    def write(self, number: int, result: Any) -> None:
        content = {
            "schema": SCHEMA,
            "of": self.identity,
            "part": number,
            "parts": self.count,
            "result": result,
        }
        write_atomic(self.file(number), json.dumps(content, ensure_ascii=False) + "\n")

    def missing(self) -> list[int]:
        return [number for number in range(self.count) if self.found(number) is None]


def identity_of(model_folder: Path, asked: Any) -> str:
    """A hash of the model's files and of what is asked of it (plain values: hashes of items, settings)."""
    files = [model_folder / "config.json", model_folder / "tokenizer.json"]
    files = [file for file in files if file.is_file()] + sorted(model_folder.glob("model*.safetensors"))
    return key_of({"model": [[file.name, hash_file(file)] for file in files], "asked": asked})


def slices(count: int, size: int) -> list[range]:
    """`count` items in consecutive parts of at most `size`."""
    return [range(start, min(start + size, count)) for start in range(0, count, size)]


def done_in_parts(
    parts: Parts, start: Start, *, processes: int = 1, report: Report | None = None
) -> list[Any]:
    """The result of every part, in order: those that are there already, and the others by `processes` processes.

    The same evaluation may be started several times at once; nobody does what another is doing, and all return with
    everything done. A process that dies costs its part's time: another one does it again.
    """
    try:
        parts.folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise write_failure(parts.folder, error) from error
    missing = parts.missing()
    if report is not None:
        report(parts.count - len(missing), parts.count)
    context = multiprocessing.get_context("spawn")
    helpers = [
        context.Process(target=_help, args=(parts, start, missing), daemon=True)
        for _ in range(min(processes, len(missing)) - 1)
    ]
    for helper in helpers:
        helper.start()
    if missing:
        _take_parts(parts, start, missing, report)
    for helper in helpers:
        helper.join()  # one that died has left its part to this process
    results = [parts.found(number) for number in range(parts.count)]
    assert all(result is not None for result in results)
    return [result[0] for result in results]


def _help(parts: Parts, start: Start, missing: Sequence[int]) -> None:
    end_with_parent()
    _take_parts(parts, start, missing)


def _take_parts(parts: Parts, start: Start, missing: Sequence[int], report: Report | None = None) -> None:
    """Do those of `missing` that nobody else does; then those that somebody else has left undone."""
    work: Work | None = None
    left = list(missing)
    for wait in (False, True):  # first what is free; then, when others are done with theirs, what they left
        for number in left:
            # A byte of one file for each part: no files of locks are left behind.
            with file_lock(parts.folder / ".lock", wait=wait, byte=number) as lock:
                if lock is None or parts.found(number) is not None:
                    continue
                if work is None:
                    work = start()
                parts.write(number, work(number))
            if report is not None:
                report(parts.num_done(), parts.count)
        left = parts.missing()
