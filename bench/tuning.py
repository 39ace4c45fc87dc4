"""Measure tuning on conversations: Etude against TRL's SFTTrainer with PEFT, and LoRA against full tuning.

    pip install trl peft transformers accelerate datasets
    python bench/tuning.py MODEL_FOLDER [CONVERSATIONS]

Both read the same conversations (examples/faq/train.jsonl unless given), train the answers alone, and update after as
many conversations: LoRA of rank 16 on all linear layers, or all weights, with AdamW at the same rate and clipping, on
the same threads; in fp32, and in bf16 where this processor multiplies in it (autocast; weights stay fp32). Etude packs
whole conversations into rows. TRL pads them: its packing needs an attention kernel that a CPU does not have. Speed
counts the tokens of conversations, without padding. Every round of a contestant is a fresh process, in turn with the
others; the first step warms up and is not counted. Peak memory is that of the process, loading the model included.

About eight minutes for 135 million parameters on two quiet cores.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from etude.config import DeviceSettings
from etude.device import Dtype, choose_device, has_fast_bf16, peak_memory_bytes
from harness import Contestant, arguments_of, interleave, markdown_table, ratio, summary, write_result

STEPS, ROWS, CONTEXT = 5, 2, 512
"""Steps that count, and rows of Etude's packed batch."""
RANK, ALPHA, LR, CLIP = 16, 32, 5e-4, 1.0
SPEED, MEMORY = "tokens per second", "peak GiB"
CONVERSATIONS = Path(__file__).parent.parent / "examples" / "faq" / "train.jsonl"


def main() -> None:
    parser = arguments_of(__doc__, rounds=3)
    parser.add_argument("model", type=Path, help="a model folder, such as `etude import` makes")
    parser.add_argument("conversations", type=Path, nargs="?", default=CONVERSATIONS)
    parser.add_argument("--dtypes", nargs="+", choices=["fp32", "bf16"], default=None)
    parser.add_argument("--methods", nargs="+", choices=["lora", "full"], default=["lora", "full"])
    arguments = parser.parse_args()
    steps = 1 if arguments.quick else STEPS
    dtypes = arguments.dtypes or (["fp32", "bf16"] if has_fast_bf16("cpu") else ["fp32"])
    common = {
        "model": str(arguments.model.resolve()),
        "data": str(arguments.conversations.resolve()),
        "threads": arguments.threads,
        "steps": steps,
    }
    contestants = [
        Contestant(
            f"{name}, {method}, {dtype}", f"tuning:{side}", common | {"method": method, "dtype": dtype}
        )
        for dtype in dtypes
        for method in arguments.methods
        for name, side in (("Etude", "etude"), ("TRL", "trl"))
    ]
    measured = interleave(contestants, arguments.rounds, arguments.threads, fresh=True)
    table, times = [], {}
    for contestant in contestants:
        name = contestant.name
        if not measured.get(name):
            continue  # the bench was stopped
        peer = name.replace("Etude", "TRL")
        if peer != name and measured.get(peer):
            times[name] = {what: ratio(measured, what, name, peer) for what in (SPEED, MEMORY)}
        full = name.replace("lora", "full")
        if full != name and measured.get(full):
            times.setdefault(name, {})["times full"] = ratio(measured, SPEED, name, full)
        speed, memory = (summary(measured, what)[name] for what in (SPEED, MEMORY))
        ratios = times.get(name, {})
        table.append([name, speed, ratios.get(SPEED), ratios.get("times full"), memory, ratios.get(MEMORY)])
    header = ["", SPEED, "times TRL", "times full", MEMORY, "times TRL"]
    print(markdown_table(header, table))
    content = {
        "model": arguments.model.name,
        "conversations": arguments.conversations.name,
        "times": times,
        "rounds": measured,
    }
    name = "quick-tuning" if arguments.quick else "tuning"
    print(write_result(name, content, threads=arguments.threads, folder=arguments.out))


def etude(
    model: str, data: str, threads: int, steps: int, method: str, dtype: Dtype
) -> Callable[[], dict[str, Any]]:
    """Return a round of Etude's training step, as ``etude train DATA --from MODEL`` makes it."""
    from rich.console import Console

    from etude.config import load_settings
    from etude.plan.plan import initial_state, make_objective
    from etude.train.compilation import compile_objective
    from etude.train.step import update_step
    from etude.workflow.fit import restore
    from etude.workflow.prepare import make_plan
    from etude.workflow.start import start

    console = Console(quiet=True)
    place = tempfile.TemporaryDirectory()
    values = {
        "data.sources": (data,),
        "model.base": model,
        "train.steps": steps + 1,
        "train.context": CONTEXT,
        "train.batch_rows": ROWS,
        "train.lr": LR,
        "train.lora_rank": RANK if method == "lora" else 0,
        "device.kind": "cpu",
        "device.dtype": dtype,
        "device.threads": threads,
        "run.folder": place.name,
    }
    plan, _ = make_plan(load_settings(values=values), console)
    run = start(plan, console)
    state = initial_state(plan)
    restore(run, state, console)
    objective = make_objective(plan, state)
    compile_objective(objective, plan.device, True)
    parameters = [parameter for parameter in state.model.parameters() if parameter.requires_grad]

    def one_round() -> dict[str, Any]:
        seconds, tokens, losses = [], [], []
        for step in range(1, steps + 2):
            begin = time.perf_counter()
            batch = objective.batch(step)
            result = update_step(
                parameters,
                objective.loss,
                batch,
                state.rules,
                lr_factor=1.0,
                momentum=0.0,
                max_grad_norm=CLIP,
                device=plan.device,
            )
            losses.append(float(result.loss))
            seconds.append(time.perf_counter() - begin)
            ids = [part.document_ids for part in batch]
            tokens.append(sum(int((part >= 0).sum()) for part in ids if part is not None))
        place.cleanup()
        return _figures(seconds, tokens, losses, threads)

    return one_round


def trl(
    model: str, data: str, threads: int, steps: int, method: str, dtype: Dtype
) -> Callable[[], dict[str, Any]]:
    """Return a round of TRL's SFTTrainer: prompts and completions, of which the completions are trained."""
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from transformers.utils import logging
    from trl import SFTConfig, SFTTrainer

    logging.set_verbosity_error()
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    torch.set_num_threads(threads)
    tokenizer = AutoTokenizer.from_pretrained(model, local_files_only=True)
    network = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32, local_files_only=True)
    messages = [json.loads(line)["messages"] for line in Path(data).read_text().splitlines()]
    lengths = [len(tokenizer.apply_chat_template(turns)["input_ids"]) for turns in messages]
    rows = max(1, round(ROWS * CONTEXT / statistics.fmean(lengths)))
    pairs = [{"prompt": turns[:-1], "completion": turns[-1:]} for turns in messages]
    seconds: list[float] = []
    tokens: list[int] = []

    class Counted(SFTTrainer):  # type: ignore[misc]
        def training_step(self, model: Any, inputs: Any, *rest: Any, **more: Any) -> Any:
            tokens.append(int(inputs["attention_mask"].sum()))
            return super().training_step(model, inputs, *rest, **more)

    class Clock(TrainerCallback):
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            self.began = time.perf_counter()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            seconds.append(time.perf_counter() - self.began)

    def one_round() -> dict[str, Any]:
        with tempfile.TemporaryDirectory() as place:
            arguments = SFTConfig(
                output_dir=place,
                per_device_train_batch_size=rows,
                max_steps=steps + 1,
                max_length=CONTEXT,
                learning_rate=LR,
                lr_scheduler_type="constant",
                weight_decay=0.0,
                max_grad_norm=CLIP,
                use_cpu=True,
                bf16=dtype == "bf16",
                gradient_checkpointing=False,
                save_strategy="no",
                report_to=[],
                disable_tqdm=True,
            )
            lora = LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules="all-linear", task_type="CAUSAL_LM")
            trainer = Counted(
                network,
                arguments,
                train_dataset=Dataset.from_list(pairs),
                processing_class=tokenizer,
                peft_config=lora if method == "lora" else None,
                callbacks=[Clock()],
            )
            done = trainer.train()
        return _figures(seconds, tokens, [float(done.training_loss)], threads)

    return one_round


def _figures(seconds: list[float], tokens: list[int], losses: list[float], threads: int) -> dict[str, Any]:
    peak = peak_memory_bytes(choose_device(DeviceSettings(kind="cpu", threads=threads)))
    return {
        SPEED: sum(tokens[1:]) / sum(seconds[1:]),
        MEMORY: (peak or 0) / 2**30,
        "mean loss": statistics.fmean(losses),
        "seconds": seconds,
        "tokens": tokens,
    }


if __name__ == "__main__":
    main()
