"""Read the header, the metadata and the tensor table of a GGUF file, which may be damaged or hostile.

Every size, count and offset is compared with the size of the file before anything is allocated. The format is described
in ggml's docs/gguf.md; versions 2 and 3, little-endian.
"""

from __future__ import annotations

import math
import mmap
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from etude.errors import InputError
from etude.untrusted import open_plain, readable, shown

MAGIC = b"GGUF"
VERSIONS = (2, 3)
MOST_METADATA_BYTES = 1 << 28
"""Everything before the tensors; a vocabulary of 262,144 tokens with its merges takes 10 MiB."""
MOST_STRINGS = 1 << 22
MOST_KEYS = 1 << 16
MOST_TENSORS = 1 << 16
MOST_ALIGNMENT = 1 << 20
LONGEST_NAME = 1 << 10
MOST_DIMENSIONS = 4
_STRING, _ARRAY = 8, 9
_FLOAT32 = 6
_NUMBERS = {
    **{0: "<u1", 1: "<i1", 2: "<u2", 3: "<i2", 4: "<u4", 5: "<i4", _FLOAT32: "<f4", 7: "?"},
    **{10: "<u8", 11: "<i8", 12: "<f8"},
}
"""NumPy's name of each type of number, by GGUF's code."""


@dataclass(frozen=True, slots=True)
class GgufTensor:
    """One tensor of the table. The shape has PyTorch's order: (out, in) for a matrix.

    Attributes:
        kind: the name of its number format, such as "Q4_1".
        offset, size: its bytes in the file.
        row_size: bytes of one row, which is a whole number of blocks.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    offset: int
    size: int
    row_size: int


@dataclass(frozen=True, slots=True)
class GgufFile:
    """An open GGUF file: its metadata and tensors, and its bytes, mapped into memory."""

    path: Path
    metadata: dict[str, Any]
    tensors: dict[str, GgufTensor]
    content: mmap.mmap

    def rows(self, tensor: GgufTensor) -> NDArray[np.uint8]:
        """Return the bytes of a tensor, mapped: (rows, bytes per row)."""
        data = np.frombuffer(self.content, np.uint8, tensor.size, tensor.offset)
        return data.reshape(-1, tensor.row_size)

    def get(self, key: str, kind: type | tuple[type, ...], default: Any = None) -> Any:
        """Return a value of the metadata, or ``default`` where the file has none.

        Raises:
            InputError: the value has another type than ``kind``.
        """
        value = self.metadata.get(key)
        if value is None:
            return default
        kinds = kind if isinstance(kind, tuple) else (kind,)
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            raise self.damaged(f"{key} is {shown(value)}")
        return value

    def damaged(self, reason: str) -> InputError:
        """Return the error for a file with a fault."""
        return InputError(f"{self.path} is damaged ({reason}): get the file again")


@contextmanager
def open_gguf(path: Path) -> Iterator[GgufFile]:
    """Open a GGUF file while the block runs. Arrays taken from it must not be used afterwards.

    Raises:
        InputError: no such file, another kind of file, a damaged one, or a part of a split one.
    """
    try:
        with readable(path), open_plain(path) as file:
            head = file.read(8)
            if head[:4] != MAGIC:
                raise InputError(f"{path} is not a GGUF file: name a .gguf file")
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except FileNotFoundError:
        raise InputError(f"{path} is missing: name a .gguf file that exists") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read ({shown(str(error))}): get the file again") from None
    try:
        yield _parsed(path, content)
    finally:
        with suppress(BufferError):  # an array is still in use, and its end closes the map
            content.close()


def is_gguf(path: Path) -> bool:
    """Return whether the file begins as GGUF files do; False for what cannot be read."""
    try:
        with open_plain(path) as file:
            return file.read(4) == MAGIC
    except (OSError, InputError):
        return False


def _parsed(path: Path, content: mmap.mmap) -> GgufFile:
    cursor = _Cursor(path, content)
    cursor.at = len(MAGIC)
    version = cursor.unsigned(4)
    if version & 0xFFFF == 0:
        raise InputError(f"{path} is a big-endian GGUF file: convert it to little-endian")
    if version not in VERSIONS:
        raise InputError(f"{path} is a GGUF file of version {version}: only versions 2 and 3 can be read")
    num_tensors = cursor.count(MOST_TENSORS, 24, "tensors")
    num_keys = cursor.count(MOST_KEYS, 13, "keys")
    metadata: dict[str, Any] = {}
    for _ in range(num_keys):
        key = cursor.name()
        if key in metadata:
            raise cursor.damaged(f"the key {shown(key)} occurs twice")
        metadata[key] = cursor.value(cursor.unsigned(4))
    parts = metadata.get("split.count", 1)
    if isinstance(parts, int) and parts > 1:
        raise InputError(
            f"{path} is one of {parts} parts of a model: join them with llama-gguf-split --merge"
        )
    return GgufFile(path, metadata, _tensor_table(cursor, num_tensors, metadata), content)


class _Cursor:
    """A position in the bytes before the tensors; every read is checked against their end."""

    def __init__(self, path: Path, content: mmap.mmap) -> None:
        self.path, self.content, self.at = path, content, 0
        self.end = min(len(content), MOST_METADATA_BYTES)
        self.strings_left = MOST_STRINGS

    def damaged(self, reason: str) -> InputError:
        return InputError(f"{self.path} is damaged ({reason}): get the file again")

    def skip(self, size: int) -> int:
        """Move ``size`` bytes ahead and return the position before them."""
        if size > self.end - self.at:
            if self.end < len(self.content):
                raise self.damaged(f"its metadata is longer than {MOST_METADATA_BYTES:,} bytes")
            raise self.damaged("it ends too early")
        before, self.at = self.at, self.at + size
        return before

    def unsigned(self, size: int) -> int:
        return int.from_bytes(self.content[self.skip(size) : self.at], "little")

    def count(self, most: int, size: int, what: str) -> int:
        """Return a number of things that take ``size`` bytes each, or more."""
        count = self.unsigned(8)
        if count > most or count * size > self.end - self.at:
            raise self.damaged(f"it cannot hold {count} {what}")
        return count

    def text(self) -> str:
        length = self.unsigned(8)
        try:
            return self.content[self.skip(length) : self.at].decode("utf-8")
        except UnicodeDecodeError:
            raise self.damaged("it has a text that is not UTF-8") from None

    def name(self) -> str:
        name = self.text()
        if not name or len(name) > LONGEST_NAME:
            raise self.damaged(f"{shown(repr(name))} is not a name")
        return name

    def value(self, kind: int) -> Any:
        """Return a number, a truth value, a text, a list of texts, or an array of numbers."""
        if kind == _STRING:
            return self.text()
        if kind == _ARRAY:
            return self._array(self.unsigned(4))
        if kind not in _NUMBERS:
            raise self.damaged(f"it has a value of the unknown type {kind}")
        value = self._numbers(kind, 1)[0]
        # The shortest decimal that rounds to the number: 1e-05 instead of 9.999999747378752e-06.
        return float(str(value)) if kind == _FLOAT32 else value.item()

    def _array(self, kind: int) -> Any:
        length = self.unsigned(8)
        if kind == _STRING:
            return self._texts(length)
        if kind not in _NUMBERS:
            raise self.damaged(
                f"it has an array of the {'nested' if kind == _ARRAY else 'unknown'} type {kind}"
            )
        return self._numbers(kind, length)

    def _numbers(self, kind: int, length: int) -> NDArray[Any]:
        form = np.dtype(_NUMBERS[kind])
        at = self.skip(length * form.itemsize)
        return np.frombuffer(self.content[at : self.at], form)

    def _texts(self, length: int) -> list[str]:
        if length > self.strings_left or 8 * length > self.end - self.at:
            raise self.damaged(f"it cannot hold {length} texts")
        self.strings_left -= length
        # `text`, written out: a vocabulary has hundreds of thousands of them.
        texts, content, at, end = [], self.content, self.at, self.end
        read_length = struct.Struct("<Q").unpack_from
        try:
            for _ in range(length):
                stop = at + 8 + read_length(content, at)[0]
                if stop > end:
                    raise self.damaged("it ends too early")
                texts.append(content[at + 8 : stop].decode("utf-8"))
                at = stop
        except struct.error:
            raise self.damaged("it ends too early") from None
        except UnicodeDecodeError:
            raise self.damaged("it has a text that is not UTF-8") from None
        self.at = at
        return texts


def _tensor_table(cursor: _Cursor, count: int, metadata: dict[str, Any]) -> dict[str, GgufTensor]:
    alignment = metadata.get("general.alignment", 32)
    if not isinstance(alignment, int) or not 0 < alignment <= MOST_ALIGNMENT or alignment & (alignment - 1):
        raise cursor.damaged(f"general.alignment is {shown(alignment)}")
    kinds = _block_sizes()
    table = [_table_entry(cursor, kinds) for _ in range(count)]
    begin = -(-cursor.at // alignment) * alignment
    tensors: dict[str, GgufTensor] = {}
    for name, kind, shape, offset, row_size in table:
        size = row_size * math.prod(shape[:-1])
        if offset % alignment or begin + offset + size > len(cursor.content):
            raise cursor.damaged(f"the tensor {shown(name)} lies outside of it")
        if name in tensors:
            raise cursor.damaged(f"the tensor {shown(name)} occurs twice")
        tensors[name] = GgufTensor(name, kind, shape, begin + offset, size, row_size)
    _refuse_overlaps(cursor, tensors)
    return tensors


def _table_entry(
    cursor: _Cursor, kinds: dict[int, tuple[str, int, int]]
) -> tuple[str, str, tuple[int, ...], int, int]:
    """Return name, kind, shape, offset from the beginning of the data, and bytes per row."""
    name = cursor.name()
    num_dimensions = cursor.unsigned(4)
    if not 0 < num_dimensions <= MOST_DIMENSIONS:
        raise cursor.damaged(f"the tensor {shown(name)} has {num_dimensions} dimensions")
    shape = tuple(reversed([cursor.unsigned(8) for _ in range(num_dimensions)]))
    code, offset = cursor.unsigned(4), cursor.unsigned(8)
    if code not in kinds:
        raise cursor.damaged(f"the tensor {shown(name)} has numbers of the unknown type {code}")
    kind, block, block_size = kinds[code]
    if 0 in shape or shape[-1] % block:
        raise cursor.damaged(f"the tensor {shown(name)} of {kind} numbers has the shape {shown(shape)}")
    return name, kind, shape, offset, shape[-1] // block * block_size


def _refuse_overlaps(cursor: _Cursor, tensors: dict[str, GgufTensor]) -> None:
    """Raise InputError where two tensors share bytes: a small file could stand for any amount of weights."""
    end = 0
    for tensor in sorted(tensors.values(), key=lambda tensor: tensor.offset):
        if tensor.offset < end:
            raise cursor.damaged(f"the tensor {shown(tensor.name)} lies over another")
        end = tensor.offset + tensor.size


def _block_sizes() -> dict[int, tuple[str, int, int]]:
    """Return (name, numbers per block, bytes per block) of each number format, by its code."""
    from gguf.constants import GGML_QUANT_SIZES

    return {int(kind): (kind.name, *sizes) for kind, sizes in GGML_QUANT_SIZES.items()}
