"""A disk between Etude and the system: it counts every operation below a folder, refuses one, or writes them down.

:class:`Disk` stands in for the functions of ``os`` and ``io`` through which Python reaches files, so that every open,
write, fsync, rename, mkdir and unlink below its folder passes through it, those of other threads too. The weights are
written by a library of its own (safetensors, in Rust); that is one operation here.

What was written down is replayed by :func:`crash_states`: the states in which a file system may be found after a crash.
Only an fsync of a file promises its content, and only an fsync of its folder promises its name; of all that was not
promised any part may be there, and the last write may be torn (Pillai et al., "All File Systems Are Not Created Equal",
2014; Mohan et al., "Finding Crash-Consistency Bugs with Bounded Black-Box Crash Testing", 2018).
"""

from __future__ import annotations

import builtins
import io
import itertools
import os
import random
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import safetensors.torch


class Refused(safetensors.SafetensorError):
    """What the library that writes weights raises where the system refuses."""


@dataclass(frozen=True)
class Op:
    """An operation that changed the disk. Files and folders are known by number, since their names change."""

    kind: str  # link, unlink, write, truncate, sync
    node: int  # the file, or the folder whose names change
    name: str = ""
    other: int = 0  # the file or folder that gets the name
    source: tuple[int, str] | None = None  # of a rename: the folder and name that it had
    at: int = 0
    data: bytes = b""


@dataclass
class Disk:
    """Everything below ``folder`` while :meth:`watched`."""

    folder: Path
    refuse: int | None = None  # the number of the operation that fails
    error: int = 0  # and its errno
    count: int = 0
    log: list[str] = field(default_factory=list)
    ops: list[Op] | None = None  # written down where this is a list
    _lock: Any = field(default_factory=threading.RLock)
    _paths: dict[int, str] = field(default_factory=dict)  # of open descriptors
    _nodes: dict[str, int] = field(default_factory=dict)  # of the files and folders that are there, by path
    _numbers: Any = field(default_factory=lambda: itertools.count(1))

    @property
    def root(self) -> int:
        """The number of the folder itself."""
        return self._node(str(self.folder))

    @contextmanager
    def watched(self) -> Iterator[Disk]:
        """All that this process does to files in the block passes through here."""
        self._real = {name: getattr(os, name) for name in _CALLS}
        self._open, self._os_open, self._fdopen = io.open, os.open, os.fdopen
        self._save_file = safetensors.torch.save_file
        import etude.model.folder as weights

        with ExitStack() as stack:
            for name in _CALLS:
                stack.enter_context(mock.patch.object(os, name, self._calling(name)))
            for module in (io, builtins):
                stack.enter_context(mock.patch.object(module, "open", self._opening))
            stack.enter_context(mock.patch.object(os, "open", self._opening_descriptor))
            stack.enter_context(mock.patch.object(os, "fdopen", self._opening_from_descriptor))
            stack.enter_context(mock.patch.object(weights, "save_file", self._saving))
            # Copies go through the file objects, where they are seen.
            stack.enter_context(mock.patch.object(shutil, "_USE_CP_SENDFILE", False, create=True))
            yield self

    def inside(self, path: Any) -> str | None:
        """The absolute path, if it is below the folder."""
        try:
            text = os.path.abspath(os.fspath(path))
        except TypeError:
            return None
        return text if isinstance(text, str) and text.startswith(f"{self.folder}{os.sep}") else None

    def _found(self, path: Any, options: dict[str, Any]) -> str | None:
        """:meth:`inside` of a path that may be relative to an open folder."""
        folder = options.get("dir_fd")
        if folder is None:
            return self.inside(path)
        return os.path.join(self._paths[folder], os.fspath(path)) if folder in self._paths else None

    def passes(self, what: str, path: Any) -> None:
        """One operation more; raises the error where it is the one to be refused."""
        with self._lock:
            number, self.count = self.count, self.count + 1
            self.log.append(f"{what} {os.path.relpath(path, self.folder)}")
        if number == self.refuse:
            raise OSError(self.error, os.strerror(self.error), str(path))

    def _calling(self, name: str) -> Callable[..., Any]:
        real = self._real[name]

        def call(*arguments: Any, **options: Any) -> Any:
            path = self._paths.get(arguments[0]) if name == "fsync" else self._found(arguments[0], options)
            if path is None:
                return real(*arguments, **options)
            with self._lock:
                self.passes(name, path)
                result = real(*arguments, **options)
                self._note(name, path, arguments)
            return result

        return call

    def _note(self, name: str, path: str, arguments: Sequence[Any]) -> None:
        if self.ops is None:
            return
        if name == "mkdir":
            self._new(path)
        elif name in ("unlink", "rmdir"):
            self._gone(path)
        elif name in ("rename", "replace"):
            self._moved(path, os.path.abspath(os.fspath(arguments[1])))
        elif name == "fsync":
            self.ops.append(Op("sync", self._node(path)))
        elif name == "truncate":
            self.ops.append(Op("truncate", self._node(path), at=arguments[1]))

    def _node(self, path: str) -> int:
        if path not in self._nodes:
            self._nodes[path] = next(self._numbers)
        return self._nodes[path]

    def _new(self, path: str) -> None:
        """A file or folder that was not there."""
        assert self.ops is not None
        self._nodes[path] = next(self._numbers)
        folder, name = os.path.split(path)
        self.ops.append(Op("link", self._node(folder), name, self._nodes[path]))

    def _gone(self, path: str) -> None:
        assert self.ops is not None
        folder, name = os.path.split(path)
        self.ops.append(Op("unlink", self._node(folder), name))
        self._nodes.pop(path, None)

    def _moved(self, old: str, new: str) -> None:
        assert self.ops is not None
        node = self._node(old)
        source, target = os.path.split(old), os.path.split(new)
        self.ops.append(
            Op("link", self._node(target[0]), target[1], node, (self._node(source[0]), source[1]))
        )
        for path in [path for path in self._nodes if path == old or path.startswith(old + os.sep)]:
            self._nodes[new + path[len(old) :]] = self._nodes.pop(path)

    def _opening(self, file: Any, mode: str = "r", *arguments: Any, **options: Any) -> Any:
        path = self.inside(file) if not isinstance(file, int) else self._paths.get(file)
        if path is None:
            opened = self._open(file, mode, *arguments, **options)
            self._paths.pop(opened.fileno(), None)
            return opened
        writes = any(letter in mode for letter in "wax+")
        with self._lock:
            is_new = not os.path.lexists(path)
            if not isinstance(file, int):
                self.passes("open to write" if writes else "open to read", path)
            if not writes:
                opened = self._open(file, mode, *arguments, **options)
                self._paths[opened.fileno()] = path
                return opened
            raw = _Raw(self, path, file, mode.replace("b", "").replace("t", ""))
            self._paths[raw.fileno()] = path
            if self.ops is not None and not isinstance(file, int):
                if is_new:
                    self._new(path)
                elif "w" in mode:
                    self.ops.append(Op("truncate", self._node(path)))
        buffered: Any = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
        if "b" in mode:
            return buffered
        return io.TextIOWrapper(buffered, encoding=options.get("encoding") or "utf-8")

    def _opening_descriptor(self, path: Any, flags: int, *arguments: Any, **options: Any) -> int:
        found = self._found(path, options)
        if found is None:
            descriptor = int(self._os_open(path, flags, *arguments, **options))
            self._paths.pop(descriptor, None)  # of a file that is closed
            return descriptor
        with self._lock:
            self.passes("open", found)
            is_new = bool(flags & os.O_CREAT) and not os.path.lexists(found)
            descriptor = int(self._os_open(path, flags, *arguments, **options))
            self._paths[descriptor] = found
            if is_new and self.ops is not None:
                self._new(found)
        return descriptor

    def _opening_from_descriptor(
        self, descriptor: int, mode: str = "r", *arguments: Any, **options: Any
    ) -> Any:
        return self._opening(descriptor, mode, *arguments, **options)

    def _saving(self, tensors: Any, path: Any, metadata: Any = None) -> None:
        found = self.inside(path)
        try:
            if found is not None:
                self.passes("save weights", found)
        except OSError as error:
            raise Refused(f"I/O error: {error}") from None
        self._save_file(tensors, path, metadata)
        if found is not None and self.ops is not None:
            with self._lock, self._open(path, "rb") as file:
                self._new(found)
                self.ops.append(Op("write", self._node(found), data=file.read()))


_CALLS = ("fsync", "replace", "rename", "mkdir", "unlink", "rmdir", "truncate", "chmod")


class _Raw(io.FileIO):
    """A file whose writes pass through the disk."""

    def __init__(self, disk: Disk, path: str, file: Any, mode: str) -> None:
        super().__init__(file, mode)
        self.disk, self.path = disk, path

    def write(self, data: Any) -> int:
        with self.disk._lock:
            self.disk.passes("write", self.path)
            at = os.fstat(self.fileno()).st_size if "a" in self.mode else self.tell()
            written = super().write(data)
            if self.disk.ops is not None:
                content = bytes(memoryview(data).cast("B")[:written])
                self.disk.ops.append(Op("write", self.disk._node(self.path), at=at, data=content))
        return written or 0


def crash_states(
    ops: Sequence[Op], root: int, count: int, dice: random.Random
) -> Iterator[dict[str, bytes | None]]:
    """States in which the folder with the number ``root`` may be found after a crash, at most ``count`` different ones.

    For every place in ``ops``, in random order, so that a bounded number samples them all: everything unsynced lost,
    everything there, each unsynced operation alone missing and alone there, a torn last write, and, where few
    operations are unsynced, every subset of them (else some random ones). A state maps paths to contents (of folders:
    None).
    """
    seen: set[int] = set()
    places = list(range(len(ops) + 1))
    dice.shuffle(places)
    for end in places:
        for kept, torn in _choices(ops, end, dice):
            state = _state(ops, kept, torn, root)
            key = hash(tuple(sorted(state.items(), key=lambda item: item[0])))
            if key not in seen:
                seen.add(key)
                yield state
                if len(seen) >= count:
                    return


FEW = 5
"""Unsynced operations of which every subset is tried."""


def _choices(ops: Sequence[Op], end: int, dice: random.Random) -> Iterator[tuple[list[int], int | None]]:
    """Operations that are on the disk, and which of them is torn."""
    loose = _unsynced(ops, end)
    firm = [index for index in range(end) if index not in set(loose)]
    if len(loose) <= FEW:
        subsets = [[n for bit, n in enumerate(loose) if mask >> bit & 1] for mask in range(2 ** len(loose))]
    else:
        subsets = [[], loose]
        subsets += [[n for n in loose if n != gone] for gone in loose]
        subsets += [[there] for there in loose]
        subsets += [loose[:length] for length in range(1, len(loose))]
        subsets += [[n for n in loose if dice.random() < 0.5] for _ in range(8)]
    dice.shuffle(subsets)
    for subset in subsets:
        yield sorted(firm + subset), None
    writes = [n for n in loose if ops[n].kind == "write" and len(ops[n].data) > 1]
    if writes:
        yield sorted(firm + loose), writes[-1]


def _unsynced(ops: Sequence[Op], end: int) -> list[int]:
    """The operations before ``end`` that no sync promises."""
    loose: list[int] = []
    for index, op in enumerate(ops[:end]):
        if op.kind == "sync":
            loose = [n for n in loose if ops[n].node != op.node]
        else:
            loose.append(index)
    return loose


def _state(ops: Sequence[Op], kept: Sequence[int], torn: int | None, root: int) -> dict[str, bytes | None]:
    """What is found below ``root`` when exactly these operations have happened."""
    names: dict[int, dict[str, int]] = {}
    contents: dict[int, bytearray] = {}
    folders = {root} | {op.node for op in ops if op.kind in ("link", "unlink")}
    for index in kept:
        op = ops[index]
        if op.kind == "link":
            names.setdefault(op.node, {})[op.name] = op.other
            if op.source is not None and names.get(op.source[0], {}).get(op.source[1]) == op.other:
                del names[op.source[0]][op.source[1]]
        elif op.kind == "unlink":
            names.get(op.node, {}).pop(op.name, None)
        elif op.kind == "write":
            data = op.data[: len(op.data) // 2] if index == torn else op.data
            content = contents.setdefault(op.node, bytearray())
            content.extend(bytes(max(0, op.at - len(content))))  # a write that is missing leaves a hole
            content[op.at : op.at + len(data)] = data
        elif op.kind == "truncate":
            content = contents.setdefault(op.node, bytearray())
            del content[op.at :]
    state: dict[str, bytes | None] = {}
    waiting = [("", root)]
    while waiting:
        where, node = waiting.pop()
        for name, entry in names.get(node, {}).items():
            path = f"{where}{name}"
            state[path] = None if entry in folders or entry in names else bytes(contents.get(entry, b""))
            if state[path] is None:
                waiting.append((f"{path}/", entry))
    return state


def put_on_disk(state: dict[str, bytes | None], folder: Path) -> None:
    """Make ``folder`` what ``state`` says."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for path, content in sorted(state.items()):
        if content is None:
            (folder / path).mkdir(parents=True, exist_ok=True)
        else:
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(content)
