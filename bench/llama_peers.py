"""Train transformers' Llama as its users do. This module imports nothing of Etude."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

LR, WEIGHT_DECAY = 1e-3, 0.1
WARM = 2  # steps before the clock starts


def loop(shape: Mapping[str, int], steps: int, compiled: bool = False) -> Callable[[], dict[str, Any]]:
    """Return a round of a plain loop: forward with labels, backward, clip, fused AdamW."""
    model = llama(shape)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR, weight_decay=WEIGHT_DECAY, fused=True)
    blocks = torch.from_numpy(random_blocks(shape))
    forward = torch.compile(model, dynamic=False) if compiled else model
    done = 0

    def step() -> None:
        nonlocal done
        rows = blocks[done * shape["rows"] % len(blocks) :][: shape["rows"]]
        forward(input_ids=rows, labels=rows).loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        done += 1

    begin = time.perf_counter()
    step()
    first = time.perf_counter() - begin
    for _ in range(WARM - 1):
        step()

    def one_round() -> dict[str, Any]:
        begin = time.perf_counter()
        for _ in range(steps):
            step()
        seconds = (time.perf_counter() - begin) / steps
        return {**rate(shape, seconds), "compile_seconds": first if compiled else 0.0}

    return one_round


def trainer(shape: Mapping[str, int], steps: int, bf16: bool = False) -> Callable[[], dict[str, Any]]:
    """Return a round of ``transformers.Trainer`` with its defaults, or in bf16. Only printing and saving are off."""
    from datasets import Dataset
    from transformers import Trainer, TrainerCallback, TrainingArguments, default_data_collator

    model = llama(shape)
    blocks = random_blocks(shape).tolist()
    data = Dataset.from_dict({"input_ids": blocks, "labels": blocks})

    def one_round() -> dict[str, Any]:
        clock: dict[int, float] = {}

        class Clock(TrainerCallback):  # type: ignore[misc]
            def on_step_end(self, _: Any, state: Any, __: Any, **___: Any) -> None:
                clock[state.global_step] = time.perf_counter()

        with tempfile.TemporaryDirectory() as folder:
            settings = TrainingArguments(
                folder,
                max_steps=WARM + steps,
                per_device_train_batch_size=shape["rows"],
                learning_rate=LR,
                weight_decay=WEIGHT_DECAY,
                save_strategy="no",
                report_to="none",
                disable_tqdm=True,
                use_cpu=True,
                bf16=bf16,
            )
            Trainer(
                model, settings, train_dataset=data, data_collator=default_data_collator, callbacks=[Clock()]
            ).train()
        return rate(shape, (clock[WARM + steps] - clock[WARM]) / steps, "bf16" if bf16 else "fp32")

    return one_round


def llama(shape: Mapping[str, int]) -> nn.Module:
    """Build the network, without a key-value cache, which training does not use."""
    from transformers import LlamaConfig, LlamaForCausalLM

    values = {key: value for key, value in shape.items() if key not in ("context", "rows")}
    config = LlamaConfig(**values, max_position_embeddings=shape["context"], use_cache=False)
    torch.manual_seed(0)
    model = LlamaForCausalLM(config)
    model.train()
    return model


def random_blocks(shape: Mapping[str, int]) -> Any:
    """Return random tokens, (rows of 64 batches, T)."""
    generator = np.random.default_rng(0)
    return generator.integers(1, shape["vocab_size"], (64 * shape["rows"], shape["context"]))


def rate(shape: Mapping[str, int], seconds: float, dtype: str = "fp32") -> dict[str, Any]:
    """Return the result of a round, from the seconds of a step."""
    tokens = shape["rows"] * shape["context"]
    return {"dtype": dtype, "tokens_per_second": tokens / seconds, "seconds_per_step": seconds}
