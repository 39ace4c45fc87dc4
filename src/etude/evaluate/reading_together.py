"""``etude eval MODEL MODEL... --text FILE``: how well several models, and counting, predict the same passages."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from etude.device import git_commit
from etude.evaluate.named_text import NamedText, named_text
from etude.evaluate.reading_curve import (
    EARLY,
    EDGES,
    LATE,
    ReadingCurve,
    bits_of_counting,
    bits_of_network,
    difference,
    passages_of,
    reading_curve,
)
from etude.evaluate.records import estimate_to_json
from etude.evaluate.statistics import Estimate
from etude.evaluate.together import ExaminedModel, TogetherRequest, open_models, report_to
from etude.pretrained.load_model import load_trained
from etude.show.lines import print_line
from etude.show.named_table import Column, NamedTable
from etude.show.progress import ProgressListener, data_progress
from etude.untrusted import shown

COUNTING = "n-gram"


@dataclass(frozen=True)
class Reader:
    """A model, or counting, with its curve. folder: None for counting; note: what limits the conclusions."""

    name: str
    curve: ReadingCurve
    folder: Path | None = None
    note: str = ""


def read_together(request: TogetherRequest, console: Console) -> None:
    """Let the models read the held-out part of the named text, and print their bits per byte and differences.

    Raises:
        InputError: no such model or text, or a model whose tokens do not spell the text.
    """
    models = open_models(request.paths)
    with named_text(request.text) as text, data_progress(console) as progress:
        passages = passages_of(text.probed())
        readers = []
        for model in models:
            readers.append(_read(model, passages, request, progress))
        readers.append(Reader(COUNTING, reading_curve(passages, bits_of_counting(text.counting))))
        about, line = text.to_json(), _line(text, readers)
    if request.as_json:
        print(json.dumps(_to_json(readers, about), ensure_ascii=False, allow_nan=False))
        return
    console.print(table_of(readers))
    if any(model.run is not None for model in models):
        lines = [line, "a run among the models may have read these passages, if it was trained on this text"]
    else:
        lines = [line]
    lines += [*(f"{reader.name}: {reader.note}" for reader in readers if reader.note)]
    lines.append(
        f"difference: bits per byte minus those of {readers[0].name}; gain: after {EDGES[LATE]} to "
        f"{EDGES[LATE + 1]:,} bytes minus after {EDGES[EARLY]} to {EDGES[EARLY + 1]}; 95 % intervals count passages"
    )
    for each in lines:
        print_line(console, each)


def _read(
    model: ExaminedModel, passages: list[str], request: TogetherRequest, progress: ProgressListener
) -> Reader:
    trained = load_trained(model.folder, request.workers.threads)
    curve = reading_curve(
        passages,
        bits_of_network(trained.model, trained.tokenizer),
        report_to(progress, f"reading by {model.name}"),
    )
    return Reader(model.name, curve, model.folder, model.note)


def _line(text: NamedText, readers: list[Reader]) -> str:
    curve = readers[0].curve
    return (
        f"text: {text.name}; read: {len(curve.sizes)} passages of {int(curve.sizes.sum()):,} bytes from its held-out "
        f"part; n-gram: order {text.counting.order}, counted from the other {text.corpus.num_bytes('train'):,} bytes"
    )


def _to_json(readers: list[Reader], about: dict[str, Any]) -> dict[str, Any]:
    first, *others = readers
    return {
        "text": about,
        "passages": len(first.curve.sizes),
        "num_bytes": int(first.curve.sizes.sum()),
        "commit": git_commit(),
        "readers": [
            {
                "name": reader.name,
                "checkpoint": None if reader.folder is None else str(reader.folder),
                "note": reader.note,
                **reader.curve.to_json(),
            }
            for reader in readers
        ],
        "differences": [
            {
                "reader": reader.name,
                "first": first.name,
                **estimate_to_json(difference(reader.curve, first.curve)),
            }
            for reader in others
        ],
    }


def table_of(readers: list[Reader]) -> NamedTable:
    """Make a table with a row for each reader."""
    headings = (
        "bits per byte (95 %)",
        "difference (95 %)",
        *(f"from {edge:,}" for edge in EDGES),
        "gain (95 %)",
    )
    first = readers[0].curve
    rows = []
    for at, reader in enumerate(readers):
        curve = reader.curve
        cells = [
            _with_interval(curve.whole),
            "" if at == 0 else _with_interval(difference(curve, first), "+.3f"),
            *("" if estimate is None else f"{estimate.value:.3f}" for estimate in curve.bins),
            "?" if curve.gain is None else _with_interval(curve.gain, "+.3f"),
        ]
        rows.append((Text(shown(reader.name)), list(map(Text, cells))))
    return NamedTable("reader", [Column(heading, right=True, wraps=True) for heading in headings], rows)


def _with_interval(estimate: Estimate, form: str = ".3f") -> str:
    low, high = estimate.interval.low, estimate.interval.high
    return f"{estimate.value:{form}} ({low:{form}} to {high:{form}})"
