"""BLiMP (Warstadt et al. 2020): pairs of English sentences, one of which breaks a rule of grammar.

The score is the share of pairs in which the model finds the right sentence more probable, with ties as one half. It is
reported twice: by mean log-probability per token, which gives a model of uniform logits one half, and by that of the
whole sentence, which favours the shorter one. The usual library's rule (the first of the highest) is reported as well.
It counts a tie as right, since the right sentence comes first.
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
    """Pairs (right, wrong) that differ by one rule. name: BLiMP's UID; phenomenon: BLiMP's linguistics_term."""

    name: str
    phenomenon: str
    pairs: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Coverage:
    """The pairs whose words all occur in the training text.

    paradigms: those with at least one such pair; total, kept: pairs before and after.
    """

    paradigms: tuple[Paradigm, ...]
    total: int
    kept: int

    @property
    def share(self) -> float:
        return self.kept / self.total


@dataclass(frozen=True)
class BlimpResult:
    """The result of one paradigm.

    probe: compared per token; per_token, whole: its figures, and those by the sentences' whole probabilities; library:
    the share right by the library's rule on whole sentences.
    """

    probe: Probe
    per_token: Measured
    whole: Measured
    library: float


def read_blimp(path: Path) -> list[Paradigm]:
    """Read the paradigms of a folder or zip of .jsonl files, in the order of their names.

    Raises InputError for anything else, with the file and the line.
    """
    paradigms = []
    for name, content in sorted(_files(path)):
        pairs: list[tuple[str, str]] = []
        labels = set()
        for number, line in enumerate(content.decode("utf-8", "replace").splitlines(), start=1):
            if line.strip():
                pair, label = _row(line, f"{name}, line {number}")
                pairs.append(pair)
                labels.add(label)
        if len(labels) != 1:
            raise InputError(f"{name} is not one paradigm of BLiMP (it holds {len(labels)} names): remove it")
        ((uid, phenomenon),) = labels
        paradigms.append(Paradigm(uid, phenomenon, tuple(pairs)))
    if not paradigms:
        raise InputError(f"{path} holds no .jsonl files: give the folder or zip of BLiMP's paradigms")
    return paradigms


def words_in(paradigms: Sequence[Paradigm]) -> set[str]:
    """Return all words of the pairs."""
    return {word for paradigm in paradigms for pair in paradigm.pairs for word in words_of(" ".join(pair))}


def covered(paradigms: Sequence[Paradigm], known: Set[str]) -> Coverage:
    """Drop every pair with a word that is not in `known`."""
    kept = [
        replace(paradigm, pairs=tuple(pair for pair in paradigm.pairs if words_of(" ".join(pair)) <= known))
        for paradigm in paradigms
    ]
    return Coverage(
        tuple(paradigm for paradigm in kept if paradigm.pairs),
        sum(len(paradigm.pairs) for paradigm in paradigms),
        sum(len(paradigm.pairs) for paradigm in kept),
    )


def blimp_probe(paradigm: Paradigm, before: str = "") -> Probe:
    """Make items of the pairs, compared per token. `before` precedes each sentence: the usual library adds a space."""
    items = tuple(choice("", before + good, before + bad) for good, bad in paradigm.pairs)
    return Probe("blimp", paradigm.name, _ASKS, items, per_token=True)


def measure_blimp(
    paradigms: Sequence[Paradigm], answerer: Answerer, report: Report | None = None, *, before: str = ""
) -> list[BlimpResult]:
    """Measure each paradigm. All pairs are answered in one call, so that a caching answerer stores them together."""
    probes = [blimp_probe(paradigm, before) for paradigm in paradigms]
    scores = iter(answerer.answer([item for probe in probes for item in probe.items], report))
    return [blimp_result(probe, list(islice(scores, len(probe.items)))) for probe in probes]


def blimp_result(probe: Probe, scores: Sequence[ItemScore]) -> BlimpResult:
    """Compute the figures of `scores`, one for each item of `probe`."""
    first = [float(np.argmax(score.logprobs) == 0) for score in scores]
    whole = measure(replace(probe, per_token=False), scores)
    return BlimpResult(probe, measure(probe, scores), whole, float(np.mean(first)))


def by_phenomenon(paradigms: Sequence[Paradigm], results: Sequence[BlimpResult]) -> dict[str, BlimpMean]:
    """Average the paradigms of each phenomenon, and last all of them (BLiMP's own overall figure)."""
    together: dict[str, list[BlimpResult]] = {}
    for paradigm, result in zip(paradigms, results, strict=True):
        together.setdefault(paradigm.phenomenon, []).append(result)
    together = dict(sorted(together.items())) | {"all": list(results)}
    return {name: _mean(some) for name, some in together.items()}


@dataclass(frozen=True)
class BlimpMean:
    """The mean of several paradigms with equal weights.

    standard_error: of per_token, from the paradigms' Wilson intervals, which are finite even for a single pair.
    """

    paradigms: int
    pairs: int
    per_token: float
    standard_error: float
    whole: float
    library: float


def _mean(results: Sequence[BlimpResult]) -> BlimpMean:
    intervals = [result.per_token.accuracy.interval for result in results]
    errors = np.array([(interval.high - interval.low) / 2 / Z for interval in intervals])
    return BlimpMean(
        len(results),
        sum(len(result.probe.items) for result in results),
        float(np.mean([result.per_token.accuracy.value for result in results])),
        float(np.sqrt((errors**2).sum()) / len(results)),
        float(np.mean([result.whole.accuracy.value for result in results])),
        float(np.mean([result.library for result in results])),
    )


def _files(path: Path) -> Iterator[tuple[str, bytes]]:
    """Yield (name, content) of each .jsonl file, without hidden files."""
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
                        f"{path}: {shown(member.filename)} is longer than {MAX_JSON_BYTES:,} bytes: remove it"
                    )
                yield f"{path}: {shown(member.filename)}", archive.read(member)
    except (OSError, zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
        raise InputError(
            f"{path} cannot be read as BLiMP ({shown(str(error))}): give its zip, or a folder of .jsonl files"
        ) from None


def _row(line: str, where: str) -> tuple[tuple[str, str], tuple[str, str]]:
    """Parse a line into ((right, wrong), (UID, phenomenon))."""
    try:
        row = json.loads(line)
        values = [row[key] for key in ("sentence_good", "sentence_bad", "UID", "linguistics_term")]
        if not all(isinstance(value, str) and value for value in values):
            raise ValueError("a field is empty")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{where} is not a pair of BLiMP ({shown(str(error))}): restore the file") from None
    return (values[0], values[1]), (values[2], values[3])
