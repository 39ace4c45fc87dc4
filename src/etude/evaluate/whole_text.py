"""Measure a checkpoint on its whole held-out text: losses, in-context learning, memorisation, induction heads."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from etude.data.tokens.coverage import IGNORE_INDEX
from etude.data.tokens.rows import evaluation_windows
from etude.errors import InputError
from etude.evaluate.answerers import Report
from etude.evaluate.examined_run import ExaminedRun
from etude.evaluate.in_context import InContext, in_context
from etude.evaluate.induction_heads import InductionHeads, induction_heads
from etude.evaluate.memorisation import Memorisation, memorisation
from etude.evaluate.resumable_evaluation import CorpusDocuments, measure_text_in_parts
from etude.evaluate.resumable_parts import Workers
from etude.evaluate.tables import measure_lines
from etude.evaluate.text_measures import TextMeasures
from etude.evaluate.text_scoring import Named, count_tokens
from etude.files import json_safe, write_json
from etude.generate.engine import generate
from etude.generate.sampling import USUAL_SAMPLING
from etude.generate.scoring import score_sequences
from etude.model.folder import load_config
from etude.pretrained.load_model import Trained, load_trained

MEASURED_BYTES = 500_000
"""Most bytes of held-out text that are measured."""
WINDOWS = 64
SAMPLES, GIVEN_TOKENS, SAMPLE_TOKENS = 16, 8, 100
FILE = "measures.json"


@dataclass(frozen=True)
class WholeText:
    """The measures of a text. missing: what could not be measured, with the reason; name: what the text is called."""

    measures: TextMeasures
    in_context: InContext | None = None
    heads: InductionHeads | None = None
    memorisation: Memorisation | None = None
    missing: dict[str, str] = field(default_factory=dict)
    name: str = "held-out text"

    def to_json(self) -> dict[str, Any]:
        heads = self.heads
        content: dict[str, Any] = {
            "name": self.name,
            **self.measures.to_json(),
            "in_context": None if self.in_context is None else asdict(self.in_context),
            "induction_heads": None
            if heads is None
            else {**asdict(replace(heads, scores=np.empty(0))), "scores": heads.scores.tolist()},
            "memorisation": None if self.memorisation is None else asdict(self.memorisation),
            "missing": self.missing,
        }
        safe: dict[str, Any] = json_safe(content)
        return safe


def measure_whole_text(run: ExaminedRun, checkpoint: Path, within: Path, workers: Workers) -> WholeText:
    """Measure a checkpoint, and write the result to the run's derived/measures.json."""
    trained = load_trained(checkpoint, workers.threads)
    counts = count_tokens(run.data.train, trained.model.config.vocab_size)
    documents = CorpusDocuments(run.data.corpus.folder, "validation", MEASURED_BYTES)
    measures = measure_text_in_parts(checkpoint, documents, within, token_counts=counts, workers=workers)
    results: dict[str, Any] = {}
    missing: dict[str, str] = {}
    for name, measure in (
        ("in_context", lambda: _in_context(run, trained)),
        ("heads", lambda: induction_heads(trained.model)),
        ("memorisation", lambda: _memorisation(run, trained)),
    ):
        try:
            results[name] = measure()
        except InputError as error:
            results[name], missing[name] = None, str(error)
    whole = WholeText(measures, missing=missing, **results)
    write_json(run.folder / "derived" / FILE, {"checkpoint": checkpoint.name, **whole.to_json()})
    return whole


def measure_other_text(
    folder: Path,
    documents: Sequence[Named],
    run: ExaminedRun | None,
    within: Path,
    workers: Workers,
    report: Report,
) -> WholeText:
    """Measure a text that is not the run's; with a run, also by each token's count in the run's training text."""
    counts = None if run is None else count_tokens(run.data.train, load_config(folder).vocab_size)
    measures = measure_text_in_parts(
        folder, documents, within, token_counts=counts, workers=workers, report=report
    )
    return WholeText(measures, name="this text")


def _in_context(run: ExaminedRun, trained: Trained) -> InContext:
    """Measure windows of held-out text as training packs it; those that begin in one document count together."""
    context = trained.model.config.max_position_embeddings
    windows = evaluation_windows(run.data.validation, context, WINDOWS * context)
    inputs, targets = windows.batch(0, WINDOWS)
    whole = (targets != IGNORE_INDEX).all(1)
    texts = [[*row.tolist(), int(end)] for row, end in zip(inputs[whole], targets[whole, -1], strict=True)]
    scores = score_sequences(trained.model, texts) if texts else []
    groups = [str(row[0]) for row in windows.document_ids(0, WINDOWS)[whole]]
    losses = np.array([-score.logprobs for score in scores]).reshape(len(scores), -1)
    return in_context(losses, groups)


def _memorisation(run: ExaminedRun, trained: Trained) -> Memorisation:
    """Compare continuations of the beginnings of held-out documents with the documents themselves."""
    tokenizer = trained.tokenizer
    longer = (ids for ids in _held_out(run, trained) if len(ids) >= GIVEN_TOKENS + SAMPLE_TOKENS // 2)
    chosen = list(islice(longer, SAMPLES))
    if not chosen:
        raise InputError("no held-out document is long enough to continue: use longer documents")
    room = trained.model.config.max_position_embeddings - GIVEN_TOKENS - 1
    if room < 1:
        raise InputError("the model's context is too short to continue a text: use a model with a longer one")
    sampling = replace(USUAL_SAMPLING, max_new_tokens=min(SAMPLE_TOKENS, room))
    prompts = [[tokenizer.roles.document_id, *ids[:GIVEN_TOKENS]] for ids in chosen]
    answers = generate(
        trained.model, prompts, sampling, stop_ids=tokenizer.roles.stop_ids, seed=0, compile=False
    )
    pairs = [
        (tokenizer.decode(answer.token_ids, skip_special_tokens=True), tokenizer.decode(ids[GIVEN_TOKENS:]))
        for answer, ids in zip(answers, chosen, strict=True)
    ]
    pairs = [pair for pair in pairs if all(pair)]
    if not pairs:
        raise InputError("nothing was generated: the model ends every text at once")
    samples, passages = zip(*pairs, strict=True)
    return memorisation(run.data.documents("train"), samples, passages)


def _held_out(run: ExaminedRun, trained: Trained) -> Iterator[list[int]]:
    for document in run.data.documents("validation", MEASURED_BYTES):
        yield trained.tokenizer.encode(document.decode("utf-8", "ignore"))


def lines_of(whole: WholeText) -> list[str]:
    """Describe the measures of a text in lines."""
    lines = measure_lines(whole.measures, whole.name)
    if (curve := whole.in_context) is not None:
        gain = curve.gain.interval
        conclusion = "it learns from its context" if curve.learns else "no gain beyond its error"
        if gain.low > 0:
            conclusion = "later positions are harder in this text"
        lines.append(
            f"in context: {curve.gain.value:+.3f} nats per token ({gain.low:+.3f} to {gain.high:+.3f}) from positions "
            f"{curve.early[0]} to {curve.early[1]} to positions {curve.late[0]} to {curve.late[1]}: {conclusion}"
        )
    if (heads := whole.heads) is not None:
        conclusion = "above chance" if heads.above_chance else "not above chance"
        lines.append(
            f"induction heads: layer {heads.layer}, head {heads.head} puts {100 * heads.best.value:.1f} % of its "
            f"attention on the token after an earlier occurrence of the current one (chance "
            f"{100 * heads.chance:.1f} %): {conclusion}"
        )
    if (copied := whole.memorisation) is not None:
        lines.append(_copied(copied))
    return lines + [f"skipped: {name}: {why}" for name, why in whole.missing.items()]


def _copied(copied: Memorisation) -> str:
    """Compare the longest copied runs of samples with those of held-out text, in one line."""
    longest = max(run.length for run in copied.samples)
    excess, interval = copied.excess.value, copied.excess.interval
    known = math.isfinite(interval.low) and math.isfinite(interval.high)
    span = f" (difference {interval.low:+.1f} to {interval.high:+.1f})" if known else ""
    unit = "byte" if f"{abs(excess):.1f}" == "1.0" else "bytes"
    return (
        f"copied: the longest stretch of a sample that occurs in training has {longest} bytes; on average "
        f"{abs(excess):.1f} {unit} {'longer' if excess > 0 else 'shorter'} than in held-out text{span}; "
        f"{100 * copied.beyond:.0f} % of {len(copied.samples)} samples exceed every held-out passage"
    )
