"""Probes for the studies that come with the package, made from a run's own text."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Set
from hashlib import blake2b
from itertools import islice

from etude.data.studies import modular
from etude.errors import InputError
from etude.evaluate.blocks import block
from etude.evaluate.items import Item, Probe


def modular_probes(train: Iterable[str], held_out: Iterable[str], max_items: int) -> list[Probe]:
    """Make probes of the ``builtin:modular`` equations that a run trained on, and of those that it never saw.

    train, held_out: the documents, in any order. All numbers are candidates. No "never seen" item is a document of
    ``train``.
    Raises InputError if the training text has no such equation, or if none that was held out remains.
    """
    sums = {document.text for document in modular.documents()}
    shown, unseen = sums.intersection(train), sums.intersection(held_out)
    if not shown:
        raise InputError(
            "the suite modular is for runs of builtin:modular, and this run's text has none of its sums: name another "
            "suite, such as --suite text"
        )
    never = "The equation itself, and so its answer; the rule is in every other one."
    return [
        _probe("seen in training", shown, "", max_items),
        _probe("never seen", unseen - shown, never, max_items),
    ]


def _probe(condition: str, texts: Set[str], held_out: str, max_items: int) -> Probe:
    """Make blocks with one equation for each answer, so that a preference for an answer gains nothing.

    Texts are taken in the order of their hashes, so that runs of all seeds answer the same items.
    """
    by_answer: dict[str, list[str]] = defaultdict(list)
    for text in sorted(texts, key=lambda text: blake2b(text.encode(), digest_size=8).digest()):
        by_answer[text[-1]].append(text)
    most = max(1, max_items // max(1, len(by_answer))) if len(by_answer) > 1 else 0
    items: list[Item] = []
    for sums in islice(zip(*by_answer.values(), strict=False), most):
        items += block([(text[:-1], text[-1]) for text in sums], "")
    return Probe(
        "modular subtraction", condition, "What is the difference?", tuple(items), held_out, open_answer=True
    )
