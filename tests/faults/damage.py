"""Ways to damage a file, by accident or on purpose: functions of its bytes and a random generator."""

from __future__ import annotations

import json
import os
import re
import struct
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

Mutation = Callable[[bytes, Random], bytes]

TRAPS: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    1,
    2**31,
    2**63,
    -(2**63),
    10**30,
    10**400,
    0.5,
    1e308,
    float("inf"),
    float("nan"),
    "",
    "x",
    "1",
    "\ud800",
    "a\nb\x1b[31m\x00",
    "[/red]",
    "../../outside/secret.txt",
    "/etc/passwd",
    "/dev/zero",
    "x" * 5000,
    [],
    {},
    [[]],
    [1, 2],
    ["../../outside"],
    {"a": {"b": 1}},
)
"""Values that are valid nowhere in Etude's files: of the wrong type, size, sign or place."""
_NUMBERS = (
    b"9" * 5000,
    b"1e999",
    b"-1",
    b"18446744073709551616",
    b"NaN",
    b"0",
    b"1000000000",
    b"0x" + b"f" * 5000,
)
_DEPTHS = (
    b"[" * 100_000,
    b'{"a":' * 100_000,
    b"(" * 5000,
    b"a." * 100_000 + b"a = 1",
    b"x = " + b"[" * 50_000,
)


def _place(data: bytes, random: Random) -> int:
    """Choose a position: half of the time within the first 512 bytes, where headers are, else anywhere."""
    return random.randrange(min(len(data), 512) if random.random() < 0.5 else len(data)) if data else 0


def _overwrite(byte: int) -> Mutation:
    def mutate(data: bytes, random: Random) -> bytes:
        at, length = _place(data, random), random.choice((1, 4, 8, 64, 4096))
        return data[:at] + bytes([byte]) * min(length, len(data) - at) + data[at + length :]

    return mutate


def _insert(chunks: Callable[[Random], bytes]) -> Mutation:
    def mutate(data: bytes, random: Random) -> bytes:
        at = _place(data, random)
        return data[:at] + chunks(random) + data[at:]

    return mutate


def _flip(data: bytes, random: Random) -> bytes:
    damaged = bytearray(data)
    for _ in range(random.choice((1, 1, 3, 20)) if data else 0):
        damaged[_place(data, random)] ^= 1 << random.randrange(8)
    return bytes(damaged)


def _delete(data: bytes, random: Random) -> bytes:
    at = _place(data, random)
    return data[:at] + data[at + random.choice((1, 2, 16, 300)) :]


def _repeat(data: bytes, random: Random) -> bytes:
    at, length = _place(data, random), random.choice((1, 16, 300, 5000))
    return data[:at] + data[at : at + length] * random.choice((2, 2, 50)) + data[at + length :]


def _swap(data: bytes, random: Random) -> bytes:
    first, second = sorted((_place(data, random), _place(data, random)))
    size = min(random.choice((1, 8, 64)), second - first)
    earlier, later = data[first : first + size], data[second : second + size]
    return data[:first] + later + data[first + size : second] + earlier + data[second + size :]


def _number(data: bytes, random: Random) -> bytes:
    matches = list(re.finditer(rb"\d+", data))
    if not matches:
        return data + random.choice(_NUMBERS)
    start, end = random.choice(matches).span()
    return data[:start] + random.choice(_NUMBERS) + data[end:]


BYTES: dict[str, Mutation] = {
    "empty": lambda data, random: b"",
    "truncate": lambda data, random: data[: _place(data, random)],
    "flip bits": _flip,
    "zeros": _overwrite(0),
    "ones": _overwrite(0xFF),
    "insert noise": _insert(lambda random: random.randbytes(random.choice((1, 8, 200)))),
    "insert NUL": _insert(lambda random: b"\0"),
    "bad UTF-8": _insert(lambda random: random.choice((b"\xff\xfe", b"\xc0\x80", b"\xed\xa0\x80", b"\xf5"))),
    "long line": _insert(lambda random: random.choice((b"a", b" ", b'"', b"\\")) * 2_000_000),
    "deep": lambda data, random: random.choice(_DEPTHS),
    "insert deep": _insert(lambda random: random.choice(_DEPTHS)),
    "delete": _delete,
    "repeat": _repeat,
    "swap": _swap,
    "number": _number,
    "noise": lambda data, random: random.randbytes(len(data) % 5000),
    "zip": lambda data, random: b"PK\x03\x04" + data,
    "pickle": lambda data, random: (
        b"\x80\x04\x8c\x05posix\x94\x8c\x06system\x94\x93\x94\x8c\x04true\x94\x85\x94R."
    ),
}


def alter(value: Any, random: Random) -> Any:
    """Return a JSON value with one part replaced by a trap, removed, repeated, or renamed to a trap."""
    places: list[tuple[Any, Any]] = []
    waiting = [value]
    while waiting:
        node = waiting.pop()
        keys = list(node) if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ()
        places += [(node, key) for key in keys]
        waiting += [node[key] for key in keys]
    if not places or random.random() < 0.05:
        return random.choice(TRAPS)
    node, key = random.choice(places)
    kind = random.random()
    if kind < 0.75:
        node[key] = random.choice(TRAPS)
    elif kind < 0.87:
        del node[key]
    elif isinstance(node, list):
        node += node * 3
    else:
        node[str(random.choice(TRAPS))] = node.pop(key)
    return value


def _json(data: bytes, random: Random) -> bytes:
    return json.dumps(alter(json.loads(data), random)).encode()


def _json_line(data: bytes, random: Random) -> bytes:
    lines = data.splitlines(keepends=True)
    at = random.randrange(len(lines))
    lines[at] = _json(lines[at], random) + b"\n"
    return b"".join(lines)


def _toml(data: bytes, random: Random) -> bytes:
    lines = data.decode().splitlines()
    at = random.choice([number for number, line in enumerate(lines) if " = " in line])
    key, value = lines[at].split(" = ", 1)
    trap = random.choice([trap for trap in TRAPS if trap is not None])
    written = json.dumps(trap).replace("Infinity", "inf").replace("NaN", "nan")
    lines[at] = random.choice((f"{key} = {written}", f"{key}x = {value}", f"{key}.{key} = {written}", ""))
    return "\n".join(lines).encode()


def _safetensors(data: bytes, random: Random) -> bytes:
    size = int.from_bytes(data[:8], "little")
    header = json.dumps(alter(json.loads(data[8 : 8 + size]), random)).encode()
    claimed = random.choice((len(header),) * 6 + (2**40, 2**63 - 1, 0))
    return struct.pack("<Q", claimed) + header + data[8 + size :]


def _npy(data: bytes, random: Random) -> bytes:
    start, end = 10, 10 + int.from_bytes(data[8:10], "little")
    shapes = (
        "(1000000000000,)",
        "(2, 99999999999999999999)",
        "(-1,)",
        "()",
        "(0,)",
        "(True,)",
        "'x'",
        "(1,) * 9**9",
    )
    types = ("'|O'", "'<f8'", "'<i8, <i8'", "'<U99999999'", "__import__('os').getcwd()", "'<u2'")
    header = (
        f"{{'descr': {random.choice(types)}, 'fortran_order': False, 'shape': {random.choice(shapes)}, }}"
    )
    original = data[start:end].decode("latin1")
    if random.random() < 0.5:
        header = re.sub(r"\([\d, ]*\)", random.choice(shapes), original)
    written = header.strip().ljust(117)[:65000].encode() + b"\n"
    return data[:8] + struct.pack("<H", len(written)) + written + data[end:]


_GGUF_SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
_GGUF_TEXT, _GGUF_ARRAY = 8, 9


class _GgufFields:
    """Walks through an intact GGUF file and notes every number that something depends on: (position, bytes)."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at, self.fields = data, 4, list[tuple[int, int]]()
        self.number(4)
        num_tensors, num_keys = self.number(8), self.number(8)
        for _ in range(num_keys):
            self.text()
            self.value(self.number(4))
        for _ in range(num_tensors):
            self.text()
            for _ in range(self.number(4)):
                self.number(8)
            self.number(4)
            self.number(8)

    def number(self, size: int) -> int:
        self.fields.append((self.at, size))
        self.at += size
        return int.from_bytes(self.data[self.at - size : self.at], "little")

    def text(self) -> None:
        length = self.number(8)
        self.at += length

    def value(self, kind: int) -> None:
        if kind == _GGUF_TEXT:
            self.text()
        elif kind == _GGUF_ARRAY:
            element = self.number(4)
            for _ in range(self.number(8)):
                self.value(element)
        else:
            self.number(_GGUF_SIZES[kind])


def _gguf(data: bytes, random: Random) -> bytes:
    fields = _GgufFields(data).fields
    # Most of them are lengths of tokens; counts and the table of tensors are as likely to be hit.
    chosen = random.choice((fields, fields[:40], fields[-200:]))
    for at, size in random.sample(chosen, random.choice((1, 1, 1, 3))):
        current = int.from_bytes(data[at : at + size], "little")
        traps = (
            0,
            1,
            2,
            8,
            9,
            255,
            2**31,
            2**32 - 1,
            2**63,
            2**64 - 1,
            current + 1,
            current - 1,
            current * 2,
        )
        value = random.choice(traps) % 256**size
        data = data[:at] + value.to_bytes(size, "little") + data[at + size :]
    return data


STRUCTURED: dict[str, Mutation] = {
    ".gguf": _gguf,
    ".json": _json,
    ".jsonl": _json_line,
    ".toml": _toml,
    ".safetensors": _safetensors,
    ".npy": _npy,
}


def replace_by_other(path: Path, outside: Path, random: Random) -> str:
    """Replace the file by something else, such as a folder, a pipe, a link, or nothing. Returns what it was."""
    path.unlink()
    links = {
        "link outside": outside / "secret.txt",
        "link to a folder outside": outside,
        "link to /dev/zero": Path("/dev/zero"),
        "link to itself": path,
        "link to nothing": outside / "nothing",
        "link up": Path(".."),
    }
    kind = random.choice(("missing", "folder", "pipe", *links))
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind in links:
        path.symlink_to(links[kind])
    return kind
