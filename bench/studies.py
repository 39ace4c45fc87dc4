"""Run the studies of the package, and write their results into docs/studies.md.

    python bench/studies.py                  # about half an hour on two cores
    python bench/studies.py grokking         # only this one

All figures come from the records of the runs.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np

from etude.data.studies.modular import MODULUS
from etude.data.studies.repeats import CHARACTERS, LONGEST, SHORTEST
from etude.device import available_cores
from etude.evaluate.examined_run import ExaminedRun
from etude.evaluate.loss_plot.plot import THEMES
from etude.evaluate.network_answerer import ModelAnswerer
from etude.evaluate.questions import questions_for
from etude.evaluate.records import ProbeRecord, read_records
from etude.pretrained.load_model import load_trained
from etude.run.checkpoints import find_checkpoint
from etude.run.history import RunHistory
from etude.run.record import RunRecord
from harness import markdown_table, put_block

DOCS = Path(__file__).parent.parent / "docs"
SEEDS = (1337, 1338, 1339)
FIRST_DRAWN = 100
NUM_ITEMS = 256


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "studies", nargs="*", default=list(STUDIES), metavar="STUDY", help=" or ".join(STUDIES)
    )
    for name in parser.parse_args().studies:
        with tempfile.TemporaryDirectory(prefix="etude-bench-") as folder:
            put_block(DOCS / "studies.md", name, STUDIES[name](Path(folder)))


def induction(folder: Path) -> str:
    """Train two layers over seeds, and one layer, which cannot learn induction. Returns the section of the page."""
    runs = trained(folder, "induction", "two-layers", ("one-layer", "model.num_hidden_layers=1"))
    for dark, name in ((False, "induction"), (True, "induction-dark")):
        look = ["--dark"] if dark else []
        etude(folder, "plot", *map(str, runs), "--out", str(DOCS / "images" / f"{name}.png"), *look)
        (DOCS / "images" / f"{name}.svg").unlink()
    for run in (runs[0], runs[-1]):
        etude(folder, "eval", str(run), "--steps", "all")
    histories = [RunRecord.open(run).history for run in runs]
    knows = math.log(len(CHARACTERS))
    return "\n\n".join(
        [
            f"{minutes(runs)} Knowing the characters and nothing else "
            f"costs ln {len(CHARACTERS)} = {knows:.3f} nats per character. A model that also knew every second half, "
            f"and where it begins, would reach {half(knows):.3f} nats per token.",
            markdown_table(
                ["run", "steepest fall", "before it", "after it", "at the end", "likelier after its copy"],
                [
                    [*fall(history), f"{preference(run):.2f}"]
                    for run, history in zip(runs, histories, strict=True)
                ],
            ),
            "The last column: by how many nats per character, on average, a random string is likelier after its first "
            "copy than after an anagram of it.",
            "What comes next in a random string that it has seen once (`etude eval --steps all`; chance 0.500):",
            answers(runs[0], runs[-1]),
        ]
    )


def grokking(folder: Path) -> str:
    """Train with weight decay over seeds, and once without, which never generalises. Returns the page's section."""
    runs = trained(folder, "grokking", "decay", ("no-decay", "train.weight_decay=0"))
    for run in runs:
        etude(folder, "eval", str(run), "--steps", "all")
    etude(folder, "emergence", *map(str, runs[:-1]), "--report", "report")
    answered = [{on: right(run, on) for on in ("seen in training", "never seen")} for run in runs]
    for dark in (False, True):
        draw(answered, [run.name for run in runs], dark)
    steps = [step for step in answered[0]["never seen"] if step >= 200 and step % 400 == 0]
    verdicts = json.loads((folder / "report" / "verdicts.json").read_text())["abilities"]
    return "\n\n".join(
        [
            f"{minutes(runs)} The share of right answers ({MODULUS} are possible) to 236 sums seen in training, and to "
            "236 never seen:",
            markdown_table(
                ["step", *(f"{run.name}, {on}" for run in runs for on in ("seen", "never"))],
                [
                    [step, *(f"{value[step]:.3f}" for of in answered for value in of.values())]
                    for step in steps
                ],
            ),
            "`etude emergence` of the three seeds with weight decay:",
            "\n".join(
                f"- {ability['ability']}: {ability['verdict']} ({ability['numbers']})" for ability in verdicts
            ),
        ]
    )


def draw(answered: Sequence[Mapping[str, Mapping[int, float]]], names: Sequence[str], dark: bool) -> None:
    """Draw the share of right answers over steps: dashed for sums seen in training, solid for those never seen."""
    from matplotlib.figure import Figure

    theme = THEMES["dark" if dark else "light"]
    figure = Figure(figsize=(8, 4), facecolor=theme.background)
    axes = figure.add_subplot(facecolor=theme.background)
    for of, name, colour in zip(answered, names, theme.curves, strict=False):
        for on, dashes in (("seen in training", "--"), ("never seen", "-")):
            steps = [step for step in of[on] if step >= FIRST_DRAWN]
            axes.plot(steps, [of[on][step] for step in steps], dashes, color=colour, label=f"{name}, {on}")
    axes.axhline(1 / MODULUS, color=theme.faint, linewidth=0.8, label="chance")
    axes.set(xscale="log", xlabel="step", ylabel="right answers")
    axes.set_xticks([100, 200, 400, 1000, 2000, 4000, 8000], minor=False)
    axes.xaxis.set_major_formatter(lambda step, _: f"{step:,.0f}")
    axes.minorticks_off()
    axes.grid(color=theme.grid, linewidth=0.6)
    axes.tick_params(colors=theme.faint, labelsize=9)
    for spine in axes.spines.values():
        spine.set_color(theme.grid)
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set_color(theme.ink)
    axes.legend(
        fontsize=8, labelcolor=theme.ink, facecolor=theme.background, edgecolor="none", loc="upper left"
    )
    figure.tight_layout()
    name = "grokking-dark.png" if dark else "grokking.png"
    figure.savefig(DOCS / "images" / name, dpi=160, facecolor=theme.background, metadata={"Software": None})


def trained(folder: Path, recipe: str, name: str, control: tuple[str, str]) -> list[Path]:
    """Train the recipe over the seeds, and once with the control's setting. Returns the run folders in that order."""
    names = [f"{name}-{seed}" for seed in SEEDS]
    for seed, run in zip(SEEDS, names, strict=True):
        etude(folder, "train", "--recipe", recipe, "--seed", str(seed), "--name", run)
    etude(folder, "train", "--recipe", recipe, "--set", control[1], "--name", control[0])
    return [folder / "runs" / run for run in (*names, control[0])]


def minutes(runs: Sequence[Path]) -> str:
    """Return the mean minutes of training, as a sentence."""
    mean = sum(RunRecord.open(run).history.steps[-1].wall_time for run in runs) / len(runs) / 60
    cores = "one core" if available_cores() == 1 else f"{available_cores()} cores"
    return f"{mean:.1f} minutes of training each on average, on {cores}."


def right(run: Path, condition: str) -> dict[int, float]:
    """Return the share of right answers, by step."""
    records = [record for record in read_records(run).records if record.condition == condition]
    records.sort(key=lambda record: record.where.step)
    return {record.where.step: record.model.accuracy.value for record in records}


def half(knows: float) -> float:
    """Return nats per token where the second of two equal halves costs nothing, and a token ends each text."""
    mean = (SHORTEST + LONGEST) / 2
    return mean * knows / (2 * mean + 1)


def fall(history: RunHistory) -> Sequence[str]:
    """Return a table row: the steepest fall of the validation loss between evenly spaced evaluations after step 50."""
    evals = [event for event in history.evals if event.step >= 50 and event.step % 25 == 0]
    before, after = max(pairwise(evals), key=lambda pair: pair[0].val_loss - pair[1].val_loss)
    return [
        history.name,
        f"steps {before.step} to {after.step}",
        f"{before.val_loss:.3f}",
        f"{after.val_loss:.3f}",
        f"{history.evals[-1].val_loss:.3f}",
    ]


def preference(run: Path) -> float:
    """Return the last checkpoint's mean gain on the induction probe, in nats per unit, without the threshold."""
    examined = ExaminedRun.of(run)
    assert examined is not None
    trained = load_trained(find_checkpoint(run))
    context = trained.model.config.max_position_embeddings
    probes = questions_for(examined.data, ("text",), NUM_ITEMS, context).probes
    items = next(probe.items for probe in probes if probe.name == "induction")
    scores = ModelAnswerer(trained.model, trained.tokenizer).answer(items)
    gains = [
        (score.logprobs[item.right] - score.logprobs[1 - item.right]) / score.units[item.right]
        for item, score in zip(items, scores, strict=True)
    ]
    return float(np.mean(gains))


def answers(two: Path, one: Path) -> str:
    rows = []
    of_one = {record.where.step: record for record in induction_records(one)}
    for record in induction_records(two):
        other = of_one.get(record.where.step)
        if record.where.step % 100 and record.where.step > 100:
            continue
        counting = record.counting.accuracy.value if record.counting else math.nan
        rows.append(
            [
                str(record.where.step),
                f"{record.model.accuracy.value:.3f}",
                "" if other is None else f"{other.model.accuracy.value:.3f}",
                f"{counting:.3f}",
            ]
        )
    return markdown_table(["step", "two layers", "one layer", "n-gram"], rows)


def induction_records(run: Path) -> list[ProbeRecord]:
    """Return the records of the induction probe, by step."""
    records = [record for record in read_records(run).records if record.probe == "induction"]
    return sorted(records, key=lambda record: record.where.step)


def etude(folder: Path, *arguments: str) -> None:
    """Run an ``etude`` command in ``folder``."""
    more = ["--no-studio"] if arguments[0] == "train" else []
    subprocess.run(
        [sys.executable, "-m", "etude", *arguments, *more], cwd=folder, check=True, stdout=subprocess.DEVNULL
    )
    print(" ".join(arguments), file=sys.stderr)


STUDIES = {"induction": induction, "grokking": grokking}

if __name__ == "__main__":
    main()
