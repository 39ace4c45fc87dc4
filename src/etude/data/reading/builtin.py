"""The corpora that need no download: generated text and conversations, and ``builtin:python``."""

from __future__ import annotations

import hashlib
import importlib
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from etude.data.reading.formats import read_file
from etude.data.reading.options import ReadingOptions
from etude.data.reading.piece import Piece, SourceLog
from etude.files import hash_file

PREFIX = "builtin:"
TASKS = "builtin:tasks"
TASK_BYTES = 1_000_000
"""Size of the task mixture by default, and its largest size beside other text, to which it is an addition."""

CHECKED_BYTES = 400_000
"""Size of the questions with checked answers: about 2,500."""


@dataclass(frozen=True)
class Generator:
    """The module that makes a text, the packages of ``etude.data`` that it uses, and its default size in bytes.

    Attributes:
        conversations: whether its documents are conversations, each as a line of JSON.
        function: yields its documents, from a seed and a size.
    """

    module: str
    packages: tuple[str, ...]
    default_bytes: int
    conversations: bool = False
    function: str = "documents"


GENERATED = {
    "builtin:primer": Generator("etude.data.primer.generator", ("primer",), 12_000_000),
    "builtin:primer-instructions": Generator(
        "etude.data.instructions.generator", ("instructions", "primer"), 12_000_000, conversations=True
    ),
    "builtin:repeats": Generator("etude.data.studies.repeats", ("studies", "primer"), 3_000_000),
    "builtin:modular": Generator("etude.data.studies.modular", ("studies", "primer"), 20_000),
    TASKS: Generator("etude.data.tasks.generator", ("tasks", "primer"), TASK_BYTES),
    **{
        name: Generator(
            "etude.data.checked.generator",
            ("checked", "tasks", "primer"),
            CHECKED_BYTES,
            conversations=True,
            function=function,
        )
        for name, function in (
            ("builtin:sums", "sums"),
            ("builtin:copying", "copying"),
            ("builtin:format", "forms"),
        )
    },
}
PYTHON = "builtin:python"
NAMES = tuple(sorted([*GENERATED, PYTHON]))
_EXCLUDED_FOLDERS = frozenset(
    {"site-packages", "dist-packages", "test", "tests", "idle_test", "lib2to3", "__pycache__"}
)


class GeneratedSource:
    """Text from a generator of this package; the same seed gives the same bytes.

    Args:
        name: a key of ``GENERATED``.
        max_bytes: how much to generate; None: the default size.
    """

    size = None

    def __init__(self, name: str, seed: int, max_bytes: int | None) -> None:
        self.name, self.seed = name, seed
        self.generator = GENERATED[name]
        self.max_bytes = self.generator.default_bytes if max_bytes is None else max_bytes

    def identity(self) -> dict[str, Any]:
        """Return what determines the text: the generator's code and data, the seed, and the length."""
        digest = hashlib.blake2b(digest_size=16)
        for package in self.generator.packages:
            folder = Path(__file__).parent.parent / package
            for path in sorted(folder.rglob("*")):
                if path.is_file() and path.suffix != ".pyc":
                    digest.update(f"{path.relative_to(folder)}\0{hash_file(path)}\0".encode())
        code = digest.hexdigest()
        return {"source": self.name, "seed": self.seed, "max_bytes": self.max_bytes, "code": code}

    def pieces(self, log: SourceLog) -> Iterator[Piece]:
        """Yield each document as one piece; conversations are not text, and are logged as skipped."""
        if self.generator.conversations:
            log.skip("conversations", self.name)
            return
        yield from self.documents()

    def documents(self) -> Iterator[Piece]:
        """Yield each document, or each conversation, as one piece."""
        documents = getattr(importlib.import_module(self.generator.module), self.generator.function)
        for document in documents(self.seed, self.max_bytes):
            yield Piece(document)


class PythonSource:
    """The source files of this machine's Python standard library, without tests and installed packages."""

    name = PYTHON

    def __init__(self) -> None:
        self.root = Path(sysconfig.get_paths()["stdlib"])
        self.files = [
            path
            for path in sorted(self.root.rglob("*.py"))
            if not _EXCLUDED_FOLDERS.intersection(path.relative_to(self.root).parts[:-1])
        ]

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return sum(path.stat().st_size for path in self.files)

    def identity(self) -> dict[str, Any]:
        """Return the hash of every file."""
        files = [[str(path.relative_to(self.root)), hash_file(path)] for path in self.files]
        return {"source": self.name, "files": files}

    def pieces(self, log: SourceLog) -> Iterator[Piece]:
        """Yield each module as one document."""
        options = ReadingOptions()
        for path in self.files:
            yield from read_file(path, f"python/{path.relative_to(self.root).as_posix()}", options, log)
