"""From a file's bytes to text: decompression, encodings, and pieces cut at line ends.

Memory stays constant: a file is read in chunks of about a megabyte.
"""

from __future__ import annotations

import codecs
import gzip
import io
import unicodedata
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from etude.data.reading.piece import PIECE_CHARS, Unusable

COMPRESSIONS = (".gz", ".zst")
CHUNK_BYTES = 1 << 20
_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16: its mark begins with UTF-16's
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)

Opener = Callable[[], BinaryIO]


def compression_of(path: Path) -> str:
    """``.gz``, ``.zst`` or the empty string."""
    suffix = path.suffix.lower()
    return suffix if suffix in COMPRESSIONS else ""


def open_bytes(path: Path) -> BinaryIO:
    """The file's bytes, decompressed while they are read."""
    compression = compression_of(path)
    if compression == ".gz":
        return cast(BinaryIO, gzip.open(path, "rb"))
    if compression == ".zst":
        import zstandard

        raw = zstandard.open(path, "rb")
        return cast(BinaryIO, io.BufferedReader(cast(io.RawIOBase, raw), CHUNK_BYTES))
    return path.open("rb")


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


def sniff_encoding(opener: Opener) -> str:
    """The encoding that the byte order mark names; UTF-8 without one."""
    with opener() as stream:
        head = stream.read(4)
    if not head:
        raise Unusable("empty")
    for mark, encoding in _BYTE_ORDER_MARKS:
        if head.startswith(mark):
            return encoding
    return "utf-8"


def checked_encoding(opener: Opener) -> str:
    """:func:`sniff_encoding`, after the whole stream was seen to decode.

    A file is checked before its first piece is used, so that one with a bad byte near its end is not half-used.

    Raises:
        Unusable: empty, binary (NUL bytes), or not the encoding that it seems to have.
    """
    encoding = sniff_encoding(opener)
    decoder = codecs.getincrementaldecoder(encoding)()
    position = 0
    with opener() as stream:
        while chunk := stream.read(CHUNK_BYTES):
            if encoding == "utf-8" and b"\0" in chunk:
                raise Unusable("binary", "it holds NUL bytes")
            _decode(decoder, chunk, position, encoding, final=False)
            position += len(chunk)
    _decode(decoder, b"", position, encoding, final=True)
    return encoding


def _decode(
    decoder: codecs.IncrementalDecoder, chunk: bytes, position: int, encoding: str, *, final: bool
) -> None:
    try:
        decoder.decode(chunk, final)
    except UnicodeDecodeError as error:
        name = "UTF-8" if encoding.startswith("utf-8") else encoding.upper()
        where = max(0, position + error.start - max(0, len(error.object) - len(chunk)))
        detail = f"bad byte near offset {where:,}; convert it: iconv -f latin1 -t utf-8 FILE > NEW"
        raise Unusable(f"not {name}", detail) from error


def text_reader(
    opener: Opener, encoding: str, *, newline: str | None = None, errors: str = "strict"
) -> io.TextIOWrapper:
    """A text stream; by default every kind of line end reads as ``\\n``."""
    return io.TextIOWrapper(opener(), encoding=encoding, newline=newline, errors=errors)


def pieces_of(reader: io.TextIOBase, size: int = PIECE_CHARS) -> Iterator[str]:
    """The text in consecutive pieces of about ``size`` characters, cut after a line end where there is one."""
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
    """Where the piece ends: after the last line end, else the last space, else anywhere but inside a character."""
    cut = text.rfind("\n") + 1 or text.rfind(" ") + 1
    if cut or len(text) < 4 * size:
        return cut
    cut = len(text) - 1
    while cut > 1 and unicodedata.combining(text[cut]):
        cut -= 1
    return cut
