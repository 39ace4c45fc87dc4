"""Write docs/what-a-published-model-can-do.md: a published model beside one's own run, on the same items.

    etude train
    python bench/capability_page.py runs/primer smol --text ../shared/data/speeches --blimp ../shared/data/blimp.zip

No figure is typed by hand. Each measurement is a file in --measured, and one that is there already is not repeated, so
that an interrupted script resumes. What is skipped (--skip, or BLiMP without its file) is said on the page.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from etude.device import git_commit
from etude.evaluate.blimp import blimp_probe, read_blimp
from etude.evaluate.items import Probe
from etude.evaluate.named_text import named_text
from etude.evaluate.questions import PROBE_SEED, Questions
from etude.evaluate.reading_curve import EARLY, EDGES, LATE
from etude.evaluate.resumable_parts import Workers
from etude.evaluate.task_probes import task_probes
from etude.evaluate.together import Remembered, answers_of, open_models, scratch_folder
from etude.evaluate.together_output import Together
from etude.model.cost import count_parameters
from etude.pretrained.facts import licence_of, origin_of, rounding_of
from etude.run.record import RunRecord
from harness import markdown_table

PAGE = Path(__file__).resolve().parent.parent / "docs" / "what-a-published-model-can-do.md"
SHOTS = ("few-shot cipher", "key-value recall")
"""Probes of the suite tasks that are answered from examples or lists in the text itself."""
SKIPPED = "Skipped: its data, or the time for it, was not available where this page was made."
Content = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("own", type=Path, help="a run")
    parser.add_argument("published", type=Path, help="a model folder")
    parser.add_argument("--text", required=True)
    parser.add_argument("--blimp", type=Path)
    parser.add_argument("--items", type=int, default=16)
    parser.add_argument("--shots", type=int, default=24, help="items of each probe from the suite tasks")
    parser.add_argument("--pairs", type=int, default=3, help="of each paradigm of BLiMP")
    parser.add_argument(
        "--skip", action="append", default=[], help="reading, shots or blimp; the page says so"
    )
    parser.add_argument("--measured", type=Path, default=Path("measured"))
    parser.add_argument("--threads", type=int, default=1)
    chosen = parser.parse_args()
    chosen.measured.mkdir(parents=True, exist_ok=True)
    models = [str(chosen.own), str(chosen.published)]
    about = ["--text", chosen.text, "--threads", str(chosen.threads), "--json"]
    probes = ["eval", *models, "--suite", "text", "--items", str(chosen.items), *about]
    measures: dict[str, Callable[[], Content]] = {
        "text": lambda: etude(probes),
        "reading": lambda: etude(["eval", *models, *about]),
    }
    if chosen.blimp is not None and chosen.blimp.exists():
        measures["blimp"] = lambda: asked(chosen, [paradigms_as_one(chosen.blimp, chosen.pairs)])
    measures["shots"] = lambda: asked(chosen, shots(chosen.shots))
    parts = {
        name: measured(chosen.measured / f"{name}.json", measure)
        for name, measure in measures.items()
        if name not in chosen.skip
    }
    PAGE.write_text(page(chosen, parts))


def measured(file: Path, measure: Callable[[], Content]) -> Content:
    """Return what the file holds, or measure it and write the file. Give a new folder for other models or texts."""
    if not file.is_file():
        content = measure()
        file.write_text(json.dumps(content))
    content = json.loads(file.read_text())
    assert isinstance(content, dict)
    return content


def etude(arguments: Sequence[str]) -> Content:
    """Return what a command of etude prints as JSON."""
    command = [sys.executable, "-m", "etude", *arguments]
    content = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    assert isinstance(content, dict)
    return content


def shots(items: int) -> list[Probe]:
    return [probe for probe in task_probes(PROBE_SEED, items) if probe.name in SHOTS]


def paradigms_as_one(file: Path, pairs: int) -> Probe:
    """Return the first pairs of every paradigm of BLiMP as one probe; pairs of one paradigm count together."""
    items = []
    for paradigm in read_blimp(file):
        probe = blimp_probe(replace(paradigm, pairs=paradigm.pairs[:pairs]))
        items += [replace(item, group=paradigm.name) for item in probe.items]
    return replace(probe, name="BLiMP", condition="", items=tuple(items))


def asked(chosen: argparse.Namespace, probes: Sequence[Probe]) -> Content:
    """Put probes to both models, with n-gram counts of the text and random weights beside them."""
    unclaimed = tuple(replace(probe, held_out="") for probe in probes)
    questions = Questions({"asked": unclaimed}, {})
    workers = Workers(threads=chosen.threads)
    results = []
    with named_text([chosen.text]) as text:
        counting = Remembered(text.counting)
        for model in open_models([chosen.own, chosen.published]):
            with scratch_folder(model.folder, questions.hash) as scratch:
                results.append(answers_of(model, questions, counting, scratch, workers, lambda *_: None))
        return Together(results, questions, text.to_json(), [text.line], git_commit()).to_json()


def page(chosen: argparse.Namespace, parts: dict[str, Content]) -> str:
    """Return the whole page."""
    text = parts["text"]
    items = text["models"][0]["probes"][0]["num_items"]
    source = text["probes_from"]
    blocks = [
        "# What a published model can do that a small one cannot",
        "Written by `bench/capability_page.py`, which runs the commands; no figure was typed by hand. "
        f"{datetime.now(UTC).date()}, written at commit `{(git_commit() or '')[:10]}`, {os.cpu_count()} cores.",
        "\n".join(f"- {line}" for line in model_lines(chosen)),
        f"Text: `{chosen.text}` (public domain; not a part of the project). Probes are made from "
        f"{source['probed_bytes']:,} bytes of it; the n-gram null is counted from its other "
        f"{source['counted_bytes']:,} bytes, at order {source['order']}. Etude's run was not trained on it. **What the "
        "published model has read is not known**: it may have read this very text, and a right answer may be "
        "remembered.",
        "## What this page cannot show",
        "An ability is called emergent when it appears suddenly, or unforeseen, as models grow or train. One finished "
        "model has no steps and no sizes, so **emergence itself cannot be seen in it**: only that an ability is there, "
        "and that a smaller model lacks it. The two models differ in size, text, length of training and tokenizer "
        "together, so no difference here is due to size alone. For curves over steps, sizes and seeds with verdicts "
        "of known error rates, see [emergence.md](emergence.md). And a model of 135 M parameters in 4 bits is a small "
        "one: what it lacks, a larger one may have.",
        "## Probes from the text",
        f"`etude eval {chosen.own} {chosen.published} --suite text --text {chosen.text} --items {chosen.items}`",
        f"At most {items} items of each probe, so the intervals are wide; items of one document count as one. "
        + luck(text),
        table(text),
        conclusions(text),
        *skipped(text),
        "## The in-context curve",
        *reading_blocks(chosen, parts.get("reading")),
        "## Answers from examples and lists in the text",
        *shot_blocks(parts.get("shots")),
        "## BLiMP",
        *blimp_blocks(chosen, parts.get("blimp")),
    ]
    return "\n\n".join(blocks) + "\n"


def reading_blocks(chosen: argparse.Namespace, reading: Content | None) -> list[str]:
    if reading is None:
        return [SKIPPED]
    return [
        f"`etude eval {chosen.own} {chosen.published} --text {chosen.text}`",
        f"Bits per byte on {reading['passages']} passages ({reading['num_bytes']:,} bytes of the held-out part), by "
        "how many bytes of the passage came before. Counting reads the last few bytes only: its curve shows how hard "
        f"the text itself is at each place. Gain: after {EDGES[LATE]:,} to {EDGES[LATE + 1]:,} bytes minus after "
        f"{EDGES[EARLY]} to {EDGES[EARLY + 1]}, in the same passages; negative if more context helps.",
        curve_table(reading),
    ]


def shot_blocks(content: Content | None) -> list[str]:
    if content is None:
        return [SKIPPED]
    return [
        "Probes of the suite `tasks`: what a letter becomes by the rule of 1 to 8 examples, and the value of a key in "
        "a list. Etude's run was not trained on `builtin:tasks`. " + luck(content),
        table(content),
        conclusions(content),
    ]


def model_lines(chosen: argparse.Namespace) -> list[str]:
    lines = []
    for model in open_models([chosen.own, chosen.published]):
        size = f"{count_parameters(model.config).total:,} parameters"
        if model.run is not None:
            record = RunRecord.open(model.run.folder)
            sources = ", ".join(model.run.settings.data.sources)
            lines.append(
                f"**{model.name}**, Etude's own run: {size}, trained on `{sources}`, stopped at step {model.step} of "
                f"{record.settings.train.steps:,}, {model.step * tokens_per_step(record):,} tokens"
            )
            continue
        rounding = rounding_of(model.folder)
        source = Path(str(origin_of(model.folder).get("source", ""))).name
        lines.append(
            f"**{model.name}**, published{f' (`{source}`)' if source else ''}: {model.config.model_type}, {size}, "
            f"licence {licence_of(model.folder) or 'not stated'}"
            + (f", weights rounded when its file was made ({rounding})" if rounding else "")
        )
    return lines


def tokens_per_step(record: RunRecord) -> int:
    train = record.settings.train
    return train.batch_rows * train.context


def table(content: Content) -> str:
    first, second = content["models"]
    differences = {entry["probe"]: entry for entry in content["differences"]}
    rows = []
    for ours, theirs in zip(first["probes"], second["probes"], strict=True):
        title = f"{ours['probe']}, {ours['condition']}" if ours["condition"] else ours["probe"]
        rows.append(
            [
                title,
                share(ours["accuracy"]),
                share(theirs["accuracy"]),
                signed(differences[title]),
                f"{ours['chance']:.2f}",
                null(ours["counting"]),
                null(ours["random"]),
                null(theirs["random"]),
            ]
        )
    names = [model["name"] for model in content["models"]]
    header = [
        "ability",
        *(f"{name}, right (95 %)" for name in names),
        "difference (95 %)",
        "chance",
        "n-gram",
    ]
    return markdown_table([*header, *(f"random, shape of {name}" for name in names)], rows)


def conclusions(content: Content) -> str:
    """Name what the second model has beyond chance and counting, and where it is certainly ahead of the first."""
    first, second = content["models"]
    beyond = [title_of(probe) for probe in second["probes"] if probe["label"] == "beyond counting"]
    ours = [title_of(probe) for probe in first["probes"] if probe["label"] == "beyond counting"]
    ahead = [entry["probe"] for entry in content["differences"] if entry["low"] > 0]
    behind = [entry["probe"] for entry in content["differences"] if entry["high"] < 0]
    notes = "; ".join(note for note in second["notes"] if "random" in note)
    return (
        f"Above chance, with counting and random weights at chance: {second['name']}: **{listed(beyond)}**; "
        f"{first['name']}: **{listed(ours)}**. {second['name']} is ahead, its whole interval above zero: "
        f"{listed(ahead)}. It is behind: {listed(behind)}."
        + (f" Null of {second['name']}: {notes}." if notes else "")
    )


def luck(content: Content) -> str:
    count = len(content["models"][0]["probes"])
    return f"If every one of {count} abilities were at chance, {0.025 * count:.1f} would be above it by luck."


def skipped(content: Content) -> list[str]:
    return [f"Skipped: {title}: {why}." for title, why in content["left_out"].items()]


def curve_table(reading: Content) -> str:
    differences = {entry["reader"]: entry for entry in reading["differences"]}
    rows = []
    for reader in reading["readers"]:
        bins = {entry["from"]: entry["value"] for entry in reader["by_bytes_read"]}
        difference = differences.get(reader["name"])
        rows.append(
            [
                reader["name"],
                interval(reader["bits_per_byte"]),
                "" if difference is None else interval(difference, "+.2f"),
                *(f"{bins[edge]:.2f}" if edge in bins else "" for edge in EDGES),
                "too few" if reader["gain"] is None else interval(reader["gain"], "+.2f"),
            ]
        )
    header = ["reader", "bits per byte (95 %)", "difference", *(f"from {edge:,}" for edge in EDGES)]
    return markdown_table([*header, "gain (95 %)"], rows)


def blimp_blocks(chosen: argparse.Namespace, content: Content | None) -> list[str]:
    if content is None:
        return [SKIPPED]
    num = content["models"][0]["probes"][0]["num_items"]
    return [
        f"The first {chosen.pairs} pairs of each of the 67 paradigms (Warstadt et al. 2020, CC BY 4.0), {num} in all, "
        "by the mean log-probability per token; a tie is one half. Intervals count paradigms. Words that "
        f"{content['models'][0]['name']} has never read are included, so its score is not about grammar alone.",
        table(content),
    ]


def title_of(probe: Content) -> str:
    return f"{probe['probe']}, {probe['condition']}" if probe["condition"] else str(probe["probe"])


def listed(names: Sequence[str]) -> str:
    return "; ".join(names) or "none"


def share(estimate: Content) -> str:
    return f"{estimate['value']:.2f} ({estimate['low']:.2f} to {estimate['high']:.2f})"


def signed(estimate: Content) -> str:
    return f"{estimate['value']:+.2f} ({estimate['low']:+.2f} to {estimate['high']:+.2f})"


def interval(estimate: Content, form: str = ".2f") -> str:
    if estimate["low"] is None:
        return f"{estimate['value']:{form}}"
    return f"{estimate['value']:{form}} ({estimate['low']:{form}} to {estimate['high']:{form}})"


def null(measured: Content | None) -> str:
    return "?" if measured is None else f"{measured['accuracy']['value']:.2f}"


if __name__ == "__main__":
    main()
