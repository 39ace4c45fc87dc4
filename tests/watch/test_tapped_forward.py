"""The forward pass with taps is the network's own."""

from __future__ import annotations

import pytest
import torch

from etude.model.dropout import Dropout, keep_masks, keep_scale
from etude.model.language_model import LOGITS
from etude.model.taps import Taps
from etude.watch.tapped_forward import activation_names, entropy, layers_of, run_with_taps
from networks import EVERY, make_config, make_network, make_tokens


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("apart", [False, True])
def test_its_logits_equal_the_networks(name: str, apart: bool) -> None:
    model = make_network(make_config(name))
    inputs = make_tokens(3, 21)
    documents = torch.tensor([[0] * 9 + [1] * 12] * 3) if apart else None
    opened = run_with_taps(model, inputs, document_ids=documents)
    torch.testing.assert_close(opened[LOGITS], model(inputs, document_ids=documents), rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("name", ["llama", "gpt2", "mlp-direct"])
def test_dropout_drops_the_same_numbers(name: str) -> None:
    model = make_network(make_config(name))
    inputs = make_tokens(2, 16)
    keep_mask = keep_masks(0.25, 7, 0, model.dropout_shape(2, 16), torch.device("cpu"))
    dropout = Dropout(keep_mask, keep_scale(0.25))
    opened = run_with_taps(model, inputs, dropout=dropout)
    expected = model.head(model.hidden(inputs, dropout=dropout))
    torch.testing.assert_close(opened[LOGITS], expected, rtol=1e-5, atol=2e-5)
    plain = run_with_taps(model, inputs)[LOGITS]
    assert not torch.allclose(opened[LOGITS], plain, atol=1e-2)


@pytest.mark.parametrize("name", EVERY)
def test_every_activation_is_named_once_and_has_a_gradient(name: str) -> None:
    model = make_network(make_config(name))
    taps = Taps(gradients=True)
    opened = run_with_taps(model, make_tokens(2, 8), taps=taps)
    opened[LOGITS].square().sum().backward()
    assert list(opened) == activation_names(model)
    for activation, value in opened.items():
        assert value.grad is not None, activation
        assert value.grad.shape == value.shape
        assert value.grad.isfinite().all()


def test_the_rest_of_the_pass_reads_a_changed_activation() -> None:
    model = make_network(make_config("llama"))
    inputs = make_tokens(1, 8)
    plain = run_with_taps(model, inputs)
    silent = {"model.layers.1.attn_out": torch.zeros_like, "model.layers.1.mlp_out": torch.zeros_like}
    changed = run_with_taps(model, inputs, taps=Taps(changes=silent))
    torch.testing.assert_close(changed["model.layers.2.resid_pre"], plain["model.layers.1.resid_pre"])
    assert not torch.allclose(changed[LOGITS], plain[LOGITS])
    with pytest.raises(KeyError, match="nothing_of_the_kind"):
        run_with_taps(model, inputs, taps=Taps(changes={"nothing_of_the_kind": torch.zeros_like}))


def test_patterns_are_distributions_over_visible_positions() -> None:
    model = make_network(make_config("llama-grouped-tied"))
    opened = run_with_taps(model, make_tokens(2, 10))
    names = [name for _, name in layers_of(list(opened), "self_attn.pattern")]
    assert len(names) == model.config.num_hidden_layers
    for name in names:
        pattern = opened[name]
        torch.testing.assert_close(pattern.sum(-1), torch.ones(2, 4, 10))
        assert (pattern.triu(1) == 0).all()
        assert (entropy(pattern) <= torch.arange(1, 11).log() + 1e-6).all()


def test_only_wanted_activations_are_kept() -> None:
    model = make_network(make_config("gpt2"))
    opened = run_with_taps(model, make_tokens(1, 5), taps=Taps(wanted=lambda name: name.endswith(".pre")))
    assert list(opened) == [f"model.layers.{layer}.mlp.pre" for layer in range(3)]
