"""What a probe from text must pass to be registered: some items of it are made from a sample, twice."""

from __future__ import annotations

from typing import Any

from etude.errors import InputError
from etude.evaluate.items import Item
from etude.evaluate.text_probes.passages import Material, passages
from etude.evaluate.text_probes.proposal import Draft, Proposal
from etude.evaluate.text_probes.training import WINDOW, Training
from etude.registry import checked_call

SAMPLE_BYTES, MAX_ITEMS, CONTEXT_CHARS = 30_000, 32, 96


def require_complete(make: Any) -> None:
    """Raise InputError unless ``make`` is a `TextProbe` whose items fit, follow from the seed, and can be searched for.

    A sample that yields no items is no fault: a probe may be about another language than the sample's.
    """
    if not callable(make):
        raise InputError(f"a probe from text is a function from a Material to proposals, not {make!r}")
    name = getattr(make, "__name__", type(make).__name__)
    proposals = checked_call(f"the probe {name}", make, _sample())
    if (
        not isinstance(proposals, list)
        or not all(isinstance(one, Proposal) for one in proposals)
        or not proposals
    ):
        raise InputError(
            f"the probe {name} must return a list of etude.evaluate.text_probes.proposal.Proposal"
        )
    problem = next((problem for proposal in proposals if (problem := _problem(proposal))), None)
    if problem is None and _items(proposals) != _items(checked_call(f"the probe {name}", make, _sample())):
        problem = "it makes other items from the same text and seed: draw by `Material.rng`"
    if problem is not None:
        raise InputError(f"the probe {name} cannot be registered: {problem}")


def _sample() -> Material:
    from etude.data.primer.generator import generate

    texts = [tale.text for tale in generate(0, max_bytes=SAMPLE_BYTES)]
    empty = Material((), 0, MAX_ITEMS, CONTEXT_CHARS)
    return Material(passages(texts, empty.rng("passages")), 0, MAX_ITEMS, CONTEXT_CHARS)


def _drafts(proposal: Proposal) -> list[Draft]:
    """Return what the proposal asks where the training text holds nothing of it."""
    return list(
        checked_call(f"`drafts` of '{proposal.title}'", proposal.drafts, Training({}, frozenset(), 1))
    )


def _items(proposals: list[Proposal]) -> list[list[tuple[Item, ...]]]:
    return [[draft.items for draft in _drafts(proposal)] for proposal in proposals]


def _problem(proposal: Proposal) -> str | None:
    """Return what is wrong with a proposal, in words."""
    for draft in _drafts(proposal):
        for item in draft.items:
            longest = max(len(candidate.given) + len(candidate.said) for candidate in item.candidates)
            if longest > CONTEXT_CHARS:
                return f"an item of '{proposal.title}' has {longest} characters, and `context_chars` is {CONTEXT_CHARS}"
        if not draft.known_by and not proposal.words:
            return f"an item of '{proposal.title}' has no `known_by`: it could stand in the training text"
        if unknown := set(draft.known_by) - proposal.known_by:
            return f"`known_by` of '{proposal.title}' lacks {sorted(unknown)[0]!r}, so it is not searched for"
        if short := [one for one in draft.known_by if len(one) < WINDOW]:
            return f"`known_by` of '{proposal.title}' has {short[0]!r}, which is shorter than {WINDOW} characters"
    return None
