"""Run the studies that come with the package, and write what came of them into docs/studies.md.

    python bench/studies.py                  # about ten minutes on two cores

Wants nothing. The loss curves are drawn by `etude plot`, all figures come from the runs' own records.
"""

from __future__ import annotations

import argparse
import math
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from etude.data.studies.repeats import CHARACTERS, LONGEST, SHORTEST
from etude.evaluate.records import ProbeRecord, read_records
from etude.workflow.history import RunHistory
from harness import markdown_table, put_block

DOCS = Path(__file__).parent.parent / "docs"
SEEDS = (1337, 1338, 1339)
ONE_LAYER = ["--set", "model.num_hidden_layers=1"]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="etude-bench-") as folder:
        put_block(DOCS / "studies.md", "induction", induction(Path(folder)))


def induction(folder: Path) -> str:
    """Two layers over seeds, and one layer, which cannot do it."""
    for seed in SEEDS:
        etude(folder, "train", "--recipe", "induction", "--seed", str(seed), "--name", f"two-layers-{seed}")
    etude(folder, "train", "--recipe", "induction", *ONE_LAYER, "--name", "one-layer")
    runs = [folder / "runs" / name for name in (*(f"two-layers-{seed}" for seed in SEEDS), "one-layer")]
    for dark, name in ((False, "induction"), (True, "induction-dark")):
        look = ["--dark"] if dark else []
        etude(folder, "plot", *map(str, runs), "--out", str(DOCS / "images" / f"{name}.png"), *look)
        (DOCS / "images" / f"{name}.svg").unlink()
    for run in (runs[0], runs[-1]):
        etude(folder, "eval", str(run), "--steps", "all")
    histories = [RunHistory.load(run) for run in runs]
    minutes = sum(history.steps[-1].wall_time for history in histories) / len(histories) / 60
    knows = math.log(len(CHARACTERS))
    return "\n\n".join(
        [
            f"{minutes:.1f} minutes of training each, in the mean. Knowing the characters and nothing else costs ln "
            f"{len(CHARACTERS)} = {knows:.3f} nats a character; whoever also knew every second half, and where it "
            f"begins, would be at {half(knows):.3f} nats a token.",
            markdown_table(
                ["run", "steepest fall", "before it", "after it", "at the end"],
                [fall(one) for one in histories],
            ),
            "What comes next in a random string that it has seen once (`etude eval --steps all`; chance 0.500):",
            answers(runs[0], runs[-1]),
        ]
    )


def half(knows: float) -> float:
    """Nats a token where the second of two equal halves costs nothing, and a token ends each text."""
    mean = (SHORTEST + LONGEST) / 2
    return mean * knows / (2 * mean + 1)


def fall(history: RunHistory) -> Sequence[str]:
    """Between which evaluations, evenly spaced ones, the validation loss fell most behind the first hundred steps."""
    evals = [one for one in history.evals if one.step >= 50 and one.step % 25 == 0]
    before, after = max(pairwise(evals), key=lambda pair: pair[0].val_loss - pair[1].val_loss)
    return [
        history.name,
        f"steps {before.step} to {after.step}",
        f"{before.val_loss:.3f}",
        f"{after.val_loss:.3f}",
        f"{history.evals[-1].val_loss:.3f}",
    ]


def answers(two: Path, one: Path) -> str:
    rows = []
    of_one = {record.where.step: record for record in asked(one)}
    for record in asked(two):
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


def asked(run: Path) -> list[ProbeRecord]:
    found = [record for record in read_records(run).records if record.probe == "induction"]
    return sorted(found, key=lambda record: record.where.step)


def etude(folder: Path, *words: str) -> None:
    more = ["--no-studio"] if words[0] == "train" else []
    subprocess.run(
        [sys.executable, "-m", "etude", *words, *more], cwd=folder, check=True, stdout=subprocess.DEVNULL
    )
    print(" ".join(words), file=sys.stderr)


if __name__ == "__main__":
    main()
