"""Short trainings in one process or several, and the results of each rank. Run by torchrun, or imported."""

from __future__ import annotations

import atexit
import os
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from etude.config import TrainSettings
from etude.data.tokens.coverage import IGNORE_INDEX
from etude.data.tokens.loader import BatchLoader
from etude.data.tokens.parts import TokenPart
from etude.device import Device
from etude.errors import EtudeError
from etude.model.adapter import adapted_by
from etude.run.events import Event, RowSource, StepEvent
from etude.train import parallel
from etude.train.batch import MicroBatch
from etude.train.loop import Loop, TrainState
from etude.train.objectives import NextToken
from etude.train.optimizer import UpdateRules, freeze_others
from etude.train.parallel import ALONE, Ranks
from networks import make_config, make_network, make_tokens
from scopes import Counted

CPU = Device("cpu", "fp32", 1)
ROWS, STEPS, STOP_AT = 8, 5, 3
CASES: dict[str, dict[str, Any]] = {
    "muon": {"network": "qwen3"},
    "adamw": {"network": "gpt2", "optimizer": "adamw"},
    "mlp": {"network": "mlp-direct"},
    "micro-batches": {"network": "llama-grouped-tied", "micro_batch_rows": 2},
    "uneven micro-batches": {"network": "llama", "micro_batch_rows": 3},
    "dropout": {"network": "llama", "micro_batch_rows": 4, "dropout": 0.3},
    "some tokens": {"network": "llama", "micro_batch_rows": 2, "scope": Counted(97, 12)},
    "weighted": {"network": "gpt2", "micro_batch_rows": 3, "scope": Counted(3, 2, weighted=True)},
    "adapter": {
        **{"network": "gpt2", "optimizer": "adamw", "micro_batch_rows": 2},
        **{"rank": 3, "lora_dropout": 0.2},
    },
    "documents, recomputed": {"network": "llama", "within_documents": True, "recompute": True},
}


def train(ranks: Ranks, **case: Any) -> dict[str, Any]:
    """Make five steps of one case; return losses, norms and parameters."""
    optimizer = case.pop("optimizer", "muon")
    adapter: Any = SimpleNamespace(
        lora_rank=case.pop("rank", 0),
        lora_alpha="auto",
        lora_targets=(),
        lora_dropout=case.pop("lora_dropout", 0.0),
    )
    model = make_network(adapted_by(make_config(case.pop("network")), adapter))
    freeze_others(model, "")
    # The gradient of a key's bias is nothing but rounding, of which Adam with a small eps would make whole steps.
    settings = TrainSettings(
        lr=1e-2, muon_lr=1e-2, weight_decay=0.1, eps=1e-4, steps=STEPS, optimizer=optimizer
    )
    documents = [make_tokens(1, 40, seed, vocab=60)[0].add(1).tolist() for seed in range(20)]
    loader = BatchLoader(TokenPart.from_documents(documents, document_id=0), 16, ROWS, seed=7)
    case = {"micro_batch_rows": ROWS} | case
    objective = NextToken(model, loader, CPU, num_steps=STEPS, ranks=ranks, **case)
    return follow_loop(
        Loop(TrainState(model, UpdateRules(model, settings, CPU)), objective, settings, CPU, ranks=ranks)
    )


def follow_loop(loop: Loop) -> dict[str, Any]:
    received: list[Event] = []
    loop.listeners = [received.append]
    reason = loop.run()
    steps = [event for event in received if isinstance(event, StepEvent)]
    return {
        "reason": reason,
        "losses": [event.loss for event in steps],
        "norms": [event.grad_norm for event in steps],
        "tokens_seen": [event.tokens_seen for event in steps],
        "parameters": {name: value.detach() for name, value in loop.state.model.named_parameters()},
    }


class FewTargets:
    """A batch with almost no targets in its second half, so that ranks differ in their number of targets."""

    num_steps, tokens_per_step = STEPS, ROWS * 16

    def __init__(self, ranks: Ranks, *, poisoned: bool = False) -> None:
        self.model = make_network(make_config("llama"))
        self.rows, self.poisoned = ranks.rows(ROWS), poisoned

    def batch(self, step: int) -> list[MicroBatch]:
        tokens = make_tokens(ROWS, 17, seed=step)
        targets = tokens[:, 1:].clone()
        targets[ROWS // 2 :, 2:] = IGNORE_INDEX
        own_rows = slice(self.rows.start, self.rows.stop)
        count = int((targets[own_rows] != IGNORE_INDEX).sum())
        return [MicroBatch(tokens[own_rows, :-1], targets[own_rows], count)]

    def loss(self, part: MicroBatch) -> torch.Tensor:
        logits = self.model(part.inputs).flatten(0, 1)
        loss = torch.nn.functional.cross_entropy(
            logits, part.targets.flatten(), ignore_index=IGNORE_INDEX, reduction="sum"
        )
        return loss * float("nan") if self.poisoned and self.rows.stop == ROWS else loss

    def row_sources(self, step: int) -> list[RowSource]:
        return [RowSource(row, ()) for row in range(ROWS)]

    def halve_micro_batches(self) -> None:
        return None


class Nothing(FewTargets):
    """A batch without targets on any rank."""

    def batch(self, step: int) -> list[MicroBatch]:
        return [
            replace(part, targets=torch.full_like(part.targets, IGNORE_INDEX), num_targets=0)
            for part in super().batch(step)
        ]


def few_targets(
    ranks: Ranks, *, stop_last: bool = False, poisoned: bool = False, kind: type[FewTargets] = FewTargets
) -> dict[str, Any]:
    """Train on :class:`FewTargets`; the last rank alone may receive a stop request, or compute NaN."""
    objective = kind(ranks, poisoned=poisoned)
    settings = TrainSettings(optimizer="muon", lr=1e-2, muon_lr=1e-2, weight_decay=0.1, steps=STEPS)
    state = TrainState(objective.model, UpdateRules(objective.model, settings, CPU))
    loop = Loop(state, objective, settings, CPU, ranks=ranks)
    if stop_last and ranks.rank == ranks.count - 1:
        loop.should_stop = lambda: state.step >= STOP_AT
    try:
        return follow_loop(loop)
    except EtudeError as error:
        return {"error": str(error)}


def every_case(ranks: Ranks = ALONE) -> dict[str, dict[str, Any]]:
    torch.set_num_threads(1)
    parallel.NUMBERS_AT_ONCE = 5000  # several messages, though the networks are small
    results = {name: train(ranks, **case) for name, case in CASES.items()}
    results["few targets"] = few_targets(ranks)
    results["stopped"] = few_targets(ranks, stop_last=True)
    results["poisoned"] = few_targets(ranks, poisoned=True)
    results["nothing"] = few_targets(ranks, kind=Nothing)
    return results


def write_threads(file: Path) -> None:
    """Return the names of this process's threads on Linux."""
    file.write_text("".join(path.read_text() for path in Path("/proc/self/task").glob("*/comm")))


if __name__ == "__main__":
    # Registered first, called last: when the processes have parted.
    atexit.register(write_threads, Path(sys.argv[1]) / f"{os.environ['RANK']}.threads")
    with parallel.join_ranks() as together:
        torch.save(every_case(together), Path(sys.argv[1]) / f"{together.rank}.pt")
