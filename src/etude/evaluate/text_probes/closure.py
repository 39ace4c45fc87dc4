"""Long-range closure: a closing bracket or quote whose opener is further back than counting reads."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from etude.evaluate.items import Candidate, Item
from etude.evaluate.text_probes.passages import SHARED_CHARS, Material, Passage
from etude.evaluate.text_probes.proposal import Draft, Proposal, ready
from etude.evaluate.text_probes.training import stretches

_PAIRS = tuple('() [] {} “” „“ «» ‹› 「」 『』 （） ［］ 【】 《》 〈〉 ""'.split())  # noqa: RUF001, SIM905
_MARK = re.compile(rf"[{re.escape(''.join(sorted(set(''.join(_PAIRS)))))}]|\n\s*\n")
_ENDS = set(".,;:!?…。，！？")  # noqa: RUF001
_FEWEST_OF_A_KIND = 4


@dataclass(frozen=True)
class _Span:
    kind: str
    before: str
    inside: str
    group: str


def closure(material: Material) -> list[Proposal]:
    """Propose two probes: the kind of the opener (each kind replaces the other), and whether there is an opener."""
    spans = [span for passage in material.passages for span in _spans(passage, material.context_chars)]
    counts = Counter(span.kind for span in spans)
    kinds = sorted(kind for kind, count in counts.items() if count >= _FEWEST_OF_A_KIND)
    rng = material.rng("closure")
    spans = rng.some([span for span in spans if span.kind in kinds], material.enough)
    which = [
        _which_kind(span, rng.pick([kind for kind in kinds if kind[1] != span.kind[1]]))
        for span in spans
        if len({kind[1] for kind in kinds}) > 1
    ]
    too_few = f"the text has too few brackets or quotes that close more than {SHARED_CHARS} characters later"
    proposals = []
    for condition, asks, drafts, lacking in (
        ("which kind", "After which opener does this closer come?", which, f"{too_few}, of two kinds"),
        ("open or not", "After the opener or without it?", [_open_or_not(span) for span in spans], too_few),
    ):
        make, known_by = ready(drafts)
        proposals.append(
            Proposal(
                "closure",
                condition,
                f"{asks} At least the last {SHARED_CHARS} characters before it are the same.",
                "the training text never contains the opener, the closer and what is between them",
                make,
                lacking,
                known_by=known_by,
            )
        )
    return proposals


def _spans(passage: Passage, most: int) -> Iterator[_Span]:
    """Yield openers and closers with no other mark and no blank line between them."""
    text = passage.text
    opener: tuple[str, int] | None = None
    for match in _MARK.finditer(text):
        mark, place = match[0], match.start()
        if opener and opener[0] + mark in _PAIRS and not (mark == '"' and _opens(text, place)):
            inside = text[opener[1] + 1 : place]
            if SHARED_CHARS <= len(inside) <= most // 2:
                before = passage.context(opener[1], most - len(inside) - 2)
                yield _Span(opener[0] + mark, before, inside, passage.group)
            opener = None
        else:
            opener = None if mark == '"' and not _opens(text, place) else (mark, place)


def _opens(text: str, place: int) -> bool:
    """Return whether a straight quote opens: a word begins after it and none ends before it."""
    before, behind = text[place - 1 : place], text[place + 1 : place + 2]
    return not before.isalnum() and before not in _ENDS and bool(behind) and not behind.isspace()


def _which_kind(span: _Span, other: str) -> Draft:
    items = tuple(
        Item(
            tuple(Candidate(span.before + kind[0] + span.inside, right[1]) for kind in (right, wrong)),
            0,
            span.group,
        )
        for right, wrong in ((span.kind, other), (other, span.kind))
    )
    return Draft(items, _known_by(span))


def _open_or_not(span: _Span) -> Draft:
    given = (span.before + span.kind[0] + span.inside, span.before + span.inside)
    return Draft(
        (Item(tuple(Candidate(text, span.kind[1]) for text in given), 0, span.group),), _known_by(span)
    )


def _known_by(span: _Span) -> tuple[str, ...]:
    return stretches(f"{span.kind[0]}{span.inside}{span.kind[1]}")
