"""Rules about the network and the text: real networks with and without a fault set by hand."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from diagnosed import finished_run, settings_for, write_text
from etude.data.tokens.coverage import EvaluationWindows
from etude.data.tokens.parts import TokenPart
from etude.diagnose.run import losses as losses_module
from etude.diagnose.run.activations import NetworkState, look_inside
from etude.diagnose.run.evidence import Evidence
from etude.diagnose.run.gather import gather
from etude.diagnose.run.held_out import data_leak, validation_too_small
from etude.diagnose.run.losses import LossSpread, ratio_error, spread
from etude.diagnose.run.network import attention_collapse, idle_units, saturated
from etude.diagnose.run.overlap import RUN_BYTES, Overlap, overlap
from etude.model.language_model import LanguageModel
from etude.watch.saturation import ends
from networks import EVERY, make_config, make_network

CONTEXT = 40


def part(documents: int = 30, length: int = 50, vocab: int = 61) -> TokenPart:
    draw = np.random.default_rng(0)
    return TokenPart.from_documents([draw.integers(1, vocab, length).tolist() for _ in range(documents)], 0)


def windows(**sizes: int) -> EvaluationWindows:
    return EvaluationWindows(part(**sizes), CONTEXT)


def network(name: str, **changes: Any) -> LanguageModel:
    if "gemma3" in name:  # windows of more positions than a query must see to be judged
        changes = {"sliding_window": 20} | changes
    return make_network(make_config(name, **changes)).eval()


def measured(model: LanguageModel) -> NetworkState:
    return look_inside(model, windows(), step=7)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Evidence:
    folder = tmp_path_factory.mktemp("network")
    write_text(folder / "text", 60_000)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ETUDE_CACHE", str(folder / "cache"))
        values = {"train.steps": 30, "train.eval_every": 10, "train.checkpoint_every": 10}
        return gather(finished_run(settings_for(folder, "run", **values)))


def judged(trained: Evidence, model: LanguageModel) -> Evidence:
    return dataclasses.replace(trained, network=measured(model))


@pytest.mark.parametrize("name", EVERY)
def test_a_random_network_has_neither_idle_units_nor_collapsed_heads(name: str, trained: Evidence) -> None:
    model = network(name)
    logits = model(torch.from_numpy(windows().batch(0, 2)[0]))
    run = judged(trained, model)
    assert idle_units(run).severity == "fine"
    assert attention_collapse(run).severity == ("not judged" if "mlp" in name else "fine")
    # Measuring leaves no hooks in the network.
    assert torch.equal(model(torch.from_numpy(windows().batch(0, 2)[0])), logits)
    assert all(not m._forward_hooks and not m._forward_pre_hooks for m in model.modules())


@pytest.mark.parametrize("name", ["llama", "llama-one-kv-head-relu2", "gpt2"])
def test_neurons_that_add_nothing_are_dead(name: str, trained: Evidence) -> None:
    model = network(name)
    mlp: Any = model.model.layers[1].mlp  # type: ignore[union-attr, index]
    nodes = mlp.down_proj.in_features
    with torch.no_grad():
        mlp.down_proj.weight[:, 3] = 0  # its output is ignored
        if name == "gpt2":  # never active
            mlp.up_proj.weight[:10], mlp.up_proj.bias[:10] = 0, -50
        else:
            mlp.gate_proj.weight[:10], mlp.gate_proj.bias[:10] = 0, -50
    state = measured(model)
    assert (state.nodes[1].reach <= 1e-4).sum() == 10
    assert (state.nodes[0].reach > 1e-4).all()
    verdict = idle_units(dataclasses.replace(trained, network=state))
    assert verdict.severity == "notice"
    assert f"10 of {3 * nodes} neurons are dead" in verdict.finding
    with torch.no_grad():
        mlp.down_proj.weight[:] = 0
    assert idle_units(judged(trained, model)).severity == "problem"


def test_neurons_with_a_flat_activation_are_saturated(trained: Evidence) -> None:
    model = network("llama")
    mlp: Any = model.model.layers[2].mlp  # type: ignore[union-attr, index]
    with torch.no_grad():
        mlp.gate_proj.bias[:20] += 100  # the gate is always open
    verdict = idle_units(judged(trained, model))
    assert verdict.severity == "notice"
    assert "0 of 288 neurons are dead and 20 saturated" in verdict.finding
    assert "layer 2" in verdict.finding


def test_tanh_neurons_at_their_bounds_are_saturated(trained: Evidence) -> None:
    model = network("mlp")
    with torch.no_grad():
        model.model.hidden.weight *= 100  # type: ignore[union-attr, operator]
    state = measured(model)
    assert saturated(state.nodes[0], "tanh").mean() > 0.9
    assert idle_units(dataclasses.replace(trained, network=state)).severity == "problem"


def test_the_ends_of_activation_functions() -> None:
    x = torch.tensor([-8.0, -1.0, 0.0, 1.0, 8.0])
    expected = {
        "tanh": ([1, 0, 0, 0, 0], [0, 0, 0, 0, 1]),
        "silu": ([1, 0, 0, 0, 0], [0, 0, 0, 0, 1]),
        "gelu": ([1, 0, 0, 0, 0], [0, 0, 0, 0, 1]),
        "relu": ([1, 1, 1, 0, 0], [0, 0, 0, 1, 1]),
        "relu2": ([1, 1, 1, 0, 0], [0, 0, 0, 0, 0]),
    }
    for name, (low, high) in expected.items():
        at_ends = ends(name, x)
        assert (at_ends[0].int().tolist(), at_ends[1].int().tolist()) == (low, high), name


@pytest.mark.parametrize("name", ["llama", "llama-grouped-tied", "qwen3", "gpt2"])
def test_heads_that_attend_to_one_position_have_collapsed(name: str, trained: Evidence) -> None:
    model = network(name)
    attention: Any = model.model.layers[1].self_attn  # type: ignore[union-attr, index]
    dim = attention.head_dim
    with torch.no_grad():
        if name == "qwen3":  # qk-norm would undo a larger projection, and its weight is shared by all heads
            attention.q_norm.weight *= 1e4
        else:
            attention.q_proj.weight[:dim] *= 1e4
    verdict = attention_collapse(judged(trained, model))
    if name == "qwen3":
        assert "Of 12 heads 4 attend to a single position on every query" in verdict.finding
    else:
        assert "Of 12 heads 1 attend to a single position on every query (layer.head 1.0)" in verdict.finding
    assert verdict.severity == "notice"


def test_heads_that_attend_to_all_alike_have_collapsed(trained: Evidence) -> None:
    model = network("llama")
    with torch.no_grad():
        for layer in model.model.layers[:2]:  # type: ignore[union-attr, index]
            layer.self_attn.k_proj.weight *= 0  # type: ignore[union-attr, operator]
            layer.self_attn.k_proj.bias *= 0  # type: ignore[union-attr, operator]
    verdict = attention_collapse(judged(trained, model))
    assert verdict.severity == "problem"
    assert "Of 12 heads 8 attend to all positions alike" in verdict.finding


def test_short_rows_do_not_judge_attention(trained: Evidence) -> None:
    state = look_inside(network("llama"), EvaluationWindows(part(), 8), step=7)
    assert attention_collapse(dataclasses.replace(trained, network=state)).severity == "not judged"


def test_a_trained_network_is_fine_and_step_zero_is_not_judged(trained: Evidence) -> None:
    assert idle_units(trained).severity == "fine"
    assert attention_collapse(trained).severity == "fine"
    assert isinstance(trained.network, NetworkState)
    begun = dataclasses.replace(trained, network=dataclasses.replace(trained.network, step=0))
    assert idle_units(begun).severity == "not judged"


def test_the_standard_error_is_that_of_redrawing_documents() -> None:
    draw = np.random.default_rng(1)
    estimates, errors = [], []
    for _ in range(400):
        sizes = draw.integers(20, 200, 50).astype(float)
        sums = sizes * draw.normal(3, 0.4, 50)  # tokens of one document are correlated
        estimates.append(sums.sum() / sizes.sum())
        errors.append(ratio_error(sums, sizes))
    assert np.mean(errors) == pytest.approx(np.std(estimates), rel=0.1)


def test_losses_by_document_add_up_to_the_score(monkeypatch: pytest.MonkeyPatch) -> None:
    model, text = network("llama"), windows()
    measured_spread = spread((7, model), None, text)
    assert measured_spread is not None
    assert (measured_spread.unit, len(measured_spread.tokens), measured_spread.difference) == (
        "documents",
        30,
        None,
    )
    assert measured_spread.tokens.sum() == text.num_targets
    inputs, targets = text.batch(0, len(text))
    losses = losses_module.token_losses(model(torch.from_numpy(inputs)), torch.from_numpy(targets))
    assert measured_spread.loss == pytest.approx(losses.sum().item() / text.num_targets, rel=1e-5)
    monkeypatch.setattr(
        losses_module, "SCORED_TOKENS", 20 * CONTEXT
    )  # the error of the whole is extrapolated from a beginning
    beginning = spread((7, model), None, text)
    assert beginning is not None
    assert beginning.tokens.sum() == 20 * CONTEXT
    assert beginning.error == pytest.approx(measured_spread.error, rel=0.4)
    few = spread((7, model), None, windows(documents=2, length=400))
    assert few is not None
    assert few.unit == "windows"
    assert spread((7, model), None, windows(documents=2, length=100)) is None


def with_difference(run: Evidence, fell: float, noise: float, loss_noise: float = 0.0) -> Evidence:
    """Return the run with a difference of two checkpoints that varies by ``noise`` from document to document."""
    tokens, draw = np.full(100, 50.0), np.random.default_rng(0)
    nats = tokens * (3 + loss_noise * draw.standard_normal(100))
    earlier = nats + tokens * (fell + noise * draw.standard_normal(100))
    return dataclasses.replace(run, losses=LossSpread((10, 20), "documents", tokens, nats, earlier, 5000))


def test_a_difference_that_may_be_chance_is_reported(trained: Evidence) -> None:
    settled = validation_too_small(with_difference(trained, fell=0.01, noise=0.02))
    assert settled.severity == "fine"  # the error is 0.02 / sqrt(100), since it is paired by document
    chance = validation_too_small(with_difference(trained, fell=0.01, noise=0.2))
    assert chance.severity == "notice"
    assert "From step 10 to 20" in chance.finding
    assert "may be chance" in chance.finding


def test_a_rung_nearer_than_the_error_is_not_passed(trained: Evidence) -> None:
    ladder, bits = trained.history.ladder, trained.evals[-1].bits_per_byte
    assert ladder is not None
    near = dataclasses.replace(ladder.rungs[0], bits_per_byte=bits + 0.01)
    history = dataclasses.replace(trained.history, ladder=dataclasses.replace(ladder, rungs=(near,)))
    run = dataclasses.replace(trained, history=history)
    noisy = validation_too_small(with_difference(run, fell=1.0, noise=0.01, loss_noise=1.0))
    assert noisy.severity == "notice"
    assert "0.0100 bits per byte below the 1-gram" in noisy.finding
    assert "+-" in noisy.finding
    assert validation_too_small(with_difference(run, 1.0, 0.01, loss_noise=0.01)).severity == "fine"


def test_a_text_in_both_parts_leaks(tmp_path: Path) -> None:
    write_text(tmp_path / "text", 40_000)
    files = sorted((tmp_path / "text").iterdir())
    for number, file in enumerate(files[:4]):  # copies at the end, which the tail split holds out
        (tmp_path / "text" / f"z{number}.txt").write_text(file.read_text())
    values = {
        "data.split": "tail",
        "data.deduplicate": "none",
        "data.validation_fraction": 0.1,
        "train.steps": 2,
    }
    verdict = data_leak(gather(finished_run(settings_for(tmp_path, "leaky", **values))))
    assert verdict.severity == "problem"
    assert any(" ".join(file.read_text()[:40].split())[:30] in verdict.finding for file in files[:4])
    assert "data.split=hash" in verdict.advice


def test_copies_differ_from_repeated_phrases() -> None:
    draw = np.random.default_rng(3)

    def text(count: int) -> bytes:
        return draw.integers(33, 127, count).astype(np.uint8).tobytes()

    formula, page, note = text(900), text(1000), text(300)
    for held_out, copied in (
        ([formula + text(5000)], 0),
        ([page + text(5000)], 1000),
        ([note + text(299)], 300),
        ([text(50), note, note + text(301)], 300),
    ):
        shared = overlap(held_out, [text(100) + formula, page + text(50), note, note, text(9)])
        assert shared is not None
        assert shared.copied_bytes == pytest.approx(copied, abs=2)  # a byte may agree by chance


def test_repeated_phrases_are_worth_a_notice(trained: Evidence) -> None:
    shared = Overlap(10_000, 90_000, 300, 90, 250, "once upon a time")
    verdict = data_leak(dataclasses.replace(trained, overlap=shared))
    assert verdict.severity == "notice"
    assert "3.0% of 10,000" in verdict.finding
    copies = dataclasses.replace(shared, copied_bytes=110)
    assert data_leak(dataclasses.replace(trained, overlap=copies)).severity == "problem"


def test_parts_that_were_split_by_hash_do_not_leak(trained: Evidence) -> None:
    assert data_leak(trained).severity == "fine"


def test_shared_runs_are_counted_byte_for_byte() -> None:
    draw = np.random.default_rng(0)

    def text(count: int, alphabet: bytes) -> bytes:
        return bytes(draw.choice(np.frombuffer(alphabet, np.uint8), count))

    own, others, both = b"abcdefghi", b"jklmnopqr", b"stuvwxyz"  # disjoint, so that no byte agrees by chance
    shared, short = text(500, both), text(RUN_BYTES - 1, both)
    held_out = [text(1000, own) + shared + text(300, own), text(400, own) + short + text(50, own)]
    training = [text(3_000_000, others), text(100, others) + shared + text(100, others), short + b"jk"]
    result = overlap(held_out, training)
    assert result is not None
    assert result.held_out_bytes == sum(map(len, held_out))
    assert result.training_bytes == sum(map(len, training))
    assert (result.shared_bytes, result.copied_bytes, result.longest) == (500, 0, 500)
    assert result.example == shared[:60].decode()
    assert overlap(held_out, [text(5000, others)]).shared_bytes == 0  # type: ignore[union-attr]
    assert overlap([b"short"], training) is None


@pytest.mark.parametrize("before", [0, 1, (1 << 20) - 300, (1 << 20) - 150, (1 << 20) - 1, 1 << 20])
def test_a_shared_run_is_found_at_any_offset(before: int) -> None:
    draw = np.random.default_rng(2)
    run = draw.integers(97, 123, RUN_BYTES).astype(np.uint8).tobytes()
    training = draw.integers(97, 123, before).astype(np.uint8).tobytes() + run
    result = overlap([b"x" + run + b"y"], [training])
    assert result is not None
    assert result.shared_bytes == result.copied_bytes == RUN_BYTES


def test_the_measures_are_numbers(trained: Evidence) -> None:
    assert isinstance(trained.losses, LossSpread)
    assert trained.losses.steps == (20, 30)
    assert trained.losses.loss == pytest.approx(trained.evals[-1].val_loss, rel=1e-4)
    assert math.isfinite(trained.losses.error)
    assert isinstance(trained.seconds_per_batch, float)
    assert trained.text.train_documents is not None
