"""LoRA adapters as a source: merged into their base, they answer as PEFT does."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from etude.errors import InputError
from etude.model.folder import load_model_folder
from etude.pretrained.adapter import ADAPTER_WEIGHTS
from etude.pretrained.base import open_base
from etude.pretrained.facts import licence_of
from etude.pretrained.import_model import import_model
from etude.pretrained.resolve_source import model_folder
from etude.pretrained.source_names import ADAPTER_CONFIG

peft = pytest.importorskip("peft")
transformers = pytest.importorskip("transformers")


def llama() -> Any:
    return transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=300,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=64,
            tie_word_embeddings=False,
        )
    )


def gpt2() -> Any:
    return transformers.GPT2LMHeadModel(
        transformers.GPT2Config(vocab_size=300, n_embd=32, n_layer=2, n_head=4, n_positions=64)
    )


def saved(
    tmp_path: Path, network: Any, dtype: torch.dtype = torch.float32, **options: Any
) -> tuple[Path, Any]:
    """Save a base and an adapter with random matrices; return the adapter's folder and PEFT's model."""
    torch.manual_seed(3)
    network = network.to(dtype)
    base = tmp_path / "base"
    network.save_pretrained(base)
    (base / "README.md").write_text("---\nlicense: mit\n---\n")
    network.name_or_path = network.config._name_or_path = str(base)
    model = peft.get_peft_model(network, peft.LoraConfig(task_type="CAUSAL_LM", r=4, lora_alpha=6, **options))
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    model.save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter", model.eval()


def change(folder: Path, **values: object) -> None:
    """Change values of adapter_config.json."""
    file = folder / ADAPTER_CONFIG
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


@pytest.mark.parametrize(
    ("make", "options"),
    [
        (llama, {"target_modules": ["q_proj", "v_proj", "down_proj"]}),
        (llama, {"target_modules": "all-linear", "use_rslora": True}),
        (llama, {"target_modules": ["q_proj", "lm_head"]}),
        (gpt2, {"target_modules": ["c_attn", "c_fc"], "fan_in_fan_out": True}),
    ],
)
def test_it_computes_what_peft_computes(
    tmp_path: Path, make: Callable[[], Any], options: dict[str, Any]
) -> None:
    folder, theirs = saved(tmp_path, make(), **options)
    ours, _ = load_model_folder(model_folder(folder))
    ids = torch.randint(300, (2, 17))
    with torch.no_grad():
        expected, alone = theirs(ids).logits, load_model_folder(tmp_path / "base")[0](ids)
        assert (ours(ids) - expected).abs().max() < 1e-4
        assert (alone - expected).abs().max() > 0.01  # the adapter matters


def test_adapted_matrices_of_a_16_bit_base_are_not_rounded(tmp_path: Path) -> None:
    folder, _ = saved(tmp_path, llama(), torch.bfloat16, target_modules=["q_proj"])
    tensors = load_file(model_folder(folder) / "model.safetensors")
    base = load_file(tmp_path / "base" / "model.safetensors")
    pairs = load_file(folder / ADAPTER_WEIGHTS)
    name = "model.layers.1.self_attn.q_proj"
    down, up = (pairs[f"base_model.model.{name}.lora_{part}.weight"].double() for part in "AB")
    expected = base[f"{name}.weight"].double() + 1.5 * up @ down
    assert (tensors[f"{name}.weight"].double() - expected).abs().max() < 1e-6
    assert torch.equal(
        tensors["model.layers.1.mlp.up_proj.weight"], base["model.layers.1.mlp.up_proj.weight"]
    )


def test_it_is_made_once_and_follows_its_files(tmp_path: Path) -> None:
    folder, _ = saved(tmp_path, llama(), target_modules=["q_proj"])
    first = model_folder(folder)
    stamp = (first / "model.safetensors").stat().st_mtime_ns
    assert model_folder(folder) == first
    assert (first / "model.safetensors").stat().st_mtime_ns == stamp
    tensors = load_file(folder / ADAPTER_WEIGHTS)
    save_file({name: 2 * tensor for name, tensor in tensors.items()}, folder / ADAPTER_WEIGHTS)
    assert model_folder(folder) != first


def test_the_base_is_found_beside_the_adapter_and_its_licence_holds(tmp_path: Path) -> None:
    folder, _ = saved(tmp_path, llama(), target_modules=["q_proj"])
    change(folder, base_model_name_or_path="../base")
    merged = model_folder(folder)
    assert licence_of(merged) == "mit"
    origin = json.loads((merged / "origin.json").read_text())
    assert origin["adapter"]["rank"] == 4
    assert origin["adapter"]["scale"] == 1.5


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"peft_type": "IA3"}, "only LORA"),
        ({"use_dora": True}, "use_dora"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"bias": "all"}, "bias"),
        ({"rank_pattern": {"q_proj": 2}}, "rank_pattern"),
        ({"r": 0}, "damaged"),
        ({"r": "4"}, "damaged"),
        ({"r": 10**400}, "damaged"),
        ({"lora_alpha": 10**400}, "damaged"),
        ({"lora_alpha": float("nan")}, "damaged"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights"),
        ({"init_lora_weights": "olora"}, "init_lora_weights"),
        ({"base_model_name_or_path": "x" * 5000}, "set base_model_name_or_path"),
        ({"lora_alpha": None}, "damaged"),
        ({"r": 5}, "do not fit"),
        ({"base_model_name_or_path": None}, "set base_model_name_or_path"),
        ({"base_model_name_or_path": "/no/such/folder"}, "set base_model_name_or_path"),
        ({"fan_in_fan_out": True}, "do not fit"),
    ],
)
def test_what_it_cannot_read_is_refused(tmp_path: Path, values: dict[str, object], message: str) -> None:
    folder, _ = saved(tmp_path, llama(), target_modules=["down_proj"])
    change(folder, **values)
    with pytest.raises(InputError, match=message):
        model_folder(folder)


def test_matrices_whose_product_would_be_huge_are_refused_before_it(tmp_path: Path) -> None:
    folder, _ = saved(tmp_path, llama(), target_modules=["q_proj"])
    change(folder, r=1)
    module = "base_model.model.model.layers.0.self_attn.q_proj"
    large = {
        f"{module}.lora_A.weight": torch.zeros(1, 3_000_000),
        f"{module}.lora_B.weight": torch.zeros(3_000_000, 1),
    }
    save_file(large, folder / ADAPTER_WEIGHTS)
    with pytest.raises(InputError, match="do not fit"):
        model_folder(folder)


@pytest.mark.parametrize("place", ["adapter", "base"])
def test_links_that_lead_elsewhere_are_refused(tmp_path: Path, place: str) -> None:
    folder, _ = saved(tmp_path, llama(), target_modules=["q_proj"])
    secret = tmp_path / "secret.txt"
    secret.write_text("private")
    (tmp_path / place / "chat_template.jinja").symlink_to(secret)
    with pytest.raises(InputError, match="a link that leads out"):
        model_folder(folder)


@pytest.mark.parametrize("damage", ["cut", "renamed", "unpaired", "missing", "other_base", "no_config"])
def test_a_damaged_adapter_is_refused(tmp_path: Path, damage: str) -> None:
    folder, _ = saved(tmp_path, llama(), target_modules=["q_proj"])
    file = folder / ADAPTER_WEIGHTS
    tensors = load_file(file)
    first = sorted(tensors)[0]
    if damage == "cut":
        file.write_bytes(file.read_bytes()[:-7])
    elif damage == "renamed":
        save_file({("x" if name == first else name): tensor for name, tensor in tensors.items()}, file)
    elif damage == "unpaired":
        save_file({name: tensor for name, tensor in tensors.items() if name != first}, file)
    elif damage == "missing":
        file.unlink()
    elif damage == "other_base":
        shutil.rmtree(tmp_path / "base")
        gpt2().save_pretrained(tmp_path / "base")
    else:
        (folder / ADAPTER_CONFIG).write_text("[]")
    with pytest.raises(InputError) as caught:
        model_folder(folder)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.glob("**/models/*/model.safetensors"))


def test_import_reports_the_adapter(tmp_path: Path) -> None:
    folder, _ = saved(tmp_path, llama(), target_modules=["q_proj"])
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer = Tokenizer(
        models.BPE({token: at for at, token in enumerate([*sorted(alphabet), "<end>"])}, [])
    )
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(False), decoders.ByteLevel()
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>")
    fast.save_pretrained(tmp_path / "base")
    console = Console(record=True, width=200)
    import_model(str(folder), str(tmp_path / "mine"), console)
    assert "adapter (LoRA, rank 4)" in console.export_text()


def test_open_base_takes_an_adapter(tmp_path: Path) -> None:
    folder, _ = saved(tmp_path, llama(), target_modules=["q_proj"])
    base = open_base(folder)
    assert base.config.num_hidden_layers == 2
    assert "origin.json" in base.files
