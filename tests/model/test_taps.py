"""Taps cost training nothing: its graph is that of a network without them, and with them the numbers are the same."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from etude.model.attention import LONGEST_IN_BLOCKS, QUERIES_AT_ONCE
from etude.model.language_model import LOGITS
from etude.model.taps import Taps
from etude.watch.tapped_forward import run_with_taps
from networks import EVERY, TRANSFORMERS, make_config, make_network, make_tokens
from waiting import PATIENCE

NETWORKS = (
    "llama",
    "llama-grouped-tied",
    "qwen3",
    "gpt2",
    "gpt_neox",
    "gpt_neox-sequential",
    "olmo2",
    "qwen2",
    "smollm3",
    "gemma3_text",
    "mlp-direct",
)
Graphs = dict[str, list[list[str]]]


def trace(how: str, folder: Path, names: tuple[str, ...] = NETWORKS) -> Graphs:
    """Return the graphs of forward and backward passes, traced in a process that has ``etude.model`` to itself."""
    tests = Path(__file__).parent.parent
    variables = {"PYTHONPATH": str(tests), "PYTHONPYCACHEPREFIX": str(folder), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-B", str(tests / "model" / "traced.py"), how, *names],
        capture_output=True,
        text=True,
        env=os.environ | variables,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    graphs: Graphs = json.loads(done.stdout.splitlines()[-1])
    return graphs


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Graphs:
    return trace("as written", tmp_path_factory.mktemp("written"))


def test_the_graph_of_training_is_that_of_a_network_without_taps(written: Graphs, tmp_path: Path) -> None:
    """Node by node, forward and backward, for every family; also with documents apart, dropout, and recomputation."""
    without = trace("without", tmp_path)
    assert len(written) == 3 * len(NETWORKS)
    assert written.keys() == without.keys()
    for case, traced in written.items():
        assert len(traced) == 2, "one graph forward, one backward"
        assert sum(map(len, traced)) > 20
        assert traced == without[case], case
        assert not any("tap" in line for graph in traced for line in graph), case


def test_a_tap_that_did_something_would_be_seen(written: Graphs, tmp_path: Path) -> None:
    for case, traced in trace("changed", tmp_path, ("llama", "mlp-direct")).items():
        before, after = (sum("aten.add" in line for line in graph[0]) for graph in (written[case], traced))
        assert after > before, case


@torch.no_grad()
@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("apart", [False, True], ids=["together", "apart"])
def test_a_watched_pass_gives_the_logits_of_a_plain_one(name: str, apart: bool) -> None:
    """In fp32 to 1e-5 of logits of size 1 to 10; in bf16 to the bit, since attention goes in blocks."""
    for seed in range(2):
        model, inputs = make_network(make_config(name), seed), make_tokens(3, 41, seed)
        documents = torch.tensor([[0] * 9 + [1] * 32] * 3) if apart else None
        plain, watched = (
            model(inputs, document_ids=documents),
            run_with_taps(model, inputs, document_ids=documents),
        )
        torch.testing.assert_close(watched[LOGITS], plain, atol=1e-5, rtol=0)
        with torch.autocast("cpu", torch.bfloat16):
            plain, watched = (
                model(inputs, document_ids=documents),
                run_with_taps(model, inputs, document_ids=documents),
            )
        assert plain.dtype is watched[LOGITS].dtype is torch.bfloat16
        assert torch.equal(watched[LOGITS], plain)


@torch.no_grad()
@pytest.mark.parametrize("name", TRANSFORMERS)
def test_in_bf16_also_over_several_blocks(name: str) -> None:
    """A processor's products may sum longer rows in another order: half a rounding to 8 bits is allowed."""
    count = QUERIES_AT_ONCE + 44
    assert count < LONGEST_IN_BLOCKS
    model, inputs = make_network(make_config(name, max_position_embeddings=count)), make_tokens(1, count)
    with torch.autocast("cpu", torch.bfloat16):
        plain, watched = model(inputs).float(), run_with_taps(model, inputs)[LOGITS].float()
    assert (watched - plain).norm() <= 2**-9 * plain.norm()


@pytest.mark.parametrize(
    "name", ["llama", "gpt2", "gpt_neox", "olmo2", "qwen2", "smollm3", "gemma3_text", "mlp"]
)
def test_its_gradients_are_those_of_a_plain_pass(name: str) -> None:
    model, inputs = make_network(make_config(name)), make_tokens(2, 21)
    model(inputs).square().mean().backward()
    plain = {key: parameter.grad.clone() for key, parameter in model.named_parameters()}  # type: ignore[union-attr]
    model.zero_grad()
    run_with_taps(model, inputs, taps=Taps(gradients=True))[LOGITS].square().mean().backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None
        # The gradient of a bias of keys is 0 but for rounding: softmax ignores it.
        assert (parameter.grad - plain[key]).norm() <= 1e-5 * plain[key].norm() + 1e-7, key
