"""Entity recall: a name in a passage where it was met before, against the same passage about somebody else.

The other name is about as frequent in training, and absent from the passage. Only the name differs between the two
contexts, and it does so further back than counting reads.
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
"""Characters left free, as the other name may be longer."""

_NEAREST = 3
"""The other name is drawn from this many of the nearest frequency."""

_IN_A_SENTENCE = re.compile(r"(?:[^\W_]|[,;]) \Z")
"""Before a capital that no sentence or line begins with."""


@dataclass(frozen=True)
class _Met:
    """A name where it stands again: `far` holds it, `near` does not."""

    name: str
    far: str
    near: str
    passage: Passage


def entity_recall(material: Material) -> list[Proposal]:
    """Each name and its counterpart make two items of one passage: one for each, right after its own context."""
    rng = material.rng("entity recall")
    names = _names(material.passages)
    met = [one for passage in material.passages for one in _met(passage, names, material.context_chars, rng)]
    met = rng.some(met, material.enough // 2)

    def drafts(training: Training) -> Sequence[Draft]:
        dice = material.rng("entity recall counterparts")
        found = []
        for one in met:
            other = _counterpart(one, names, training, dice)
            items = () if other is None else _items(one, other)
            if items and all(
                len(c.given + c.said) <= material.context_chars for i in items for c in i.candidates
            ):
                found.append(Draft(items, stretches(f"{one.near} {one.name}")))
        return found

    return [
        Proposal(
            "entity recall",
            "",
            "After which context does this name come, the one that has it or the same with another name? "
            f"The last {SHARED_CHARS} characters or more are the same.",
            "the name, with the shared characters before it, stands nowhere in the training text",
            drafts,
            "the text has too few names that come again within a passage"
            if names
            else "the text has no words that are capitalised within a sentence, by which names are told",
            words=frozenset(name.casefold() for name in names),
            known_by=frozenset(key for one in met for key in stretches(f"{one.near} {one.name}")),
        )
    ]


def _names(passages: Sequence[Passage]) -> list[str]:
    """Capitalised within sentences, hardly ever without a capital; the most frequent, in alphabetical order."""
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


def _met(passage: Passage, names: Sequence[str], most: int, rng: Rng) -> list[_Met]:
    """Where a name comes again after a gap, at most one place a name."""
    places: dict[str, list[int]] = defaultdict(list)
    known = set(names)
    for match in word_pattern().finditer(passage.text):
        if match[0] in known:
            places[match[0]].append(match.start())
    found = [one for name, starts in places.items() for one in _again(passage, name, starts, most)[-1:]]
    return rng.some(found, _MAX_PER_PASSAGE)


def _again(passage: Passage, name: str, starts: Sequence[int], most: int) -> list[_Met]:
    found = []
    for start in starts[1:]:
        near = passage.seam_before(start - 1 - SHARED_CHARS)
        if passage.text[start - 1] != " " or near is None:
            continue
        far = passage.context(near, most - (start + len(name) - near) - _ROOM)
        shared = passage.text[near : start - 1]
        if re.search(rf"\b{name}\b", far) and name.casefold() not in shared.casefold():
            found.append(_Met(name, far, shared, passage))
    return found


def _counterpart(met: _Met, names: Sequence[str], training: Training, rng: Rng) -> str | None:
    """Of names that the passage does not hold, one about as frequent in training."""
    words = set(word_pattern().findall(met.passage.text.casefold()))
    others = [name for name in names if name.casefold() not in words]

    def distance(name: str) -> float:
        mine, theirs = (training.counts.get(one.casefold(), 0) for one in (met.name, name))
        return abs(math.log((theirs + 1) / (mine + 1)))

    nearest = sorted(others, key=lambda name: (distance(name), name))[:_NEAREST]
    return rng.pick(nearest) if nearest else None


def _items(met: _Met, other: str) -> tuple[Item, ...]:
    theirs = re.sub(rf"\b{met.name}\b", other, met.far)
    theirs = re.sub(rf"\b{met.name.upper()}\b", other.upper(), theirs)
    return tuple(_mirrored(met, theirs, other))


def _mirrored(met: _Met, theirs: str, other: str) -> Iterator[Item]:
    for name, right, wrong in ((met.name, met.far, theirs), (other, theirs, met.far)):
        candidates = (Candidate(right + met.near, f" {name}"), Candidate(wrong + met.near, f" {name}"))
        yield Item(candidates, 0, met.passage.group)
