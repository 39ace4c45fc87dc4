"""The batches and losses of pretraining: functions of the seed and the step alone, dropout included."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from etude.config import TrainSettings, load_settings
from etude.data.tokens.coverage import IGNORE_INDEX
from etude.data.tokens.loader import BatchLoader
from etude.data.tokens.parts import TokenPart
from etude.device import Device
from etude.errors import InputError
from etude.registry import OBJECTIVES
from etude.train.loop import TrainState, make_step
from etude.train.objectives import LossScope, NextToken, Prefetched, objective_kind, require_objective
from etude.train.optimizer import UpdateRules
from networks import make_config, make_network
from scopes import Counted

CPU = Device("cpu", "fp32", 1)


def next_token(
    name: str,
    dropout: float,
    *,
    recompute: bool = False,
    micro_batch_rows: int = 2,
    scope: LossScope | None = None,
    within_documents: bool = False,
) -> NextToken:
    generator = torch.Generator().manual_seed(0)
    documents = [torch.randint(1, 60, (40,), generator=generator).tolist() for _ in range(10)]
    loader = BatchLoader(TokenPart.from_documents(documents, document_id=0), 16, 4, seed=7)
    network = make_network(make_config(name))
    return NextToken(
        network,
        loader,
        CPU,
        num_steps=9,
        micro_batch_rows=micro_batch_rows,
        scope=scope,
        within_documents=within_documents,
        dropout=dropout,
        recompute=recompute,
    )


@pytest.mark.parametrize("name", ["llama", "gpt2", "mlp"])
def test_dropout_is_a_function_of_the_step(name: str) -> None:
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


def test_a_batch_counts_its_targets() -> None:
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
    for plain, recomputed in zip(*gradients, strict=True):
        assert plain is not None
        assert recomputed is not None
        assert torch.equal(plain, recomputed)


SCOPES = [None, Counted(), Counted(2, 1, weighted=True)]


@pytest.mark.parametrize("scope", SCOPES, ids=["all", "some", "weighted"])
def test_prefetched_batches_are_the_batches(scope: LossScope | None) -> None:
    objective = next_token("llama", 0.3, scope=scope, within_documents=True)
    ahead = Prefetched(objective, CPU)
    require_objective(ahead)
    assert (ahead.model, ahead.num_steps, ahead.tokens_per_step) == (objective.model, 9, 64)
    for step in (1, 2, 3, 7, 8, 9, 2):  # in their order, and not
        for made, wanted in zip(ahead.batch(step), objective.batch(step), strict=True):
            assert len(made.tensors) == 4 + bool(scope and scope.weighted)
            assert all(map(torch.equal, made.tensors, wanted.tensors))
            assert (made.num_targets, made.total_weight) == (wanted.num_targets, wanted.total_weight)
            assert ahead.loss(made).item() == objective.loss(wanted).item()
            row, expected = ahead.row(made, 1), objective.row(wanted, 1)
            assert torch.equal(row.inputs, expected.inputs)
    assert ahead.row_sources(2) == objective.row_sources(2)
    assert torch.equal(ahead.first_row(2, 5).inputs, objective.batch(2)[0].inputs[:1, :5])
    assert ahead.halve_micro_batches() == 1
    assert [len(part.inputs) for part in ahead.batch(3)] == [1, 1, 1, 1]


@pytest.mark.parametrize("scope", SCOPES, ids=["all", "some", "weighted"])
@pytest.mark.parametrize("name", ["llama", "mlp"])
def test_the_loss_of_a_micro_batch_is_that_of_its_rows(name: str, scope: LossScope | None) -> None:
    """The losses of single rows, from which steps are explained, add up to the trained loss."""
    objective = next_token(name, 0.3, scope=scope, within_documents=name != "mlp")
    for part in objective.batch(2):
        total = 0.0
        for place in range(len(part.inputs)):
            row = objective.row(part, place)
            read = {"document_ids": row.document_ids, "dropout": row.dropout}
            logits = objective.model.head(objective.model.hidden(row.inputs, **read))
            losses = objective.token_losses(logits, row)
            assert ((losses != 0) == part.loss_mask[place]).all()
            total += (losses if row.weights is None else losses * row.weights).sum().item()
        assert total == pytest.approx(objective.loss(part).item(), rel=1e-5)


@pytest.mark.parametrize("scope", SCOPES, ids=["all", "some", "weighted"])
def test_the_first_row_is_the_start_of_the_first_row_of_the_batch(scope: LossScope | None) -> None:
    objective = next_token("llama", 0.3, scope=scope, within_documents=True)
    whole, start = objective.row(objective.batch(4)[0], 0), objective.first_row(4, 6)
    assert start.dropout is None
    for name in ("inputs", "targets", "document_ids", "weights"):
        seen, expected = getattr(start, name), getattr(whole, name)
        assert seen is None if expected is None else torch.equal(seen, expected[:, :6])


def test_a_batch_has_the_mask_and_the_weights_of_its_tokens() -> None:
    scope = Counted(3, 1, weighted=True)
    objective, plain = next_token("llama", 0.0, scope=scope), next_token("llama", 0.0)
    loader = plain._loader
    for step in (1, 3):
        places = loader.target_places(step - 1, 0, 4)
        tokens = loader.part.windows(places[:, 0], 16)
        counts = scope.mask(loader.part, places)
        targets = torch.cat([part.targets for part in objective.batch(step)]).numpy()
        weights = torch.cat([part.weights for part in objective.batch(step)]).numpy()
        assert (targets[counts] == tokens[counts]).all()
        assert (targets[~counts] == IGNORE_INDEX).all()
        assert (weights == scope.weights(loader.part, places) * counts).all()
        # The mask is about tokens and not about where they stand in a row: neighbours in the text keep it.
        assert (np.diff(places, axis=1) == 1).all()


def test_a_mask_of_ones_is_next_token_to_the_bit() -> None:
    """Compiled: tests/train/test_compilation.py."""
    actual = []
    for scope in (None, Counted(1, 1)):
        torch.set_num_threads(1)
        objective = next_token("llama", 0.3, scope=scope, within_documents=True)
        train = TrainSettings(optimizer="muon", lr=1e-2, muon_lr=1e-2, weight_decay=0.1, steps=9)
        state = TrainState(objective.model, UpdateRules(objective.model, train, CPU))
        losses = [make_step(state, objective, train, CPU).loss.item() for _ in range(4)]
        actual.append((losses, [parameter.detach().clone() for parameter in state.model.parameters()]))
    assert actual[0][0] == actual[1][0]
    assert all(map(torch.equal, actual[0][1], actual[1][1]))


def test_an_incomplete_objective_is_refused() -> None:
    with pytest.raises(InputError, match="lacks model, num_steps"):
        require_objective(object())
    with pytest.raises(InputError, match="ObjectiveKind, not as NextToken"):
        OBJECTIVES.register("wrong", next_token("llama", 0.0))
    with pytest.raises(InputError, match=r"there is no objective 'next-tokn': did you mean 'next-token'\?"):
        objective_kind("next-tokn")
    with pytest.raises(
        InputError, match=r"setting 'train\.objective': there is no objective 'answers': did you mean"
    ):
        load_settings(None, ["train.objective=answers"])
    assert OBJECTIVES.names()[:2] == ["next-token", "answer-only"]
