"""Far context: words of a passage, after their own context or after the context of another passage.

The last characters before them are the same in both, more than counting reads, so counting finds both equally probable.
"""

from __future__ import annotations

from dataclasses import dataclass

from etude.evaluate.items import Candidate, Item
from etude.evaluate.text_probes.passages import SHARED_CHARS, Material, Passage
from etude.evaluate.text_probes.proposal import Draft, Proposal, ready
from etude.evaluate.text_probes.training import stretches

_TARGET_CHARS = 40
_FEWEST_FAR_CHARS = 16
_ENDS = frozenset('.!?…。”"»」؟।۔')  # noqa: RUF001


@dataclass(frozen=True)
class _Window:
    """Three consecutive pieces of a passage: far context, the shared characters, and the target.

    known_by: the target with as few of the last shared characters as suffice.
    """

    far: str
    near: str
    target: str
    known_by: tuple[str, ...]


def far_context(material: Material) -> list[Proposal]:
    """Propose two items from two windows of two passages: each passage is the foreign one of the other."""
    rng = material.rng("far context")
    drafts = []
    order = rng.some(material.passages, len(material.passages))
    for one, other in zip(order[::2], order[1::2], strict=False):
        group = f"{one.group} {other.group}"
        for a, b in zip(
            _windows(one, material.context_chars), _windows(other, material.context_chars), strict=False
        ):
            items = (
                _item(a, Passage(b.far, ""), material.context_chars, group),
                _item(b, Passage(a.far, ""), material.context_chars, group),
            )
            known_by = (*a.known_by, *b.known_by)
            drafts.append(Draft(items, known_by))
    make, known_by_all = ready(rng.some(drafts, material.enough // 2))
    return [
        Proposal(
            "far context",
            "",
            f"After which context does this come? At least the last {SHARED_CHARS} characters are the same.",
            "the training text never contains the scored words after the shared characters before them",
            make,
            "the text has too few passages that are long enough and have seams between words or clauses",
            known_by=known_by_all,
        )
    ]


def _item(window: _Window, foreign: Passage, size: int, group: str) -> Item:
    room = size - len(window.near) - len(window.target)
    true = Candidate(window.far + window.near, window.target)
    other = Candidate(foreign.context(len(foreign.text), room) + window.near, window.target)
    return Item((true, other), 0, group)


def _windows(passage: Passage, size: int) -> list[_Window]:
    """Return consecutive windows of the passage; a short passage has one shorter window."""
    target_chars = min(_TARGET_CHARS, size // 4)
    length = min(size, len(passage.text))
    windows = []
    for start in range(0, len(passage.text) - length + 1, length):
        begin = 0 if start == 0 else passage.seam_after(start)
        target = passage.seam_before(start + length - target_chars)
        end = passage.seam_before(start + length)
        if begin is None or target is None or end is None:
            continue
        last = passage.seam_before(target - SHARED_CHARS)
        if last is None or end <= target:
            continue
        near = _shared_from(passage, last, target - size // 3)
        if near - begin < _FEWEST_FAR_CHARS:
            continue
        text = passage.text
        pieces = (text[begin:near], text[near:target], text[target:end])
        windows.append(_Window(*pieces, stretches(text[last:end])))
    return windows


def _shared_from(passage: Passage, last: int, first: int) -> int:
    """Return where a sentence or line ends, if one does, so that a foreign context fits as well as the true one."""
    at: int | None = last
    while at is not None and at > first:
        if passage.text[at] == "\n" or passage.text[at - 1] in _ENDS:
            return at
        at = passage.seam_before(at - 1)
    return last
