"""Make the suite of probes from a held-out text, with the reasons for those that the text does not yield."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from etude.errors import InputError
from etude.evaluate.items import FEWEST_ITEMS, Probe
from etude.evaluate.text_probes.passages import Material, passages
from etude.evaluate.text_probes.proposal import Proposal, TextSuite, finished
from etude.evaluate.text_probes.training import search
from etude.registry import TEXT_PROBES

DEFAULT_CONTEXT_CHARS = 256
FEWEST_CONTEXT_CHARS = 64
FEWEST_CHARS = 2000

TextProbe = Callable[[Material], list[Proposal]]
"""From passages of a held-out text to what a probe would ask; see :data:`etude.registry.TEXT_PROBES`."""


class TooLittleText(InputError):
    """There is not enough text for any probe of this suite; other measures may still be possible."""


def text_probes(
    train: Callable[[], Iterable[str]],
    held_out: Sequence[str],
    *,
    seed: int = 0,
    max_items: int = 256,
    context_chars: int | None = None,
) -> TextSuite:
    """Make probes of at most `max_items` items each, none of which is in the training text.

    `train` is called once and its documents are read once, one at a time: besides one document, memory is bounded by
    the items (about 40 MB); a gigabyte takes about four minutes. At most 4,096 passages of `held_out`, of 1 to 2
    thousand characters, are used. No item is longer than `context_chars` (default 256): pass what the model's context
    holds, so that no item is cut. The same texts and seed give the same items.
    Raises TooLittleText if the held-out text is too short or the training text is empty, InputError if a limit is too
    low.
    """
    context = DEFAULT_CONTEXT_CHARS if context_chars is None else context_chars
    documents = [document.replace("\0", " ") for document in held_out]
    _check(sum(map(len, documents)), max_items, context)
    chooser = Material((), seed, max_items, context)
    material = Material(passages(documents, chooser.rng("passages")), seed, max_items, context)
    makers: list[TextProbe] = [TEXT_PROBES.get(name) for name in TEXT_PROBES.names()]
    proposals = [proposal for make in makers for proposal in make(material)]
    training = search(
        train(),
        frozenset().union(*(proposal.words for proposal in proposals)),
        frozenset().union(*(proposal.known_by for proposal in proposals)),
    )
    if not training.num_chars:
        raise TooLittleText("the training text is empty: without it, no item is known to be held out")
    probes: list[Probe] = []
    skipped: dict[str, str] = {}
    for proposal in proposals:
        made = finished(proposal, training, max_items)
        if isinstance(made, Probe):
            probes.append(made)
        else:
            skipped[proposal.title] = made
    return TextSuite(tuple(probes), skipped, training.num_chars)


def _check(num_chars: int, max_items: int, context_chars: int) -> None:
    if num_chars < FEWEST_CHARS:
        raise TooLittleText(
            f"the held-out text has {num_chars:,} characters, but probes need {FEWEST_CHARS:,}: use more text"
        )
    if max_items < FEWEST_ITEMS:
        raise InputError(f"a probe needs at least {FEWEST_ITEMS} items, not {max_items}")
    if context_chars < FEWEST_CONTEXT_CHARS:
        raise InputError(
            f"an item needs room for {FEWEST_CONTEXT_CHARS} characters, not {context_chars}: "
            "use a model with a longer context"
        )
