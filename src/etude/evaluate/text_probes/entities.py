"""Entity recall: a name that recurs in a passage, against the same passage with another name.

The other name is about as frequent in training and does not occur in the passage. The two contexts differ only in the
name, further back than counting reads.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from etude.data.primer.rng import Rng
from etude.evaluate.items import Candidate, Item
from etude.evaluate.text_probes.passages import SHARED_CHARS, Material, Passage, word_pattern
from etude.evaluate.text_probes.proposal import Draft, Proposal
from etude.evaluate.text_probes.training import Training, stretches

_FEWEST_TIMES = 2
_MAX_NAMES = 2048
_MAX_PER_PASSAGE = 4
_ROOM = 12
"""Characters kept free, as the other name may be longer."""

_NEAREST = 3
"""The other name is drawn from this many names of the nearest frequency."""

_IN_A_SENTENCE = re.compile(r"(?:[^\W_]|[,;]) \Z")
"""Precedes a capital that does not begin a sentence or a line."""


@dataclass(frozen=True)
class _Mention:
    """A name at a later occurrence: `far` contains it, `near` does not."""

    name: str
    far: str
    near: str
    passage: Passage


def entity_recall(material: Material) -> list[Proposal]:
    """Propose two items for each name and its counterpart in one passage, each right after its own context."""
    rng = material.rng("entity recall")
    names = _names(material.passages)
    mentions = [
        mention
        for passage in material.passages
        for mention in _mentions(passage, names, material.context_chars, rng)
    ]
    mentions = rng.some(mentions, material.enough // 2)

    def drafts(training: Training) -> Sequence[Draft]:
        dice = material.rng("entity recall counterparts")
        made = []
        for mention in mentions:
            other = _counterpart(mention, names, training, dice)
            items = () if other is None else _items(mention, other)
            if items and all(
                len(c.given + c.said) <= material.context_chars for i in items for c in i.candidates
            ):
                made.append(Draft(items, stretches(f"{mention.near} {mention.name}")))
        return made

    return [
        Proposal(
            "entity recall",
            "",
            "After which context does this name come, the one that contains it or the same with another name? "
            f"At least the last {SHARED_CHARS} characters are the same.",
            "the training text never contains the name after the shared characters before it",
            drafts,
            "the text has too few names that recur within a passage"
            if names
            else "the text has no words that are capitalised within a sentence, which identify names",
            words=frozenset(name.casefold() for name in names),
            known_by=frozenset(
                key for mention in mentions for key in stretches(f"{mention.near} {mention.name}")
            ),
        )
    ]


def _names(passages: Sequence[Passage]) -> list[str]:
    """Return words capitalised within sentences and almost never in lower case: the most frequent, alphabetically."""
    capital: Counter[str] = Counter()
    small: Counter[str] = Counter()
    for passage in passages:
        for match in word_pattern().finditer(passage.text):
            word = match[0]
            if word.islower():
                small[word] += 1
            elif (
                len(word) > 2 and word.istitle() and word.isalpha() and _in_a_sentence(passage, match.start())
            ):
                capital[word] += 1
    names = [
        name
        for name, count in capital.items()
        if count >= _FEWEST_TIMES and small[name.lower()] * 10 <= count
    ]
    return sorted(sorted(names, key=lambda name: (-capital[name], name))[:_MAX_NAMES])


def _in_a_sentence(passage: Passage, start: int) -> bool:
    return _IN_A_SENTENCE.search(passage.text[max(0, start - 2) : start]) is not None


def _mentions(passage: Passage, names: Sequence[str], most: int, rng: Rng) -> list[_Mention]:
    """Return recurrences of names after a gap, at most one for each name."""
    places: dict[str, list[int]] = defaultdict(list)
    known = set(names)
    for match in word_pattern().finditer(passage.text):
        if match[0] in known:
            places[match[0]].append(match.start())
    recurring = [
        recurrence
        for name, starts in places.items()
        for recurrence in _again(passage, name, starts, most)[-1:]
    ]
    return rng.some(recurring, _MAX_PER_PASSAGE)


def _again(passage: Passage, name: str, starts: Sequence[int], most: int) -> list[_Mention]:
    recurrences = []
    for start in starts[1:]:
        near = passage.seam_before(start - 1 - SHARED_CHARS)
        if passage.text[start - 1] != " " or near is None:
            continue
        far = passage.context(near, most - (start + len(name) - near) - _ROOM)
        shared = passage.text[near : start - 1]
        if re.search(rf"\b{name}\b", far) and name.casefold() not in shared.casefold():
            recurrences.append(_Mention(name, far, shared, passage))
    return recurrences


def _counterpart(mention: _Mention, names: Sequence[str], training: Training, rng: Rng) -> str | None:
    """Choose a name that is not in the passage and is about as frequent in training."""
    words = set(word_pattern().findall(mention.passage.text.casefold()))
    others = [name for name in names if name.casefold() not in words]

    def distance(name: str) -> float:
        mine, theirs = (training.counts.get(word.casefold(), 0) for word in (mention.name, name))
        return abs(math.log((theirs + 1) / (mine + 1)))

    nearest = sorted(others, key=lambda name: (distance(name), name))[:_NEAREST]
    return rng.pick(nearest) if nearest else None


def _items(mention: _Mention, other: str) -> tuple[Item, ...]:
    theirs = re.sub(rf"\b{mention.name}\b", other, mention.far)
    theirs = re.sub(rf"\b{mention.name.upper()}\b", other.upper(), theirs)
    return tuple(_mirrored(mention, theirs, other))


def _mirrored(mention: _Mention, theirs: str, other: str) -> Iterator[Item]:
    for name, right, wrong in ((mention.name, mention.far, theirs), (other, theirs, mention.far)):
        candidates = (
            Candidate(right + mention.near, f" {name}"),
            Candidate(wrong + mention.near, f" {name}"),
        )
        yield Item(candidates, 0, mention.passage.group)
