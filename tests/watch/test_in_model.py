"""A weight or a neuron of a model without steps."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from etude.data.tokens.vocabulary import train_char
from etude.errors import InputError
from etude.model.folder import save_model_folder
from etude.watch.in_model import node_in_model, weight_in_model
from etude.watch.inspect import Question, look_at
from networks import VOCAB, make_config, make_network


@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma3_text", "mlp"])
def test_a_weight_is_placed_among_the_others(name: str) -> None:
    model = make_network(make_config(name), 3)
    key, values = next((key, p) for key, p in model.named_parameters() if p.ndim == 2)
    numbers = values.detach().double().numpy()
    look = weight_in_model(model, key, (1, 2))
    assert look.value == float(values.detach()[1, 2])
    assert look.share_smaller == pytest.approx(np.mean(np.abs(numbers) < abs(numbers[1, 2])))
    assert (look.norm, look.mean, look.deviation) == pytest.approx(
        (np.linalg.norm(numbers), numbers.mean(), numbers.std()), rel=1e-9, abs=1e-12
    )
    with pytest.raises(InputError, match="no parameter is called"):
        weight_in_model(model, f"{key}s", (1, 2))
    with pytest.raises(InputError, match="has shape"):
        weight_in_model(model, key, (1, 10**6))


def test_a_neuron_has_its_own_weights() -> None:
    model = make_network(make_config("llama"), 3)
    look = node_in_model(model, str, "model.layers.1.mlp", 5)
    mlp = model.get_submodule("model.layers.1.mlp")
    assert look.incoming == pytest.approx(float(mlp.gate_proj.weight[5].detach().norm()))  # type: ignore[union-attr,operator,index]
    assert look.outgoing == pytest.approx(float(mlp.down_proj.weight[:, 5].detach().norm()))  # type: ignore[union-attr,operator,index]
    with pytest.raises(InputError, match="neurons 0 to"):
        node_in_model(model, str, "model.layers.1.mlp", 10**6)


def test_inspect_shows_them_of_a_bare_folder(tmp_path: Path, console: Console) -> None:
    tokenizer = train_char(iter(["abcdefgh"]))
    tokenizer.save(tmp_path / "tokenizer")
    config = make_config("llama", vocab_size=max(VOCAB, tokenizer.vocab_size))
    save_model_folder(tmp_path / "model", make_network(config, 3), config, tmp_path / "tokenizer")
    weight = look_at(Question(tmp_path / "model", weight="model.layers.0.mlp.up_proj.weight[3,5]"))
    node = look_at(Question(tmp_path / "model", node="1:5"))
    for look in (weight, node):
        assert json.dumps(look.values)
    assert weight.values["shape"]
    assert node.values["layer"] == "model.layers.1.mlp"
    with pytest.raises(InputError, match="has no steps"):
        look_at(Question(tmp_path / "model", step=3, node="1:5"))
    with pytest.raises(InputError, match="is not a run or a model folder"):
        look_at(Question(tmp_path / "nothing", node="1:5"))
