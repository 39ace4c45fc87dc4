"""What an attention head mostly does along a text, and which heads of a large network to show."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from etude.watch.prompts import Prompt
from etude.watch.tapped_forward import entropy

INDUCTION, PREVIOUS, FIRST, ITSELF, OTHERS = (
    "induction",
    "previous token",
    "first token",
    "itself",
    "other tokens",
)
KINDS = (INDUCTION, PREVIOUS, OTHERS, ITSELF, FIRST)
"""In the order in which they get places in a picture: what most heads of a large network do comes last."""
INDUCTION_SHARE = 0.3
"""Share of the attention from which a head counts as an induction head, whatever else it does."""
FEWEST_REPEATS = 3
"""Queries whose token occurred before that a text must have for an induction share of its own."""
SINK_SHARE = 0.4
"""Share of the attention on the first token from which a head is reported as using an attention sink."""
SINKS = (
    "Softmax makes the shares of a head add up to 1. A head that finds nothing to read puts them on the first token, "
    "which every later token can see: an attention sink (Xiao et al. 2023, arXiv 2309.17453). Such a share says that "
    "the head rests, not that the first token matters."
)


@dataclass(frozen=True)
class KindOfHead:
    """Shares of a head's attention, each a mean over the queries that see more than themselves.

    Attributes:
        previous: to the previous token.
        first: to the first token.
        itself: to the query's own token.
        entropy: nats; 0 if all attention goes to one token.
        induction: to the tokens that followed earlier occurrences of the query's token, over the queries whose token
            occurred before; None if fewer than :data:`FEWEST_REPEATS` did.
    """

    layer: int
    head: int
    previous: float
    first: float
    itself: float
    entropy: float
    induction: float | None = None

    def shares(self, induction: float | None = None) -> dict[str, float]:
        """Return the share of each kind; ``induction`` replaces a share that the text does not give."""
        others = max(0.0, 1.0 - self.previous - self.first - self.itself)
        copied = self.induction if self.induction is not None else induction
        return {
            INDUCTION: copied or 0.0,
            PREVIOUS: self.previous,
            OTHERS: others,
            ITSELF: self.itself,
            FIRST: self.first,
        }

    def kind(self, induction: float | None = None) -> str:
        """Return what it does most: the largest of :meth:`shares`; induction already from a lower share."""
        shares = self.shares(induction)
        return INDUCTION if shares[INDUCTION] >= INDUCTION_SHARE else max(KINDS[1:], key=shares.__getitem__)


@dataclass(frozen=True)
class ChosenHeads:
    """The heads that a picture shows.

    Attributes:
        places: (layer, head) of each, kind by kind.
        kinds: the kind of every head of the network, by place.
    """

    places: tuple[tuple[int, int], ...]
    kinds: dict[tuple[int, int], str]

    def __str__(self) -> str:
        total, shown = Counter(self.kinds.values()), Counter(self.kinds[place] for place in self.places)
        if len(self.places) == len(self.kinds):
            return f"all {len(self.kinds)} heads"
        by_kind = ", ".join(f"{shown[kind]} of {total[kind]} {kind}" for kind in KINDS if total[kind])
        return f"{len(self.places)} of {len(self.kinds)} heads, the strongest of each kind on this text: {by_kind}"


def kinds_of_heads(prompt: Prompt) -> list[KindOfHead]:
    """Return every head, layer by layer; an empty list for a single token.

    Raises:
        InputError: a network without attention.
    """
    kinds: list[KindOfHead] = []
    earlier = _after_earlier_occurrences(prompt.ids)
    repeats = earlier.any(-1)
    for layer, named in enumerate(prompt.patterns()):
        patterns = named.tensor
        if patterns.shape[-1] < 2:
            return []
        copied = (patterns * earlier).sum(-1)[:, repeats].mean(-1)
        enough = int(repeats.sum()) >= FEWEST_REPEATS
        for head, pattern in enumerate(patterns):
            kinds.append(
                KindOfHead(
                    layer,
                    head,
                    float(pattern.diagonal(-1).mean()),
                    float(pattern[1:, 0].mean()),
                    float(pattern.diagonal()[1:].mean()),
                    float(entropy(pattern[1:]).mean()),
                    float(copied[head]) if enough else None,
                )
            )
    return kinds


def _after_earlier_occurrences(ids: Tensor) -> Tensor:
    """Return (T, T): whether the key follows an earlier occurrence of the query's token, and is not after the query."""
    count = len(ids)
    same = torch.zeros(count, count, dtype=torch.bool, device=ids.device)
    same[:, 1:] = ids[:, None] == ids[None, :-1]
    same[:, :2] = False  # the first token begins every document: nothing was repeated there
    return same.tril()


def chosen_heads(
    heads: Sequence[KindOfHead], most: int, induction: Sequence[Sequence[float | None]] | None = None
) -> ChosenHeads:
    """Return at most ``most`` heads: of each kind the strongest, in turn, until the places are taken.

    Args:
        heads: every head, from :func:`kinds_of_heads`.
        induction: (layer, head) induction scores for a text without repetitions.
    """

    def score(head: KindOfHead) -> float | None:
        return None if induction is None else induction[head.layer][head.head]

    kinds = {(head.layer, head.head): head.kind(score(head)) for head in heads}
    if len(heads) <= most:
        return ChosenHeads(tuple(kinds), kinds)
    waiting = {
        kind: sorted(
            (head for head in heads if kinds[head.layer, head.head] == kind),
            key=lambda head: -head.shares(score(head))[kind],
        )
        for kind in KINDS
    }
    taken: dict[str, list[tuple[int, int]]] = {kind: [] for kind in KINDS}
    while sum(map(len, taken.values())) < most:
        for kind in KINDS:
            if waiting[kind] and sum(map(len, taken.values())) < most:
                head = waiting[kind].pop(0)
                taken[kind].append((head.layer, head.head))
    return ChosenHeads(tuple(place for kind in KINDS for place in taken[kind]), kinds)


def sinks_line(heads: Sequence[KindOfHead]) -> str:
    """Return how many heads look at the first token, and why; empty if none does."""
    resting = sum(head.first >= SINK_SHARE for head in heads)
    if not resting:
        return ""
    seen = (
        f"{resting} of {len(heads)} heads put {SINK_SHARE:.0%} or more of their attention on the first token."
    )
    return f"{seen} {SINKS}"
