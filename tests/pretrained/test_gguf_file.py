"""GGUF files from strangers: every size, count and offset may lie, and costs neither memory nor time."""

from __future__ import annotations

import resource
import struct
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from etude.errors import InputError
from etude.pretrained.gguf_file import MOST_STRINGS, is_gguf, open_gguf
from etude.pretrained.gguf_model import folder_from_gguf
from waiting import PATIENCE

STRING, ARRAY, UINT32, FLOAT32 = 8, 9, 4, 6


def text(value: str | bytes) -> bytes:
    raw = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(raw)) + raw


def key(name: str, kind: int, value: bytes) -> bytes:
    return text(name) + struct.pack("<I", kind) + value


def array(kind: int, count: int, elements: bytes = b"") -> bytes:
    return struct.pack("<IQ", kind, count) + elements


def tensor(name: str, shape: tuple[int, ...], kind: int = 0, offset: int = 0) -> bytes:
    return text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)


def file(keys: Sequence[bytes] = (), tensors: Sequence[bytes] = (), data: bytes = b"", **head: int) -> bytes:
    """Return a file; ``head`` has its version and counts where they are not the true ones."""
    counts = head.get("num_tensors", len(tensors)), head.get("num_keys", len(keys))
    begin = (
        b"GGUF" + struct.pack("<IQQ", head.get("version", 3), *counts) + b"".join(keys) + b"".join(tensors)
    )
    return begin + b"\0" * (-len(begin) % 32) + data


ARCHITECTURE = key("general.architecture", STRING, text("llama"))
ABSURD: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "is not a GGUF file"),
    "another format": (b"PK\3\4" * 20, "is not a GGUF file"),
    "only the mark": (b"GGUF", "ends too early"),
    "version 1": (file(version=1), "version 1: only versions 2 and 3"),
    "version 4": (file(version=4), "version 4"),
    "big-endian": (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "big-endian"),
    "many keys": (file(num_keys=2**60), "cannot hold 1152921504606846976 keys"),
    "many tensors": (file(num_tensors=2**64 - 1), "cannot hold 18446744073709551615 tensors"),
    "a text without end": (file([key("a", STRING, struct.pack("<Q", 2**63) + b"x")]), "ends too early"),
    "a key without end": (file([struct.pack("<Q", 2**64 - 1) + b"x" * 30]), "ends too early"),
    "a text of no UTF-8": (file([key("a", STRING, text(b"\xff\xfe"))]), "not UTF-8"),
    "many texts": (file([key("a", ARRAY, array(STRING, 2**60))]), "cannot hold 1152921504606846976 texts"),
    "many numbers": (file([key("a", ARRAY, array(UINT32, 2**62))]), "ends too early"),
    "nested arrays": (
        file([key("a", ARRAY, array(ARRAY, 1, array(ARRAY, 1, array(UINT32, 0))))]),
        "array of the nested type 9",
    ),
    "deeply nested arrays": (file([key("a", ARRAY, array(ARRAY, 1) * 100_000)]), "nested"),
    "an unknown type": (file([key("a", 13, b"\0" * 8)]), "unknown type 13"),
    "no name": (file([key("", UINT32, b"\0" * 4)]), "'' is not a name"),
    "a key twice": (file([ARCHITECTURE, ARCHITECTURE]), "occurs twice"),
    "a key of two lines": (file([key("a\nb", UINT32, b"\0" * 4)] * 2), "a\ufffdb occurs twice"),
    "no alignment": (file([key("general.alignment", UINT32, b"\0" * 4)]), "general.alignment is 0"),
    "alignment 24": (
        file([key("general.alignment", UINT32, struct.pack("<I", 24))]),
        "general.alignment is 24",
    ),
    "a split file": (file([key("split.count", 2, struct.pack("<H", 3))]), "one of 3 parts"),
    "no shape": (file([], [tensor("a", ())]), "has 0 dimensions"),
    "many dimensions": (
        file([], [text("a") + struct.pack("<I", 2**31) + b"\0" * 40]),
        "has 2147483648 dimensions",
    ),
    "no rows": (file([], [tensor("a", (4, 0))]), "has the shape"),
    "a product beyond 64 bits": (file([], [tensor("a", (2**62, 2**62))], b"\0" * 64), "outside of it"),
    "more than the file": (file([], [tensor("a", (64, 64))], b"\0" * 64), "outside of it"),
    "an offset beyond": (file([], [tensor("a", (4,), offset=2**63)], b"\0" * 64), "outside of it"),
    "an offset between": (file([], [tensor("a", (4,), offset=8)], b"\0" * 64), "outside of it"),
    "half a block": (file([], [tensor("a", (33,), kind=2)], b"\0" * 64), "Q4_0 numbers has the shape"),
    "an unknown format": (file([], [tensor("a", (4,), kind=999)], b"\0" * 64), "unknown type 999"),
    "one over another": (
        file([], [tensor("a", (16,)), tensor("b", (16,), offset=32)], b"\0" * 128),
        "b lies over another",
    ),
    "the same bytes often": (
        file([], [tensor(f"t{n}", (16,)) for n in range(9)], b"\0" * 64),
        "lies over another",
    ),
    "a tensor twice": (
        file([], [tensor("a", (8,)), tensor("a", (8,), offset=32)], b"\0" * 64),
        "the tensor a occurs twice",
    ),
    "no architecture": (
        file([key("tokenizer.ggml.tokens", ARRAY, array(STRING, 1, text("a")))]),
        "it has no general.architecture",
    ),
    "no tokens": (file([ARCHITECTURE]), "it has no tokenizer.ggml.tokens"),
    "tokens that are a number": (
        file([ARCHITECTURE, key("tokenizer.ggml.tokens", UINT32, b"\0" * 4)]),
        "tokenizer.ggml.tokens is 0",
    ),
}


def test_absurd_files_are_refused_in_one_line_and_little_memory(tmp_path: Path) -> None:
    """In a process that may take 200 MB more than it has."""
    for number, (content, _) in enumerate(ABSURD.values()):
        (tmp_path / f"{number}.gguf").write_bytes(content)
    program = (
        "import pathlib, resource, sys; from etude.errors import InputError\n"
        "from etude.pretrained.gguf_model import folder_from_gguf\n"
        "import gguf, tokenizers\n"
        "taken = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (taken + 200_000_000, resource.RLIM_INFINITY))\n"
        "for path in sys.argv[1:]:\n"
        "    try: folder_from_gguf(pathlib.Path(path), pathlib.Path(path + '.folder')); print('read')\n"
        "    except InputError as error: print(error)\n"
    )
    files = [str(tmp_path / f"{number}.gguf") for number in range(len(ABSURD))]
    begun = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    command = [sys.executable, "-c", program, *files]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr == ""
    for line, path, (kind, (_, expected)) in zip(
        ended.stdout.splitlines(), files, ABSURD.items(), strict=True
    ):
        assert path in line, kind
        assert expected in line, kind
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - begun < 30
    assert not list(tmp_path.glob("*.folder"))


def test_a_large_file_of_empty_texts_is_refused_quickly(tmp_path: Path) -> None:
    """The file is sparse: a gigabyte that takes no space on disk."""
    path = tmp_path / "a.gguf"
    for count, expected in ((MOST_STRINGS, "longer than"), (MOST_STRINGS + 1, "cannot hold")):
        path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, 2) + key("a", ARRAY, array(STRING, count)))
        with path.open("r+b") as sparse:
            sparse.truncate(1 << 30)
            if count == MOST_STRINGS:  # a text from there to the end of the file
                sparse.seek(24 + 9 + 4 + 12 + 8 * count)
                sparse.write(key("b", STRING, struct.pack("<Q", (1 << 30) - 8 * count - 100)))
        begun = time.process_time()
        with pytest.raises(InputError, match=rf"a\.gguf is damaged \(.*{expected}"), open_gguf(path):
            raise AssertionError("read")
        assert time.process_time() - begun < 10


def test_values_of_every_type(tmp_path: Path) -> None:
    keys = [
        *(
            key(f"n{kind}", kind, struct.pack(form, 1))
            for kind, form in enumerate(["<B", "<b", "<H", "<h", "<I", "<i"])
        ),
        key("eps", FLOAT32, struct.pack("<f", 1e-5)),
        key("theta", 12, struct.pack("<d", 0.1)),
        key("flag", 7, b"\1"),
        *(key("big", 10, struct.pack("<Q", 2**63)), key("small", 11, struct.pack("<q", -5))),
        key("text", STRING, text("ä")),
        key("texts", ARRAY, array(STRING, 2, text("a") + text(""))),
        key("numbers", ARRAY, array(5, 3, struct.pack("<3i", 1, -2, 3))),
    ]
    content = file(
        keys,
        [tensor("w", (3, 2)), tensor("q", (32,), kind=8, offset=32)],
        struct.pack("<8f", *range(8)) + b"\0" * 34,
    )
    (tmp_path / "a.gguf").write_bytes(content)
    assert is_gguf(tmp_path / "a.gguf")
    with open_gguf(tmp_path / "a.gguf") as opened:
        values = dict(opened.metadata)
        assert values.pop("numbers").tolist() == [1, -2, 3]
        assert [values.pop(f"n{kind}") for kind in range(6)] == [1] * 6
        assert values == {
            **{"eps": 1e-05, "theta": 0.1, "flag": True, "big": 2**63, "small": -5},
            **{"text": "ä", "texts": ["a", ""]},
        }
        weight = opened.tensors["w"]
        assert (weight.kind, weight.shape, weight.row_size) == ("F32", (2, 3), 12)
        assert opened.rows(weight).view("<f4").tolist() == [[0, 1, 2], [3, 4, 5]]
        assert (opened.tensors["q"].kind, opened.tensors["q"].size) == ("Q8_0", 34)


def test_what_is_no_plain_file_is_refused(tmp_path: Path) -> None:
    for path, expected in ((tmp_path / "none.gguf", "is missing"), (tmp_path, "not a plain file")):
        assert not is_gguf(path)
        with pytest.raises(InputError, match=expected):
            folder_from_gguf(path, tmp_path / "folder")
