"""Search the training text for what the probes hold out; what it contains is dropped and counted.

The search takes one pass over the documents, in memory that depends only on the items: the keys of their combinations,
and the hashes of their windows of characters and of 13 words. An item counts as seen when a document has

- one of the item's held-out combinations (``combinations``, the same finder for items and documents),
- the whole item, question and right answer, word for word, or
- any 13 words of it in a row (Brown et al. 2020), unless other groups of the probe share them, in which case they are
  the wording of the question. Thirteen words of under 52 characters, such as single letters, do not count.

An item's whole group is dropped with it. If the candidates of the remaining items are no longer right equally often,
items are dropped until they are; otherwise a preference for one of them would look like an ability.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence, Set
from dataclasses import dataclass, field, replace

from etude.evaluate.items import Item, Probe

WORDS = 13
LEAST_CHARS = 4 * WORDS
_LONGEST_WINDOW = 24
_WORD_START = re.compile(r"(?<!\w)\S")

Finder = Callable[[str], Set[Hashable]]


@dataclass(frozen=True)
class SearchResult:
    """What the search found for one probe.

    probe: with the remaining items (None if none remains); items: number before; seen_combination, seen_verbatim,
    seen_words: how many items the training text contains in each of the three senses; examples: some combinations that
    it contains.
    """

    name: str
    condition: str
    probe: Probe | None
    items: int
    seen_combination: int
    seen_verbatim: int
    seen_words: int
    examples: tuple[str, ...] = ()

    @property
    def dropped(self) -> int:
        return self.items - (len(self.probe.items) if self.probe else 0)


@dataclass
class _Targets:
    """What the search looks for, and what it found. Windows and words map to the texts that contain them."""

    combinations: set[Hashable] = field(default_factory=set)
    texts: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    grams: set[int] = field(default_factory=set)
    window: int = _LONGEST_WINDOW
    found: set[Hashable] = field(default_factory=set)
    found_texts: set[str] = field(default_factory=set)
    found_grams: set[int] = field(default_factory=set)


def question_text(item: Item) -> str:
    """Return the question with its right answer."""
    return (item.answer.given + item.answer.said).strip()


def search_training(
    probes: Sequence[Probe], documents: Callable[[], Iterable[str]], combinations: Finder
) -> list[SearchResult]:
    """Search for the items of all probes in one pass over the training documents."""
    targets = _targets(probes, combinations)
    for document in documents():
        _look_for(targets, document, combinations)
    return [_searched(probe, targets, combinations) for probe in probes]


def _targets(probes: Sequence[Probe], combinations: Finder) -> _Targets:
    targets = _Targets()
    texts = {question_text(item) for probe in probes for item in probe.items}
    targets.window = min([_LONGEST_WINDOW, *map(len, texts)])
    for text in texts:
        targets.combinations |= combinations(text)
        targets.texts[text[: targets.window]].add(text)
    for probe in probes:
        for grams in _own_grams(probe).values():
            targets.grams |= grams
    return targets


def _look_for(targets: _Targets, document: str, combinations: Finder) -> None:
    targets.found |= combinations(document) & targets.combinations
    size, starts = targets.window, targets.texts
    for at in [match.start() for match in _WORD_START.finditer(document)]:
        if (window := document[at : at + size]) in starts:
            targets.found_texts |= {text for text in starts[window] if document.startswith(text, at)}
    if targets.grams:
        targets.found_grams |= targets.grams.intersection(map(hash, _windows(document)))


def _windows(text: str) -> Iterable[tuple[str, ...]]:
    words = text.lower().split()
    return zip(*(words[at:] for at in range(WORDS)), strict=False)


def _grams(text: str) -> set[int]:
    return {hash(window) for window in _windows(text) if sum(map(len, window)) + WORDS - 1 >= LEAST_CHARS}


def _own_grams(probe: Probe) -> dict[str, set[int]]:
    """Return each item's grams that no other group of the probe has; shared ones are the question's wording."""
    groups: dict[int, set[str]] = defaultdict(set)
    by_text: dict[str, set[int]] = {}
    for at, item in enumerate(probe.items):
        text = question_text(item)
        by_text[text] = _grams(text)
        for gram in by_text[text]:
            groups[gram].add(item.group or f"\0{at}")
    return {text: {gram for gram in grams if len(groups[gram]) == 1} for text, grams in by_text.items()}


def _searched(probe: Probe, targets: _Targets, combinations: Finder) -> SearchResult:
    own = _own_grams(probe)
    counts: Counter[str] = Counter()
    examples: dict[str, None] = {}
    gone: set[str] = set()
    for at, item in enumerate(probe.items):
        text = question_text(item)
        shared = combinations(text) & targets.found
        examples |= dict.fromkeys(sorted(map(repr, shared)))
        seen = {
            "combination": bool(shared),
            "verbatim": text in targets.found_texts,
            "words": bool(own[text] & targets.found_grams),
        }
        counts.update(kind for kind, was in seen.items() if was)
        if any(seen.values()):
            gone.add(_group(item, at))
    left = tuple(item for at, item in enumerate(probe.items) if _group(item, at) not in gone)
    if gone and not probe.per_token:
        left = balanced(left)
    dropped = probe.dropped + len(probe.items) - len(left)
    return SearchResult(
        probe.name,
        probe.condition,
        replace(probe, items=left, dropped=dropped) if left else None,
        len(probe.items),
        counts["combination"],
        counts["verbatim"],
        counts["words"],
        tuple(examples)[:3],
    )


def _group(item: Item, at: int) -> str:
    return item.group or f"\0{at}"


def balanced(items: Sequence[Item]) -> tuple[Item, ...]:
    """Select items so that, among those with the same candidates, each candidate is right equally often.

    A candidate that is right in no item is removed; for one that is right more often, the last items are dropped.
    """
    alike: dict[tuple[str, ...], list[Item]] = defaultdict(list)
    for item in items:
        alike[tuple(candidate.said for candidate in item.candidates)].append(item)
    left: list[Item] = []
    for members in alike.values():
        times = Counter(item.right for item in members)
        if len(times) < 2:
            continue
        kept: Counter[int] = Counter()
        for item in members:
            if kept[item.right] < min(times.values()):
                kept[item.right] += 1
                left.append(_among(item, sorted(times)))
    return tuple(left)


def _among(item: Item, candidates: Sequence[int]) -> Item:
    return replace(
        item,
        candidates=tuple(item.candidates[at] for at in candidates),
        right=candidates.index(item.right),
    )
