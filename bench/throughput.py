"""Compare Etude with transformers in training: tokens per second, and the share of the processor's peak.

    pip install transformers accelerate datasets
    python bench/throughput.py --sizes 2M 5M 12M 29M 135M
    python bench/throughput.py --sizes 12M --profile         # where the time of a step goes

All train the same Llama (no biases, separate output matrix) on the same batch of random tokens. Etude trains with its
defaults: Muon, and bf16 where it chooses that for the processor and the width; further contestants use fp32 or AdamW.
`Trainer` runs with its defaults in fp32, and with `bf16=True`. MFU is tokens per second times floating-point operations
per token (forward and backward matrix products, attention over the keys that a token may see, from etude.model.cost)
over the measured peak of a large matrix product in the same precision with as many threads, in the same round. The work
of Muon's own products is not counted as useful.

Results: bench/results/throughput.json and .png; `--add` keeps recorded sizes that are not measured now.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from etude.device import has_fast_bf16
from etude_side import flops_per_token
from harness import (
    Contestant,
    Measurements,
    Spread,
    arguments_of,
    earlier_rounds,
    interleave,
    markdown_table,
    ratio,
    summary,
    write_result,
)
from pictures import draw_bars


def shape_of(
    width: int, layers: int, heads: int, vocab_size: int, rows: int, context: int = 256
) -> dict[str, int]:
    return {
        "hidden_size": width,
        "intermediate_size": -(-8 * width // 3 // 32) * 32,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": heads,
        "vocab_size": vocab_size,
        "context": context,
        "rows": rows,
    }


SIZES = {
    "2M": shape_of(128, 4, 4, 4096, rows=8),
    "5M": shape_of(256, 3, 4, 4096, rows=8),
    "12M": shape_of(384, 5, 6, 4096, rows=8),
    "29M": shape_of(512, 8, 8, 4096, rows=8),
    "135M": shape_of(768, 12, 12, 32_768, rows=4),
}
STEPS = {"2M": 20, "5M": 8, "12M": 5, "29M": 3, "135M": 2}
"""Steps per round."""
ETUDE, TRAINER = "Etude", "Trainer"
PEAKS = {"fp32": "peak of fp32", "bf16": "peak of bf16"}


def main() -> None:
    arguments = parse()
    name = "quick-throughput" if arguments.quick else "throughput"
    if arguments.profile:
        show_profiles(arguments)
        return
    sizes: dict[str, Any] = (
        earlier_rounds(arguments.out / f"{name}.json").get("sizes", {}) if arguments.add else {}
    )
    for size in arguments.sizes:
        shape = SIZES[size]
        steps = 1 if arguments.quick else STEPS[size]
        parameters, flops = flops_per_token(shape)
        measured = interleave(contestants_for(shape, steps, arguments), arguments.rounds, arguments.threads)
        with_mfu(measured, flops)
        facts = {"parameters": parameters, "flops_per_token": flops, "steps_a_round": steps}
        sizes[size] = {"shape": shape, **facts, "compared": compare(measured), "rounds": measured}
        print(
            f"## {size}: {parameters:,} parameters, {shape['rows']} rows of {shape['context']}\n\n{table(measured)}\n"
        )
    sizes = {size: sizes[size] for size in SIZES if size in sizes}
    file = write_result(name, {"sizes": sizes}, threads=arguments.threads, folder=arguments.out)
    groups = {size: bars(result["rounds"]) for size, result in sizes.items()}
    note = "tokens per second; whiskers from the lowest round to the highest"
    draw_bars(file.with_suffix(".png"), "Training: times transformers.Trainer", "times", groups, note=note)
    print(file)


def parse() -> argparse.Namespace:
    parser = arguments_of(__doc__, rounds=3)
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--only", nargs="+", help="these contestants only, besides the peak")
    parser.add_argument(
        "--add", action="store_true", help="keep the recorded sizes that are not measured now"
    )
    parser.add_argument("--profile", action="store_true", help="print where the time of Etude's steps goes")
    return parser.parse_args()


def contestants_for(shape: Mapping[str, int], steps: int, arguments: argparse.Namespace) -> list[Contestant]:
    ours = {
        ETUDE: [],
        "Etude, fp32": ["device.dtype=fp32"],
        "Etude, eager": ["device.compile=false"],
        "Etude, AdamW": ["train.optimizer=adamw"],
    }
    threads = f"device.threads={arguments.threads}"
    contestants = [
        Contestant(
            name, "etude_side:throughput", {"shape": shape, "steps": steps, "overrides": [threads, *settings]}
        )
        for name, settings in ours.items()
    ]
    peer = {"shape": shape, "steps": steps}
    contestants += [
        Contestant(TRAINER, "llama_peers:trainer", peer),
        Contestant("Trainer, bf16", "llama_peers:trainer", {**peer, "bf16": True}),
        Contestant("plain loop", "llama_peers:loop", peer),
        Contestant("plain loop, compiled", "llama_peers:loop", {**peer, "compiled": True}),
    ]
    fast = has_fast_bf16("cpu")
    peaks = [
        Contestant(name, "etude_side:peak_flops", {"threads": arguments.threads, "dtype": dtype})
        for dtype, name in PEAKS.items()
        if dtype == "fp32" or fast
    ]
    contestants = [contestant for contestant in contestants if fast or not contestant.name.endswith("bf16")]
    return [
        *peaks,
        *(
            contestant
            for contestant in contestants
            if not arguments.only or contestant.name in arguments.only
        ),
    ]


def with_mfu(measured: Measurements, flops: float) -> None:
    """Add to every round its share of the peak of the same round and precision."""
    for rounds in measured.values():
        for number, result in enumerate(rounds):
            peaks = measured.get(PEAKS.get(result.get("dtype", ""), ""), [])
            if number < len(peaks):
                result["mfu"] = result["tokens_per_second"] * flops / peaks[number]["flops_per_second"]


def compare(measured: Measurements) -> dict[str, Spread]:
    """Return Etude's speed over that of every other contestant, within each round."""
    times = {}
    for ours in (name for name in measured if name.startswith(ETUDE)):
        for other in (name for name in measured if not name.startswith((ETUDE, "peak"))):
            faster = ratio(measured, "tokens_per_second", ours, other)
            if faster is not None:
                times[f"{ours} / {other}"] = faster
    return times


def table(measured: Measurements) -> str:
    speeds, shares = summary(measured, "tokens_per_second"), summary(measured, "mfu")
    milliseconds = {
        name: Spread(*(1000 * value for value in (spread.median, spread.low, spread.high)))
        for name, spread in summary(measured, "seconds_per_step").items()
    }
    rows = [
        [
            name,
            speeds[name],
            milliseconds[name],
            _percent(shares[name]) if name in shares else None,
            ratio(measured, "tokens_per_second", name, TRAINER) if TRAINER in measured else None,
        ]
        for name in speeds
    ]
    peaks = ", ".join(
        f"{name} {Spread(*(value / 1e9 for value in (peak.median, peak.low, peak.high)))} GFLOP/s"
        for name, peak in summary(measured, "flops_per_second").items()
    )
    header = ["", "tokens per second", "ms per step", "MFU, %", "times Trainer"]
    return f"{markdown_table(header, rows)}\n\nMeasured: {peaks}"


def bars(measured: Measurements) -> dict[str, Spread]:
    """Return the speeds as multiples of ``Trainer``'s, within each round."""
    names = [name for name in measured if name not in (TRAINER, *PEAKS.values())]
    ratios = {
        name: ratio(measured, "tokens_per_second", name, TRAINER) for name in names if TRAINER in measured
    }
    return {name: faster for name, faster in ratios.items() if faster is not None}


def show_profiles(arguments: argparse.Namespace) -> None:
    for size in arguments.sizes:
        settings = [f"device.threads={arguments.threads}"]
        steps = 1 if arguments.quick else max(3, STEPS[size])
        shape = {"shape": SIZES[size], "steps": steps}
        contestants = [
            Contestant(ETUDE, "etude_side:profile", {**shape, "overrides": settings}),
            Contestant(
                "Etude, eager",
                "etude_side:profile",
                {**shape, "overrides": [*settings, "device.compile=false"]},
            ),
        ]
        measured = interleave(contestants, 1, arguments.threads, report=lambda _: None)
        kinds_by_name = {name: rounds[0]["kinds"] for name, rounds in measured.items()}
        kinds = sorted({kind for seconds in kinds_by_name.values() for kind in seconds})
        rows = [[kind, *(_share(seconds, kind) for seconds in kinds_by_name.values())] for kind in kinds]
        rows.append(
            ["all", *(f"{1000 * sum(seconds.values()):.1f} ms" for seconds in kinds_by_name.values())]
        )
        print(
            f"## {size}: a step by kind of work, from torch's profiler\n\n"
            f"{markdown_table(['', *kinds_by_name], rows)}\n"
        )


def _share(seconds: Mapping[str, float], kind: str) -> str | None:
    if kind not in seconds:
        return None
    return f"{1000 * seconds[kind]:.1f} ms ({100 * seconds[kind] / sum(seconds.values()):.0f} %)"


def _percent(spread: Spread) -> Spread:
    return Spread(*(100 * value for value in (spread.median, spread.low, spread.high)))


if __name__ == "__main__":
    main()
