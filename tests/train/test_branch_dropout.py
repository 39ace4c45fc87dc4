"""Dropout of adapters: masks from the hash of all dropout, and batches that are a function of seed and step alone."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from etude.data.tokens.loader import BatchLoader
from etude.data.tokens.parts import TokenPart
from etude.device import Device
from etude.model.adapter import adapted_by, adapted_matrices
from etude.model.cost import kept_per_token
from etude.model.dropout import Dropout, branch_keep_mask, keep_masks
from etude.model.lora import LoRALinear
from etude.train.objectives import NextToken, Prefetched
from networks import make_config, make_network, make_tokens

CPU = Device("cpu", "fp32", 1)


def network(name: str, dropout: float) -> Any:
    train: Any = SimpleNamespace(lora_rank=3, lora_alpha=6.0, lora_targets=(), lora_dropout=dropout)
    return make_network(adapted_by(make_config(name), train))


def objective(name: str, of_adapter: float, rows: int = 2, **options: Any) -> NextToken:
    documents = [make_tokens(1, 40, seed, vocab=60)[0].add(1).tolist() for seed in range(10)]
    loader = BatchLoader(TokenPart.from_documents(documents, document_id=0), 16, 4, seed=7)
    return NextToken(network(name, of_adapter), loader, CPU, num_steps=9, micro_batch_rows=rows, **options)


def gradients(given: NextToken, step: int = 3) -> dict[str, torch.Tensor]:
    given.model.zero_grad()
    for part in given.batch(step):
        given.loss(part).backward()
    return {name: p.grad for name, p in given.model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize(("context", "width"), [(16, 32), (5, 7)])
def test_the_masks_are_those_of_all_dropout(context: int, width: int) -> None:
    expected = keep_masks(0.3, -12345, 2, (3, 4, context, width), torch.device("cpu"))
    rows = torch.tensor([[-12345, row] for row in (5, 3)])
    for place in range(3):
        actual = branch_keep_mask(0.3, rows, place, context, width)
        assert torch.equal(actual, expected[place, [3, 1]])


def test_each_matrix_has_a_place_of_its_own_and_a_fused_one_has_one() -> None:
    model = network("gpt2", 0.3)
    places = [
        {model.get_submodule(part).place for part in matrix.parts}
        for matrix in adapted_matrices(model.config)
    ]
    assert sorted(place for matrix in places for place in matrix) == list(range(-len(places), 0))
    assert len(adapted_matrices(model.config)[0].parts) == 3


def test_the_expectation_is_the_branch_without_dropout() -> None:
    layer = network("llama", 0.25).get_submodule("model.layers.0.mlp.up_proj")
    assert isinstance(layer, LoRALinear)
    x = torch.randn(1, 1, 32, generator=torch.Generator().manual_seed(3)).expand(20_000, 1, 32)
    rows = torch.stack([torch.full((20_000,), 99), torch.arange(20_000)], dim=1)
    with torch.no_grad():
        dropped, plain = layer(x, Dropout(None, 1.0, rows)), layer(x)[0, 0]
        error = dropped.std(0)[0] / 20_000**0.5
        assert ((dropped.mean(0)[0] - plain).abs() < 5 * error).all()
        assert (dropped[0, 0] - plain).abs().max() > 20 * error.max()


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_it_depends_on_the_step_and_not_on_the_micro_batches(name: str) -> None:
    whole = gradients(objective(name, 0.3, rows=4))
    for rows in (1, 3):
        for key, gradient in gradients(objective(name, 0.3, rows=rows)).items():
            torch.testing.assert_close(gradient, whole[key], rtol=1e-4, atol=1e-5)
    given = objective(name, 0.3, rows=4)
    seeds = {int(part.branch_rows[0, 0]) for step in range(1, 10) for part in given.batch(step)}
    assert len(seeds) == 9
    ahead = Prefetched(given, CPU)
    assert all(map(torch.equal, ahead.batch(2)[0].tensors, given.batch(2)[0].tensors))


@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_recomputed_layers_and_single_rows_have_the_same_masks(dropout: float) -> None:
    plain, recomputed = (objective("llama", 0.3, dropout=dropout, recompute=r) for r in (False, True))
    expected = gradients(plain)
    assert all(torch.equal(gradient, expected[name]) for name, gradient in gradients(recomputed).items())
    part = plain.batch(3)[1]
    rows = [plain.row(part, place) for place in range(2)]
    losses = [
        plain.token_losses(plain.model.head(plain.model.hidden(row.inputs, dropout=row.dropout)), row).sum()
        for row in rows
    ]
    assert sum(loss.item() for loss in losses) == pytest.approx(plain.loss(part).item(), rel=1e-6)


def test_it_changes_the_loss_in_training_and_nothing_else() -> None:
    plain, dropped = objective("llama", 0.0), objective("llama", 0.3)
    part = plain.batch(1)[0]
    assert part.branch_rows is None
    assert plain.row(part, 0).dropout is None
    assert plain.loss(part).item() != dropped.loss(dropped.batch(1)[0]).item()
    assert torch.equal(plain.model(part.inputs), dropped.model(part.inputs))
    assert dropped.first_row(1, 8).dropout is None


def test_what_it_keeps_in_memory_is_predicted() -> None:
    def kept(dropout: float) -> int:
        given = objective("llama", dropout)
        part = given.batch(1)[0]
        sizes: dict[int, int] = {}
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t: sizes.update({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes()}) or t,
            lambda t: t,
        ):
            held = given.loss(part)
        assert held.requires_grad
        return sum(sizes.values())

    predicted = [32 * 4 * kept_per_token(network("llama", dropout).config) for dropout in (0.0, 0.3)]
    assert kept(0.3) - kept(0.0) == pytest.approx(predicted[1] - predicted[0], rel=0.1)
