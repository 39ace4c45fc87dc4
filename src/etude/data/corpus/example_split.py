"""Split examples, whole, into training and validation; near copies of each other stay on one side.

Files that are named for their part, as in ``train.jsonl``, ``valid.jsonl`` and ``test.jsonl``, are that part. Test
examples belong to neither training nor validation: they are kept for measures after training.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from etude.data.conversations.conversation import Example, is_sampled
from etude.data.corpus.duplicates import NearIndex, Progress
from etude.data.corpus.split import MAX_VALIDATION_BYTES, Mask, Split
from etude.data.corpus.store import Int64, TextStore
from etude.errors import InputError

ExamplePart = Literal["train", "validation", "test"]
_PARTS: dict[str, ExamplePart] = {
    "train": "train",
    "training": "train",
    **dict.fromkeys(("valid", "validation", "val", "dev", "eval"), "validation"),
    "test": "test",
}
_PART = re.compile(rf"({'|'.join(_PARTS)})(?:[-_.].*)?", re.IGNORECASE)


@dataclass(frozen=True)
class ExampleSplit(Split):
    """The parts of examples: as of any text, and the rows that are ``test`` examples."""

    test: Int64 | None = None


def part_of(origin: str, sources: Sequence[str] = ()) -> ExamplePart | None:
    """Return the part for which a file is named, or the folder of a source that holds it; None for other names.

    Folders above the ``sources`` that the user named do not count: a copy of the data elsewhere has the same split.
    """
    origin = origin.replace("\\", "/")
    roots = (source.replace("\\", "/").rstrip("/") + "/" for source in sources)
    root = next((root for root in roots if origin.startswith(root)), None)
    path = PurePosixPath(origin if root is None else origin.removeprefix(root))
    for name in (path.name, *([] if root is None else [path.parent.name])):
        found = _PART.fullmatch(name)
        if found is not None:
            return _PARTS[found[1].lower()]
    return None


def stated_parts(store: TextStore, kept: Mask, sources: Sequence[str]) -> list[ExamplePart | None]:
    """Return for each document the part that its file is named for; None for all where there is no such split.

    A split is stated where some files are named for validation or test, and others are not. These are for training,
    whatever their names.
    """
    origins = [store.name(number)[1] if kept[number] else "" for number in range(store.num_documents)]
    of_origin = {origin: part_of(origin, sources) for origin in set(origins) if origin}
    found = set(of_origin.values()) - {None}
    others = "train" in found or None in of_origin.values()
    if not others or found <= {"train"}:
        return [None] * len(origins)
    return [(of_origin[origin] or "train") if origin else None for origin in origins]


def groups_of(
    store: TextStore, kept: Mask, near: bool, progress: Progress | None = None
) -> tuple[Int64, int]:
    """Return (documents,) the number of the first document of the group of each, and how many have a near copy.

    A group is joined by exact copies, and with ``near`` by near copies (MinHash, as of other text).
    """
    first = np.arange(store.num_documents, dtype=np.int64)

    def root(number: int) -> int:
        while first[number] != number:
            first[number] = first[first[number]]
            number = int(first[number])
        return number

    def join(a: int, b: int) -> None:
        low, high = sorted((root(a), root(b)))
        first[high] = low

    copies: dict[int, int] = {}
    index = NearIndex() if near else None
    for number in np.flatnonzero(kept).tolist():
        join(number, copies.setdefault(int(store.hashes[number]), number))
        if index is not None:
            if progress is not None and number % 256 == 0:
                progress("find near copies", int(store.offsets[number]), int(store.offsets[-1]))
            for other in index.similar("\n".join(example_at(store, number).questions()), number):
                join(number, other)
    roots = np.array([root(number) for number in range(store.num_documents)], np.int64)
    sizes = Counter(roots[kept].tolist())
    return roots, sum(size for size in sizes.values() if size > 1)


def example_at(store: TextStore, number: int) -> Example:
    """Return the example that a document holds."""
    text = store.read(int(store.offsets[number]), int(store.offsets[number + 1]))
    return Example.from_json(text.decode("utf-8"))


def kinds_of(store: TextStore, kept: Mask) -> dict[str, int]:
    """Return how many examples there are of each kind."""
    return dict(
        Counter(example_at(store, number).kind for number in np.flatnonzero(kept).tolist()).most_common()
    )


def split_examples(
    store: TextStore,
    kept: Mask,
    fraction: float,
    groups: Int64,
    *,
    tail: bool = False,
    sources: Sequence[str] = (),
) -> ExampleSplit:
    """Split the kept examples by the names of their files in the ``sources``, else by ``fraction``.

    By fraction, whole groups are held out: the first in the order of the hashes of their content, so that examples
    added later hardly change the split; with ``tail`` the last of the text.

    Raises:
        InputError: there are too few different examples for two parts.
    """
    numbers = np.flatnonzero(kept)
    parts = stated_parts(store, kept, sources)
    test = np.array([parts[number] == "test" for number in numbers], bool)
    held_out = np.array([parts[number] == "validation" for number in numbers], bool)
    stated = any(parts[number] is not None for number in numbers)
    rest = numbers[~test]
    if not held_out.any():
        sampled = [is_sampled(store.name(number)[1]) for number in rest.tolist()]
        chosen = set(_chosen(store, rest[~np.array(sampled, bool)], groups, fraction, tail))
        held_out = np.array([number in chosen for number in numbers.tolist()], bool)
    train = numbers[~test & ~held_out]
    if not len(train):
        raise InputError(
            "no example remains for training: give a file for training beside that for validation"
        )
    facts: dict[str, Any] = {
        "rule": "files" if stated else "tail" if tail else "hash",
        "near_copies_apart": _across(groups, train, numbers[held_out]),
        "capped": False,
        "documents_cut": 0,
        "moved_to_training": 0,
    }
    return ExampleSplit(
        _rows(store, train), _rows(store, numbers[held_out]), facts, _rows(store, numbers[test])
    )


def _chosen(
    store: TextStore, numbers: npt.NDArray[np.intp], groups: Int64, fraction: float, tail: bool
) -> list[int]:
    """Return the examples to hold out: whole groups, about the ``fraction`` of the bytes."""
    members: dict[int, list[int]] = {}
    for number in numbers.tolist():
        members.setdefault(int(groups[number]), []).append(number)
    if len(members) < 2:
        raise InputError(
            f"there are only {len(members):,} different examples, and at least 2 are needed: give more examples"
        )

    def rank(group: int) -> tuple[int, int]:
        lowest = min(int(store.hashes[number]) for number in members[group])
        return (-max(members[group]), group) if tail else (lowest, group)

    sizes = np.asarray(store.offsets[1:] - store.offsets[:-1])
    target = min(fraction * int(sizes[numbers].sum()), MAX_VALIDATION_BYTES)
    taken: list[int] = []
    held = 0
    for group in sorted(members, key=rank)[: len(members) - 1]:
        size = int(sizes[members[group]].sum())
        if taken and held + size / 2 > target:
            break
        taken += members[group]
        held += size
    return taken


def _across(groups: Int64, train: npt.NDArray[np.intp], held_out: npt.NDArray[np.intp]) -> int:
    """Return how many validation examples have a copy or near copy in training, which only a stated split can have."""
    return int(np.isin(groups[held_out], groups[train]).sum())


def _rows(store: TextStore, numbers: npt.NDArray[np.intp]) -> Int64:
    return np.stack([store.offsets[numbers], store.offsets[numbers + 1], numbers], axis=1).astype(np.int64)
