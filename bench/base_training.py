"""Measure training on a published model: Etude's step against transformers.Trainer, in tokens per second and memory.

    pip install transformers accelerate
    python bench/base_training.py MODEL_FOLDER

Both continue the same model on the same rows (random tokens, 4 rows of 256 in a step) with AdamW, the same rates and
clipping, on the same threads: in fp32, and in bf16 where this processor multiplies in it (autocast; weights stay fp32).
Etude runs as a run with `--from` does: the objective, the loss and the update of training, in one micro-batch, with its
layers compiled and without. Every round of a contestant is a fresh process, in turn with the others. Compilation and
the first step are not counted. Peak memory is that of the process, loading the model included.

About four minutes for 135 million parameters on two quiet cores.
"""

from __future__ import annotations

import itertools
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from etude.config import DeviceSettings
from etude.device import Dtype, choose_device, has_fast_bf16, keep_freed_memory, peak_memory_bytes
from harness import Contestant, arguments_of, interleave, markdown_table, ratio, summary, write_result

ROWS, CONTEXT, STEPS = 4, 256, 4
LR, BETAS, EPS, CLIP = 5e-5, (0.9, 0.999), 1e-8, 1.0
SPEED, MEMORY = "tokens per second", "peak GiB"


def main() -> None:
    parser = arguments_of(__doc__, rounds=3)
    parser.add_argument("model", type=Path, help="a model folder, such as `etude import` makes")
    parser.add_argument("--dtypes", nargs="+", choices=["fp32", "bf16"], default=None)
    arguments = parser.parse_args()
    steps = 1 if arguments.quick else STEPS
    dtypes = arguments.dtypes or (["fp32", "bf16"] if has_fast_bf16("cpu") else ["fp32"])
    common = {"folder": str(arguments.model.resolve()), "threads": arguments.threads, "steps": steps}
    contestants = []
    for dtype in dtypes:
        for compiled in (True, False):
            name = f"Etude, {'compiled' if compiled else 'not compiled'}, {dtype}"
            options = common | {"dtype": dtype, "compiled": compiled}
            contestants.append(Contestant(name, "base_training:etude", options))
        contestants.append(
            Contestant(f"Trainer, {dtype}", "base_training:trainer", common | {"dtype": dtype})
        )
    measured = interleave(contestants, arguments.rounds, arguments.threads, fresh=True)
    rows_of_table, times = [], {}
    for contestant in contestants:
        name, peer = contestant.name, f"Trainer, {contestant.name[-4:]}"
        if not measured.get(name):
            continue  # the bench was stopped
        if name != peer:
            times[name] = {what: ratio(measured, what, name, peer) for what in (SPEED, MEMORY)}
        speed, memory = (summary(measured, what)[name] for what in (SPEED, MEMORY))
        ratios = times.get(name, {})
        rows_of_table.append([name, speed, ratios.get(SPEED), memory, ratios.get(MEMORY)])
    header = ["", SPEED, "times Trainer", MEMORY, "times Trainer"]
    print(markdown_table(header, rows_of_table))
    name = "quick-base-training" if arguments.quick else "base-training"
    content = {
        "model": arguments.model.name,
        "rows": ROWS,
        "context": CONTEXT,
        "times": times,
        "rounds": measured,
    }
    print(write_result(name, content, threads=arguments.threads, folder=arguments.out))


def tokens_of(step: int) -> NDArray[np.int64]:
    """Return the rows of a step, with one token more than the context."""
    return np.random.default_rng(step).integers(3, 30_000, (ROWS, CONTEXT + 1))


class Rows:
    """A loader of :func:`tokens_of`, with what :class:`NextToken` asks of a loader."""

    batch_rows, context, seed = ROWS, CONTEXT, 0

    def slice(self, step: int, first: int, rows: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        ids = tokens_of(step)[first : first + rows]
        return ids[:, :-1], ids[:, 1:]


def etude(
    folder: str, threads: int, steps: int, dtype: Dtype, compiled: bool
) -> Callable[[], dict[str, Any]]:
    """Return a round of Etude's training step."""
    from etude.model.folder import load_model_folder
    from etude.train.compilation import compile_objective
    from etude.train.objectives.next_token import NextToken
    from etude.train.step import update_step

    device = choose_device(DeviceSettings(kind="cpu", threads=threads, dtype=dtype))
    keep_freed_memory()
    model = load_model_folder(Path(folder))[0]
    parameters = list(model.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=LR, betas=BETAS, eps=EPS, weight_decay=0.0, fused=True)

    class Rules:
        def zero_grad(self) -> None:
            optimizer.zero_grad(set_to_none=True)

        def step(self, factor: float, momentum: float) -> None:
            optimizer.step()

    loader: Any = Rows()
    rules: Any = Rules()
    objective = NextToken(model, loader, device, num_steps=steps + 1, micro_batch_rows=ROWS, lean=True)
    compile_objective(objective, device, compiled)

    def one_round() -> dict[str, Any]:
        seconds, losses = [], []
        for step in range(1, steps + 2):
            begin = time.perf_counter()
            result = update_step(
                parameters,
                objective.loss,
                objective.batch(step),
                rules,
                lr_factor=1.0,
                momentum=0.0,
                max_grad_norm=CLIP,
                device=device,
            )
            losses.append(float(result.loss))
            seconds.append(time.perf_counter() - begin)
        return _figures(seconds, losses)

    return one_round


def trainer(folder: str, threads: int, steps: int, dtype: Dtype) -> Callable[[], dict[str, Any]]:
    """Return a round of transformers.Trainer."""
    from transformers import AutoModelForCausalLM, Trainer, TrainerCallback, TrainingArguments
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    torch.set_num_threads(threads)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
    rows = [
        {"input_ids": torch.from_numpy(row[:-1]), "labels": torch.from_numpy(row[:-1])}
        for step in range(steps + 1)
        for row in tokens_of(step)
    ]
    ends: list[float] = []

    class Clock(TrainerCallback):
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            if not ends:
                ends.append(time.perf_counter())

        def on_step_end(self, *_: Any, **__: Any) -> None:
            ends.append(time.perf_counter())

    def one_round() -> dict[str, Any]:
        with tempfile.TemporaryDirectory() as place:
            arguments = TrainingArguments(
                output_dir=place,
                per_device_train_batch_size=ROWS,
                max_steps=steps + 1,
                learning_rate=LR,
                lr_scheduler_type="constant",
                adam_beta1=BETAS[0],
                adam_beta2=BETAS[1],
                adam_epsilon=EPS,
                weight_decay=0.0,
                max_grad_norm=CLIP,
                use_cpu=True,
                bf16=dtype == "bf16",
                save_strategy="no",
                report_to=[],
                disable_tqdm=True,
            )
            done = Trainer(model, arguments, train_dataset=rows, callbacks=[Clock()]).train()
        seconds = [after - before for before, after in itertools.pairwise(ends)]
        return _figures(seconds, [float(done.training_loss)])

    return one_round


def _figures(seconds: list[float], losses: list[float]) -> dict[str, Any]:
    peak = peak_memory_bytes(choose_device(DeviceSettings(kind="cpu", threads=torch.get_num_threads())))
    return {
        SPEED: ROWS * CONTEXT / statistics.median(seconds[1:]),
        MEMORY: (peak or 0) / 2**30,
        "mean loss": statistics.fmean(losses),
        "seconds": seconds,
    }


if __name__ == "__main__":
    main()
