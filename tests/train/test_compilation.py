"""torch.compile gives the same losses and gradients as eager mode; without a compiler there is one line."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from etude.device import Device
from etude.train.compilation import (
    compile_objective,
    compiled_before,
    expected_compile_seconds,
    note_compiled,
)
from waiting import PATIENCE

AGREEMENT = """
import os, sys
import torch
from etude.data.tokens.loader import BatchLoader
from etude.data.tokens.parts import TokenPart
from etude.device import Device
from etude.model.build import build_model
from etude.model.config import preset
from etude.train.compilation import compile_objective
from etude.train.objectives import NextToken
from scopes import Counted

torch.set_num_threads(1)
device = Device("cpu", "fp32", 1)
generator = torch.Generator().manual_seed(0)
documents = [torch.randint(1, 50, (100,), generator=generator).tolist() for _ in range(20)]
part = TokenPart.from_documents(documents, document_id=0)
dims = dict(vocab_size=50, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, max_position_embeddings=16)
model = build_model(preset(sys.argv[1], **dims), seed=1)
with torch.no_grad():
    for parameter in model.parameters():
        parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
loader = BatchLoader(part, 16, 4, seed=0)
objective = NextToken(model, loader, device, num_steps=2, micro_batch_rows=2, dropout=DROPOUT, scope=SCOPE)

def measure():
    model.zero_grad()
    losses = [objective.loss(micro) for micro in objective.batch(1)]
    sum(losses).backward()
    return [loss.item() for loss in losses], [p.grad.clone() for p in model.parameters()]

eager_losses, eager_gradients = measure()
problem = compile_objective(objective, device, "auto")
print("problem:", problem)
assert all(p.grad is None for p in model.parameters()), "the probe leaves no gradients behind"
losses, gradients = measure()
torch.testing.assert_close(losses, eager_losses, rtol=1e-5, atol=1e-5)
for ours, theirs in zip(gradients, eager_gradients):
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
"""


def in_a_process(code: str, family: str, **environment: str) -> str:
    """Run ``code`` in a new process and return its output. The compiler cannot trace the shape checks of this one."""
    path = os.pathsep.join([str(Path(__file__).parent.parent), os.environ.get("PYTHONPATH", "")])
    result = subprocess.run(
        [sys.executable, "-c", code, family],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        env={**os.environ, "PYTHONPATH": path, **environment},
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def agreement(dropout: float = 0.0, scope: str = "None") -> str:
    """The code that compares compiled with eager mode."""
    return AGREEMENT.replace("DROPOUT", str(dropout)).replace("SCOPE", scope)


@pytest.mark.parametrize(
    ("family", "dropout", "scope"),
    [("llama", 0.0, "None"), ("gpt2", 0.3, "None"), ("llama", 0.3, "Counted(3, 2, weighted=True)")],
)
def test_compiled_and_eager_agree(family: str, dropout: float, scope: str) -> None:
    assert "problem: None" in in_a_process(agreement(dropout, scope), family)


BY_LAYER = (
    agreement()
    .replace("num_hidden_layers=2", "num_hidden_layers=12")
    .replace("scope=None", "within_documents=True, lean=True")
    .replace(
        "model = build",
        "from etude.model.adapter import LoRA\nfrom etude.model.lora import add_adapter\nmodel = build",
    )
    .replace("loader = Batch", "ADAPTER\nloader = Batch")
    .replace("p.grad.clone() for p in model.parameters()", "p.grad.clone() for p in trained")
    + """
import torch._dynamo.utils
graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
assert graphs == 1 + bool(config.adapter), graphs
"""
)
WITHOUT_ADAPTER = """
config, trained = model.config, list(model.parameters())
"""
WITH_ADAPTER = """
config = model.config.replace(adapter=LoRA(2, 4.0, ("q_proj", "down_proj"), 0.0))
add_adapter(model, config)
model.config = config
model.requires_grad_(False)
trained = [parameter for name, parameter in model.named_parameters() if "lora_" in name]
for parameter in trained:
    parameter.normal_(std=0.1, generator=generator).requires_grad_()
"""


@pytest.mark.slow  # it compiles twelve layers, as one or two graphs
@pytest.mark.parametrize("adapter", [WITHOUT_ADAPTER, WITH_ADAPTER], ids=["all", "adapter"])
def test_the_layers_of_a_base_model_share_their_graph(adapter: str) -> None:
    """The first layer has a graph of its own where its input needs no gradient."""
    assert "problem: None" in in_a_process(BY_LAYER.replace("ADAPTER", adapter), "llama")


EQUAL_BITS = (
    agreement(0.3, "Counted(1, 1)")
    .replace("eager_losses, eager_gradients = measure()", "")
    .split("torch.testing", 1)[0]
    + """
assert problem is None
objective._scope = None
again, expected = measure()
assert losses == again
assert all(map(torch.equal, gradients, expected))
print("same bits")
"""
)


def test_a_mask_of_ones_has_the_bits_of_no_mask_when_compiled() -> None:
    assert "same bits" in in_a_process(EQUAL_BITS, "llama")


def test_without_a_compiler_it_is_one_line_and_eager(tmp_path: Path) -> None:
    output = in_a_process(
        agreement(), "llama", CXX=str(tmp_path / "no-such-compiler"), TORCHINDUCTOR_CACHE_DIR=str(tmp_path)
    )
    problem = output.split("problem:", 1)[1].strip()
    assert problem != "None"
    assert len(problem.splitlines()) == 1


REPEATED = (
    agreement(0.2)
    .replace(
        'torch.set_num_threads(1)\ndevice = Device("cpu", "fp32", 1)',
        "from etude.config import DeviceSettings\nfrom etude.device import choose_device\n"
        'device = choose_device(DeviceSettings(kind="cpu", threads=2))',
    )
    .replace("torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)", "pass")
    + """
_, first = measure()
for _ in range(20):
    _, again = measure()
    assert all(torch.equal(a, b) for a, b in zip(first, again)), "the same step gave other bits"
"""
)


def test_compiled_steps_give_the_same_bits_on_several_threads() -> None:
    """The gradient of an embedding was once summed with atomics, in the order in which threads arrived."""
    in_a_process(REPEATED, "llama")


class NeverDone:
    """An objective whose compiler never returns, and swallows exceptions as PyTorch's does."""

    def __init__(self) -> None:
        self.model = torch.nn.Linear(1, 1)
        self.eager = False

    def compile(self) -> None:
        pass

    def use_eager(self) -> None:
        self.eager = True

    def batch(self, step: int) -> list[int]:
        return [0]

    def loss(self, part: int) -> torch.Tensor:
        end = time.monotonic() + 60
        with contextlib.suppress(Exception):
            while time.monotonic() < end:
                pass
        raise AssertionError("nobody stopped it")


def test_a_compilation_that_is_not_done_in_time_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    objective: Any = NeverDone()
    before = signal.getsignal(signal.SIGALRM)
    problem = compile_objective(objective, Device("cpu", "fp32", 1), "auto", limit=0.2)
    assert problem == "it was not done after 0.2 s, and the run has a time limit"
    assert objective.eager
    assert signal.getsignal(signal.SIGALRM) == before
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_without_time_nothing_is_compiled() -> None:
    objective: Any = NeverDone()
    assert (
        compile_objective(objective, Device("cpu", "fp32", 1), "auto", limit=0.0) == "no time is left for it"
    )


def test_a_compiled_graph_is_recorded_in_the_cache_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "one"))
    assert not compiled_before("a graph")
    note_compiled("a graph")
    assert compiled_before("a graph")
    assert not compiled_before("another graph")
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "other"))
    assert not compiled_before("a graph")


def test_the_expected_time_of_compilation_grows_with_layers() -> None:
    assert expected_compile_seconds(2, warm=False) < expected_compile_seconds(4, warm=False)
    assert expected_compile_seconds(4, warm=True) < expected_compile_seconds(4, warm=False) / 5
