"""Loss mask and weights of a batch; the loss is the weighted mean over the whole batch."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from etude.config import TrainSettings
from etude.data.tokens.coverage import IGNORE_INDEX
from etude.device import Device
from etude.model.language_model import LanguageModel
from etude.train.batch import MicroBatch, total_weight
from etude.train.loss import summed_loss, token_losses
from etude.train.optimizer import UpdateRules
from etude.train.step import NothingToTrain, update_step
from networks import make_config, make_network

CPU = Device("cpu", "fp32", 1)
ROWS, CONTEXT, VOCAB = 6, 8, 60


def arrays(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return inputs, next tokens, a loss mask without the first token, and weights, some of them 0."""
    dice = np.random.default_rng(seed)
    tokens = dice.integers(0, VOCAB, (ROWS, CONTEXT + 1))
    mask = dice.random((ROWS, CONTEXT)) < 0.3
    mask[0, 0] = True
    weights = np.where(dice.random((ROWS, CONTEXT)) < 0.2, 0, dice.random((ROWS, CONTEXT)) * 5)
    weights[0, 0] = 0.5
    return tokens[:, :-1], tokens[:, 1:], mask, weights.astype(np.float32)


def parts_of(seed: int, sizes: list[int], *, masked: bool, weighted: bool) -> list[MicroBatch]:
    inputs, tokens, mask, weights = arrays(seed)
    edges = np.cumsum([0, *sizes]).tolist()
    return [
        MicroBatch.of(
            inputs[a:b].copy(),
            tokens[a:b].copy(),
            CPU,
            loss_mask=mask[a:b] if masked else None,
            weights=weights[a:b] if weighted else None,
        )
        for a, b in pairwise(edges)
    ]


def mean_loss(model: LanguageModel, seed: int, *, masked: bool, weighted: bool) -> Tensor:
    """The definition: the sum of w * -log p over the mask, divided by the sum of w, token by token."""
    inputs, tokens, mask, weights = arrays(seed)
    logits = model(torch.from_numpy(inputs.copy()))
    top, bottom = 0 * logits.sum(), 0.0
    for row in range(ROWS):
        for place in range(CONTEXT):
            weight = float(weights[row, place]) if weighted else 1.0
            if masked and not mask[row, place]:
                continue
            probability = torch.softmax(logits[row, place], -1)[int(tokens[row, place])]
            top, bottom = top - weight * torch.log(probability), bottom + weight
    return top / bottom


@settings(max_examples=25, deadline=None)
@given(
    cuts=st.lists(st.integers(1, ROWS), max_size=ROWS),
    masked=st.booleans(),
    weighted=st.booleans(),
    pieces=st.booleans(),
    seed=st.integers(0, 50),
)
def test_a_step_has_the_weighted_mean_of_its_whole_batch(
    cuts: list[int], masked: bool, weighted: bool, pieces: bool, seed: int
) -> None:
    edges = sorted({0, ROWS, *(min(cut, ROWS) for cut in cuts)})
    sizes = [b - a for a, b in pairwise(edges)]
    model = make_network(make_config("llama")).double()
    train = TrainSettings(optimizer="muon", lr=1e-2, muon_lr=1e-2, weight_decay=0.1, steps=1)
    expected = mean_loss(model, seed, masked=masked, weighted=weighted)
    gradients = torch.autograd.grad(expected, list(model.parameters()))
    actual: list[Tensor] = []

    def loss(part: MicroBatch) -> Tensor:
        hidden, head = model.hidden(part.inputs), model.unembedding()
        at_once = 5 if pieces else None
        return summed_loss(hidden, part.targets, *head, token_weights=part.weights, at_once=at_once)

    result = update_step(
        list(model.parameters()),
        loss,
        parts_of(seed, sizes, masked=masked, weighted=weighted),
        UpdateRules(model, train, CPU),
        lr_factor=1.0,
        momentum=0.9,
        max_grad_norm=1e9,
        device=CPU,
        read_gradient=lambda batch: actual.extend(p.grad.clone() for p in model.parameters()),  # type: ignore[union-attr]
    )
    assert result.loss.item() == pytest.approx(
        expected.item(), rel=1e-6
    )  # its sum over the parts is kept in fp32
    for seen, gradient in zip(actual, gradients, strict=True):
        torch.testing.assert_close(seen, gradient, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("masked", "weighted"), [(False, False), (True, False), (False, True), (True, True)])
def test_a_batch_has_mask_and_weights(masked: bool, weighted: bool) -> None:
    _, tokens, mask, weights = arrays(3)
    (part,) = parts_of(3, [ROWS], masked=masked, weighted=weighted)
    counts = np.ones_like(mask) if not masked else mask
    if weighted:
        counts = counts & (weights > 0)  # what weighs nothing is not trained
    assert (part.loss_mask.numpy() == counts).all()
    assert part.num_targets == counts.sum()
    assert (part.targets.numpy() == np.where(counts, tokens, IGNORE_INDEX)).all()
    if weighted:
        assert part.weights is not None
        assert (part.weights.numpy() == np.where(counts, weights, 0)).all()
        assert part.total_weight == math.fsum(weights[counts].tolist())
    else:
        assert part.weights is None
        assert part.total_weight == part.num_targets
    assert total_weight([part, part]) == 2 * part.total_weight


def test_invalid_weights_are_refused() -> None:
    inputs, tokens, _, weights = arrays(1)
    for bad in (-1.0, math.nan, math.inf):
        weights[2, 3] = bad
        with pytest.raises(ValueError, match="finite and not negative"):
            MicroBatch.of(inputs.copy(), tokens.copy(), CPU, weights=weights)


@pytest.mark.parametrize("weighted", [False, True])
def test_a_batch_without_a_trained_token_changes_nothing_and_is_one_line(weighted: bool) -> None:
    model = make_network(make_config("llama"))
    before = [parameter.detach().clone() for parameter in model.parameters()]
    inputs, tokens, _, weights = arrays(2)
    empty = np.zeros((ROWS, CONTEXT), bool)
    part = MicroBatch.of(
        inputs.copy(), tokens.copy(), CPU, loss_mask=empty, weights=weights if weighted else None
    )
    settings = TrainSettings(optimizer="muon", lr=1e-2, muon_lr=1e-2, weight_decay=0.1, steps=1)
    with pytest.raises(NothingToTrain, match=r"counts no token of this batch.*train\.batch_rows"):
        update_step(
            list(model.parameters()),
            lambda part: summed_loss(model.hidden(part.inputs), part.targets, *model.unembedding()),
            [part, part],
            UpdateRules(model, settings, CPU),
            lr_factor=1.0,
            momentum=0.9,
            max_grad_norm=1.0,
            device=CPU,
        )
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_a_micro_batch_without_a_trained_token_adds_nothing() -> None:
    """Neither to the loss nor to the gradient, computed at once or in pieces."""
    model = make_network(make_config("llama"))
    inputs, tokens, _, _ = arrays(2)
    part = MicroBatch.of(inputs.copy(), tokens.copy(), CPU, loss_mask=np.zeros((ROWS, CONTEXT), bool))
    for at_once in (None, 5):
        loss = summed_loss(model.hidden(part.inputs), part.targets, *model.unembedding(), at_once=at_once)
        loss.backward()
        assert loss.item() == 0
        assert all(not p.grad.any() for p in model.parameters() if p.grad is not None)


def test_token_losses_in_float64_are_the_definition() -> None:
    model = make_network(make_config("llama")).double()
    (part,) = parts_of(7, [ROWS], masked=True, weighted=False)
    logits = model(part.inputs)
    losses = token_losses(logits, part.targets)
    assert losses.dtype == torch.float64
    expected = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), part.targets.flatten(), ignore_index=IGNORE_INDEX, reduction="none"
    )
    torch.testing.assert_close(losses.flatten(), expected, rtol=1e-12, atol=1e-14)
    assert (losses[~part.loss_mask] == 0).all()
