"""BLiMP (Warstadt et al. 2020): pairs of English sentences, one of them wrong by a rule of grammar.

The share of pairs where the model finds the right sentence more probable, ties one half, is reported twice: by the mean
log-probability of a token, which leaves a model of uniform logits at one half, and by that of the whole sentence, which
favours the shorter one. Beside them stands what the usual library's rule (the first of the highest) makes of the same
numbers: it counts a tie as right, for the right sentence stands first.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np

from etude.errors import InputError
from etude.evaluate.answerers import Answerer, ItemScore, Report
from etude.evaluate.items import Probe, choice
from etude.evaluate.results import Measured, measure
from etude.evaluate.statistics import Z
from etude.evaluate.word_coverage import words_of
from etude.untrusted import MAX_JSON_BYTES, read_plain, shown

_ASKS = "Which of two sentences, of which one breaks a rule of English, is the more probable?"


@dataclass(frozen=True)
class Paradigm:
    """Pairs (right, wrong) that differ by one rule. name: BLiMP's UID; phenomenon: its linguistics_term."""

    name: str
    phenomenon: str
    pairs: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Coverage:
    """The pairs that are left, all of whose words the training text has.

    paradigms: those with at least one such pair; asked, kept: pairs before and after.
    """

    paradigms: tuple[Paradigm, ...]
    asked: int
    kept: int

    @property
    def share(self) -> float:
        return self.kept / self.asked


@dataclass(frozen=True)
class BlimpResult:
    """One paradigm.

    probe: compared by token, ours; per_token, whole: its figures, and those of the sentences' whole probabilities;
    library: the share right by the library's rule on whole sentences.
    """

    probe: Probe
    per_token: Measured
    whole: Measured
    library: float


def read_blimp(path: Path) -> list[Paradigm]:
    """The paradigms of a folder or zip of .jsonl files, in the order of their names.

    Raises InputError for anything else, naming the file and the line.
    """
    found = []
    for name, content in sorted(_files(path)):
        pairs: list[tuple[str, str]] = []
        labels = set()
        for number, line in enumerate(content.decode("utf-8", "replace").splitlines(), start=1):
            if line.strip():
                pair, label = _row(line, f"{name}, line {number}")
                pairs.append(pair)
                labels.add(label)
        if len(labels) != 1:
            raise InputError(f"{name} is not one paradigm of BLiMP ({len(labels)} names in it): leave it out")
        ((uid, phenomenon),) = labels
        found.append(Paradigm(uid, phenomenon, tuple(pairs)))
    if not found:
        raise InputError(f"{path} holds no .jsonl files: give the folder or zip of BLiMP's paradigms")
    return found


def words_in(paradigms: Sequence[Paradigm]) -> set[str]:
    """All words of their pairs."""
    return {word for one in paradigms for pair in one.pairs for word in words_of(" ".join(pair))}


def covered(paradigms: Sequence[Paradigm], known: Set[str]) -> Coverage:
    """Leave out every pair with a word that is not in `known`."""
    kept = [
        replace(one, pairs=tuple(pair for pair in one.pairs if words_of(" ".join(pair)) <= known))
        for one in paradigms
    ]
    return Coverage(
        tuple(one for one in kept if one.pairs),
        sum(len(one.pairs) for one in paradigms),
        sum(len(one.pairs) for one in kept),
    )


def blimp_probe(paradigm: Paradigm, before: str = "") -> Probe:
    """The pairs as items, compared by token. `before` stands before each sentence: the usual library puts a space."""
    items = tuple(choice("", before + good, before + bad) for good, bad in paradigm.pairs)
    return Probe("blimp", paradigm.name, _ASKS, items, per_token=True)


def measure_blimp(
    paradigms: Sequence[Paradigm], answerer: Answerer, report: Report | None = None, *, before: str = ""
) -> list[BlimpResult]:
    """Each paradigm's result. All pairs are asked at once: an answerer that keeps its answers keeps them together."""
    probes = [blimp_probe(one, before) for one in paradigms]
    scores = iter(answerer.answer([item for probe in probes for item in probe.items], report))
    return [blimp_result(probe, list(islice(scores, len(probe.items)))) for probe in probes]


def blimp_result(probe: Probe, scores: Sequence[ItemScore]) -> BlimpResult:
    """The figures of `scores`, one for each item of `probe`."""
    first = [float(np.argmax(score.logprobs) == 0) for score in scores]
    whole = measure(replace(probe, per_token=False), scores)
    return BlimpResult(probe, measure(probe, scores), whole, float(np.mean(first)))


def by_phenomenon(paradigms: Sequence[Paradigm], results: Sequence[BlimpResult]) -> dict[str, BlimpMean]:
    """The mean over the paradigms of each phenomenon, and last over all of them (as BLiMP's own overall figure)."""
    together: dict[str, list[BlimpResult]] = {}
    for one, result in zip(paradigms, results, strict=True):
        together.setdefault(one.phenomenon, []).append(result)
    together = dict(sorted(together.items())) | {"all": list(results)}
    return {name: _mean(some) for name, some in together.items()}


@dataclass(frozen=True)
class BlimpMean:
    """Of several paradigms, each with equal weight.

    standard_error: of per_token, from the paradigms' Wilson intervals, which are finite for a single pair too.
    """

    paradigms: int
    pairs: int
    per_token: float
    standard_error: float
    whole: float
    library: float


def _mean(results: Sequence[BlimpResult]) -> BlimpMean:
    intervals = [one.per_token.accuracy.interval for one in results]
    errors = np.array([(one.high - one.low) / 2 / Z for one in intervals])
    return BlimpMean(
        len(results),
        sum(len(one.probe.items) for one in results),
        float(np.mean([one.per_token.accuracy.value for one in results])),
        float(np.sqrt((errors**2).sum()) / len(results)),
        float(np.mean([one.whole.accuracy.value for one in results])),
        float(np.mean([one.library for one in results])),
    )


def _files(path: Path) -> Iterator[tuple[str, bytes]]:
    """(name, content) of each .jsonl file; what an operating system hid beside them is left out."""
    if path.is_dir():
        for file in path.rglob("*.jsonl"):
            if not file.name.startswith("."):
                yield str(file), read_plain(file, MAX_JSON_BYTES)
        return
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                name = Path(member.filename).name
                if not name.endswith(".jsonl") or name.startswith("."):
                    continue
                if member.file_size > MAX_JSON_BYTES:
                    raise InputError(
                        f"{path}: {shown(member.filename)} is longer than {MAX_JSON_BYTES:,} bytes: leave it out"
                    )
                yield f"{path}: {shown(member.filename)}", archive.read(member)
    except (OSError, zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
        raise InputError(
            f"{path} cannot be read as BLiMP ({shown(str(error))}): give its zip, or a folder of .jsonl files"
        ) from None


def _row(line: str, where: str) -> tuple[tuple[str, str], tuple[str, str]]:
    """((right, wrong), (UID, phenomenon))."""
    try:
        row = json.loads(line)
        values = [row[key] for key in ("sentence_good", "sentence_bad", "UID", "linguistics_term")]
        if not all(isinstance(value, str) and value for value in values):
            raise ValueError("a field is empty")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{where} is not a pair of BLiMP ({shown(str(error))}): restore the file") from None
    return (values[0], values[1]), (values[2], values[3])
