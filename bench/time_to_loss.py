"""Measure the seconds of training until a loss is reached: Etude, nanoGPT's recipe on a CPU, `transformers.Trainer`.

    pip install transformers accelerate datasets
    python bench/time_to_loss.py --texts shakespeare speeches primer

Each contestant trains from scratch in every round. The clock runs only during optimizer steps: neither preparing the
text nor evaluations count, and compile time is reported separately ("with compiling" adds it). The whole validation
part is scored, every token once, in windows of the contestant's own context; a target is reached at the first
evaluation at or below it. The loss is in nats per token. For a text read by characters it is in nats per character of
the same held-out text, without Etude's end-of-document tokens, whatever the tokens are: peers read characters, as
published, and Etude may read byte pairs that were learned from the same training text.

bench/peers.py describes the peers. `--litgpt PYTHON` adds litgpt, which needs an environment of its own (it requires an
older huggingface_hub than transformers). Results: bench/results/time_to_loss-TEXT.json and .png; `--add` adds rounds to
the recorded ones.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from etude_side import ngram_rungs, quiet_plan, settings_of
from harness import (
    Contestant,
    Measurements,
    arguments_of,
    earlier_rounds,
    interleave,
    markdown_table,
    ratio,
    summary,
    write_result,
)
from pictures import draw_curves
from texts import DATA, TEXTS, Text, save_tokens

BPE = ("tokenizer.kind=bpe", "tokenizer.vocab_size=1024", "train.context=128", "train.batch_rows=8")
ETUDE: dict[str, dict[str, Sequence[str]]] = {
    "shakespeare": {
        "etude, 64 wide": (*BPE, "model.size=nano", "train.steps=100"),
        "etude, 96 wide": (
            *BPE,
            "model.hidden_size=96",
            "model.num_hidden_layers=3",
            "model.num_attention_heads=3",
            "train.steps=500",
        ),
        "etude, 128 wide": (*BPE, "train.context=256", "train.steps=700", "train.dropout=0.08"),
        "etude by characters": (
            "model.size=nano",
            "train.context=128",
            "train.batch_rows=8",
            "train.steps=370",
        ),
    },
    "speeches": {"etude": ()},
    "primer": {"etude": ()},
}
"""Etude's runs for each text: name (free, but not a peer's), and settings in addition to those of the text."""
TARGETS: dict[str, Sequence[float]] = {"shakespeare": (1.88, 1.558, 1.4697)}
"""Target losses, nats per token. Etude's time to the last loss of every peer is reported too."""
NANOGPT, NANOGPT_COMPILED, TRAINER, LITGPT = "nanoGPT", "nanoGPT compiled", "Trainer", "litgpt"
ETUDE_EVALUATIONS, PEER_EVAL_EVERY = 20, 250
NATS_PER_BIT = math.log(2)


def main() -> None:
    arguments = parse()
    for name in arguments.texts:
        text = TEXTS[name]
        if not text.is_there(arguments.data):
            print(
                f"{name}: skipped, {arguments.data / text.source} is not there (--data FOLDER)",
                file=sys.stderr,
            )
            continue
        measure(name, text, arguments)


def parse() -> argparse.Namespace:
    parser = arguments_of(__doc__, rounds=3)
    parser.add_argument("--texts", nargs="+", choices=TEXTS, default=list(TEXTS))
    parser.add_argument(
        "--data", type=Path, default=DATA, help="folder of the texts (default ../shared/data)"
    )
    parser.add_argument("--only", nargs="+", help="these contestants only")
    parser.add_argument("--rungs", action="store_true", help="draw the n-gram ladder of the text too")
    parser.add_argument("--litgpt", metavar="PYTHON", help="the interpreter of an environment with litgpt")
    parser.add_argument("--add", action="store_true", help="add rounds to the recorded ones")
    return parser.parse_args()


def measure(name: str, text: Text, arguments: argparse.Namespace) -> None:
    file = arguments.out / f"{'quick-' if arguments.quick else ''}time_to_loss-{name}.json"
    sources = text.sources(arguments.data)
    data = quiet_plan(settings_of(sources, text.overrides)).data
    with tempfile.TemporaryDirectory(prefix="etude-tokens-") as folder:
        save_tokens(text, data, sources, Path(folder))
        contestants = contestants_for(name, text, sources, folder, arguments)
        measured = interleave(contestants, arguments.rounds, arguments.threads, fresh=True)
    if text.characters:
        for rounds in measured.values():
            per_character(rounds)
    if arguments.add:
        earlier: Measurements = earlier_rounds(file).get("rounds", {})
        measured = {
            key: earlier.get(key, []) + measured.get(key, []) for key in dict.fromkeys([*earlier, *measured])
        }
    order = [*ETUDE[name], NANOGPT, NANOGPT_COMPILED, TRAINER, LITGPT]
    measured = {key: measured[key] for key in order if measured.get(key)}
    conclusions = compare(measured, [run for run in ETUDE[name] if run in measured], TARGETS.get(name, ()))
    content = {
        "text": text.title,
        "targets": list(TARGETS.get(name, ())),
        "settings": {run: list(overrides) for run, overrides in ETUDE[name].items()},
        "compared": conclusions,
        "rounds": measured,
    }
    write_result(file.stem, content, threads=arguments.threads, folder=arguments.out)
    rungs = ngram_rungs(sources, text.overrides) if arguments.rungs else {}
    draw(file.with_suffix(".png"), text, measured, TARGETS.get(name, ()), rungs)
    print(f"## {text.title}\n\n{table(measured, TARGETS.get(name, ()))}\n")
    print("\n".join(f"- {line}: {value}" for line, value in conclusions.items()), f"\n\n{file}\n")


def contestants_for(
    name: str, text: Text, sources: list[str], folder: str, arguments: argparse.Namespace
) -> list[Contestant]:
    quick = {"steps": 20, "eval_every": 10} if arguments.quick else {"eval_every": PEER_EVAL_EVERY}
    peer = {"tokens": folder, **quick}
    ours = {"evaluations": 2, "max_steps": 20} if arguments.quick else {"evaluations": ETUDE_EVALUATIONS}
    threads = f"device.threads={arguments.threads}"
    contestants = [
        Contestant(
            run,
            "etude_side:time_to_loss",
            {"sources": sources, "overrides": [*text.overrides, threads, *overrides], **ours},
        )
        for run, overrides in ETUDE[name].items()
    ]
    contestants += [
        Contestant(NANOGPT, "peers:nanogpt", peer),
        Contestant(NANOGPT_COMPILED, "peers:nanogpt", {**peer, "compiled": True}),
        Contestant(TRAINER, "peers:trainer", peer),
    ]
    if arguments.litgpt:
        contestants.append(
            Contestant(LITGPT, "peers:nanogpt", {**peer, "library": "litgpt"}, arguments.litgpt)
        )
    return [
        contestant for contestant in contestants if not arguments.only or contestant.name in arguments.only
    ]


def per_character(rounds: list[dict[str, Any]]) -> None:
    """Convert the losses to nats per character, for a text of one-byte characters: they are bits per byte, in nats."""
    for result in rounds:
        result["final_loss"] = result["final_bits_per_byte"] * NATS_PER_BIT
        result["curve"] = [
            [step, seconds, bits * NATS_PER_BIT, bits] for step, seconds, _, bits in result["curve"]
        ]


def seconds_to(result: Mapping[str, Any], target: float, *, compiling: bool = False) -> float | None:
    """Return the seconds until the first evaluation at or below ``target`` nats; None if there was none."""
    for _, seconds, loss, _ in result["curve"]:
        if loss <= target:
            return float(seconds) + (result["compile_seconds"] if compiling else 0.0)
    return None


def compare(measured: Measurements, runs: Sequence[str], targets: Sequence[float]) -> dict[str, Any]:
    """Return the ratios (peer / Etude) of the times to the targets and to each peer's last loss, within each round."""
    conclusions: dict[str, Any] = {}
    for run in runs:
        for peer in (name for name in measured if name not in runs):
            rounds: Measurements = {"ours": [], "theirs": []}
            for ours, theirs in zip(measured[run], measured[peer], strict=False):
                last = theirs["final_loss"]
                for compiling, key in (
                    (False, "to its last loss"),
                    (True, "to its last loss, with compiling"),
                ):
                    rounds["ours"].append({key: seconds_to(ours, last, compiling=compiling)})
                    rounds["theirs"].append({key: seconds_to(theirs, last, compiling=compiling)})
                for target in targets:
                    key = f"to {target}"
                    rounds["ours"].append({key: seconds_to(ours, target)})
                    rounds["theirs"].append({key: seconds_to(theirs, target)})
            for key in dict.fromkeys(key for result in rounds["ours"] for key in result):
                times = ratio(rounds, key, "theirs", "ours")
                if times is not None:
                    conclusions[f"time of {peer} / time of {run}, {key}"] = times
    return conclusions


def table(measured: Measurements, targets: Sequence[float]) -> str:
    """Return a table with a row for each contestant: median (lowest..highest) of its rounds."""
    header = ["contestant", "parameters", "ms per step", "steps", "training, s", "compiling, s (first round)"]
    header += [f"s to {target}" for target in targets] + ["final loss", "final bits per byte"]
    rows = []
    for name, rounds in measured.items():
        reached = {
            name: [{str(target): seconds_to(result, target) for target in targets} for result in rounds]
        }
        milliseconds = summary(
            {name: [{"ms": 1000 * result["seconds_per_step"]} for result in rounds]}, "ms"
        )[name]
        later = [result["compile_seconds"] for result in rounds[1:]]
        compiling = f"{rounds[0]['compile_seconds']:.1f}" + (f"; later {max(later):.1f}" if later else "")
        rows.append(
            [name, f"{rounds[0]['parameters']:,}", milliseconds, rounds[0]["steps"]]
            + [summary(measured, "train_seconds")[name], compiling]
            + [summary(reached, str(target)).get(name) for target in targets]
            + [summary(measured, key)[name] for key in ("final_loss", "final_bits_per_byte")]
        )
    return markdown_table(header, rows)


def draw(
    file: Path, text: Text, measured: Measurements, targets: Sequence[float], rungs: Mapping[int, float]
) -> None:
    """Draw the loss over seconds: in nats for a text read by characters, in bits per byte for BPE."""
    unit, column = ("nats per character", 2) if text.characters else ("bits per byte", 3)
    curves = {
        name: [([p[1] for p in result["curve"]], [p[column] for p in result["curve"]]) for result in rounds]
        for name, rounds in measured.items()
    }
    levels = {str(target): target for target in targets} if text.characters else {}
    levels |= {
        f"{order}-gram": bits * (NATS_PER_BIT if text.characters else 1) for order, bits in rungs.items()
    }
    ends = [up[-1] for rounds in curves.values() for _, up in rounds]
    high = max(up[min(1, len(up) - 1)] for rounds in curves.values() for _, up in rounds)
    low = min([*ends, *levels.values()])
    margin = 0.05 * (high - low) + 0.01
    count = max(map(len, measured.values()))
    draw_curves(
        file,
        text.title,
        ("seconds of training (neither compiling nor evaluations)", f"validation loss, {unit}"),
        curves,
        levels={name: level for name, level in levels.items() if level < high},
        range_y=(low - margin, high + margin),
        note=f"{count} round{'s' if count > 1 else ''}; the whole validation part",
    )


if __name__ == "__main__":
    main()
