"""Model folders: round trips, and every kind of damaged or foreign folder."""

from __future__ import annotations

import json
import re
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from etude.errors import EtudeError, InputError
from etude.model.folder import load_config, load_model_folder, save_model_folder
from networks import EVERY, make_config, make_network, make_tokens


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    config = make_config("llama")
    save_model_folder(tmp_path / "model", make_network(config), config, None)
    return tmp_path / "model"


@pytest.mark.parametrize("name", EVERY)
def test_a_round_trip_is_exact(name: str, tmp_path: Path) -> None:
    config = make_config(name)
    model = make_network(config)
    tokenizer = tmp_path / "tokenizer"
    tokenizer.mkdir()
    (tokenizer / "tokenizer.json").write_text("{}")
    (tokenizer / "config.json").write_text("not the model's")
    target = tmp_path / "checkpoints" / "model"
    save_model_folder(target, model, config, tokenizer, card="# Mine\n")
    loaded, same = load_model_folder(target)
    assert same == config
    state = model.state_dict()
    assert list(loaded.state_dict()) == list(state)
    assert all(torch.equal(value, state[key]) for key, value in loaded.state_dict().items())
    assert (target / "README.md").read_text() == "# Mine\n"
    assert (target / "tokenizer.json").read_text() == "{}"
    assert json.loads((target / "generation_config.json").read_text())["eos_token_id"] == 0
    for file in target.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) & 0o044 == 0o044, file
    tokens = make_tokens(2, 9)
    assert torch.equal(loaded(tokens), model(tokens))
    assert all(parameter.requires_grad for parameter in loaded.parameters())


def test_a_plain_card_counts_the_parameters(tmp_path: Path) -> None:
    config = make_config("gpt2")
    model = make_network(config)
    save_model_folder(tmp_path, model, config, None)
    count = sum(parameter.numel() for parameter in model.parameters())
    assert f"{count:,} parameters" in (tmp_path / "README.md").read_text()


@pytest.mark.parametrize("name", EVERY)
def test_tensor_names_survive_a_round_trip(name: str) -> None:
    config = make_config(name)
    state = make_network(config).state_dict()
    saved = config.family.to_saved(state, config)
    back = config.family.from_saved(saved, config)
    assert back.keys() == state.keys()
    assert all(torch.equal(back[key], state[key]) for key in state)
    assert sum(t.numel() for t in saved.values()) == sum(t.numel() for t in state.values())
    assert all(config.family.parameter_name(key) == key for key in saved)


def test_old_gpt_neox_files_with_masks_tables_and_a_tied_head(tmp_path: Path) -> None:
    config = make_config("gpt_neox", tie_word_embeddings=True)
    model = make_network(config)
    save_model_folder(tmp_path, model, config, None)
    path = tmp_path / "model.safetensors"
    tensors = load_file(path)
    assert "embed_out.weight" not in tensors
    attention = "gpt_neox.layers.0.attention"
    tensors[f"{attention}.bias"] = torch.ones(1, 1, 48, 48)
    tensors[f"{attention}.rotary_emb.inv_freq"] = torch.ones(2)
    tensors["embed_out.weight"] = tensors["gpt_neox.embed_in.weight"].clone()
    save_file(tensors, path)
    assert torch.equal(load_model_folder(tmp_path)[0](make_tokens(1, 5)), model(make_tokens(1, 5)))


def test_old_gpt2_files_without_prefix_and_with_masks(tmp_path: Path) -> None:
    config = make_config("gpt2")
    model = make_network(config)
    save_model_folder(tmp_path, model, config, None)
    path = tmp_path / "model.safetensors"
    tensors = {key.removeprefix("transformer."): value for key, value in load_file(path).items()}
    tensors["h.0.attn.bias"] = torch.ones(1, 1, 48, 48)
    tensors["lm_head.weight"] = tensors["wte.weight"].clone()
    save_file(tensors, path)
    assert torch.equal(load_model_folder(tmp_path)[0](make_tokens(1, 5)), model(make_tokens(1, 5)))


def test_half_precision_is_widened_or_kept(folder: Path) -> None:
    path = folder / "model.safetensors"
    save_file({key: value.bfloat16() for key, value in load_file(path).items()}, path)
    wide, _ = load_model_folder(folder)
    in_bf16, _ = load_model_folder(folder, dtype=torch.bfloat16)
    assert {p.dtype for p in wide.parameters()} == {torch.float32}
    assert {p.dtype for p in in_bf16.parameters()} == {torch.bfloat16}
    assert in_bf16(make_tokens(1, 5)).dtype == torch.bfloat16


def change_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


def change_config(folder: Path, **values: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def to_shards(folder: Path, table: Any) -> None:
    (folder / "model.safetensors").rename(folder / "one.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": table}))


def to_pickle(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


K = "model.layers.0.self_attn.k_proj.weight"
DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "no config": (lambda f: (f / "config.json").unlink(), "config.json is missing"),
    "empty config": (lambda f: (f / "config.json").write_text(""), "config.json is damaged"),
    "binary config": (lambda f: (f / "config.json").write_bytes(b"\xff\x00"), "config.json is damaged"),
    "a list": (lambda f: (f / "config.json").write_text("[1]"), "one JSON object"),
    "foreign": (lambda f: change_config(f, model_type="t5"), "model_type 't5' is not supported"),
    "quantised": (lambda f: change_config(f, quantization_config={"bits": 4}), "quantised"),
    "more layers": (lambda f: change_config(f, num_hidden_layers=4), "model.layers.3.* missing"),
    "fewer layers": (lambda f: change_config(f, num_hidden_layers=2), "model.layers.2.* unexpected"),
    "absurd layers": (lambda f: change_config(f, num_hidden_layers=4000), "asks for 4000 layers"),
    "another width": (
        lambda f: change_config(f, intermediate_size=97),
        r"gate_proj.weight \(96, 32\) instead",
    ),
    "tied": (lambda f: change_config(f, attention_bias=False), "bias.*unexpected"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "holds no model.safetensors"),
    "pickle": (to_pickle, "pytorch_model.bin is a pickle"),
    "a tensor less": (lambda f: change_weights(f, lambda t: t.pop(K)), f"{K} missing"),
    "a tensor more": (lambda f: change_weights(f, lambda t: t.update(z=t[K].clone())), "z unexpected"),
    "another shape": (
        lambda f: change_weights(f, lambda t: t.update({K: t[K][1:].clone()})),
        f"{K} .31, 32.",
    ),
    "integers": (lambda f: change_weights(f, lambda t: t.update({K: t[K].int()})), f"{K} holds I32"),
    "cut weights": (lambda f: cut(f / "model.safetensors", 0.7), "model.safetensors is damaged"),
    "cut header": (lambda f: cut(f / "model.safetensors", 0.001), "model.safetensors is damaged"),
    "empty weights": (lambda f: cut(f / "model.safetensors", 0), "model.safetensors is damaged"),
    "outside": (lambda f: to_shards(f, {K: "../one.safetensors"}), "not a .safetensors file of its folder"),
    "absolute": (lambda f: to_shards(f, {K: "/etc/passwd"}), "not a .safetensors file of its folder"),
    "missing shard": (lambda f: to_shards(f, {K: "two.safetensors"}), "two.safetensors is missing"),
    "odd index": (lambda f: to_shards(f, [K]), "no weight_map"),
    "odd entries": (lambda f: to_shards(f, {K: 3}), "no weight_map"),
}


def cut(path: Path, share: float) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])


@pytest.mark.parametrize("kind", DAMAGE)
def test_damaged_and_foreign_folders_are_refused_in_one_line(kind: str, folder: Path) -> None:
    damage, message = DAMAGE[kind]
    damage(folder)
    with pytest.raises(InputError, match=message) as caught:
        load_model_folder(folder)
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)


def test_a_missing_folder_and_a_file(folder: Path) -> None:
    for path in (folder / "nothing", folder / "config.json"):
        with pytest.raises(InputError, match=f"{re.escape(str(path))} is not a folder"):
            load_config(path)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.data())
def test_no_bytes_in_a_header_can_crash_the_reader(folder: Path, data: st.DataObject) -> None:
    path = folder / "model.safetensors"
    original = path.read_bytes()
    header = 8 + int.from_bytes(original[:8], "little")
    damaged = bytearray(original)
    for _ in range(data.draw(st.integers(1, 3))):
        damaged[data.draw(st.integers(0, header - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(damaged)
    with suppress(InputError):
        load_model_folder(folder)
    path.write_bytes(original)


def test_a_full_disk_is_an_etude_error(tmp_path: Path) -> None:
    """No file may grow beyond 30 kB, as on a full disk: the weights do not fit."""
    resource = pytest.importorskip("resource")
    config = make_config("llama")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, before[1]))
    try:
        with pytest.raises(EtudeError, match="could not write") as caught:
            save_model_folder(tmp_path, make_network(config), config, None)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert caught.value.exit_code == 1
