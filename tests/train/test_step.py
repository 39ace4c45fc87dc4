"""The update step: independent of how a batch is split, and equal to its definition in float64."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from etude.config import TrainSettings
from etude.data.tokens.coverage import IGNORE_INDEX
from etude.device import Device
from etude.model.build import build_model
from etude.model.config import preset
from etude.model.language_model import LanguageModel
from etude.train import loss as loss_module
from etude.train.batch import MicroBatch
from etude.train.loss import summed_loss, token_losses
from etude.train.optimizer import UpdateRules
from etude.train.step import clip_gradients, update_step

CPU = Device("cpu", "fp32", 1)
VOCAB, ROWS, CONTEXT = 17, 6, 8


def small_model(seed: int = 0) -> LanguageModel:
    config = preset(
        "llama", vocab_size=VOCAB, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=CONTEXT,
    )  # fmt: skip
    model = build_model(config, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():  # away from the zeros of initialisation, where many gradients vanish
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return model


def random_batch(seed: int, ignored: float) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(0, VOCAB, (ROWS, CONTEXT + 1), generator=generator)
    inputs, targets = tokens[:, :-1], tokens[:, 1:].clone()
    targets[torch.rand(targets.shape, generator=generator) < ignored] = IGNORE_INDEX
    targets[0, 0] = 1  # at least one real target
    return inputs, targets


def split(inputs: Tensor, targets: Tensor, sizes: list[int]) -> list[MicroBatch]:
    pairs = zip(inputs.split(sizes), targets.split(sizes), strict=True)
    return [micro_batch(i.contiguous(), t.contiguous()) for i, t in pairs]


def micro_batch(inputs: Tensor, targets: Tensor) -> MicroBatch:
    return MicroBatch(inputs, targets, int((targets != IGNORE_INDEX).sum()))


@settings(max_examples=20)
@given(
    cuts=st.lists(st.integers(1, ROWS), min_size=1, max_size=ROWS),
    ignored=st.sampled_from([0.0, 0.3, 0.9]),
    seed=st.integers(0, 100),
)
def test_any_split_into_micro_batches_gives_the_same_step(cuts: list[int], ignored: float, seed: int) -> None:
    sizes: list[int] = []
    for cut in cuts:
        sizes.append(min(cut, ROWS - sum(sizes)))
    sizes = [s for s in sizes if s > 0]
    if sum(sizes) < ROWS:
        sizes.append(ROWS - sum(sizes))
    inputs, targets = random_batch(seed, ignored)
    results = []
    for parts in (split(inputs, targets, [ROWS]), split(inputs, targets, sizes)):
        model = small_model().double()
        rules = UpdateRules(
            model, TrainSettings(optimizer="muon", lr=1e-2, muon_lr=1e-2, weight_decay=0.1, steps=1), CPU
        )
        result = update_step(
            list(model.parameters()),
            lambda part, model=model: summed_loss64(model, part),
            parts,
            rules,
            lr_factor=1.0,
            momentum=0.9,
            max_grad_norm=1e9,
            device=CPU,
        )
        results.append((result, {n: p.grad for n, p in model.named_parameters()}))
    (whole, whole_grads), (pieces, pieces_grads) = results
    assert pieces.loss.item() == pytest.approx(whole.loss.item(), rel=1e-6)
    assert pieces.grad_norm.item() == pytest.approx(whole.grad_norm.item(), rel=1e-10)
    for name, gradient in whole_grads.items():
        assert gradient is not None
        torch.testing.assert_close(pieces_grads[name], gradient, rtol=1e-10, atol=1e-13)


def summed_loss64(model: LanguageModel, part: MicroBatch) -> Tensor:
    """The loss by definition in float64: log of the sum of exponentials minus the target's logit."""
    logits = model(part.inputs)
    total = 0 * logits.sum()  # so that a part without any target has a gradient, of zero
    for row in range(logits.shape[0]):
        for position in range(logits.shape[1]):
            target = int(part.targets[row, position])
            if target != IGNORE_INDEX:
                scores = logits[row, position]
                total = total + torch.logsumexp(scores, 0) - scores[target]
    return total


@pytest.mark.parametrize("most", [VOCAB * 5, 2**25])
@pytest.mark.parametrize("weighted", [False, True])
def test_a_lean_loss_is_the_same_sum(monkeypatch: pytest.MonkeyPatch, most: int, weighted: bool) -> None:
    """It computes no logits of positions without a target, and never more than its limit."""
    monkeypatch.setattr(loss_module, "MOST_LOGITS", most)
    shapes, product = [], torch.nn.functional.linear

    def linear(x: Tensor, *head: Tensor) -> Tensor:
        shapes.append(x.shape[0])
        return product(x, *head)

    monkeypatch.setattr(torch.nn.functional, "linear", linear)
    _, targets = random_batch(8, 0.4)
    generator = torch.Generator().manual_seed(9)
    values = [torch.randn(shape, generator=generator).double() for shape in [(ROWS, CONTEXT, 5), (VOCAB, 5)]]
    weights = torch.rand(targets.shape, generator=generator).double() if weighted else None
    results = []
    for lean in (False, True):
        shapes.clear()
        hidden, weight = (value.clone().requires_grad_() for value in values)
        loss = summed_loss(hidden, targets, weight, token_weights=weights, lean=lean)
        loss.backward()
        results.append((loss.detach(), hidden.grad, weight.grad))
    assert sum(shapes) == int((targets != IGNORE_INDEX).sum()) < targets.numel()
    assert max(shapes) * VOCAB <= most
    for lean_value, value in zip(results[1], results[0], strict=True):
        torch.testing.assert_close(lean_value, value, rtol=1e-10, atol=1e-12)


def test_a_lean_loss_without_any_target_is_zero() -> None:
    hidden, weight = (torch.randn(shape).requires_grad_() for shape in [(1, 3, 5), (VOCAB, 5)])
    loss = summed_loss(hidden, torch.full((1, 3), IGNORE_INDEX), weight, lean=True)
    loss.backward()
    assert (loss.item(), float(hidden.grad.abs().sum())) == (0, 0)  # type: ignore[union-attr]


@pytest.mark.parametrize("frozen", ["hidden", "weight", "bias"])
def test_the_loss_in_pieces_computes_no_gradient_of_what_is_frozen(frozen: str) -> None:
    _, targets = random_batch(8, 0.4)
    generator, results = torch.Generator().manual_seed(8), []
    shapes = {"hidden": (ROWS, CONTEXT, 5), "weight": (VOCAB, 5), "bias": (VOCAB,)}
    values = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    for skipped in ("", frozen):
        inputs = {name: value.clone().requires_grad_(name != skipped) for name, value in values.items()}
        loss = summed_loss(inputs["hidden"], targets, inputs["weight"], inputs["bias"], at_once=7)
        saved = [tensor for tensor in loss.grad_fn.saved_tensors if tensor is not None]  # type: ignore[union-attr]
        loss.backward()
        results.append((len(saved), {name: tensor.grad for name, tensor in inputs.items()}))
    (all_saved, whole), (fewer, others) = results
    assert (all_saved, fewer, others.pop(frozen)) == (3, 2, None)
    for name, gradient in others.items():
        torch.testing.assert_close(gradient, whole[name], atol=0, rtol=0)


def test_losses_agree_with_the_definition() -> None:
    inputs, targets = random_batch(3, 0.3)
    model = small_model()
    expected = summed_loss64(model.double(), micro_batch(inputs, targets))
    logits = model.float()(inputs)
    hidden, head = model.hidden(inputs), model.unembedding()
    assert summed_loss(hidden, targets, *head).item() == pytest.approx(expected.item(), rel=1e-6)
    each = token_losses(logits, targets)
    assert each.sum().item() == pytest.approx(expected.item(), rel=1e-6)
    assert (each[targets == IGNORE_INDEX] == 0).all()
    assert each.shape == targets.shape


@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("at_once", [1, 7, ROWS * CONTEXT - 1])
def test_the_loss_in_pieces_has_the_value_and_the_gradients_of_the_whole(at_once: int, biased: bool) -> None:
    generator = torch.Generator().manual_seed(8)
    _, targets = random_batch(8, 0.4)
    values = [
        torch.randn(shape, generator=generator).double()
        for shape in [(ROWS, CONTEXT, 5), (VOCAB, 5), (VOCAB,)]
    ]
    results = []
    for pieces in (at_once, ROWS * CONTEXT):
        hidden, weight, bias = (value.clone().requires_grad_() for value in values)
        loss = summed_loss(hidden, targets, weight, bias if biased else None, at_once=pieces)
        (loss / 3).backward()
        results.append((loss.detach(), hidden.grad, weight.grad, bias.grad))
    for ours, whole in zip(*results, strict=True):
        if whole is not None:
            torch.testing.assert_close(ours, whole, rtol=1e-6, atol=1e-6)


def test_clipping_keeps_the_direction_and_returns_the_norm_before() -> None:
    parameters = [nn.Parameter(torch.zeros(3)), nn.Parameter(torch.zeros(2, 2))]
    parameters[0].grad = torch.tensor([3.0, 0.0, 0.0])
    parameters[1].grad = torch.tensor([[0.0, 4.0], [0.0, 0.0]])
    assert clip_gradients(parameters, 1.0).item() == pytest.approx(5.0)
    assert parameters[0].grad[0].item() == pytest.approx(0.6, rel=1e-5)
    before = [copy.deepcopy(p.grad) for p in parameters]
    assert clip_gradients(parameters, 2.0).item() == pytest.approx(1.0, rel=1e-5)
    for parameter, gradient in zip(parameters, before, strict=True):
        assert torch.equal(parameter.grad, gradient)  # type: ignore[arg-type]


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_few_steps_on_one_batch_lower_its_loss(optimizer: str) -> None:
    model = small_model()
    requested = {"lr": 1e-2, "muon_lr": 1e-2, "weight_decay": 0.1, "steps": 30, "optimizer": optimizer}
    rules = UpdateRules(model, TrainSettings.model_validate(requested), CPU)
    batch = split(*random_batch(5, 0.0), [ROWS])
    losses = [
        update_step(
            list(model.parameters()),
            lambda part: summed_loss(model.hidden(part.inputs), part.targets, *model.unembedding()),
            batch,
            rules,
            lr_factor=1.0,
            momentum=0.9,
            max_grad_norm=1.0,
            device=CPU,
        ).loss.item()
        for _ in range(30)
    ]
    assert losses[-1] < 0.5 * losses[0]
