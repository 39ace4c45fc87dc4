"""Choose the probes for a run: the suites that fit its text, without items that the training text contains."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import dataclass, replace

from etude.config import Settings
from etude.data.corpus.corpus import Part
from etude.data.prepared_data import PreparedData
from etude.data.tasks import search as tasks_search
from etude.errors import InputError
from etude.evaluate.answerers import CountingAnswerer
from etude.evaluate.contamination import search_training
from etude.evaluate.items import Probe, frozen
from etude.evaluate.ngram import KneserNey
from etude.evaluate.study_probes import modular_probes
from etude.evaluate.task_probes import task_probes
from etude.evaluate.text_probes.proposal import TextSuite
from etude.evaluate.text_probes.suite import FEWEST_CONTEXT_CHARS, TooLittleText, text_probes
from etude.evaluate.world_probes import combinations as world_combinations
from etude.evaluate.world_probes import world_probes
from etude.run.ladder import Ladder
from etude.untrusted import shown

OF_BUILT_IN = {
    "builtin:primer": "world",
    "builtin:primer-instructions": "world",
    "builtin:tasks": "tasks",
    "builtin:modular": "modular",
}
SUITES = ("text", *dict.fromkeys(OF_BUILT_IN.values()))
PROBE_SEED = 0
HELD_OUT_BYTES = 2_000_000
"""Most bytes of held-out text from which probes are made."""
FILLED = 0.6
"""Share of the context for an item, assuming the average token length; the rest allows for denser text."""


@dataclass(frozen=True)
class Questions:
    """Probes by suite. skipped: what the text does not yield, by title (or "the suite text"), with the reason."""

    by_suite: dict[str, tuple[Probe, ...]]
    skipped: dict[str, str]

    @property
    def probes(self) -> tuple[Probe, ...]:
        return tuple(probe for probes in self.by_suite.values() for probe in probes)

    @property
    def hash(self) -> str:
        return frozen(self.probes)

    def require_some(self, advice: str = "") -> None:
        """Raise InputError with the reasons if no probe is left."""
        if not self.probes:
            reasons = "; ".join(f"{key}: {why}" for key, why in self.skipped.items())
            raise InputError(f"no probe is left: {reasons}" + (f"; {advice}" if advice else ""))


def suites_for(settings: Settings) -> tuple[str, ...]:
    """Return the suites that fit a text: its own suite if it has words, and those of its built-in sources."""
    sources = settings.data.sources
    own = dict.fromkeys(suite for source, suite in OF_BUILT_IN.items() if source in sources)
    return tuple(own) if set(sources) == {"builtin:modular"} else ("text", *own)


@dataclass(frozen=True)
class ProbeSource:
    """Where probes come from.

    train: documents that must not contain an item, read again by every call; None if none are known: then nothing is
    searched; held_out: the documents, at most so many bytes of them, that the suite text is made from; None without
    such a text; context_chars: most characters of an item of the suite text.
    """

    train: Callable[[], Iterator[str]] | None
    held_out: Callable[[int | None], Iterator[str]] | None
    context_chars: int


def questions_for(
    data: PreparedData, suites: Sequence[str], num_items: int, context: int, *, allow_none: bool = False
) -> Questions:
    """Make the suites' probes of at most ``num_items`` items, without what the training text contains.

    ``context`` is the model's, in tokens: items of the text's own suite fit into it.
    ``allow_none``: accept a text that yields no probe at all.

    Raises:
        InputError: an unknown suite, or a text that yields nothing.
    """
    chars_per_token = data.train.source_bytes / max(1, data.train.num_tokens)
    source = ProbeSource(
        lambda: texts_of(data, "train"),
        lambda max_bytes: texts_of(data, "validation", max_bytes),
        item_chars(context, chars_per_token),
    )
    questions = questions_from(source, suites, num_items)
    if not allow_none:
        questions.require_some()
    return questions


def questions_from(source: ProbeSource, suites: Sequence[str], num_items: int) -> Questions:
    """Make the suites' probes of at most ``num_items`` items, without what ``source.train`` contains.

    Raises:
        InputError: an unknown suite, or one that is made from a text, without a text.
    """
    _require_known(suites)
    by_suite: dict[str, tuple[Probe, ...]] = {}
    skipped: dict[str, str] = {}
    for suite in dict.fromkeys(suites):
        if suite in ("text", "modular"):
            if source.held_out is None or source.train is None:
                raise InputError(_needs_text(suite))
            if suite == "modular":
                parts = source.train(), source.held_out(None)
                by_suite[suite] = tuple(modular_probes(*parts, num_items))
                continue
            try:
                made = _of_text(source, num_items)
            except TooLittleText as error:
                skipped["the suite text"] = str(error)
                continue
            by_suite[suite], skipped = made.probes, {**skipped, **made.skipped}
            continue
        probes, finder = _of(suite, num_items)
        if source.train is None:
            by_suite[suite] = tuple(probes)
            continue
        searched = search_training(probes, source.train, finder)
        by_suite[suite] = tuple(result.probe for result in searched if result.probe is not None)
        skipped |= {
            probe.title: f"the training text contains all {result.items} items"
            for probe, result in zip(probes, searched, strict=True)
            if result.probe is None
        }
    questions = Questions(by_suite, skipped)
    _require_own_titles(questions)
    return questions


def without_claims(questions: Questions) -> Questions:
    """Return the questions without statements about what training could not contain: it is not known."""
    return replace(
        questions,
        by_suite={
            suite: tuple(replace(probe, held_out="") for probe in probes)
            for suite, probes in questions.by_suite.items()
        },
    )


def item_chars(context: int, chars_per_token: float) -> int:
    """Return the most characters of an item that a context of so many tokens holds."""
    return min(max(FEWEST_CONTEXT_CHARS, int(FILLED * context * chars_per_token)), 1000)


def counting_for(data: PreparedData, ladder: Ladder | None) -> CountingAnswerer:
    """Count n-grams of the training text, with the order that scored best on the run's ladder."""
    rungs = ladder.rungs if ladder is not None else ()
    order = min(rungs, key=lambda rung: rung.bits_per_byte).order if rungs else 6
    return CountingAnswerer(KneserNey.fit(data.documents("train"), order), order)


def _require_own_titles(questions: Questions) -> None:
    """Raise InputError where two probes have one title: their scores would be taken for those of one."""
    titles = [probe.title for probe in questions.probes]
    if shared := [title for at, title in enumerate(titles) if title in titles[:at]]:
        raise InputError(
            f"two probes are called '{shown(shared[0])}': rename the one that a plugin registers"
        )


def _require_known(suites: Sequence[str]) -> None:
    unknown = [suite for suite in suites if suite not in SUITES]
    if unknown:
        raise InputError(f"--suite takes {', '.join(SUITES)} or tuning, not '{shown(unknown[0])}'")


def _of(suite: str, num_items: int) -> tuple[list[Probe], Callable[[str], Set[object]]]:
    if suite == "world":
        return world_probes(PROBE_SEED, num_items), world_combinations.held_out_in
    return task_probes(PROBE_SEED, num_items), tasks_search.held_out_in


def _of_text(source: ProbeSource, num_items: int) -> TextSuite:
    assert source.train is not None
    assert source.held_out is not None
    return text_probes(
        source.train,
        list(source.held_out(HELD_OUT_BYTES)),
        seed=PROBE_SEED,
        max_items=num_items,
        context_chars=source.context_chars,
    )


def _needs_text(suite: str) -> str:
    if suite == "modular":
        return "the suite modular is made from a run's own text: name one run of builtin:modular"
    return (
        "the suite text is made from a text, and a model without a run has none of its own: name one with --text FILE, "
        "or use --suite world"
    )


def texts_of(data: PreparedData, part: Part, max_bytes: int | None = None) -> Iterator[str]:
    """Yield the documents of a part of prepared text."""
    for document in data.documents(part, max_bytes):
        yield document.decode("utf-8", "ignore")
