"""The batches and losses of pretraining: functions of the seed and the step alone, dropout included."""

from __future__ import annotations

import pytest
import torch

from etude.data.tokens.loader import BatchLoader
from etude.data.tokens.parts import TokenPart
from etude.device import Device
from etude.train.objectives import NextToken, Prefetched
from networks import make_config, make_network

CPU = Device("cpu", "fp32", 1)


def next_token(name: str, dropout: float, *, recompute: bool = False, micro_batch_rows: int = 2) -> NextToken:
    generator = torch.Generator().manual_seed(0)
    documents = [torch.randint(1, 60, (40,), generator=generator).tolist() for _ in range(10)]
    loader = BatchLoader(TokenPart.from_documents(documents, eos_id=0), 16, 4, seed=7)
    network = make_network(make_config(name))
    return NextToken(
        network,
        loader,
        CPU,
        num_steps=9,
        micro_batch_rows=micro_batch_rows,
        dropout=dropout,
        recompute=recompute,
    )


@pytest.mark.parametrize("name", ["llama", "gpt2", "mlp"])
def test_what_dropout_leaves_out_is_a_function_of_the_step(name: str) -> None:
    objective = next_token(name, 0.3)
    torch.manual_seed(1)
    first = [objective.loss(part).item() for part in objective.batch(3)]
    torch.manual_seed(2)
    assert first == [objective.loss(part).item() for part in objective.batch(3)]
    masks = {part.keep_mask.numpy().tobytes() for step in range(1, 10) for part in objective.batch(step)}
    assert len(masks) == 18


@pytest.mark.parametrize("name", ["llama", "gpt2", "mlp"])
def test_dropout_does_not_depend_on_the_micro_batches(name: str) -> None:
    losses = [
        sum(objective.loss(part).item() for part in objective.batch(3))
        for objective in (next_token(name, 0.3, micro_batch_rows=rows) for rows in (1, 2, 3, 4))
    ]
    assert losses == pytest.approx([losses[0]] * 4, rel=1e-6)


@pytest.mark.parametrize("name", ["llama", "gpt2", "mlp"])
def test_dropout_changes_the_loss_in_training_and_in_nothing_else(name: str) -> None:
    plain, dropped = next_token(name, 0.0), next_token(name, 0.3)
    part = plain.batch(1)[0]
    assert plain.loss(part).item() != dropped.loss(dropped.batch(1)[0]).item()
    torch.testing.assert_close(plain.model(part.inputs), dropped.model(part.inputs), rtol=0, atol=0)


def test_a_batch_knows_its_targets() -> None:
    for part in next_token("llama", 0.0).batch(2):
        assert part.num_targets == part.targets.numel() == 32


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("name", ["llama", "qwen3", "gpt2", "mlp"])
def test_recomputed_layers_have_the_same_gradients(name: str, dropout: float) -> None:
    gradients = []
    for recompute in (False, True):
        objective = next_token(name, dropout, recompute=recompute)
        for part in objective.batch(1):
            objective.loss(part).backward()
        gradients.append([parameter.grad for parameter in objective.model.parameters()])
    for kept, recomputed in zip(*gradients, strict=True):
        assert kept is not None
        assert recomputed is not None
        assert torch.equal(kept, recomputed)


def test_batches_made_ahead_are_the_batches() -> None:
    objective = next_token("llama", 0.3)
    ahead = Prefetched(objective, CPU)
    assert (ahead.num_steps, ahead.tokens_per_step) == (9, 64)
    for step in (1, 2, 3, 7, 8, 9, 2):  # in their order, and not
        for made, wanted in zip(ahead.batch(step), objective.batch(step), strict=True):
            assert torch.equal(made.inputs, wanted.inputs)
            assert torch.equal(made.targets, wanted.targets)
            assert torch.equal(made.keep_mask, wanted.keep_mask)
            assert ahead.loss(made).item() == objective.loss(wanted).item()
