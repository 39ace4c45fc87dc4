"""What is shown of a prompt adds up to the network's prediction."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from etude.errors import InputError
from etude.model.language_model import LOGITS, LanguageModel
from etude.model.taps import Taps
from etude.watch import prompts
from etude.watch.named_tensor import Named
from etude.watch.prompts import Prompt, induction_scores, look
from etude.watch.tapped_forward import activation_bytes, run_with_taps
from networks import ALPHABET, EVERY, TRANSFORMERS, VOCAB, make_config, make_network

TEXT = "the fox went home"


def read(name: str, text: str = TEXT) -> Prompt:
    return look(make_network(make_config(name)), ALPHABET, text)


@pytest.mark.parametrize("name", EVERY)
def test_contributions_add_up_to_the_logit(name: str) -> None:
    prompt = read(name)
    for position, token in ((-1, None), (3, 7), (0, 60)):
        contributions = prompt.contributions(position, token)
        assert contributions.logit == float(prompt.activation(LOGITS)[0, position][contributions.token])
        assert abs(contributions.unexplained) <= 2e-5 * max(1.0, *map(abs, contributions.terms.values()))


@pytest.mark.parametrize("name", ["llama-grouped-tied", "gpt2"])
def test_silencing_a_head_of_the_last_layer_removes_its_contribution(name: str) -> None:
    """In the last layer a head reaches the logit directly, and through the MLP after it, which is frozen here."""
    prompt = read(name)
    last = f"model.layers.{prompt.model.config.num_hidden_layers - 1}"
    frozen = prompt.activations()

    def without(z: torch.Tensor) -> torch.Tensor:
        changed = z.clone()
        changed[:, :, 2] = 0
        return changed

    held = {f"{last}.self_attn.z": without, f"{last}.mlp_out": lambda _: frozen[f"{last}.mlp_out"]}
    with torch.no_grad():
        stream = run_with_taps(prompt.model, prompt.ids[None], taps=Taps(changes=held))[f"{last}.resid_post"]
    removed = (frozen[f"{last}.resid_post"] - stream)[0, -1].double()
    parts = prompt.contributions(-1, 5)
    reads = torch.zeros(0)
    norm, weight = prompt.model.model.norm, prompt.model.unembedding()[0][5].double()  # type: ignore[union-attr]
    stream_before = frozen[f"{last}.resid_post"][0, -1].double()
    if name == "gpt2":
        reads = weight * norm.weight.double() / (stream_before.var(unbiased=False) + norm.eps).sqrt()  # type: ignore[union-attr, operator]
        reads = reads - reads.mean()
    else:
        reads = weight * norm.weight.double() / (stream_before.square().mean() + norm.eps).sqrt()  # type: ignore[union-attr, operator]
    expected = float((removed @ reads).detach())
    assert parts.terms[f"{last}.self_attn head 2"] == pytest.approx(expected, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_the_lens_ends_at_the_networks_prediction(name: str) -> None:
    prompt = read(name)
    lens = prompt.logit_lens()
    own = prompt.activation(LOGITS)[0].log_softmax(-1)
    torch.testing.assert_close(lens.log_probabilities[-1], own, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(lens.log_probabilities[0], own, atol=1e-2)
    expected = own[:-1].gather(-1, prompt.ids[1:, None])[:, 0].exp()
    torch.testing.assert_close(lens.of_desired[-1].tensor, expected, rtol=1e-4, atol=1e-6)
    assert lens.top(-1, -1)[0].token == prompt.guesses()[0].token


@pytest.mark.parametrize("name", ["llama", "gpt2", "mlp", "mlp-direct"])
def test_gradient_times_input_is_the_slope_of_scaling_a_token(name: str) -> None:
    prompt = read(name, "abcdef")
    prompt.model.double()
    attribution = prompt.attribution(-1, 9)
    for place in range(len(prompt.ids)):

        def logit(scale: float, place: int = place) -> float:
            return _with_scaled(prompt.model, prompt.ids, place, scale)[9]

        slope = (logit(1 + 1e-5) - logit(1 - 1e-5)) / 2e-5
        assert float(attribution.gradient_times_input[place]) == pytest.approx(slope, rel=1e-4, abs=1e-6)


def _with_scaled(model: LanguageModel, ids: torch.Tensor, place: int, scale: float) -> list[float]:
    """Return the last logits with a scaled embedding of the token at `place`, which gets a row of its own."""
    import copy

    changed = copy.deepcopy(model)
    weight = changed.model.embed_tokens.weight  # type: ignore[union-attr]
    grown = torch.cat((weight, weight[ids[place]][None] * scale)).detach()  # type: ignore[index, arg-type]
    head, bias = changed.unembedding()
    output_weight = head.detach().clone()
    changed.model.embed_tokens.weight = torch.nn.Parameter(grown)  # type: ignore[union-attr]
    inputs = ids.clone()
    inputs[place] = len(grown) - 1
    with torch.no_grad():
        return torch.nn.functional.linear(changed.hidden(inputs[None])[0, -1], output_weight, bias).tolist()


@pytest.mark.parametrize("name", ["llama", "mlp-direct"])
def test_ablating_the_mean_embedding_changes_nothing(name: str) -> None:
    prompt = read(name, "abcab")
    weight = prompt.model.model.embed_tokens.weight  # type: ignore[union-attr]
    with torch.no_grad():
        weight.copy_(weight.mean(0).expand_as(weight))  # type: ignore[operator, union-attr]
    torch.testing.assert_close(prompt.attribution(-1, 3).ablation, torch.zeros(6), rtol=0, atol=2e-6)


def test_induction_scores_equal_a_loop() -> None:
    model = make_network(make_config("llama-grouped-tied"))
    scores, chance = induction_scores(model, length=7, rows=3, seed=4)
    generator = torch.Generator().manual_seed(4)
    once = torch.randint(VOCAB, (3, 7), generator=generator)
    opened = run_with_taps(model, torch.cat((once, once), 1))
    for layer in range(3):
        pattern = opened[f"model.layers.{layer}.self_attn.pattern"]
        for head in range(4):
            shares = [pattern[row, head, 7 + i, i + 1].item() for row in range(3) for i in range(7)]
            assert float(scores.tensor[layer, head]) == pytest.approx(sum(shares) / len(shares), rel=1e-5)
    assert chance == pytest.approx(sum(1 / (8 + i) for i in range(7)) / 7)


def test_an_artificial_induction_head_scores_one() -> None:
    """Each query of the second copy sees only the key after its token's first occurrence."""
    model = make_network(make_config("llama"))
    length, original = 6, prompts.run_with_taps

    def by_hand(model: Any, inputs: Any, *, taps: Any) -> dict[str, torch.Tensor]:
        def looking_back(scores: torch.Tensor) -> torch.Tensor:
            changed = torch.full_like(scores, -1e9)
            for query in range(2 * length):
                changed[:, :, query, max(0, query - length + 1) if query >= length else 0] = 0
            return changed

        taps.changes = {"model.layers.1.self_attn.scores": looking_back}
        return original(model, inputs, taps=taps)

    prompts.run_with_taps = by_hand  # type: ignore[assignment]
    try:
        scores, _ = induction_scores(model, length=length)
    finally:
        prompts.run_with_taps = original
    torch.testing.assert_close(scores.tensor[1], torch.ones(4))


def test_what_a_network_lacks_is_one_line() -> None:
    window, llama = read("mlp"), read("llama")
    for ask in (lambda: window.pattern(0), window.logit_lens, lambda: induction_scores(window.model)):
        with pytest.raises(InputError, match="mlp family"):
            ask()
    with pytest.raises(InputError, match="layers 0 to 2"):
        llama.pattern(3)
    with pytest.raises(InputError, match="positions 0 to 17"):
        llama.contributions(18)
    with pytest.raises(InputError, match="reads 48 at most"):
        read("llama", "x" * 48)
    with pytest.raises(InputError, match="no activation"):
        llama.activation("model.layers.0.nothing")


def test_activations_that_do_not_fit_memory_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    prompt = read("llama")
    monkeypatch.setattr(prompts, "free_memory_bytes", lambda device: 1000)
    with pytest.raises(InputError, match="request one at a time"):
        prompt.activations()
    assert prompt.pattern(0).shape == {"head": 4, "query": 18, "key": 18}


@pytest.mark.parametrize("name", EVERY)
def test_the_memory_of_activations_is_estimated(name: str) -> None:
    prompt = read(name)
    held = sum(value.nbytes for value in prompt.activations().values())
    assert held <= activation_bytes(prompt.model, len(prompt.ids)) <= 1.6 * held


def test_results_describe_themselves() -> None:
    prompt = read("llama")
    pattern = prompt.pattern(1)
    assert repr(pattern).startswith("model.layers.1.self_attn.pattern (head=4 query=18 key=18): 0 to ")
    assert pattern[2].axes == ("query", "key")
    assert pattern[:, 3].axes == ("head", "key")
    assert pattern[1, 2, 0].shape == {}
    assert pattern.numpy().shape == (4, 18, 18)
    assert "nothing" in repr(Named("nothing", ("token",), torch.zeros(0)))
    for result in (prompt, prompt.logit_lens(), prompt.attribution(), prompt.contributions()):
        assert 2 < len(repr(result).splitlines()) <= 12
    assert float(prompt.probabilities.sum(-1).mean()) == pytest.approx(1)
