"""A neuron computes what the network computes, and its history what each checkpoint computes."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from etude.errors import InputError
from etude.model.cost import forward_flops_per_token
from etude.model.folder import load_model_folder
from etude.model.language_model import LOGITS, LanguageModel
from etude.model.layers import RMSNorm
from etude.model.taps import Taps
from etude.model.transformer import Transformer
from etude.watch.activity import DEAD_REACH, Moment, NodeHistory, activity
from etude.watch.held_out import SAMPLE_TOKENS, held_out
from etude.watch.node_layers import find_node_layer, token_effects
from etude.watch.one_node import Node, extreme_effects, look_at_node
from etude.watch.opened_step import open_step
from etude.watch.passages import beginnings
from etude.watch.tapped_forward import run_with_taps
from etude.watch.time_machine import TimeMachine
from networks import EVERY, make_config, make_network, make_tokens
from watched import Watched

STEP = 21


def last_layer(watched: Watched) -> str:
    return "model" if watched.path.name == "mlp" else "model.layers.1.mlp"


def the_node(watched: Watched, unit: int = 5, step: int = STEP, layer: str = "", **options: int) -> Node:
    return look_at_node(watched.machine, step, layer or last_layer(watched), unit, **options)


def test_its_terms_sum_to_the_forward_pass(any_watched: Watched) -> None:
    node = the_node(any_watched)
    for row, position in ((0, 0), (3, 17), (5, -1)):
        seen = node.on(row, position)
        for weighted_sum in (seen.gate, seen.up):
            if weighted_sum is not None:
                assert weighted_sum.seen == pytest.approx(weighted_sum.total, rel=1e-5, abs=1e-5)
                summed = sum(
                    x * w
                    for x, w in zip(weighted_sum.inputs.tolist(), weighted_sum.weights.tolist(), strict=True)
                )
                assert weighted_sum.total == pytest.approx(summed + weighted_sum.bias, abs=1e-12)
                ordered = weighted_sum.terms[weighted_sum.order].abs()
                assert (ordered[:-1] >= ordered[1:]).all()
        assert seen.post == pytest.approx(seen.seen, rel=1e-5, abs=1e-5)
        signal = node.signal(row)
        assert float(signal.post[position]) == seen.seen
        assert float(signal.pre[position]) == seen.gate.seen
        assert signal.inputs[position] == seen.token_ids[-1]
        assert len(repr(seen).splitlines()) <= 14


def test_it_reads_the_networks_own_weights(any_watched: Watched) -> None:
    node = the_node(any_watched)
    state = any_watched.machine.go_to(STEP).model.state_dict()
    weights = {name: value.clone() for name, value in state.items()}
    gate = {"llama": "gate_proj", "gpt2": "up_proj", "mlp": "hidden"}[any_watched.path.name]
    prefix = f"{node.layer}.{gate}"
    assert torch.equal(node.weights, weights[f"{prefix}.weight"][5])
    assert node.bias == float(weights[f"{prefix}.bias"][5])
    out = "lm_head" if any_watched.path.name == "mlp" else f"{node.layer}.down_proj"
    assert torch.equal(node.outgoing, weights[f"{out}.weight"][:, 5])
    assert (node.up_weights is not None) == (any_watched.path.name == "llama")
    any_watched.machine.go_to(STEP + 3)
    assert node.bias == float(weights[f"{prefix}.bias"][5]), (
        "a node does not change when the time machine moves on"
    )


def test_on_any_text_it_equals_the_network(any_watched: Watched) -> None:
    node = the_node(any_watched)
    ids = make_tokens(1, 20, vocab=node.model.config.vocab_size)
    with torch.no_grad():
        expected = run_with_taps(node.model, ids)[f"{node.layer}.post"][0, 11, 5]
    assert node.on_tokens(ids[0].tolist(), 11).post == pytest.approx(float(expected), rel=1e-5, abs=1e-5)
    assert node.on_tokens(ids[0, :12].tolist()).seen == pytest.approx(float(expected), rel=1e-5, abs=1e-6)


def gain_of(norm: torch.nn.Module) -> torch.Tensor:
    """The factors of a norm, in float64."""
    gain = norm.gain(torch.float64) if isinstance(norm, RMSNorm) else norm.weight
    assert isinstance(gain, torch.Tensor)
    return gain


def hold_the_output_norm(model: LanguageModel, post: torch.Tensor) -> torch.Tensor:
    """Freeze the scale of the norm after the last MLP at that for ``post``; return it, or 1 without such a norm."""
    block = model.model.layers[-1] if isinstance(model, Transformer) else None
    if block is None or isinstance(block.mlp_output_layernorm, torch.nn.Identity):
        return torch.ones(())
    norm = block.mlp_output_layernorm
    size = (block.mlp.down_proj(post).square().mean(-1, keepdim=True) + norm.eps).sqrt()

    class Held(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return gain_of(norm) * x / size

    block.mlp_output_layernorm = Held()
    return size


@pytest.mark.parametrize("name", [name for name in EVERY if name != "mlp-direct"])
def test_promoted_tokens_are_those_whose_logits_rise_with_the_activation(name: str) -> None:
    model = make_network(make_config(name)).double()
    layer = "model" if "mlp" in name else f"model.layers.{model.config.num_hidden_layers - 1}.mlp"
    node_layer, unit, eps = find_node_layer(model, layer), 7, 1e-5
    effects = token_effects(model, node_layer, unit)
    inputs, bump = make_tokens(1, 9), torch.zeros(node_layer.size, dtype=torch.float64)
    bump[unit] = eps
    stream = node_layer.added_to
    with torch.no_grad():
        before = run_with_taps(model, inputs)
        output_size = hold_the_output_norm(model, before[f"{layer}.post"])
        after = run_with_taps(model, inputs, taps=Taps(changes={f"{layer}.post": lambda post: post + bump}))
        if isinstance(model, Transformer):
            # Freeze the scale of the last norm: divide the changed stream by the norm of the unchanged one.
            norm = model.model.norm
            x = before[stream]
            middle = x.mean(-1, keepdim=True) if isinstance(norm, torch.nn.LayerNorm) else torch.zeros(())
            size = ((x - middle) ** 2).mean(-1, keepdim=True) + norm.eps
            moved = after[stream]
            if isinstance(norm, torch.nn.LayerNorm):
                moved = moved - moved.mean(-1, keepdim=True)
            logits = model.head(gain_of(norm) * moved / size.sqrt() + getattr(norm, "bias", 0.0))
            change = (logits - before[LOGITS]) * size.sqrt() * output_size / eps
        else:
            change = (after[LOGITS] - before[LOGITS]) / eps
    change = change - change.mean(-1, keepdim=True)
    torch.testing.assert_close(change, effects.expand_as(change), rtol=1e-4, atol=1e-7)


def test_the_listed_tokens_are_the_extremes(any_watched: Watched) -> None:
    node = the_node(any_watched, tokens=4)
    values = node.effects.sort(descending=True).values
    assert [effect.value for effect in node.promoted] == values[:4].tolist()
    assert [effect.value for effect in node.suppressed] == values.flip(0)[:4].tolist()
    tokenizer = any_watched.machine.data.tokenizer
    for effect in (*node.promoted, *node.suppressed):
        assert effect.text == tokenizer.decode([effect.token_id])
        assert effect.value == float(node.effects[effect.token_id])


def test_a_neuron_that_writes_nothing_promotes_no_token() -> None:
    effects = torch.zeros(9, dtype=torch.float64)
    assert extreme_effects(effects, str) == ((), ())
    effects[4] = 0.5
    promoted, suppressed = extreme_effects(effects, str)
    assert [effect.token_id for effect in promoted] == [4]
    assert suppressed == ()


def test_its_gradient_is_the_opened_steps(any_watched: Watched) -> None:
    node = the_node(any_watched)
    opened = open_step(any_watched.machine, STEP + 1)
    node_layer, gradient = node.node_layer, node.gradient
    assert gradient.step == STEP + 1
    assert torch.equal(gradient.weights, opened.gradients[f"{node_layer.gate}.weight"][5])
    assert gradient.bias == float(opened.gradients[f"{node_layer.gate}.bias"][5])
    assert torch.equal(gradient.outgoing, opened.gradients[f"{node_layer.out}.weight"][:, 5])
    if node_layer.up is not None:
        assert torch.equal(gradient.up_weights, opened.gradients[f"{node_layer.up}.weight"][5])
        assert gradient.up_bias == float(opened.gradients[f"{node_layer.up}.bias"][5])
    # Sum over all rows of the gradient before the activation function, times the inputs.
    total, bias = torch.zeros_like(gradient.weights), 0.0
    for row in range(opened.num_rows):
        signal = node.signal(row)
        read = opened.row(row).activations[node_layer.reads][0]
        total += signal.pre_gradient @ read
        bias += float(signal.pre_gradient.sum())
    torch.testing.assert_close(total, gradient.weights, rtol=1e-4, atol=1e-6)
    assert bias == pytest.approx(gradient.bias, rel=1e-3, abs=1e-6)


def naive(watched: Watched, node: Node) -> dict[int, float]:
    """Map each place of the held-out part to the activation, one window at a time by the network's own modules."""
    part, context = watched.machine.data.validation, 32
    tokens = part.window(0, part.num_tokens)
    outputs: list[torch.Tensor] = []
    if watched.path.name == "mlp":
        handle = node.model.model.register_forward_hook(lambda m, arguments, output: outputs.append(output))
    else:
        down = node.model.get_submodule(f"{node.layer}.down_proj")
        handle = down.register_forward_pre_hook(lambda m, arguments: outputs.append(arguments[0]))
    apart = watched.path.name == "gpt2"
    activations = {}
    for start in range(0, part.num_tokens - 1, context):
        ids = torch.from_numpy(tokens[start : min(start + context, part.num_tokens - 1)])[None]
        places = np.arange(start, start + ids.shape[1])
        numbers = torch.from_numpy(part.document_numbers(places))[None] if apart else None
        with torch.no_grad():
            node.model(ids, document_ids=numbers)
        activations |= dict(zip(places.tolist(), outputs.pop()[0, :, node.unit].tolist(), strict=True))
    handle.remove()
    return activations


@pytest.mark.parametrize("unit", [2, 30])
def test_top_passages_are_the_highest_and_lowest_of_all(any_watched: Watched, unit: int) -> None:
    node = the_node(any_watched, unit, max_tokens=10**6)
    everywhere = naive(any_watched, node)
    assert node.sample.num_tokens == len(everywhere) == any_watched.machine.data.validation.num_tokens - 1
    part, tokenizer = any_watched.machine.data.validation, any_watched.machine.data.tokenizer
    for passages, sign in ((node.most, 1), (node.least, -1)):
        assert len(passages) == 5
        left = dict(everywhere)
        for passage in passages:
            best = max(sign * value for value in left.values())
            assert sign * passage.value == pytest.approx(best, rel=1e-4, abs=1e-5)
            assert everywhere[passage.place] == pytest.approx(passage.value, rel=1e-4, abs=1e-5)
            left = {place: value for place, value in left.items() if abs(place - passage.place) > 16}
            token = int(part.window(passage.place, 1)[0])
            assert passage.token == tokenizer.decode([token])
            assert passage.token_ids[-1] == token
            assert passage.document == part.document_of(passage.place)
            assert node.on_tokens(passage.token_ids).seen == pytest.approx(passage.value, rel=1e-3, abs=1e-4)


def test_a_large_network_reads_fewer_tokens(watched_run: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    watched_run.machine.go_to(0)
    plan = watched_run.machine.era.plan
    context = plan.settings.train.context
    assert held_out(plan).inputs.shape == held_out(plan, SAMPLE_TOKENS).inputs.shape
    enough = forward_flops_per_token(plan.model, context) * context * 3.5
    monkeypatch.setattr("etude.watch.held_out.SAMPLE_FLOPS", enough)
    assert len(held_out(plan).inputs) == 3
    monkeypatch.setattr("etude.watch.held_out.SAMPLE_FLOPS", 1.0)
    assert len(held_out(plan).inputs) == 1


def test_the_sample_is_bounded_spread_and_the_same_each_time(watched_run: Watched) -> None:
    watched_run.machine.go_to(0)
    plan = watched_run.machine.era.plan
    sample, again = held_out(plan, 320), held_out(plan, 320)
    assert sample.num_tokens <= 320
    assert len(sample.inputs) == 10
    assert np.array_equal(sample.inputs, again.inputs)
    assert sample.places[:, 0][0] == 0
    assert sample.places[:, 0][-1] >= plan.data.validation.num_tokens - 34
    for start, row, real in zip(sample.places[:, 0], sample.inputs, sample.real, strict=True):
        assert np.array_equal(row[real], plan.data.validation.window(int(start), 32)[real])
    with pytest.raises(InputError, match="at least 1"):
        held_out(plan, 0)


def test_history_is_what_each_checkpoint_computes(any_watched: Watched) -> None:
    node = the_node(any_watched)
    reports: list[tuple[int, int]] = []
    history = node.history(on_progress=lambda *counts: reports.append(counts))
    assert reports == [(done, len(history.moments)) for done in range(len(history.moments))]
    folders = any_watched.machine.recorded.checkpoints
    assert [moment.step for moment in history.moments] == list(folders)
    for moment in history.moments:
        model, _ = load_model_folder(folders[moment.step])
        at = Node(**{**vars_of(node), "model": model})
        values = np.array(list(naive(any_watched, at).values()))
        assert moment.mean == pytest.approx(values.mean(), rel=1e-4, abs=1e-6)
        assert moment.std == pytest.approx(values.std(), rel=1e-4, abs=1e-6)
        assert moment.max == pytest.approx(values.max(), rel=1e-4, abs=1e-6)
        assert moment.norm_in == pytest.approx(float(at.weights.double().norm()), rel=1e-9)
        assert moment.norm_out == pytest.approx(float(at.outgoing.double().norm()), rel=1e-9)
        observed = activity(model, node.node_layer, 5, node.sample, node.plan.device)
        assert moment.share_active == observed.share_active
    assert history.moments[0].share_active == 0, "outgoing weights start at zero"
    assert history.came_alive in (1, 2)
    assert history.died is None
    assert [m.step for m in node.history([2, 0]).moments] == [0, 2]
    with pytest.raises(InputError, match="no checkpoint of step 3"):
        node.history([3])
    assert len(repr(history).splitlines()) <= 14


def vars_of(node: Node) -> dict[str, object]:
    return {name: getattr(node, name) for name in Node.__dataclass_fields__ if not name.startswith("_")}


def test_reach_is_relative_to_what_the_neuron_adds_to(any_watched: Watched) -> None:
    node = the_node(any_watched)
    ids = torch.from_numpy(node.sample.inputs[1:2])
    documents = node.sample.document_ids
    opened = run_with_taps(
        node.model, ids, document_ids=None if documents is None else torch.from_numpy(documents[1:2])
    )
    if any_watched.path.name == "mlp":
        whole = opened[LOGITS] - opened[LOGITS].mean(-1, keepdim=True)
    else:
        whole = opened["model.layers.1.resid_post"]
    added = opened[f"{node.layer}.post"][0, :, 5, None] * node.outgoing
    expected = (added.norm(dim=-1) / whole[0].norm(dim=-1)).detach().numpy()
    np.testing.assert_allclose(node.activity.reach[1], expected, rtol=1e-4, atol=1e-7)


def test_a_neuron_with_a_very_negative_bias_is_dead(
    watched_run: Watched, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(watched_run.path, tmp_path / "killed")
    weights = tmp_path / "killed" / "checkpoints" / "step-00000040" / "model.safetensors"
    state = load_file(weights)
    state["model.layers.1.mlp.gate_proj.bias"][5] = -60.0
    save_file(state, weights, metadata={"format": "pt"})
    monkeypatch.setenv("ETUDE_CACHE", str(watched_run.cache))
    node = look_at_node(TimeMachine(tmp_path / "killed"), STEP, "model.layers.1.mlp", 5)
    assert not node.activity.dead
    reports: list[tuple[int, int]] = []
    history = node.history(on_progress=lambda *counts: reports.append(counts))
    assert reports == [(done, len(history.moments)) for done in range(len(history.moments))]
    assert history.died == 40
    assert history.came_alive in (1, 2)
    assert history.moments[-1].share_active == 0
    model, _ = load_model_folder(weights.parent)
    seen = activity(model, node.node_layer, 5, node.sample, node.plan.device)
    assert seen.dead
    assert seen.reach.max() <= DEAD_REACH
    assert "died at step 40" in repr(history)


def test_when_a_neuron_came_alive_and_died() -> None:
    def lived(*shares: float) -> NodeHistory:
        moments = (Moment(10 * n, 0, 1, 1, share, 1, None, 1) for n, share in enumerate(shares))
        return NodeHistory("model", 0, 100, tuple(moments))

    for shares, alive, died in (
        ((0, 0, 0.2, 0.3), 20, None),
        ((0.1, 0.2), None, None),
        ((0.1, 0, 0), None, 10),
        ((0, 0), None, None),
        ((0, 0.1, 0, 0.2, 0), 10, 40),
        ((0.1, 0, 0.2), None, None),
    ):
        history = lived(*shares)
        assert (history.came_alive, history.died) == (alive, died)


def test_its_text_is_short_and_names_the_update(any_watched: Watched) -> None:
    node = the_node(any_watched)
    assert len(repr(node).splitlines()) <= 14
    assert f"of the update {STEP} -> {STEP + 1}" in repr(node)
    assert "proved" in repr(node)
    assert repr(node.gradient)
    assert repr(node.signal(1))
    assert "0 -> 1" in repr(the_node(any_watched, step=0))


def test_the_last_step_has_no_gradient(watched_run: Watched) -> None:
    node = the_node(watched_run, step=40)
    assert "the run's last step" in repr(node)
    assert node.on_tokens([1, 2, 3]).gate.bias == node.bias
    with pytest.raises(InputError, match="no update follows step 40"):
        _ = node.gradient
    with pytest.raises(InputError, match="step 39"):
        node.on(0, 0)


def test_a_missing_neuron_is_named(watched_run: Watched) -> None:
    machine = watched_run.machine
    for step, layer, unit, message in (
        (20, "model.layers.1.mpl", 0, "did you mean 'model.layers.1.mlp'"),
        (20, "model.layers.2.mlp", 0, "no layer of neurons"),
        (20, "model.layers.1.mlp", 96, "neurons 0 to 95"),
        (20, "model.layers.1.mlp", -1, "neurons 0 to 95"),
        (41, "model.layers.1.mlp", 0, "no step 41"),
    ):
        with pytest.raises(InputError, match=message):
            look_at_node(machine, step, layer, unit)
    node = the_node(watched_run)
    with pytest.raises(InputError, match="rows 0 to 5"):
        node.on(6, 0)
    with pytest.raises(InputError, match="positions 0 to 31"):
        node.on(0, 32)
    with pytest.raises(InputError, match="give from 1"):
        node.on_tokens([])
    with pytest.raises(InputError, match="token ids go from 0"):
        node.on_tokens([300])


def test_beginnings_are_those_of_the_first_long_documents_and_fit_the_network(watched_run: Watched) -> None:
    data = watched_run.machine.data
    texts = [document.decode() for document in data.documents("validation")]
    passages = beginnings(data, 10_000, count=3, characters=200)
    long = [text.strip() for text in texts if len(text.strip()) >= 100]
    assert len(passages) == 3
    for passage, text in zip(passages, long, strict=False):
        assert text.startswith(passage)
        assert 100 <= len(passage) <= 200
    short = beginnings(data, 7, count=3)
    assert all(len(data.tokenizer.encode(text)) <= 8 for text in short)
    everything = beginnings(data, 10_000, count=10_000, characters=10_000)
    assert len(everything) == sum(bool(text.strip()) for text in texts)
    assert len(everything[0]) >= len(everything[-1])
