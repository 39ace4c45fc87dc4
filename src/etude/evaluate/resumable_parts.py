"""An evaluation in parts: finished parts are kept, and several processes may share the rest.

Each part's result is a file, written whole or not at all, in a folder named by a hash of the model, the items and the
settings; a restarted evaluation loads these files and computes the rest. A process holds a lock on the part that it is
computing, which ends with the process, so a killed process loses only that part.
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
from etude.run.published_history import tokenizer_folder
from etude.run.weight_files import config_file, weight_files
from etude.setting_types import MOST_THREADS, Auto
from etude.system import end_with_parent

SCHEMA = 1

Work = Callable[[int], Any]
"""Computes the result of the part with this number, as plain values that fit JSON."""
Start = Callable[[], Work]
"""Prepares for work, such as by loading the model; must be importable (picklable) by other processes."""
Report = Callable[[int, int], None]
"""Progress callback (parts done, parts in all)."""


@dataclass(frozen=True)
class Workers:
    """The processes that share an evaluation, and the total number of their threads (auto: one per core)."""

    processes: int = 1
    threads: int | Auto = "auto"

    @property
    def threads_each(self) -> int:
        threads = available_cores() if self.threads == "auto" else self.threads
        return max(1, min(threads // self.processes, MOST_THREADS))


ALONE = Workers()
"""This process, with one thread per core."""


@dataclass(frozen=True)
class Parts:
    """`count` parts of one evaluation, as files in the folder ``within/identity`` (see `identity_of`)."""

    within: Path
    identity: str
    count: int

    @property
    def folder(self) -> Path:
        return self.within / self.identity

    def file(self, number: int) -> Path:
        return self.folder / f"part-{number:05d}.json"

    def num_done(self) -> int:
        """Return how many parts have a file, without checking that it is intact."""
        return sum(self.file(number).is_file() for number in range(self.count))

    def load(self, number: int) -> Any:
        """Return the part's result in a list; None if the file is missing, damaged, or of another evaluation."""
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
        return [number for number in range(self.count) if self.load(number) is None]


def identity_of(model_folder: Path, request: Any) -> str:
    """Return a hash of the model's files and of the request (plain values: hashes of items, settings)."""
    settings = [config_file(model_folder), tokenizer_folder(model_folder) / "tokenizer.json"]
    files = [file for file in settings if file.is_file()] + weight_files(model_folder)
    return key_of({"model": [[file.name, hash_file(file)] for file in files], "asked": request})


def slices(count: int, size: int) -> list[range]:
    """Split `count` items into consecutive ranges of at most `size`."""
    return [range(start, min(start + size, count)) for start in range(0, count, size)]


def done_in_parts(
    parts: Parts, start: Start, *, processes: int = 1, report: Report | None = None
) -> list[Any]:
    """Return the result of every part, in order: saved results, and the others computed by `processes` processes.

    The same evaluation may run several times at once: no part is computed twice at the same time, and every run returns
    all results. If a process dies, its unfinished part is computed again by another.
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
        helper.join()  # this process computes the parts of helpers that died
    results = [parts.load(number) for number in range(parts.count)]
    assert all(result is not None for result in results)
    return [result[0] for result in results]


def _help(parts: Parts, start: Start, missing: Sequence[int]) -> None:
    end_with_parent()
    _take_parts(parts, start, missing)


def _take_parts(parts: Parts, start: Start, missing: Sequence[int], report: Report | None = None) -> None:
    """Compute those of `missing` that no other process is computing, then those that others left unfinished."""
    work: Work | None = None
    left = list(missing)
    for wait in (False, True):  # first the parts that are free, then, once others are done, those they left
        for number in left:
            # One byte range of a single file per part, so that no lock files remain.
            with file_lock(parts.folder / ".lock", wait=wait, byte=number) as lock:
                if lock is None or parts.load(number) is not None:
                    continue
                if work is None:
                    work = start()
                parts.write(number, work(number))
            if report is not None:
                report(parts.num_done(), parts.count)
        left = parts.missing()
