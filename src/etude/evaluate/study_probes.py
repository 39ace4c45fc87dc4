"""Probes of the studies that come with the package, from a run's own text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from etude.data.studies import modular
from etude.evaluate.items import Item, Probe, choice


def modular_probes(train: Iterable[str], held_out: Iterable[str], max_items: int) -> list[Probe]:
    """The sums of ``builtin:modular`` that a run learned by, and those that it never saw; all numbers are candidates.

    train, held_out: the documents. What is asked as never seen is no document of ``train``.
    """
    shown = dict.fromkeys(train)
    unseen = [text for text in dict.fromkeys(held_out) if text not in shown]
    never = "The sum itself, and so its answer; the rule is in every other one."
    return [
        _probe("seen in training", list(shown), "", max_items),
        _probe("never seen", unseen, never, max_items),
    ]


def _probe(condition: str, texts: Sequence[str], held_out: str, max_items: int) -> Probe:
    """Of texts in an order of no meaning, the first ones."""
    items = tuple(_item(text) for text in texts[:max_items])
    return Probe(
        "modular subtraction", condition, "What is the difference?", items, held_out, open_answer=True
    )


def _item(text: str) -> Item:
    given, said = text[:-1], text[-1]
    return choice(given, said, *(symbol for symbol in modular.SYMBOLS if symbol != said))
