"""Measure the cost of checksums and summaries: training with them against the same training without.

    python bench/watching.py                   # both sizes, about half an hour on two cores
    python bench/watching.py --sizes 1M --rounds 9

All train the same Llama with biases on the same random tokens, with the default settings of a run: a checksum of all
parameters every 10 steps, a summary every 50. Contestants take turns of 50 steps in their own processes; the cost is
the ratio of their times per step within each round. It is close to the noise of the machine, so the seconds inside the
tasks are measured as well: their share of a round has little noise, and misses only the effect on the processor's
caches. After every round all contestants must have the same parameters, bit for bit.

Results: bench/results/watching.json
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

from etude_side import flops_per_token
from harness import (
    Contestant,
    Measurements,
    Spread,
    arguments_of,
    interleave,
    markdown_table,
    ratio,
    summary,
    write_result,
)
from throughput import SIZES as THROUGHPUT_SIZES
from throughput import shape_of

SIZES = {"1M": shape_of(128, 4, 4, 1024, rows=8), "12M": THROUGHPUT_SIZES["12M"]}
STEPS, QUICK_STEPS = 50, 5
"""Steps per round: a summary and five checksums."""
OFF, CHECKSUMS, SUMMARIES, BOTH = "neither", "checksums", "summaries", "both"
SETTINGS = {
    OFF: ["train.checksum_every=0", "train.summary_every=0"],
    CHECKSUMS: ["train.summary_every=0"],
    SUMMARIES: ["train.checksum_every=0"],
    BOTH: [],
}


def main() -> None:
    arguments = parse()
    sizes: dict[str, Any] = {}
    for size in arguments.sizes:
        shape = SIZES[size]
        parameters, _ = flops_per_token(shape)
        measured = interleave(contestants_for(size, arguments), arguments.rounds, arguments.threads)
        same = same_parameters(measured)
        sizes[size] = {
            "shape": shape,
            "parameters_without_biases": parameters,
            "steps_a_round": STEPS,
            "times_as_long": {name: ratio(measured, "seconds_per_step", name, OFF) for name in measured},
            "share_inside_the_tasks": summary(measured, "share"),
            "same_parameters": same,
            "rounds": measured,
        }
        print(f"## {size}: {parameters:,} parameters, {shape['rows']} rows of {shape['context']}\n")
        print(table(measured))
        print(f"\nparameters after every round: {'the same, bit for bit' if same else 'NOT THE SAME'}\n")
    name = "quick-watching" if arguments.quick else "watching"
    print(write_result(name, {"sizes": sizes}, threads=arguments.threads, folder=arguments.out))
    if not all(found["same_parameters"] for found in sizes.values()):
        sys.exit("checksums or summaries changed the training")


def parse() -> argparse.Namespace:
    parser = arguments_of(__doc__, rounds=7)
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    return parser.parse_args()


def contestants_for(size: str, arguments: argparse.Namespace) -> list[Contestant]:
    common = [f"device.threads={arguments.threads}"]
    steps = QUICK_STEPS if arguments.quick else STEPS
    if arguments.quick:
        common += ["device.compile=false", "train.checksum_every=5", "train.summary_every=5"]
    return [
        Contestant(
            name,
            "etude_side:watched",
            {"shape": SIZES[size], "steps": steps, "overrides": [*common, *settings]},
        )
        for name, settings in SETTINGS.items()
    ]


def same_parameters(measured: Measurements) -> bool:
    """Return whether all contestants had the same parameters after each round."""
    return all(
        len({result["checksum"] for result in rounds}) == 1
        for rounds in zip(*measured.values(), strict=False)
    )


def table(measured: Measurements) -> str:
    steps = summary(measured, "seconds_per_step")
    checksums, summaries = summary(measured, "seconds_per_checksum"), summary(measured, "seconds_per_summary")
    shares = summary(measured, "share")
    rows = [
        [
            name,
            _times(steps[name], 1000),
            ratio(measured, "seconds_per_step", name, OFF),
            _times(shares[name], 100),
            _times(checksums.get(name), 1000),
            _times(summaries.get(name), 1000),
        ]
        for name in steps
    ]
    header = ["", "ms per step", "times neither", "inside the tasks, %", "ms per checksum", "ms per summary"]
    return markdown_table(header, rows)


def _times(spread: Spread | None, factor: float) -> Spread | None:
    if spread is None:
        return None
    return Spread(*(factor * value for value in (spread.median, spread.low, spread.high)))


if __name__ == "__main__":
    main()
