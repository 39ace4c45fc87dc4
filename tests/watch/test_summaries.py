"""The numbers of a summary are those of the step, computed independently."""

from __future__ import annotations

import copy
import json
import math

import pytest
import torch
from torch import Tensor

from etude.config import DeviceSettings, TrainSettings
from etude.device import choose_device
from etude.model.language_model import LanguageModel
from etude.model.mlp import WindowMLP
from etude.train.batch import MicroBatch
from etude.train.loss import summed_loss
from etude.train.optimizer import UpdateRules
from etude.train.step import clip_factor, update_step
from etude.watch.summaries import activity, tensor_norms, weights_before
from networks import EVERY, TRANSFORMERS, make_config, make_network, make_tokens

SETTINGS = TrainSettings(optimizer="muon", lr=1e-3, muon_lr=1e-2, weight_decay=0.1)


def one_step(model: LanguageModel, max_grad_norm: float) -> float:
    """Make a training step; return its clip factor."""
    device = choose_device(DeviceSettings(kind="cpu", threads=1))
    inputs, targets = make_tokens(2, 16), make_tokens(2, 16, seed=1)

    def loss(part: MicroBatch) -> Tensor:
        return summed_loss(model.hidden(part.inputs), part.targets, *model.unembedding())

    rules = UpdateRules(model, SETTINGS, device)
    result = update_step(
        list(model.parameters()),
        loss,
        [MicroBatch(inputs, targets, targets.numel())],
        rules,
        lr_factor=1.0,
        momentum=0.9,
        max_grad_norm=max_grad_norm,
        device=device,
    )
    return clip_factor(result.grad_norm, max_grad_norm)


def gradients_of(model: LanguageModel) -> dict[str, Tensor]:
    """Return the gradients of the batch of :func:`one_step`, in float64."""
    model = copy.deepcopy(model).double()
    logits = model(make_tokens(2, 16)).flatten(0, 1)
    torch.nn.functional.cross_entropy(logits, make_tokens(2, 16, seed=1).flatten()).backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("max_grad_norm", [0.01, 100.0])
@pytest.mark.parametrize("name", EVERY)
def test_norms_are_those_of_the_step(name: str, max_grad_norm: float) -> None:
    model = make_network(make_config(name))
    old = {name: p.detach().double() for name, p in model.named_parameters()}
    gradients = gradients_of(model)
    before = weights_before(model)
    factor = one_step(model, max_grad_norm)
    assert (factor < 1) == (max_grad_norm < 1)
    new = {name: p.detach().double() for name, p in model.named_parameters()}
    clipped = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    norms_by_name = tensor_norms(model, before, factor)
    assert norms_by_name.keys() == new.keys()
    for key, norms in norms_by_name.items():
        update, weight = (new[key] - old[key]).norm(), new[key].norm()
        whole = gradients[key].norm()
        # A gradient that should be zero (softmax ignores a bias of all keys) is rounding only.
        assert norms["grad_norm"] == pytest.approx(float(whole), rel=1e-3, abs=1e-6)
        assert norms["weight_norm"] == pytest.approx(float(weight), rel=6e-6)
        assert norms["update_norm"] == pytest.approx(float(update), rel=6e-6)
        assert norms["update_ratio"] == pytest.approx(float(update / weight), rel=6e-6)
    for key, parameter in model.named_parameters():  # tensor_norms changed neither weights nor gradients
        assert torch.equal(parameter.double(), new[key])
        assert torch.equal(parameter.grad, clipped[key])


def test_a_number_that_is_not_finite_is_none() -> None:
    model = make_network(make_config("llama"))
    first, second, third = list(dict(model.named_parameters()))[:3]
    before = weights_before(model)
    model.get_parameter(first).detach()[0] = torch.inf
    model.get_parameter(second).detach().zero_()
    model.get_parameter(third).grad = torch.full_like(model.get_parameter(third), torch.nan)
    norms_by_name = tensor_norms(model, before, 1.0)
    assert (
        norms_by_name[first]["weight_norm"]
        is norms_by_name[first]["update_norm"]
        is norms_by_name[first]["update_ratio"]
        is None
    )
    assert norms_by_name[second]["update_ratio"] is None
    assert norms_by_name[second]["weight_norm"] == 0
    assert norms_by_name[second]["grad_norm"] == 0  # no gradient at all
    assert norms_by_name[third]["grad_norm"] is None
    seen = activity(model, make_tokens(1, 9))
    assert any(value is None for layer in seen.attention_entropy for value in layer)
    json.dumps([norms_by_name, seen.attention_entropy, seen.dead_units], allow_nan=False)


def test_a_large_matrix_has_an_accurate_norm() -> None:
    model = make_network(make_config("llama", vocab_size=40_000, hidden_size=64))
    name, weight = "lm_head.weight", model.get_parameter("lm_head.weight")
    norms_by_name = tensor_norms(model, weights_before(model), 1.0)
    assert norms_by_name[name]["weight_norm"] == pytest.approx(
        float(weight.detach().double().norm()), rel=1e-6
    )


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_heads_that_attend_evenly_have_the_most_entropy(name: str) -> None:
    model = make_network(make_config(name))
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if "q_proj" in key or "q_norm" in key:
                parameter.zero_()
    seen = activity(model, make_tokens(1, 20))
    config = model.config

    def even(layer: int, *lengths: int) -> float:
        """The mean entropy where each query attends evenly to all that it sees of its document."""
        most = config.sliding_window if config.is_sliding(layer) else 20
        counts = [min(count, most) for length in lengths for count in range(1, length + 1)]
        return sum(map(math.log, counts)) / 20

    assert len(seen.attention_entropy) == config.num_hidden_layers
    for layer, by_head in enumerate(seen.attention_entropy):
        assert by_head == pytest.approx([even(layer, 20)] * 4, rel=1e-5)
    documents = torch.tensor([[0] * 8 + [1] * 12])
    within = activity(model, make_tokens(1, 20), documents)
    assert within.attention_entropy[1] == pytest.approx([even(1, 8, 12)] * 4, rel=1e-5)


def test_a_head_that_attends_to_one_token_has_almost_none() -> None:
    model = make_network(make_config("gpt2"))
    with torch.no_grad():
        for block in model.model.layers:
            block.self_attn.q_proj.weight.mul_(1e4)
    assert max(map(max, activity(model, make_tokens(1, 20)).attention_entropy)) < 0.5


@pytest.mark.parametrize("name", [name for name in EVERY if make_config(name).mlp_bias or "mlp" in name])
def test_dead_neurons_are_counted(name: str) -> None:
    model = make_network(make_config(name))
    assert all(0 <= share < 1 for share in activity(model, make_tokens(1, 20)).dead_units)
    mlps = [model.model] if isinstance(model, WindowMLP) else [layer.mlp for layer in model.model.layers]
    with torch.no_grad():
        for mlp in mlps:
            node = getattr(mlp, "gate_proj", None) or getattr(mlp, "up_proj", None) or mlp.hidden
            node.bias.fill_(100.0)
            node.bias[: len(node.bias) // 4] = -100.0
    seen = activity(model, make_tokens(1, 20))
    assert seen.dead_units == pytest.approx([len(node.bias) // 4 / len(node.bias)] * len(mlps), rel=1e-5)
    assert (seen.attention_entropy == []) == isinstance(model, WindowMLP)


def test_a_neuron_that_fires_once_is_not_dead() -> None:
    model = make_network(make_config("gpt2", hidden_act="relu"))
    inputs = make_tokens(1, 20)
    with torch.no_grad():
        for layer in model.model.layers:
            layer.mlp.up_proj.weight.zero_()
            layer.mlp.up_proj.bias.fill_(-1.0)
    assert activity(model, inputs).dead_units == [1.0, 1.0, 1.0]
    hook = model.model.layers[1].mlp.up_proj.register_forward_hook(
        lambda module, given, output: output.index_fill(1, torch.tensor(7), 0.5)
    )
    assert activity(model, inputs).dead_units == [1.0, 0.0, 1.0]
    hook.remove()
