"""Large models in 16 bits stay in their files; every result is that of the same weights in float32, to the bit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from etude.generate.decoder import Decoder
from etude.model import stored_matrix
from etude.model.build import build_model
from etude.model.folder import load_model_folder, save_model_folder
from etude.model.language_model import LanguageModel
from etude.model.stored_matrix import StoredMatrix
from networks import make_config, make_network, make_tokens

FAMILIES = ("llama-grouped-tied", "gpt2", "gemma3_text", "gpt_neox", "mlp")
SIZES = {"hidden_size": 96, "vocab_size": 80}


@pytest.fixture(
    params=[*((name, torch.bfloat16) for name in FAMILIES), ("llama-grouped-tied", torch.float16)], ids=str
)
def pair(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[LanguageModel, LanguageModel]:
    """The same folder in 16 bits, loaded in float32 and from its file."""
    name, dtype = request.param
    config = make_config(name, **({} if name == "mlp" else SIZES))
    save_model_folder(tmp_path, make_network(config), config, None)
    file = tmp_path / "model.safetensors"
    save_file({key: tensor.to(dtype) for key, tensor in load_file(file).items()}, file, {"format": "pt"})
    plain, _ = load_model_folder(tmp_path)
    monkeypatch.setattr(stored_matrix, "STORED_FROM", 1)
    monkeypatch.setattr(stored_matrix, "SMALLEST", 1)
    stored, _ = load_model_folder(tmp_path)
    return plain.eval(), stored.eval()


def test_results_are_the_same_to_the_bit(pair: tuple[LanguageModel, LanguageModel]) -> None:
    plain, stored = pair
    matrices = [parameter for parameter in stored.parameters() if parameter.ndim == 2]
    assert matrices
    assert all(isinstance(parameter, StoredMatrix) for parameter in matrices)
    assert not any(isinstance(parameter, StoredMatrix) for parameter in plain.parameters())
    tokens = make_tokens(3, 17, vocab=plain.config.vocab_size)
    for inference in (False, True):
        with torch.inference_mode(inference):
            assert torch.equal(stored(tokens), plain(tokens))
    for (name, ours), (_, theirs) in zip(stored.named_parameters(), plain.named_parameters(), strict=True):
        assert ours.dtype == theirs.dtype == torch.float32
        assert torch.equal(ours.detach().double(), theirs.detach().double()), name
        assert torch.equal(ours[1], theirs[1]), name
        assert ours.requires_grad == theirs.requires_grad


@pytest.mark.parametrize("steps", [1, 12])
def test_decoding_is_the_same_to_the_bit(pair: tuple[LanguageModel, LanguageModel], steps: int) -> None:
    logits = []
    for model in pair:
        decoder = Decoder(model, 2, 20, steps, compile=False)
        decoder.read([[1, 2, 3], [4, 5]])
        logits.append([decoder.next_logits([token, token + 1]) for token in range(4)])
    for ours, theirs in zip(*logits, strict=True):
        assert torch.equal(ours, theirs)


def test_gradients_are_the_same_to_the_bit(pair: tuple[LanguageModel, LanguageModel]) -> None:
    tokens, gradients = make_tokens(2, 9, vocab=pair[0].config.vocab_size), []
    for model in pair:
        loss = model(tokens).log_softmax(-1)[..., 0].sum()
        names, parameters = zip(*model.named_parameters(), strict=True)
        gradients.append(torch.autograd.grad(loss, parameters, allow_unused=True))
    for name, ours, theirs in zip(names, *gradients, strict=True):
        assert (ours is None) == (theirs is None)
        assert ours is None or torch.equal(ours, theirs), name


def test_a_stored_matrix_cannot_be_changed(pair: tuple[LanguageModel, LanguageModel]) -> None:
    matrix = next(parameter for parameter in pair[1].parameters() if parameter.ndim == 2)
    before = matrix.detach().clone()
    with torch.no_grad(), pytest.raises(RuntimeError, match="cannot be changed"):
        matrix.mul_(2)
    assert torch.equal(matrix, before)


def test_weights_are_copied_into_a_network_that_trains(pair: tuple[LanguageModel, LanguageModel]) -> None:
    trained = build_model(pair[0].config, seed=5)
    trained.load_state_dict(pair[1].state_dict())
    for name, expected in pair[0].state_dict().items():
        found = trained.state_dict()[name]
        assert type(found) is torch.Tensor, name
        assert torch.equal(found, expected), name
    tokens = make_tokens(2, 9, vocab=trained.config.vocab_size)
    trained(tokens).sum().backward()
    with torch.no_grad():
        for parameter in trained.parameters():
            parameter.mul_(2)
