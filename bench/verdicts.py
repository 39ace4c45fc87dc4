"""Measure how often a verdict is right: on 200 simulated studies of each planted truth.

    python bench/verdicts.py

Each study has 3 seeds, 12 to 20 checkpoints on a logarithmic grid and 256 items, or 64, the default of `etude sweep`
(`etude.emergence.simulated` defines how items and networks scatter). The rules of the verdict were chosen on the
studies of --seed 1; the result is of other studies. Two further tables show the verdicts on rises that take a given
factor in x, and how often the interval of the loss law holds the loss of a new run of four times the largest size. The
verdict "undecided" is counted separately, neither right nor wrong.

Results: bench/results/verdicts.json, and the tables in docs/emergence.md.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from etude.emergence.curves import Curve
from etude.emergence.law import EndOfRun, fit_law
from etude.emergence.simulated import RIGHT, Truth, error_rates
from etude.emergence.verdict import Word, verdict
from etude.evaluate.statistics import wilson
from harness import RESULTS, markdown_table, put_block, write_result

PAGE = Path(__file__).parent.parent / "docs" / "emergence.md"
FACTORS = (1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 16.0, 64.0)
ITEMS = (256, 64)
GREW = (Word.SMOOTH, Word.METRIC)
EXPONENT, FLOOR = 0.35, 1.4


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--studies", type=int, default=200, help="number of studies of each truth")
    parser.add_argument("--seed", type=int, default=3)
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    begin, studies, seed = time.process_time(), arguments.studies, arguments.seed
    truths = {
        str(items): {truth.value: of_truth(truth, items, studies, seed) for truth in Truth} for items in ITEMS
    }
    seconds = (time.process_time() - begin) / studies / len(Truth) / len(ITEMS)
    content = {
        "studies_of_each_truth": studies,
        "seed": seed,
        "cpu_seconds_a_study": round(seconds, 4),
        "truths_by_items": truths,
        "said_by_items_and_rise_factor": {
            str(items): {str(factor): of_factor(factor, items, studies, seed) for factor in FACTORS}
            for items in ITEMS
        },
        "loss_law": [of_law(sizes, seeds, studies, seed) for sizes, seeds in ((4, 3), (4, 1), (6, 1))],
    }
    file = write_result("verdicts", content, threads=1, folder=arguments.out)
    tables = f"{truth_table(content)}\n\n{factor_table(content)}"
    if arguments.out == RESULTS:
        put_block(PAGE, "verdict-rates", tables)
    print(tables, file, sep="\n")


def truth_table(content: dict[str, Any]) -> str:
    rows = []
    for items, truths in content["truths_by_items"].items():
        for name, rates in truths.items():
            low, high = rates["error_rate_interval"]
            wrong = ", ".join(
                f"{count} “{word}”"
                for word, count in rates["said"].items()
                if word not in (rates["right"], Word.UNDECIDED)
            )
            rate = f"{rates['error_rate']:.1%} ({low:.1%} to {high:.1%})"
            undecided = f"{rates['undecided_rate']:.1%}"
            rows.append([name, items, rates["right"], rate, undecided, wrong or "none"])
    return markdown_table(
        ["planted", "items", "right verdict", "wrong (95 %)", "undecided", "wrong verdicts"], rows
    )


def factor_table(content: dict[str, Any]) -> str:
    """Return a table of the verdicts on rises over a factor, in shares of the studies."""
    rows = []
    for items, factors in content["said_by_items_and_rise_factor"].items():
        for factor, verdicts in factors.items():
            grew = [verdicts.get(word, 0) for word in GREW]
            known = [verdicts.get(Word.EMERGED, 0), *grew, verdicts.get(Word.UNDECIDED, 0)]
            total = sum(verdicts.values())
            counts = [*known, total - sum(known)]
            rows.append([f"{float(factor):g}", items, *(f"{count / total:.1%}" for count in counts)])
    heads = ["emerged", *GREW, "undecided", "anything else"]
    return markdown_table(["rise over a factor of", "items", *heads], rows)


def word_of(curves: Sequence[Curve]) -> Word:
    return verdict(curves).word


def of_truth(truth: Truth, items: int, studies: int, seed: int) -> dict[str, Any]:
    """Return the verdicts on studies of a truth, and their error rate with its interval."""
    verdicts = error_rates(word_of, truth, studies, seed, num_items=items)
    undecided = verdicts.get(Word.UNDECIDED, 0)
    wrong = studies - verdicts.get(RIGHT[truth], 0) - undecided
    interval = wilson(wrong, studies)
    return {
        "right": RIGHT[truth].value,
        "said": {word.value: count for word, count in sorted(verdicts.items())},
        "error_rate": wrong / studies,
        "error_rate_interval": [round(interval.low, 4), round(interval.high, 4)],
        "undecided_rate": undecided / studies,
    }


def of_factor(factor: float, items: int, studies: int, seed: int) -> dict[str, int]:
    """Return the verdicts on smooth rises that take this factor in x from 10 % to 90 %."""
    verdicts = error_rates(word_of, Truth.SMOOTH, studies, seed, num_items=items, rise_factor=factor)
    return {word.value: count for word, count in sorted(verdicts.items())}


def of_law(sizes: int, seeds: int, studies: int, seed: int) -> dict[str, Any]:
    """Measure how often the law's 95 % interval holds a new run, its width and its error, with noise of 0.2 to 1 %."""
    held, widths, errors = 0, [], []
    for number in range(studies):
        generator = np.random.default_rng([seed, sizes, seeds, number])
        noise = float(generator.uniform(0.002, 0.01))

        def loss(size: float, generator: np.random.Generator = generator, noise: float = noise) -> float:
            return (FLOOR + 2 * (size / 1e5) ** -EXPONENT) * float(np.exp(generator.normal(0, noise)))

        grid = [1e5 * 2**at for at in range(sizes) for _ in range(seeds)]
        law = fit_law([EndOfRun(size, 20 * size, loss(size)) for size in grid], draws=200)
        predicted, new = law.predict(grid[-1] * 4), loss(grid[-1] * 4)
        held += predicted.interval.holds(new)
        widths.append((predicted.interval.high - predicted.interval.low) / 2 / predicted.value)
        errors.append(abs(predicted.value / new - 1))
    return {
        "sizes": sizes,
        "seeds": seeds,
        "held": held / studies,
        "median_half_width": round(float(np.median(widths)), 4),
        "median_error": round(float(np.median(errors)), 4),
    }


if __name__ == "__main__":
    main()
