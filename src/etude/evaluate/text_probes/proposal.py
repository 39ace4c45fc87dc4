"""A proposed probe, before the training text is searched, and the probe that remains after the search."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from etude.evaluate.items import FEWEST_ITEMS, Item, Probe
from etude.evaluate.text_probes.training import Training


@dataclass(frozen=True)
class Draft:
    """Items that are kept or dropped together: dropped if training contains one of `known_by`, or if `known`."""

    items: tuple[Item, ...]
    known_by: tuple[str, ...] = ()
    known: bool = False


@dataclass(frozen=True)
class Proposal:
    """A proposed probe.

    drafts: makes the drafts, in order of preference, once the training text was searched; words: those whose counts are
    needed; known_by: all stretches by which drafts may be known; needs: what a text with too few items lacks.
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
    """The probes of a text, and the titles of skipped ones with the reason.

    train_chars: characters of training text that were searched.
    """

    probes: tuple[Probe, ...]
    skipped: dict[str, str] = field(default_factory=dict)
    train_chars: int = 0


def ready(drafts: Sequence[Draft]) -> tuple[Callable[[Training], Sequence[Draft]], frozenset[str]]:
    """Wrap drafts that need nothing from the training text, with the stretches by which they are known."""
    return lambda _: drafts, frozenset(stretch for draft in drafts for stretch in draft.known_by)


def finished(proposal: Proposal, training: Training, max_items: int) -> Probe | str:
    """Make a probe of the first `max_items` items that training does not contain, or return why there is none."""
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
        known = f", {dropped} more are in the training text" if dropped else ""
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
