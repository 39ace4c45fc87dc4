"""The cleaned text on disk: one UTF-8 file, and tables of where each document begins and what it is called.

The text is written in one streaming pass that holds 32 bytes per document in memory.

    text.bin       the documents' UTF-8 bytes, one after the other
    offsets.npy    (documents + 1,) int64: where each begins in text.bin, and the end
    chars.npy      (documents,) int64: characters of each
    hashes.npy     (documents,) uint64: BLAKE2b-64 of each document's bytes
    names.bin      id, tab, origin of each document, and tab, kind where it has one; names.npy holds their offsets
"""

from __future__ import annotations

import hashlib
from array import array
from pathlib import Path

import numpy as np
import numpy.typing as npt

from etude.data.tables import load_table, require_offsets
from etude.errors import InputError

Int64 = npt.NDArray[np.int64]
_BUFFER = 1 << 20


def content_hash(data: bytes) -> int:
    """Return BLAKE2b-64 of ``data`` as a number."""
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")


class StoreWriter:
    """Write a store; a document arrives as one or more consecutive pieces of text."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._text = (folder / "text.bin").open("wb", buffering=_BUFFER)
        self._names = (folder / "names.bin").open("wb", buffering=_BUFFER)
        self._offsets = array("q", [0])
        self._chars = array("q")
        self._hashes = array("Q")
        self._name_ends = array("q", [0])
        self._digest: hashlib.blake2b | None = None
        self._whole = hashlib.blake2b(digest_size=16)
        self.bytes = 0

    @property
    def num_documents(self) -> int:
        """Documents begun so far."""
        return len(self._chars)

    def begin(self, document_id: str, origin: str, kind: str = "") -> None:
        """Begin a new document; the text that follows belongs to it."""
        self._finish_document()
        self._digest = hashlib.blake2b(digest_size=8)
        name = "\t".join((document_id, origin, *([kind] if kind else []))).encode("utf-8", "replace")
        self._names.write(name)
        self._name_ends.append(self._name_ends[-1] + len(name))
        self._chars.append(0)

    def add(self, text: str) -> None:
        """Append text to the document that was begun last."""
        assert self._digest is not None, "begin() comes first"
        data = text.encode("utf-8")
        self._text.write(data)
        self._digest.update(data)
        self._whole.update(data)
        self._chars[-1] += len(text)
        self.bytes += len(data)

    def close(self) -> str:
        """Write the tables.

        Returns:
            BLAKE2b-128 of the whole text, in hexadecimal.
        """
        self._finish_document()
        self._text.close()
        self._names.close()
        np.save(self.folder / "offsets.npy", np.frombuffer(self._offsets, np.int64))
        np.save(self.folder / "chars.npy", np.array(self._chars, np.int64))
        np.save(self.folder / "hashes.npy", np.array(self._hashes, np.uint64))
        np.save(self.folder / "names.npy", np.frombuffer(self._name_ends, np.int64))
        return self._whole.hexdigest()

    def _finish_document(self) -> None:
        if self._digest is not None:
            self._hashes.append(int.from_bytes(self._digest.digest(), "little"))
            self._offsets.append(self.bytes)
            self._digest = None


class TextStore:
    """Read a store. The tables are memory-mapped; text is read by byte range and not kept in memory.

    Raises:
        InputError: a file is missing, or its content does not fit the others.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        text, names = folder / "text.bin", folder / "names.bin"
        for file in (text, names):
            if not file.is_file():
                raise InputError(f"{file} is missing: prepare the text again")
        self.offsets: Int64 = load_table(folder / "offsets.npy", np.int64, (None,))
        require_offsets(folder / "offsets.npy", self.offsets, end=text.stat().st_size)
        documents = len(self.offsets) - 1
        self.chars: Int64 = load_table(folder / "chars.npy", np.int64, (documents,))
        self.hashes: npt.NDArray[np.uint64] = load_table(folder / "hashes.npy", np.uint64, (documents,))
        self._name_ends: Int64 = load_table(folder / "names.npy", np.int64, (documents + 1,))
        require_offsets(folder / "names.npy", self._name_ends, end=names.stat().st_size)
        self._text = text.open("rb", buffering=0)

    @property
    def num_documents(self) -> int:
        return len(self.chars)

    def read(self, start: int, end: int) -> bytes:
        """Return bytes [start, end) of the text."""
        self._text.seek(start)
        data = self._text.read(end - start)
        while len(data) < end - start:  # an unbuffered read may return less, such as above 2 GiB
            more = self._text.read(end - start - len(data))
            if not more:
                raise OSError(f"{self.folder / 'text.bin'} ends before byte {end}")
            data += more
        return data

    def name(self, index: int) -> tuple[str, str]:
        """Return (id, origin) of a document."""
        document_id, origin, _ = self._named(index)
        return document_id, origin

    def kind(self, index: int) -> str:
        """Return the kind of a document; empty where its row named none."""
        return self._named(index)[2]

    def _named(self, index: int) -> tuple[str, str, str]:
        start, end = int(self._name_ends[index]), int(self._name_ends[index + 1])
        with (self.folder / "names.bin").open("rb") as file:
            file.seek(start)
            document_id, _, rest = file.read(end - start).decode("utf-8", "replace").partition("\t")
        origin, _, kind = rest.partition("\t")
        return document_id, origin, kind

    def close(self) -> None:
        """Close the text file."""
        self._text.close()
