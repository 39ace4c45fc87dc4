"""Measure tokens per second of generation: Etude, uncompiled and compiled, against transformers and memory bandwidth.

    pip install transformers
    python bench/generate.py --sizes 1M 10M 30M 124M

All contestants compute in fp32, except those named "bf16", whose matrices are rounded to bf16. They have the same
checkpoints (Llamas with random weights, saved by Etude), prompts, number of new tokens and threads. The cases: greedy
and sampled (temperature 0.8, top_p 0.95), one row and eight. A first call of each case warms each contestant up; its
time is in the JSON. The measured time includes reading the prompt.

The floor: a token at one row costs at least one read of every weight it uses and of the keys and values so far, at the
memory bandwidth of this machine (see `bandwidth` in generation_sides.py; measured in the same rounds). A network that
fits in the processor's cache can be faster than that.

Results: bench/results/generate.json and .png; `--add` keeps recorded sizes that are not measured now.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from etude.device import has_fast_bf16
from generation_sides import CASES, PROMPT_TOKENS, make_checkpoint
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


def shape_of(width: int, layers: int, heads: int, vocab_size: int, positions: int) -> dict[str, Any]:
    return {
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "vocab_size": vocab_size,
        "max_position_embeddings": positions,
    }


SIZES = {
    "1M": shape_of(128, 4, 4, 4096, 512) | {"tie_word_embeddings": True},
    "10M": shape_of(320, 6, 10, 4096, 512),
    "30M": shape_of(512, 8, 8, 4096, 512),
    "124M": shape_of(768, 12, 12, 50_257, 1024) | {"tie_word_embeddings": True},
}
NEW_TOKENS = {"1M": 256, "10M": 256, "30M": 128, "124M": 96}
ETUDE, COMPILED = "Etude", "Etude, compiled"
PEER, PEER_COMPILED = "transformers", "transformers, static cache, compiled"
ROUNDED, COMPILED_ROUNDED, PEER_ROUNDED = "Etude, bf16", "Etude, compiled, bf16", "transformers, bf16"
FLOOR = "floor"


def main() -> None:
    arguments = parse()
    name = "quick-generate" if arguments.quick else "generate"
    earlier = earlier_rounds(arguments.out / f"{name}.json").get("sizes", {}) if arguments.add else {}
    sizes: dict[str, Any] = earlier
    for size in arguments.sizes:
        tokens = 16 if arguments.quick else NEW_TOKENS[size]
        with tempfile.TemporaryDirectory() as folder:
            parameters = make_checkpoint(Path(folder), SIZES[size])
            contestants = contestants_for(folder, tokens, arguments)
            measured = interleave(contestants, arguments.rounds, arguments.threads)
        bytes_a_token = read_per_token(SIZES[size], parameters, tokens)
        with_share(measured, bytes_a_token)
        agreed = same_answers(measured)
        sizes[size] = {
            "shape": SIZES[size],
            "parameters": parameters,
            "new_tokens": tokens,
            "bytes_read_per_token": bytes_a_token,
            "greedy_answers_equal": agreed,
            "times_transformers": compare(measured),
            "rounds": measured,
        }
        print(f"## {size}: {parameters:,} parameters, {tokens} new tokens\n\n{table(measured)}\n")
        if not agreed:
            print("The greedy answers differ.\n")
        keep(name, sizes, arguments)


def parse() -> argparse.Namespace:
    parser = arguments_of(__doc__, rounds=3)
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--only", nargs="+", help="these contestants only, besides the floor")
    parser.add_argument(
        "--add", action="store_true", help="keep the recorded sizes that are not measured now"
    )
    return parser.parse_args()


def contestants_for(folder: str, tokens: int, arguments: argparse.Namespace) -> list[Contestant]:
    common = {"folder": folder, "tokens": tokens, "threads": arguments.threads}
    contestants = [
        Contestant(ETUDE, "generation_sides:etude", common),
        Contestant(COMPILED, "generation_sides:etude", common | {"compile": True}),
        Contestant(PEER, "generation_sides:transformers", common),
        Contestant(PEER_COMPILED, "generation_sides:transformers", common | {"static": True}),
        Contestant(ROUNDED, "generation_sides:etude", common | {"dtype": "bf16"}),
        Contestant(COMPILED_ROUNDED, "generation_sides:etude", common | {"compile": True, "dtype": "bf16"}),
        Contestant(PEER_ROUNDED, "generation_sides:transformers", common | {"dtype": "bf16"}),
    ]
    if not has_fast_bf16("cpu"):
        contestants = [contestant for contestant in contestants if not contestant.name.endswith("bf16")]
    floor = Contestant(FLOOR, "generation_sides:bandwidth", {"threads": arguments.threads})
    return [
        floor,
        *(
            contestant
            for contestant in contestants
            if not arguments.only or contestant.name in arguments.only
        ),
    ]


def read_per_token(shape: Mapping[str, Any], parameters: int, tokens: int) -> float:
    """Return the bytes of fp32 weights, and of keys and values at the middle of the answer, that a new token reads.

    An embedding table that is not also the output matrix counts as one row. In bf16 it is half as many bytes, except
    that Etude reads small matrices in fp32, and the output matrix too if not compiled.
    """
    width = shape["hidden_size"]
    table = 0 if shape.get("tie_word_embeddings") else (shape["vocab_size"] - 1) * width
    keys_and_values = 2 * shape["num_hidden_layers"] * width * (PROMPT_TOKENS + tokens / 2)
    return 4 * (parameters - table + keys_and_values)


def with_share(measured: Measurements, bytes_a_token: float) -> None:
    """Add to every round its share of the speed limit in the same round. In bf16 half as many bytes are read."""
    for name, rounds in measured.items():
        for result, floor in zip(rounds, measured[FLOOR], strict=False):
            if name != FLOOR:
                most = floor["bytes_per_second"] / (bytes_a_token / (2 if name.endswith("bf16") else 1))
                result["share_of_floor"] = result["1 row, greedy"] / most


def same_answers(measured: Measurements) -> bool:
    exact = [name for name in measured if name != FLOOR and not name.endswith("bf16")]
    answers = [measured[name][0]["answer"] for name in exact if measured[name]]
    return all(answer == answers[0] for answer in answers)


def compare(measured: Measurements) -> dict[str, dict[str, Spread]]:
    """Return the speeds as multiples of transformers' with its default cache, within each round."""
    times: dict[str, dict[str, Spread]] = {}
    for name in measured:
        if name in (FLOOR, PEER) or PEER not in measured:
            continue
        ratios = {case: ratio(measured, case, name, PEER) for case in CASES}
        times[name] = {case: faster for case, faster in ratios.items() if faster is not None}
    return times


def table(measured: Measurements) -> str:
    """Return a table of tokens per second, their ratio to transformers', and one greedy row's share of the floor."""
    names = [name for name in measured if name != FLOOR]
    times = compare(measured)
    rows: list[list[object]] = []
    for case in CASES:
        speeds = summary(measured, case)
        for name in names:
            if name in speeds:
                share = summary(measured, "share_of_floor")[name] if case == "1 row, greedy" else None
                rows.append([f"{case}: {name}", speeds[name], times.get(name, {}).get(case), _percent(share)])
    floor = ", ".join(
        f"{what} {summary(measured, key)[FLOOR].median / 1e9:.1f}"
        for what, key in (
            ("matrix times vector", "product_bytes_per_second"),
            ("torch.sum", "sum_bytes_per_second"),
            ("copy", "copy_bytes_per_second"),
        )
    )
    header = ["", "tokens per second", "times transformers", "share of the floor, %"]
    return f"{markdown_table(header, rows)}\n\nMemory, GB/s: {floor}"


def keep(name: str, sizes: dict[str, Any], arguments: argparse.Namespace) -> None:
    sizes = {size: sizes[size] for size in SIZES if size in sizes}
    file = write_result(name, {"sizes": sizes}, threads=arguments.threads, folder=arguments.out)
    groups = {size: bars(result["rounds"]) for size, result in sizes.items()}
    note = "tokens per second; one row, greedy; whiskers from the lowest round to the highest"
    title = "Generation: times transformers.generate"
    draw_bars(file.with_suffix(".png"), title, "times", groups, note=note)
    print(file)


def bars(measured: Measurements) -> dict[str, Spread]:
    return {name: spread["1 row, greedy"] for name, spread in compare(measured).items()}


def _percent(share: Spread | None) -> Spread | None:
    return share and Spread(100 * share.median, 100 * share.low, 100 * share.high)


if __name__ == "__main__":
    main()
