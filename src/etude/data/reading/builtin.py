"""The corpora that need no download: generated ones, and ``builtin:python``."""

from __future__ import annotations

import hashlib
import importlib
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from etude.data.reading.formats import read_file
from etude.data.reading.piece import Piece, SourceLog
from etude.files import hash_file

PREFIX = "builtin:"
TASKS = "builtin:tasks"
TASK_BYTES = 1_000_000
"""Of the task mixture, which is an addition to a corpus, when nothing is asked, and the most beside other text."""


@dataclass(frozen=True)
class Generator:
    """The module that makes a text, the packages of ``etude.data`` that it uses, and bytes when nothing is asked."""

    module: str
    packages: tuple[str, ...]
    usual_bytes: int


GENERATED = {
    "builtin:primer": Generator("etude.data.primer.generator", ("primer",), 12_000_000),
    "builtin:repeats": Generator("etude.data.studies.repeats", ("studies", "primer"), 3_000_000),
    "builtin:modular": Generator("etude.data.studies.modular", ("studies", "primer"), 20_000),
    TASKS: Generator("etude.data.tasks.generator", ("tasks", "primer"), TASK_BYTES),
}
PYTHON = "builtin:python"
NAMES = tuple(sorted([*GENERATED, PYTHON]))
_LEFT_OUT = frozenset(
    {"site-packages", "dist-packages", "test", "tests", "idle_test", "lib2to3", "__pycache__"}
)


class GeneratedSource:
    """Text from a generator of this package; the same seed gives the same bytes.

    name: one of `GENERATED`; max_bytes: how much, or its usual amount.
    """

    size = None

    def __init__(self, name: str, seed: int, max_bytes: int | None) -> None:
        self.name, self.seed = name, seed
        self.generator = GENERATED[name]
        self.max_bytes = self.generator.usual_bytes if max_bytes is None else max_bytes

    def identity(self) -> dict[str, Any]:
        """The code and data that the generator uses, the seed and the length decide the text."""
        digest = hashlib.blake2b(digest_size=16)
        for package in self.generator.packages:
            folder = Path(__file__).parent.parent / package
            for path in sorted(folder.rglob("*")):
                if path.is_file() and path.suffix != ".pyc":
                    digest.update(f"{path.relative_to(folder)}\0{hash_file(path)}\0".encode())
        code = digest.hexdigest()
        return {"source": self.name, "seed": self.seed, "max_bytes": self.max_bytes, "code": code}

    def pieces(self, log: SourceLog) -> Iterator[Piece]:
        """A document a piece."""
        generator = importlib.import_module(self.generator.module)
        for document in generator.documents(self.seed, self.max_bytes):
            yield Piece(document)


class PythonSource:
    """The standard library's own sources on this machine, without tests and installed packages."""

    name = PYTHON

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
