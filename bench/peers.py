"""The peers that Etude is measured against, each run as its users run it. This module imports nothing of Etude.

- nanoGPT's recipe for characters on a CPU (its README and config/train_shakespeare_char.py): 12 rows of 64 tokens drawn
  at random, 4 layers of width 128 with 4 heads, no dropout, AdamW at 1e-3 with beta2 0.99, 100 steps of warm-up, cosine
  to 1e-4 at step 2,000, weight decay 0.1 on matrices, gradients clipped at 1. The network is ``transformers``'
  ``GPT2LMHeadModel`` or ``litgpt``'s ``GPT`` of that shape; the loop is plain PyTorch with the fused AdamW.
- ``transformers.Trainer`` with the same network and tokens per step, its own linear decay and its own AdamW.
"""

from __future__ import annotations

import json
import math
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

CONTEXT, ROWS, STEPS = 64, 12, 2000
LAYERS, HEADS, WIDTH = 4, 4, 128
LR, MIN_LR, WARMUP, WEIGHT_DECAY, BETAS, MAX_GRAD_NORM = 1e-3, 1e-4, 100, 0.1, (0.9, 0.99), 1.0
SEED = 1337
IGNORED = -100
Logits = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Tokens:
    """A text as tokens, written by ``texts.save_tokens``."""

    train: Any  # (N,) token ids
    validation: Any
    vocab_size: int
    eos_id: int | None
    validation_bytes: int  # of the source text behind the targets

    @classmethod
    def load(cls, folder: str) -> Tokens:
        facts = json.loads((Path(folder) / "facts.json").read_text())
        parts = {
            part: np.load(Path(folder) / f"{part}.npy").astype(np.int64) for part in ("train", "validation")
        }
        return cls(**parts, **facts)

    def random_rows(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw (inputs, targets) of a batch at random positions, as nanoGPT does."""
        data = torch.from_numpy(self.train)
        starts = torch.randint(len(data) - CONTEXT, (ROWS,), generator=generator).tolist()
        inputs = torch.stack([data[start : start + CONTEXT] for start in starts])
        return inputs, torch.stack([data[start + 1 : start + 1 + CONTEXT] for start in starts])

    @torch.no_grad()
    def score(self, logits: Logits) -> tuple[float, float]:
        """Return (nats per token, bits per byte of text) on the whole validation part, in consecutive windows."""
        targets_in_all = len(self.validation) - 1
        rows = -(-targets_in_all // CONTEXT)
        padded = np.full(rows * CONTEXT + 1, IGNORED, np.int64)
        padded[: targets_in_all + 1] = self.validation
        inputs = torch.from_numpy(padded[:-1]).clamp(min=0).view(rows, CONTEXT)
        targets = torch.from_numpy(padded[1:]).view(rows, CONTEXT)
        nats, text_nats = 0.0, 0.0
        for some, wanted in zip(inputs.split(128), targets.split(128), strict=True):
            losses = F.cross_entropy(
                logits(some).flatten(0, 1), wanted.flatten(), ignore_index=IGNORED, reduction="none"
            ).double()
            nats += losses.sum().item()
            is_text = wanted.flatten() != (IGNORED if self.eos_id is None else self.eos_id)
            text_nats += losses[is_text].sum().item()
        return nats / targets_in_all, text_nats / math.log(2) / self.validation_bytes


class Curve:
    """The evaluations of a training run, with a clock that stops during them."""

    def __init__(self, tokens: Tokens, logits: Logits, model: nn.Module) -> None:
        self.points: list[
            tuple[int, float, float, float]
        ] = []  # step, seconds, nats per token, bits per byte
        self.seconds = 0.0
        self._evaluate = lambda: tokens.score(logits)
        self._model = model
        self.start()

    def start(self) -> None:
        self._since = time.perf_counter()

    def stop(self) -> None:
        self.seconds += time.perf_counter() - self._since

    def evaluate(self, step: int) -> None:
        """Score the model now, off the clock."""
        self.stop()
        self._model.eval()
        self.points.append((step, self.seconds, *self._evaluate()))
        self._model.train()
        self.start()

    def result(self, compile_seconds: float) -> dict[str, Any]:
        """Return the result of a round."""
        steps, seconds, loss, bits = self.points[-1]
        return {
            "train_seconds": seconds,
            "compile_seconds": compile_seconds,
            "seconds_per_step": seconds / steps,
            "final_loss": loss,
            "final_bits_per_byte": bits,
            "steps": steps,
            "tokens": steps * ROWS * CONTEXT,
            "parameters": sum(parameter.numel() for parameter in self._model.parameters()),
            "curve": self.points,
        }


def nanogpt(
    tokens: str,
    library: str = "transformers",
    compiled: bool = False,
    steps: int = STEPS,
    eval_every: int = 250,
) -> Callable[[], dict[str, Any]]:
    """Return a round of nanoGPT's recipe on the network of ``library``."""
    text = Tokens.load(tokens)

    def one_round() -> dict[str, Any]:
        torch.manual_seed(SEED)
        model, logits = gpt2(text.vocab_size) if library == "transformers" else litgpt_gpt(text.vocab_size)
        optimizer = adamw(model)
        generator = torch.Generator().manual_seed(SEED)

        def eager_loss(inputs: Tensor, targets: Tensor) -> Tensor:
            return F.cross_entropy(logits(inputs).flatten(0, 1), targets.flatten())

        loss, begin = eager_loss, time.perf_counter()
        if compiled:
            loss = torch.compile(eager_loss, dynamic=False)
            loss(*text.random_rows(torch.Generator().manual_seed(0))).backward()
            optimizer.zero_grad(set_to_none=True)
        compile_seconds = time.perf_counter() - begin if compiled else 0.0
        curve = Curve(text, logits, model)
        for step in range(1, steps + 1):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(step - 1, steps)
            loss(*text.random_rows(generator)).backward()
            nn.utils.clip_grad_norm_(model.parameters(), MAX_GRAD_NORM)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            if step % eval_every == 0 or step == steps:
                curve.evaluate(step)
        return curve.result(compile_seconds)

    return one_round


def trainer(tokens: str, steps: int = STEPS, eval_every: int = 250) -> Callable[[], dict[str, Any]]:
    """Return a round of ``transformers.Trainer`` on blocks of 64 tokens, cut as in its language modelling examples."""
    from datasets import Dataset
    from transformers import Trainer, TrainerCallback, TrainingArguments, default_data_collator

    text = Tokens.load(tokens)
    blocks = text.train[: len(text.train) // CONTEXT * CONTEXT].reshape(-1, CONTEXT).tolist()
    data = Dataset.from_dict({"input_ids": blocks, "labels": blocks})

    def one_round() -> dict[str, Any]:
        torch.manual_seed(SEED)
        model, logits = gpt2(text.vocab_size)
        curve = Curve(text, logits, model)

        class Evaluate(TrainerCallback):  # type: ignore[misc]
            def on_train_begin(self, *_: Any, **__: Any) -> None:
                curve.start()

            def on_step_end(self, _: Any, state: Any, __: Any, **___: Any) -> None:
                if state.global_step % eval_every == 0 or state.global_step == steps:
                    curve.evaluate(state.global_step)

        with tempfile.TemporaryDirectory() as folder:
            settings = TrainingArguments(
                folder,
                max_steps=steps,
                per_device_train_batch_size=ROWS,
                learning_rate=LR,
                warmup_steps=min(WARMUP, steps // 2),
                weight_decay=WEIGHT_DECAY,
                adam_beta2=BETAS[1],
                save_strategy="no",
                report_to="none",
                disable_tqdm=True,
                use_cpu=True,
                seed=SEED,
            )
            Trainer(
                model,
                settings,
                train_dataset=data,
                data_collator=default_data_collator,
                callbacks=[Evaluate()],
            ).train()
        return curve.result(0.0)

    return one_round


def gpt2(vocab_size: int) -> tuple[nn.Module, Logits]:
    """Return transformers' GPT-2 of nanoGPT's shape, without a key-value cache, which training does not use."""
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=vocab_size,
        n_positions=CONTEXT,
        n_embd=WIDTH,
        n_layer=LAYERS,
        n_head=HEADS,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        use_cache=False,
        bos_token_id=None,
        eos_token_id=None,
    )
    model = GPT2LMHeadModel(config)
    model.train()
    return model, lambda inputs: model(input_ids=inputs).logits


def litgpt_gpt(vocab_size: int) -> tuple[nn.Module, Logits]:
    """Return litgpt's GPT of nanoGPT's shape (its Pythia layout: rotary positions, parallel residuals)."""
    from litgpt import GPT, Config

    config = Config(
        block_size=CONTEXT, vocab_size=vocab_size, padded_vocab_size=vocab_size, n_layer=LAYERS, n_head=HEADS,
        n_embd=WIDTH,
    )  # fmt: skip
    model = GPT(config)

    def initialise(module: nn.Module) -> None:  # as litgpt's pretraining does
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, mean=0.0, std=0.02)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)

    model.apply(initialise)
    return model, model


def adamw(model: nn.Module) -> torch.optim.Optimizer:
    """Return nanoGPT's optimizer: weight decay only for parameters with two or more dimensions."""
    matrices = [parameter for parameter in model.parameters() if parameter.dim() >= 2]
    vectors = [parameter for parameter in model.parameters() if parameter.dim() < 2]
    groups = [{"params": matrices, "weight_decay": WEIGHT_DECAY}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=LR, betas=BETAS, fused=True)


def learning_rate(iteration: int, steps: int) -> float:
    """Return nanoGPT's learning rate: linear warm-up, then cosine to MIN_LR at ``steps``. Iterations count from 0."""
    warmup = min(WARMUP, steps // 2)
    if iteration < warmup:
        return LR * (iteration + 1) / (warmup + 1)
    progress = (iteration - warmup) / (steps - warmup)
    return MIN_LR + 0.5 * (1 + math.cos(math.pi * progress)) * (LR - MIN_LR)
