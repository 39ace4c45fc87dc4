"""The corpora that need no download: ``builtin:primer``, ``builtin:python``, and the addition ``builtin:tasks``."""

from __future__ import annotations

import hashlib
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from etude.data.reading.formats import read_file
from etude.data.reading.piece import Piece, SourceLog
from etude.run import hash_file

PREFIX = "builtin:"
NAMES = ("builtin:primer", "builtin:python", "builtin:tasks")
ENDLESS_BYTES = 12_000_000
"""Read of an endless built-in when nothing is asked."""
TASK_BYTES = 1_000_000
"""Of the task mixture, which is an addition to a corpus, when nothing is asked, and the most beside other text."""
_LEFT_OUT = frozenset(
    {"site-packages", "dist-packages", "test", "tests", "idle_test", "lib2to3", "__pycache__"}
)


class PrimerSource:
    """Stories from the simulated world; the same seed gives the same bytes."""

    name = "builtin:primer"
    size = None

    def __init__(self, seed: int, max_bytes: int | None) -> None:
        self.seed = seed
        self.max_bytes = ENDLESS_BYTES if max_bytes is None else max_bytes

    def identity(self) -> dict[str, Any]:
        """The generator's own code and data, the seed and the length decide the text."""
        return _generated(self.name, self.seed, self.max_bytes, "primer")

    def pieces(self, log: SourceLog) -> Iterator[Piece]:
        """One story a document."""
        from etude.data.primer import generator

        for document in generator.documents(self.seed, self.max_bytes):
            yield Piece(document)


class TasksSource:
    """Problems over symbols and made-up people; the same seed gives the same bytes."""

    name = "builtin:tasks"
    size = None

    def __init__(self, seed: int, max_bytes: int) -> None:
        self.seed = seed
        self.max_bytes = max_bytes

    def identity(self) -> dict[str, Any]:
        """The generator's own code and data (with the primer's, whose sums it leaves out), the seed and the length."""
        return _generated(self.name, self.seed, self.max_bytes, "tasks", "primer")

    def pieces(self, log: SourceLog) -> Iterator[Piece]:
        """A few problems of one kind a document."""
        from etude.data.tasks import generator

        for document in generator.documents(self.seed, self.max_bytes):
            yield Piece(document)


class PythonSource:
    """The standard library's own sources on this machine, without tests and installed packages."""

    name = "builtin:python"

    def __init__(self) -> None:
        self.root = Path(sysconfig.get_paths()["stdlib"])
        self.files = [
            path
            for path in sorted(self.root.rglob("*.py"))
            if not _LEFT_OUT.intersection(path.relative_to(self.root).parts[:-1])
        ]

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return sum(path.stat().st_size for path in self.files)

    def identity(self) -> dict[str, Any]:
        """The hash of every file."""
        files = [[str(path.relative_to(self.root)), hash_file(path)] for path in self.files]
        return {"source": self.name, "files": files}

    def pieces(self, log: SourceLog) -> Iterator[Piece]:
        """One module a document."""
        for path in self.files:
            yield from read_file(path, f"python/{path.relative_to(self.root).as_posix()}", "text", log)


def _generated(name: str, seed: int, max_bytes: int, *packages: str) -> dict[str, Any]:
    """What decides a generated text: the files of these packages of ``etude.data``, the seed and the length."""
    digest = hashlib.blake2b(digest_size=16)
    for package in packages:
        folder = Path(__file__).parent.parent / package
        for path in sorted(folder.rglob("*")):
            if path.is_file() and path.suffix != ".pyc":
                digest.update(f"{path.relative_to(folder)}\0{hash_file(path)}\0".encode())
    return {"source": name, "seed": seed, "max_bytes": max_bytes, "code": digest.hexdigest()}
