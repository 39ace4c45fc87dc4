"""A disk between Etude and the system that counts every operation below a folder, refuses one, or records them all.

:class:`Disk` replaces the functions of ``os`` and ``io`` through which Python reaches files, so that every open, write,
fsync, rename, mkdir and unlink below its folder passes through it, also in other threads. A library in Rust
(safetensors) writes the weights; its write counts as one operation.

:func:`crash_states` replays recorded operations: it yields the states in which a crash may leave the file system. Only
an fsync of a file guarantees its content, and only an fsync of its folder guarantees its name. Of the operations
without a guarantee any part may be done, and the last write may be torn (Pillai et al., "All File Systems Are Not
Created Equal", 2014; Mohan et al., "Finding Crash-Consistency Bugs with Bounded Black-Box Crash Testing", 2018).
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
    """The error of the library that writes weights, where the system refuses an operation."""


@dataclass(frozen=True)
class Op:
    """An operation that changed the disk. Files and folders are identified by number, because their names change."""

    kind: str  # link, unlink, write, truncate, sync
    node: int  # the file, or the folder whose names change
    name: str = ""
    other: int = 0  # the file or folder that gets the name
    source: tuple[int, str] | None = None  # of a rename: the folder and name that it had
    at: int = 0
    data: bytes = b""


@dataclass
class Disk:
    """Watches the operations below ``folder`` in a block of :meth:`watched`."""

    folder: Path
    refuse: int | None = None  # the number of the operation that fails
    error: int = 0  # its errno
    count: int = 0  # of operations so far
    log: list[str] = field(default_factory=list)
    ops: list[Op] | None = None  # the recorded operations; None: do not record
    _lock: Any = field(default_factory=threading.RLock)
    _paths: dict[int, str] = field(default_factory=dict)  # by open descriptor
    _nodes: dict[str, int] = field(default_factory=dict)  # numbers of existing files and folders, by path
    _numbers: Any = field(default_factory=lambda: itertools.count(1))

    @property
    def root(self) -> int:
        """Return the number of the folder itself."""
        return self._node(str(self.folder))

    @contextmanager
    def watched(self) -> Iterator[Disk]:
        """Pass all file operations of this process through the disk while the block runs."""
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
            # Make copies go through file objects, where the disk sees them.
            stack.enter_context(mock.patch.object(shutil, "_USE_CP_SENDFILE", False, create=True))
            yield self

    def inside(self, path: Any) -> str | None:
        """Return the absolute path if it is below the folder, else None."""
        try:
            text = os.path.abspath(os.fspath(path))
        except TypeError:
            return None
        return text if isinstance(text, str) and text.startswith(f"{self.folder}{os.sep}") else None

    def _inside_relative(self, path: Any, options: dict[str, Any]) -> str | None:
        """Do the same as :meth:`inside` for a path that may be relative to an open folder."""
        folder = options.get("dir_fd")
        if folder is None:
            return self.inside(path)
        return os.path.join(self._paths[folder], os.fspath(path)) if folder in self._paths else None

    def passes(self, what: str, path: Any) -> None:
        """Count an operation, and raise the error if it is the one to be refused."""
        with self._lock:
            number, self.count = self.count, self.count + 1
            self.log.append(f"{what} {os.path.relpath(path, self.folder)}")
        if number == self.refuse:
            raise OSError(self.error, os.strerror(self.error), str(path))

    def _calling(self, name: str) -> Callable[..., Any]:
        real = self._real[name]

        def call(*arguments: Any, **options: Any) -> Any:
            is_sync = name == "fsync"
            path = self._paths.get(arguments[0]) if is_sync else self._inside_relative(arguments[0], options)
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
        """Record a new file or folder."""
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
        full_path = self._inside_relative(path, options)
        if full_path is None:
            descriptor = int(self._os_open(path, flags, *arguments, **options))
            self._paths.pop(descriptor, None)  # it may have belonged to a file that is closed now
            return descriptor
        with self._lock:
            self.passes("open", full_path)
            is_new = bool(flags & os.O_CREAT) and not os.path.lexists(full_path)
            descriptor = int(self._os_open(path, flags, *arguments, **options))
            self._paths[descriptor] = full_path
            if is_new and self.ops is not None:
                self._new(full_path)
        return descriptor

    def _opening_from_descriptor(
        self, descriptor: int, mode: str = "r", *arguments: Any, **options: Any
    ) -> Any:
        return self._opening(descriptor, mode, *arguments, **options)

    def _saving(self, tensors: Any, path: Any, metadata: Any = None) -> None:
        full_path = self.inside(path)
        try:
            if full_path is not None:
                self.passes("save weights", full_path)
        except OSError as error:
            raise Refused(f"I/O error: {error}") from None
        self._save_file(tensors, path, metadata)
        if full_path is not None and self.ops is not None:
            with self._lock, self._open(path, "rb") as file:
                self._new(full_path)
                self.ops.append(Op("write", self._node(full_path), data=file.read()))


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
    """Yield at most ``count`` different states in which a crash may leave the folder with the number ``root``.

    For every position in ``ops``, in random order so that a bounded number samples them all: of the unsynced operations
    none, all, all but one, only one, all with a torn last write, and every subset if they are few (else some random
    ones). A state maps paths to contents (None for folders).
    """
    seen: set[int] = set()
    places = list(range(len(ops) + 1))
    dice.shuffle(places)
    for end in places:
        for done, torn in _choices(ops, end, dice):
            state = _state(ops, done, torn, root)
            key = hash(tuple(sorted(state.items(), key=lambda item: item[0])))
            if key not in seen:
                seen.add(key)
                yield state
                if len(seen) >= count:
                    return


FEW = 5
"""Largest number of unsynced operations of which every subset is tried."""


def _choices(ops: Sequence[Op], end: int, dice: random.Random) -> Iterator[tuple[list[int], int | None]]:
    """Yield (operations that reached the disk, the torn one among them or None)."""
    loose = _unsynced(ops, end)
    firm = [index for index in range(end) if index not in set(loose)]
    if len(loose) <= FEW:
        subsets = [[n for bit, n in enumerate(loose) if mask >> bit & 1] for mask in range(2 ** len(loose))]
    else:
        subsets = [[], loose]
        subsets += [[n for n in loose if n != gone] for gone in loose]
        subsets += [[only] for only in loose]
        subsets += [loose[:length] for length in range(1, len(loose))]
        subsets += [[n for n in loose if dice.random() < 0.5] for _ in range(8)]
    dice.shuffle(subsets)
    for subset in subsets:
        yield sorted(firm + subset), None
    writes = [n for n in loose if ops[n].kind == "write" and len(ops[n].data) > 1]
    if writes:
        yield sorted(firm + loose), writes[-1]


def _unsynced(ops: Sequence[Op], end: int) -> list[int]:
    """Return the operations before ``end`` that no sync guarantees."""
    loose: list[int] = []
    for index, op in enumerate(ops[:end]):
        if op.kind == "sync":
            loose = [n for n in loose if ops[n].node != op.node]
        else:
            loose.append(index)
    return loose


def _state(ops: Sequence[Op], done: Sequence[int], torn: int | None, root: int) -> dict[str, bytes | None]:
    """Return the content of ``root`` if exactly the operations ``done`` reached the disk."""
    names: dict[int, dict[str, int]] = {}
    contents: dict[int, bytearray] = {}
    folders = {root} | {op.node for op in ops if op.kind in ("link", "unlink")}
    for index in done:
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
            content.extend(bytes(max(0, op.at - len(content))))  # a missing write leaves a hole
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
    """Write ``state`` to ``folder``."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for path, content in sorted(state.items()):
        if content is None:
            (folder / path).mkdir(parents=True, exist_ok=True)
        else:
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(content)
