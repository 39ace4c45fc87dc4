"""The batches and losses of pretraining: functions of the seed and the step alone, dropout included."""

from __future__ import annotations

import pytest
import torch

from etude.data.tokens.loader import BatchLoader
from etude.data.tokens.parts import TokenPart
from etude.device import Device
from etude.train.objectives import NextToken
from networks import make_config, make_network

CPU = Device("cpu", "fp32", 1)


def next_token(name: str, dropout: float) -> NextToken:
    generator = torch.Generator().manual_seed(0)
    documents = [torch.randint(1, 60, (40,), generator=generator).tolist() for _ in range(10)]
    loader = BatchLoader(TokenPart.from_documents(documents, eos_id=0), 16, 4, seed=7)
    network = make_network(make_config(name))
    return NextToken(network, loader, CPU, num_steps=9, micro_batch_rows=2, dropout=dropout)


@pytest.mark.parametrize("name", ["llama", "gpt2", "mlp"])
def test_what_dropout_leaves_out_is_a_function_of_the_step(name: str) -> None:
    objective = next_token(name, 0.3)
    torch.manual_seed(1)
    first = [objective.loss(part).item() for part in objective.batch(3)]
    torch.manual_seed(2)
    assert first == [objective.loss(part).item() for part in objective.batch(3)]
    seeds = {part.dropout_seed for step in range(1, 10) for part in objective.batch(step)}
    assert len(seeds) == 18


@pytest.mark.parametrize("name", ["llama", "gpt2", "mlp"])
def test_dropout_changes_the_loss_in_training_and_in_nothing_else(name: str) -> None:
    plain, dropped = next_token(name, 0.0), next_token(name, 0.3)
    part = plain.batch(1)[0]
    assert plain.loss(part).item() != dropped.loss(part).item()
    torch.testing.assert_close(plain.model(part.inputs), dropped.model(part.inputs), rtol=0, atol=0)


def test_a_batch_knows_its_targets() -> None:
    for part in next_token("llama", 0.0).batch(2):
        assert part.num_targets == part.targets.numel() == 32
