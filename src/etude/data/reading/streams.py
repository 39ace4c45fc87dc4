"""Turn a file's bytes into text: decompress them, and cut pieces at line ends.

Memory stays constant: a file is read in chunks of about a megabyte.
"""

from __future__ import annotations

import gzip
import io
import tempfile
import unicodedata
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from etude.data.reading.piece import PIECE_CHARS, Unusable

COMPRESSIONS = (".gz", ".zst")
CHUNK_BYTES = 1 << 20
MOST_EXPANSION = 200
FREE_EXPANSION_BYTES = 64 << 20
"""Unpacked data may always have this many bytes, and beyond that ``MOST_EXPANSION`` times the size of its file."""
_ZSTD_INPUT = 1 << 10
"""Compressed bytes read at a time: a block of four bytes can expand to 128 KiB, so memory stays below 32 MiB."""

Opener = Callable[[], BinaryIO]


def compression_of(path: Path) -> str:
    """Return ``.gz``, ``.zst`` or the empty string."""
    suffix = path.suffix.lower()
    return suffix if suffix in COMPRESSIONS else ""


def open_bytes(path: Path) -> BinaryIO:
    """Open the file's bytes, decompressed as they are read, in bounded memory.

    Reading raises :class:`Unusable` when a compressed file expands without limit.
    """
    compression = compression_of(path)
    if not compression:
        return path.open("rb")
    limit = expansion_limit(path)
    raw = cast(io.RawIOBase, gzip.GzipFile(path, "rb")) if compression == ".gz" else _Zstd(path)
    return cast(BinaryIO, io.BufferedReader(_Bounded(raw, limit), CHUNK_BYTES))


def expansion_limit(path: Path) -> int:
    """Return how many bytes may come out of the file ``path``."""
    return max(FREE_EXPANSION_BYTES, MOST_EXPANSION * path.stat().st_size)


def expands_too_much(limit: int) -> Unusable:
    """Return the error for a file that expands to more than ``limit`` bytes."""
    return Unusable(
        "expands too much",
        f"more than {limit:,} bytes come out, {MOST_EXPANSION} times its size: unpack it to look at it",
    )


class _Bounded(io.RawIOBase):
    """Pass on the bytes of ``raw`` and raise once there are more than ``limit``."""

    def __init__(self, raw: io.RawIOBase, limit: int) -> None:
        self.raw, self.left, self.limit = raw, limit, limit

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        count = self.raw.readinto(buffer) or 0
        self.left -= count
        if self.left < 0:
            raise expands_too_much(self.limit)
        return count

    def close(self) -> None:
        self.raw.close()
        super().close()


class _Zstd(io.RawIOBase):
    """Consecutive zstd frames; a file that ends inside a frame is an error, as with gzip."""

    def __init__(self, path: Path) -> None:
        import zstandard

        self._file = path.open("rb")
        self._library = zstandard.ZstdDecompressor()
        self._frame = self._library.decompressobj()
        self._begun = False
        self._ready = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        while not self._ready:
            data = self._file.read(_ZSTD_INPUT)
            if not data:
                if self._begun:
                    raise EOFError("the file ends inside a frame")
                return 0
            self._ready = memoryview(b"".join(self._unpacked(data)))
        count = min(len(buffer), len(self._ready))
        buffer[:count] = self._ready[:count]
        self._ready = self._ready[count:]
        return count

    def _unpacked(self, data: bytes) -> Iterator[bytes]:
        while data:
            self._begun = True
            yield self._frame.decompress(data)
            if not self._frame.eof:
                return
            data = self._frame.unused_data
            self._frame, self._begun = self._library.decompressobj(), False

    def close(self) -> None:
        self._file.close()
        super().close()


@contextmanager
def reading_faults() -> Iterator[None]:
    """Turn the errors of a file that cannot be read into :class:`Unusable` with a reason."""
    import zstandard

    try:
        yield
    except (gzip.BadGzipFile, zlib.error, EOFError, zstandard.ZstdError) as error:
        raise Unusable("damaged archive", str(error)) from error
    except PermissionError as error:
        raise Unusable("unreadable", "no permission") from error
    except OSError as error:
        raise Unusable("unreadable", error.strerror or str(error)) from error


@contextmanager
def plain_file(path: Path) -> Iterator[Path]:
    """Yield the file itself, or a temporary decompressed copy: some formats need random access."""
    with tempfile.TemporaryDirectory(prefix="etude-") as folder:
        plain = path
        if compression_of(path):
            plain = Path(folder) / "plain"
            with open_bytes(path) as source, plain.open("wb") as target:
                while chunk := source.read(CHUNK_BYTES):
                    target.write(chunk)
        if plain.stat().st_size == 0:
            raise Unusable("empty")
        yield plain


def text_reader(
    opener: Opener, encoding: str, *, newline: str | None = None, errors: str = "strict"
) -> io.TextIOWrapper:
    """Open a text stream; by default every kind of line end is read as ``\\n``."""
    return io.TextIOWrapper(opener(), encoding=encoding, newline=newline, errors=errors)


def pieces_of(reader: io.TextIOBase, size: int = PIECE_CHARS) -> Iterator[str]:
    """Yield the text in consecutive pieces of about ``size`` characters, cut after a line end if there is one."""
    rest = ""
    while True:
        chunk = reader.read(size)
        text = rest + chunk
        if len(chunk) < size:
            if text:
                yield text
            return
        cut = _cut(text, size)
        if cut:
            yield text[:cut]
        rest = text[cut:]


def _cut(text: str, size: int) -> int:
    """Return where the piece ends: after the last line end, else the last space, else not inside a character."""
    cut = text.rfind("\n") + 1 or text.rfind(" ") + 1
    if cut or len(text) < 4 * size:
        return cut
    cut = len(text) - 1
    while cut > 1 and unicodedata.combining(text[cut]):
        cut -= 1
    return cut
