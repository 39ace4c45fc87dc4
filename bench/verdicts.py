"""How often a verdict is right: 200 made-up studies of each truth, and what the word depends on.

    python bench/verdicts.py

Each study has 3 seeds, 256 items and 12 to 20 checkpoints on a logarithmic grid (`etude.evaluate.emergence.simulated`
says how items and networks scatter). The rules of the verdict were chosen on the studies of --seed 1; the result is of
other studies. Beside the table: how often "emerged" is said of rises that take a given factor in x (smooth by the rule
from 4 on, sharp up to 2), with how many items, and how often the loss law's interval holds the loss of a new run of
four times the largest size.

Results: bench/results/verdicts.json
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from etude.evaluate.emergence.curves import Curve
from etude.evaluate.emergence.law import EndOfRun, fit_law
from etude.evaluate.emergence.simulated import RIGHT, Truth, error_rates
from etude.evaluate.emergence.verdict import Word, verdict
from etude.evaluate.statistics import wilson
from harness import RESULTS, markdown_table, write_result

FACTORS = (1.5, 2.0, 2.5, 3.0, 4.0, 6.0, 8.0, 16.0, 64.0)
ITEMS = (64, 1024)
EXPONENT, FLOOR = 0.35, 1.4


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--studies", type=int, default=200, help="of each truth")
    parser.add_argument("--seed", type=int, default=2)
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    begin, studies, seed = time.process_time(), arguments.studies, arguments.seed
    truths = {truth.value: of_truth(truth, studies, seed) for truth in Truth}
    seconds = (time.process_time() - begin) / studies / len(Truth)
    content = {
        "studies_of_each_truth": studies,
        "seed": seed,
        "cpu_seconds_a_study": round(seconds, 4),
        "truths": truths,
        "emerged_by_rise_factor": {str(factor): of_factor(factor, studies // 2, seed) for factor in FACTORS},
        "right_by_items": {str(items): of_items(items, studies // 2, seed) for items in ITEMS},
        "loss_law": [of_law(sizes, seeds, studies, seed) for sizes, seeds in ((4, 3), (4, 1), (6, 1))],
    }
    file = write_result("verdicts", content, threads=1, folder=arguments.out)
    words = list(Word)
    print(
        markdown_table(
            ["planted", *words],
            [[name, *(found["said"].get(word, 0) for word in words)] for name, found in truths.items()],
        )
    )
    print(markdown_table(["rise over a factor of", "said to have emerged"], emerged_rows(content)))
    print(file)


def emerged_rows(content: dict[str, Any]) -> list[list[object]]:
    return [[factor, share] for factor, share in content["emerged_by_rise_factor"].items()]


def word_of(curves: Sequence[Curve]) -> Word:
    return verdict(curves).word


def of_truth(truth: Truth, studies: int, seed: int) -> dict[str, Any]:
    """What was said of it, and the rate of errors with its interval."""
    said = error_rates(word_of, truth, studies, seed)
    wrong = studies - said.get(RIGHT[truth], 0)
    interval = wilson(wrong, studies)
    return {
        "right": RIGHT[truth].value,
        "said": {word.value: count for word, count in sorted(said.items())},
        "error_rate": wrong / studies,
        "error_rate_interval": [round(interval.low, 4), round(interval.high, 4)],
    }


def of_factor(factor: float, studies: int, seed: int) -> float:
    """The share of sigmoid rises over this factor that are said to have emerged."""
    return (
        error_rates(word_of, Truth.SMOOTH, studies, seed, rise_factor=factor).get(Word.EMERGED, 0) / studies
    )


def of_items(items: int, studies: int, seed: int) -> dict[str, float]:
    """The share of right verdicts with more or fewer items."""
    return {
        truth.value: error_rates(word_of, truth, studies, seed, num_items=items).get(RIGHT[truth], 0)
        / studies
        for truth in Truth
    }


def of_law(sizes: int, seeds: int, studies: int, seed: int) -> dict[str, Any]:
    """How often the 95 % interval holds a new run, and how wide and how far off it is; noise from 0.2 to 1 %."""
    held, widths, errors = 0, [], []
    for number in range(studies):
        generator = np.random.default_rng([seed, sizes, seeds, number])
        noise = float(generator.uniform(0.002, 0.01))

        def loss(size: float, generator: np.random.Generator = generator, noise: float = noise) -> float:
            return (FLOOR + 2 * (size / 1e5) ** -EXPONENT) * float(np.exp(generator.normal(0, noise)))

        grid = [1e5 * 2**at for at in range(sizes) for _ in range(seeds)]
        law = fit_law([EndOfRun(size, 20 * size, loss(size)) for size in grid], draws=200)
        told, new = law.predict(grid[-1] * 4), loss(grid[-1] * 4)
        held += told.interval.holds(new)
        widths.append((told.interval.high - told.interval.low) / 2 / told.value)
        errors.append(abs(told.value / new - 1))
    return {
        "sizes": sizes,
        "seeds": seeds,
        "held": held / studies,
        "median_half_width": round(float(np.median(widths)), 4),
        "median_error": round(float(np.median(errors)), 4),
    }


if __name__ == "__main__":
    main()
