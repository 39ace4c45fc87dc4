"""What a probe would ask, before the training text has been searched; and the probe that is left after it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from etude.evaluate.items import FEWEST_ITEMS, Item, Probe
from etude.evaluate.text_probes.training import Training


@dataclass(frozen=True)
class Draft:
    """Items that stay or go together: they go where training has one of `known_by`, or is `known` to have them."""

    items: tuple[Item, ...]
    known_by: tuple[str, ...] = ()
    known: bool = False


@dataclass(frozen=True)
class Proposal:
    """A probe to be.

    drafts: in the order of choice, made once it is known what training holds; words: whose counts they need;
    known_by: all stretches that drafts may be known by; needs: what a text lacks that yields too few.
    """

    name: str
    condition: str
    asks: str
    held_out: str
    drafts: Callable[[Training], Sequence[Draft]]
    needs: str
    words: frozenset[str] = frozenset()
    known_by: frozenset[str] = frozenset()
    per_token: bool = False

    @property
    def title(self) -> str:
        return f"{self.name}, {self.condition}" if self.condition else self.name


@dataclass(frozen=True)
class TextSuite:
    """The probes that a text yields, and why others are left out: their titles with a reason.

    train_chars: how much training text was searched.
    """

    probes: tuple[Probe, ...]
    left_out: dict[str, str] = field(default_factory=dict)
    train_chars: int = 0


def ready(drafts: Sequence[Draft]) -> tuple[Callable[[Training], Sequence[Draft]], frozenset[str]]:
    """Drafts that need nothing of the training text, and what they are known by."""
    return lambda _: drafts, frozenset(one for draft in drafts for one in draft.known_by)


def finished(proposal: Proposal, training: Training, max_items: int) -> Probe | str:
    """The probe of the first `max_items` items that training does not hold, or why there is none."""
    kept: list[Item] = []
    dropped = 0
    for draft in proposal.drafts(training):
        if len(kept) + len(draft.items) > max_items:
            break
        if draft.known or training.found.intersection(draft.known_by):
            dropped += len(draft.items)
        else:
            kept += draft.items
    if len(kept) < FEWEST_ITEMS:
        known = f", {dropped} more stand in the training text" if dropped else ""
        return f"{proposal.needs} ({len(kept)} items of the {FEWEST_ITEMS} needed{known})"
    return Probe(
        proposal.name,
        proposal.condition,
        proposal.asks,
        tuple(kept),
        held_out=proposal.held_out,
        per_token=proposal.per_token,
        dropped=dropped,
    )
