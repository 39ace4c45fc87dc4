"""A model family in one file outside ``src``: as transformers computes it, trained, resumed, replayed, opened, shown.

GLM-4 is defined in glm4.py beside this file, and nowhere else.
"""

from __future__ import annotations

import dataclasses
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from glm4 import FAMILY
from rich.console import Console
from safetensors.torch import load_file
from typer.testing import CliRunner

from etude import watch
from etude.cli.main import app
from etude.config import load_settings, with_values
from etude.errors import InputError
from etude.model.build import build_model
from etude.model.config import ModelConfig, preset
from etude.model.cost import count_parameters, kept_per_token
from etude.model.decoding import Decoding
from etude.model.families import Family, family_named, register
from etude.model.families.trial import require_complete
from etude.model.folder import load_model_folder, save_model_folder
from etude.model.hf_config import config_from_hf, config_to_hf
from etude.registry import MODEL_FAMILIES
from etude.train.loop import Loop
from etude.watch.layer_in_step import LayerInStep
from etude.watch.opened_step import open_step
from etude.watch.reconciliation import reconcile
from etude.workflow import jobs
from model.test_cost import kept_bytes
from networks import make_network, make_tokens
from parity.test_transformers import assert_same, reference
from serving import client_of
from waiting import PATIENCE
from watched import STEPS, Watched, train_run

FILE = Path(__file__).parent / "glm4.py"
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "grouped, tied": {"num_key_value_heads": 2, "tie_word_embeddings": True},
    "wide heads, whole rotation": {"head_dim": 12, "partial_rotary_factor": 1.0, "num_key_value_heads": 1},
    "a quarter turned, theta 500": {"head_dim": 16, "partial_rotary_factor": 0.25, "rope_theta": 500.0},
}


def config_of(variant: str = "plain", **changes: Any) -> ModelConfig:
    sizes = {"vocab_size": 61, "hidden_size": 32, "max_position_embeddings": 48, "num_attention_heads": 4}
    return preset("glm4", **(sizes | {"num_hidden_layers": 3} | VARIANTS[variant] | changes))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """A small GLM-4, trained; the processes that tests start find the family by ETUDE_PLUGINS."""
    run = train_run(tmp_path_factory.mktemp("family"), "glm4", {"model.preset": "glm4", "train.dropout": 0.1})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ETUDE_PLUGINS", str(FILE))
        yield run


def cached(run: Watched, patch: pytest.MonkeyPatch) -> None:
    patch.setenv("ETUDE_CACHE", str(run.cache))


@pytest.mark.parametrize(("variant", "seed"), [(name, seed) for seed, name in enumerate(VARIANTS)])
def test_transformers_computes_the_same_from_its_folder(variant: str, seed: int, tmp_path: Path) -> None:
    config = config_of(variant)
    model = make_network(config, seed)
    save_model_folder(tmp_path, model, config, None)
    theirs = reference(tmp_path)
    assert type(theirs).__name__ == "Glm4ForCausalLM"
    assert_same(model, theirs, config, seed)


@pytest.mark.parametrize(("variant", "seed"), [(name, seed) for seed, name in enumerate(VARIANTS)])
def test_a_folder_of_transformers_opens(variant: str, seed: int, tmp_path: Path) -> None:
    import transformers

    config = config_of(variant)
    torch.manual_seed(seed)
    theirs = transformers.Glm4ForCausalLM(
        transformers.Glm4Config(**config_to_hf(config), attn_implementation="eager")
    )
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    theirs.save_pretrained(tmp_path)
    ours, loaded = load_model_folder(tmp_path)
    assert loaded == config
    assert_same(ours, theirs, config, seed)


def test_what_its_config_leaves_out_means_what_it_means_in_transformers() -> None:
    import transformers

    full = transformers.Glm4Config(attention_bias=False).to_dict()
    sizes = {"vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"}
    bare = {key: full[key] for key in sizes | {"model_type", "attention_bias"}}
    assert config_from_hf(bare) == config_from_hf(full).replace(bos_token_id=None, eos_token_id=None)
    with pytest.raises(InputError, match="attention_bias = true"):
        config_from_hf(full | {"attention_bias": True})


@pytest.mark.parametrize("variant", VARIANTS)
def test_its_parameters_and_its_memory_are_counted(variant: str) -> None:
    config = config_of(variant)
    assert count_parameters(config).total == sum(p.numel() for p in build_model(config).parameters())
    estimate = 4 * 3 * 40 * kept_per_token(config)
    assert kept_bytes(make_network(config), 3, 40) == pytest.approx(estimate, rel=0.01)


@torch.no_grad()
@pytest.mark.parametrize("variant", VARIANTS)
def test_decoding_a_token_at_a_time_is_the_forward_pass(variant: str) -> None:
    model, tokens = make_network(config_of(variant), 4), make_tokens(2, 12)
    cache = model.new_cache(2, 16)
    model(tokens[:, :5], cache=cache)
    decoding, expected = Decoding(model), model(tokens)
    for place in range(5, 12):
        step = decoding.step(tokens[:, place], cache)  # type: ignore[arg-type]
        torch.testing.assert_close(step, expected[:, place], atol=2e-5, rtol=0)


def test_it_learns_and_its_checkpoint_is_a_model_folder_of_its_own_format(trained: Watched) -> None:
    record = trained.machine.recorded
    losses = {step: record.loss_at(step) or np.nan for step in (1, *range(31, 41))}
    assert np.mean([losses[step] for step in range(31, 41)]) < 0.9 * losses[1]
    folder = trained.path / "checkpoints" / f"step-{STEPS:08d}"
    stored = load_file(folder / "model.safetensors")
    assert (
        stored["model.layers.0.mlp.gate_up_proj.weight"].shape[0]
        == 2 * trained_config(trained).intermediate_size
    )
    assert "model.layers.1.post_self_attn_layernorm.weight" in stored
    values = json.loads((folder / "config.json").read_text())
    assert (values["model_type"], values["partial_rotary_factor"]) == ("glm4", 0.5)
    ours, _ = load_model_folder(folder)
    inputs = make_tokens(2, 20)
    with torch.no_grad():
        torch.testing.assert_close(ours(inputs), reference(folder)(inputs).logits, atol=1e-5, rtol=0)


def trained_config(run: Watched) -> ModelConfig:
    return run.machine.empty_model().config


def test_a_stopped_run_resumes_to_the_bit(
    trained: Watched, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cached(trained, monkeypatch)
    console = Console(file=io.StringIO(), width=120)
    settings = with_values(load_settings(trained.path / "run.toml"), {"run.folder": str(tmp_path)})
    original = Loop.__init__

    def stopping(loop: Loop, *args: Any, **kwargs: Any) -> None:
        original(loop, *args, **kwargs)
        loop.should_stop = lambda: loop.state.step >= 22

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Loop, "__init__", stopping)
        part = jobs.grow(settings, console)
    assert (part.reason, part.step) == ("stopped", 22)
    rest = jobs.resume(part.run.path, console)
    assert (rest.reason, rest.step) == ("finished", STEPS)
    for name in ("model.safetensors", "optimizer.safetensors"):
        files = [path / "checkpoints" / f"step-{STEPS:08d}" / name for path in (part.run.path, trained.path)]
        assert files[0].read_bytes() == files[1].read_bytes(), name


@pytest.mark.parametrize("step", [1, 23, STEPS])
def test_a_step_is_replayed_with_proof_and_explains_what_was_applied(
    trained: Watched, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    cached(trained, monkeypatch)
    opened = open_step(trained.machine, step)
    assert opened.proof.holds
    reconciled = reconcile(opened)
    assert reconciled.holds, str(reconciled)


def test_its_neurons_and_its_logits_are_taken_apart(
    trained: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through both norms of a sublayer: the terms of a logit sum to it."""
    cached(trained, monkeypatch)
    layer = LayerInStep(open_step(trained.machine, 23), "model.layers.1.mlp")
    unit = layer.sum(5, 0, 7)
    assert abs(unit.gate.difference) < 1e-4
    assert abs(watch.prompt(trained.path, "One day the fox").contributions().unexplained) < 1e-3


def test_inspect_and_the_pages_api_show_it(trained: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    cached(trained, monkeypatch)
    result = CliRunner().invoke(app, ["inspect", str(trained.path), "--step", "23", "--json"])
    assert result.exit_code == 0, result.output
    shown = json.loads(result.output)
    assert shown["proof"]["holds"]
    with client_of(trained.path.parent) as client:
        facts = client.get("/api/runs/glm4").json()

        def answer(**question: Any) -> dict[str, Any]:
            lines = client.post("/api/ask", json={"run": "glm4", **question}).text.splitlines()
            answer: dict[str, Any] = json.loads(lines[-1])
            assert "answer" in answer, answer
            return answer["answer"]  # type: ignore[no-any-return]

        step = answer(look="step", step=23)
        unit = answer(look="unit", step=23, layer=1, unit=3, input=7)
    assert facts["model"]["family"] == "glm4"
    assert facts["model"]["attention"] is True
    assert step["loss"] == shown["loss"]
    assert step["proof"]["holds"]
    assert {
        "model.layers.0.attention_output_layernorm.weight",
        "model.layers.1.mlp_output_layernorm.weight",
    } <= {parameter["name"] for parameter in step["parameters"]}
    assert unit["bias"] is None


def etude(*words: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process of its own, with the plugin unless ``environment`` changes that."""
    return subprocess.run(
        [sys.executable, "-m", "etude", *map(str, words)],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        env=os.environ | environment,
    )


def test_the_command_line_trains_generates_and_names_what_is_missing(
    trained: Watched, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cached(trained, monkeypatch)
    more = ["--set", f"run.folder={tmp_path}", "--set", "train.steps=3", "--no-studio"]
    made = etude("train", "--config", trained.path / "run.toml", "--model", "glm4", *more)
    assert made.returncode == 0, made.stderr
    written = etude("generate", tmp_path / "glm4", "One day", "--max-new-tokens", 5, "--json")
    assert written.returncode == 0, written.stderr
    for words in (("inspect", trained.path), ("train", "--model", "glm4", "--dry-run")):
        refused = etude(*words, ETUDE_PLUGINS="")
        assert refused.returncode == 2
        assert len(refused.stderr.splitlines()) == 1, refused.stderr
        assert "'glm4'" in refused.stderr
        assert "ETUDE_PLUGINS" in refused.stderr


def fails(*arguments: Any) -> Any:
    raise KeyError("a tensor that\nis missing")


def without_the_last(state: dict[str, Any], config: ModelConfig) -> dict[str, Any]:
    return dict(list(state.items())[:-1])


def halves_exchanged(state: dict[str, Any], config: ModelConfig) -> dict[str, Any]:
    """Of the right names and shapes, and wrong."""
    back = FAMILY.from_saved(state, config)
    return {name: tensor.flip(0) if "gate_proj" in name else tensor for name, tensor in back.items()}


def forgets_theta(values: dict[str, Any]) -> dict[str, Any]:
    return FAMILY.config_from_hf(values) | {"rope_theta": 1.0}


INCOMPLETE: dict[str, tuple[dict[str, Any], str]] = {
    "a switch that does not exist": (
        {"fixed": {"norms": "rmsnorm"}},
        "`fixed` names norms, which ModelConfig",
    ),
    "a free switch that does not exist": ({"free": frozenset({"norms"})}, "`free` names norms: choose from"),
    "an unknown pattern": (
        {"tokenizer_pattern": "glm"},
        "tokenizer_pattern 'glm' is unknown: choose from gpt2",
    ),
    "a config that is not read back": (
        {"config_from_hf": forgets_theta},
        "config_from_hf does not read what",
    ),
    "a config that lacks a field": (
        {"config_to_hf": lambda config: {"attention_bias": False}},
        "config.json lacks 'hidden_size', which a",
    ),
    "names that fail": ({"to_saved": fails}, "to_saved fails (KeyError: 'a tensor that\\nis missing')"),
    "a lost tensor": ({"from_saved": without_the_last}, "from_saved does not invert to_saved"),
    "another layout": ({"from_saved": halves_exchanged}, "from_saved does not invert to_saved"),
    "a tensor that is called no parameter": (
        {"parameter_name": lambda name: None},
        "parameter_name does not keep",
    ),
    "no attention": ({"has_attention": False}, "has_attention differs from the network's"),
    "a network that fails": ({"network": fails}, "network fails (KeyError"),
}


@pytest.mark.parametrize("case", INCOMPLETE)
def test_an_incomplete_family_is_refused_with_what_is_wrong(case: str) -> None:
    changes, words = INCOMPLETE[case]
    family = dataclasses.replace(FAMILY, name="incomplete", **changes)
    with pytest.raises(
        InputError, match=re.escape("the model family 'incomplete' is incomplete: ")
    ) as raised:
        register(family)
    assert words in str(raised.value)
    assert len(str(raised.value).splitlines()) == 1
    with pytest.raises(InputError, match="there is no model family 'incomplete'"):
        family_named("incomplete")


def test_wrong_counts_are_found() -> None:
    """Of the cost of another family's network."""
    family = dataclasses.replace(FAMILY, name="miscounted", cost=family_named("mlp").cost)
    with pytest.raises(InputError, match=r"its cost counts \d+ parameters, and the network has \d+"):
        register(family)


@pytest.mark.parametrize("thing", [3, Family, None])
def test_only_a_family_can_be_registered(thing: Any) -> None:
    with pytest.raises(InputError, match=r"is declared by an etude\.model\.families\.Family"):
        MODEL_FAMILIES.register("anything", thing)
    with pytest.raises(InputError, match="the name 'llama' is taken"):
        register(dataclasses.replace(FAMILY, name="llama"))


@pytest.mark.parametrize(
    "name", ["llama", "qwen3", "gpt2", "mlp", "gpt_neox", "olmo2", "qwen2", "smollm3", "gemma3_text"]
)
def test_the_built_in_families_are_complete(name: str) -> None:
    require_complete(family_named(name))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (
            "from etude.model.families import Family, register\nregister(Family(name='x'))",
            "TypeError: Family",
        ),
        (
            "from etude.model.families import register\nregister(3)",
            "is refused: a model family is declared by",
        ),
    ],
)
def test_a_file_with_an_incomplete_family_is_one_line(tmp_path: Path, content: str, words: str) -> None:
    (tmp_path / "bad.py").write_text(content)
    refused = etude("train", "--dry-run", "--model", "glm4", ETUDE_PLUGINS=str(tmp_path / "bad.py"))
    assert refused.returncode == 2
    assert len(refused.stderr.splitlines()) == 1
    assert f"{tmp_path / 'bad.py'}' of ETUDE_PLUGINS " in refused.stderr
    assert words in refused.stderr
