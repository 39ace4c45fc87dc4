"""The compiled network equals the network: one graph, the same logits and gradients.

In a process of its own, because the shape checks that the tests install cannot be traced.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from waiting import PATIENCE

SCRIPT = """
import json, sys
from types import SimpleNamespace
import torch
import torch.nn.functional as F
from etude.model.adapter import adapted_by
from etude.train.optimizer import freeze_others
from networks import make_config, make_network, make_tokens

torch.set_num_threads(1)
backend, names = sys.argv[1], sys.argv[2:]
inputs, targets = make_tokens(2, 16), make_tokens(2, 16, seed=1)
ids = torch.tensor([[0] * 5 + [1] * 11, [0] * 16])

def run(model, function, **options):
    model.zero_grad()
    logits = function(inputs, **options)
    F.cross_entropy(logits.flatten(0, 1), targets.flatten()).backward()
    return [logits.detach()] + [p.grad.clone() for p in model.parameters() if p.requires_grad]

worst = {}
for name in names:
    torch._dynamo.reset()
    layers = 2 if "gemma" in name else 1  # one with a window, and one without
    name, _, rank = name.partition(" with an adapter of rank ")
    config = make_config(name, **({} if "mlp" in name else {"num_hidden_layers": layers}))
    train = SimpleNamespace(lora_rank=int(rank or 0), lora_alpha="auto", lora_targets=(), lora_dropout=0.0)
    model = make_network(adapted_by(config, train))
    freeze_others(model, "")
    compiled = torch.compile(model, fullgraph=True, dynamic=False, backend=backend)
    cases = {"plain": {}, "documents": {"document_ids": ids}}
    if backend == "inductor":
        del cases["documents"]
    for label, options in cases.items():
        pairs = zip(run(model, model, **options), run(model, compiled, **options), strict=True)
        worst[" ".join((name, rank, label))] = max(float((a - b).norm() / (a.norm() + 1e-6)) for a, b in pairs)
print(json.dumps(worst))
"""


def _compare(backend: str, *names: str) -> dict[str, float]:
    tests = Path(__file__).parent.parent
    environment = os.environ | {"PYTHONPATH": str(tests), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, backend, *names],
        capture_output=True,
        text=True,
        env=environment,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def test_every_family_is_one_graph() -> None:
    names = ("llama", "llama-grouped-tied", "qwen3", "gpt2", "smollm3", "gemma3_text", "mlp-direct")
    names += tuple(f"{name} with an adapter of rank 3" for name in ("llama-grouped-tied", "gpt2"))
    differences = _compare("aot_eager", *names)
    assert len(differences) == 2 * len(names)
    assert max(differences.values()) < 1e-5, differences


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler, as torch.compile does")
def test_compiled_equals_uncompiled() -> None:
    differences = _compare("inductor", "llama-grouped-tied")
    assert max(differences.values()) < 1e-5, differences
