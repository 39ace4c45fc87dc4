"""Measure greedy decoding of a published model, one row: Etude against transformers.generate and memory bandwidth.

    python bench/base_decode.py MODEL_FOLDER

Each contestant generates 64 tokens after the same prompt in a fresh process of its own, in turn with the others, in
fp32 and, where this processor multiplies in it, in bf16; Etude with its step compiled, as it is for long texts, and
without. The floor: a token reads every weight once (but one row of an
embedding that is not the output matrix), at the bandwidth that the same threads measured in the same round
(`generation_sides.bandwidth`: the fastest of a matrix-vector product and `torch.sum` over 512 MiB).

It prints tokens per second, their ratio to transformers within each round, the share of the floor, and whether the
greedy tokens in fp32 are equal. About three minutes for 135 million parameters on two quiet cores.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from etude.config import DeviceSettings
from etude.device import Dtype, choose_device, has_fast_bf16
from etude.model.cost import count_parameters
from etude.model.folder import load_config, load_model_folder
from harness import Contestant, Spread, arguments_of, interleave, markdown_table, ratio, summary, write_result

NEW_TOKENS, PROMPT_TOKENS = 64, 16
FLOOR, SPEED, SHARE = "floor", "tokens per second", "share of the floor, %"


def main() -> None:
    parser = arguments_of(__doc__, rounds=3)
    parser.add_argument("model", type=Path, help="a model folder, such as `etude import` makes")
    arguments = parser.parse_args()
    folder = arguments.model.resolve()
    tokens = 8 if arguments.quick else NEW_TOKENS
    common = {"folder": str(folder), "tokens": tokens, "threads": arguments.threads}
    dtypes: list[Dtype] = ["fp32", "bf16"] if has_fast_bf16("cpu") else ["fp32"]
    contestants = [Contestant(FLOOR, "generation_sides:bandwidth", {"threads": arguments.threads})]
    for dtype in dtypes:
        for compiled in (True, False):
            name = f"Etude, {'compiled' if compiled else 'not compiled'}, {dtype}"
            options = common | {"dtype": dtype, "compiled": compiled}
            contestants.append(Contestant(name, "base_decode:etude", options))
        peer = Contestant(f"transformers, {dtype}", "base_decode:transformers", common | {"dtype": dtype})
        contestants.append(peer)
    measured = interleave(contestants, arguments.rounds, arguments.threads)
    rows, times = [], {}
    for contestant in contestants[1:]:
        name, dtype = contestant.name, contestant.name[-4:]
        if not measured.get(name):
            continue  # the bench was stopped
        for result, floor in zip(measured[name], measured[FLOOR], strict=False):
            most = floor["bytes_per_second"] / read_per_token(folder, 4 if dtype == "fp32" else 2)
            result[SHARE] = 100 * result[SPEED] / most
        faster = ratio(measured, SPEED, name, f"transformers, {dtype}")
        if faster is not None and name.startswith("Etude"):
            times[name] = faster
        of_best = ratio(measured, SPEED, name, "transformers, fp32")
        figures = (summary(measured, what)[name] for what in (SPEED, SHARE))
        rows.append([name, next(figures), times.get(name), of_best, next(figures)])
    answers = [
        result["answer"] for name in measured if name.endswith("fp32") for result in measured[name][:1]
    ]
    equal = len(answers) == 3 and answers[0] == answers[1] == answers[2]
    header = ["", SPEED, "times transformers in the same dtype", "times transformers in fp32", SHARE]
    print(markdown_table(header, rows))
    bandwidth = Spread.of(result["bytes_per_second"] / 1e9 for result in measured[FLOOR])
    print(f"\nGreedy tokens in fp32 are {'equal' if equal else 'NOT equal'}. Bandwidth: {bandwidth} GB/s.")
    name = "quick-base-decode" if arguments.quick else "base-decode"
    content = {"model": folder.name, "new_tokens": tokens, "equal": equal, "times": times, "rounds": measured}
    print(write_result(name, content, threads=arguments.threads, folder=arguments.out))


def read_per_token(folder: Path, size: int) -> int:
    """Return the bytes of weights that a new token reads, in numbers of ``size`` bytes."""
    config = load_config(folder)
    counts = count_parameters(config)
    unread = 0 if config.tie_word_embeddings else counts.embedding
    return size * (counts.total - unread - counts.positions)


def prompt() -> list[int]:
    return list(range(100, 100 + PROMPT_TOKENS))


def etude(
    folder: str, tokens: int, threads: int, dtype: Dtype, compiled: bool
) -> Callable[[], dict[str, Any]]:
    """Return a round of Etude's engine."""
    from etude.generate.engine import generate
    from etude.generate.sampling import SamplingSettings

    choose_device(DeviceSettings(kind="cpu", threads=threads))
    model = load_model_folder(Path(folder))[0].eval()
    settings = SamplingSettings(temperature=0.0, max_new_tokens=tokens)
    return measured_by(
        lambda: (
            generate(model, [prompt()], settings, stop_ids=(), dtype=dtype, compile=compiled)[0].token_ids
        ),
        tokens,
    )


def transformers(folder: str, tokens: int, threads: int, dtype: Dtype) -> Callable[[], dict[str, Any]]:
    """Return a round of transformers.generate with its default cache."""
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    torch.set_num_threads(threads)
    kind = torch.bfloat16 if dtype == "bf16" else torch.float32
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=kind, local_files_only=True).eval()
    inputs = torch.tensor([prompt()])

    def run() -> list[int]:
        made = model.generate(
            inputs,
            attention_mask=torch.ones_like(inputs),
            do_sample=False,
            min_new_tokens=tokens,
            max_new_tokens=tokens,
            pad_token_id=0,
            eos_token_id=None,
        )
        answer: list[int] = made[0, PROMPT_TOKENS:].tolist()
        return answer

    return measured_by(run, tokens)


def measured_by(run: Callable[[], list[int]], tokens: int) -> Callable[[], dict[str, Any]]:
    """Return a round: the faster of two calls, after one that warms up. Reading the prompt is included."""
    answer = run()

    def one_round() -> dict[str, Any]:
        seconds = []
        for _ in range(2):
            begin = time.perf_counter()
            made = run()
            seconds.append(time.perf_counter() - begin)
            assert len(made) == tokens
        return {SPEED: tokens / min(seconds), "answer": answer}

    return one_round


if __name__ == "__main__":
    main()
