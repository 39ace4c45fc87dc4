"""A published language model from its GGUF file: its weights, logits, tokens and continuations are those of others."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from safetensors import safe_open
from smollm2 import smollm2

from etude.generate.engine import generate
from etude.generate.sampling import SamplingSettings
from etude.model.folder import load_model_folder
from etude.pretrained.gguf_model import folder_from_gguf
from hard_texts import hard_texts
from llama_cpp import LlamaCpp

pytestmark = pytest.mark.slow
SECONDS = 15
"""Of one core, to import it on a quiet machine; the test allows four times as many."""
HEADS, KV_HEADS, LAYERS = 9, 3, 30
NEW_TOKENS = 24
PROMPTS = (
    *("The capital of France is", "def fibonacci(n):\n", "Once upon a time", "Water boils at", "1, 2, 3, 4,"),
    *(
        "Dear Anna,\n",
        "The three laws of thermodynamics",
        "SELECT name FROM",
        "<|im_start|>user\nHi<|im_end|>\n",
    ),
    *(
        "In 1969, the first",
        "To make bread, you need",
        "import numpy as np\n\n",
        "The opposite of hot is",
    ),
    *(
        "Q: What is 7 + 5?\nA:",
        "La capitale de l'Italie est",
        "# Introduction\n\n",
        "He opened the door and",
        "2024-01-",
    ),
    *("2024-01-", "The mitochondria is"),
)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return smollm2(tmp_path_factory.mktemp("download"))


@pytest.fixture(scope="module")
def folder(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("model") / "smollm2"
    begun = time.process_time()
    folder_from_gguf(source, place)
    seconds = time.process_time() - begun
    print(f"imported in {seconds:.1f} s of one core")
    assert seconds < 4 * SECONDS
    return place


@pytest.fixture(scope="module")
def theirs(folder: Path) -> Any:
    transformers = pytest.importorskip("transformers")
    transformers.utils.logging.disable_progress_bar()
    return transformers.AutoModelForCausalLM.from_pretrained(folder, local_files_only=True).eval()


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> Any:
    return pytest.importorskip("transformers").AutoTokenizer.from_pretrained(folder, local_files_only=True)


def test_weights_are_the_dequantised_ones_to_the_bit(source: Path, folder: Path) -> None:
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, LAYERS)
    tensors = {tensor.name: tensor for tensor in gguf.GGUFReader(source).tensors}
    with safe_open(folder / "model.safetensors", framework="np") as file:
        for name in (stored := list(file.keys())):
            entry = tensors[names.get_name(name, (".weight",))]
            expected = gguf.quants.dequantize(entry.data, entry.tensor_type)
            heads = HEADS if "q_proj" in name else KV_HEADS if "k_proj" in name else 0
            if heads:
                paired = expected.reshape(heads, len(expected) // heads // 2, 2, -1)
                expected = paired.swapaxes(1, 2).reshape(expected.shape)
            assert np.array_equal(file.get_tensor(name), expected), name
        assert len(stored) == len(tensors) == 272


def test_the_facts_are_written(folder: Path) -> None:
    origin = json.loads((folder / "origin.json").read_text())
    assert (origin["license"], origin["parameters"], origin["rounded"]) == ("apache-2.0", 134_515_008, True)
    assert {kind: counts["tensors"] for kind, counts in origin["quantisation"].items()} == {
        **{"Q4_1": 210, "Q8_0": 1, "F32": 61}
    }
    config = json.loads((folder / "config.json").read_text())
    assert (config["rms_norm_eps"], config["rope_theta"], config["max_position_embeddings"]) == (
        1e-05,
        1e5,
        8192,
    )
    assert json.loads((folder / "generation_config.json").read_text())["eos_token_id"] == [2, 0]


def test_logits_are_those_of_transformers(folder: Path, theirs: Any, tokenizer: Any) -> None:
    network, _ = load_model_folder(folder)
    for text in (*PROMPTS, " ".join(hard_texts(60))):
        ids = torch.tensor([tokenizer(text).input_ids])
        with torch.no_grad():
            logits, expected = network(ids), theirs(ids).logits
        torch.testing.assert_close(logits, expected, atol=1e-4, rtol=0)


def test_greedy_continuations_are_those_of_transformers(folder: Path, theirs: Any, tokenizer: Any) -> None:
    network, _ = load_model_folder(folder)
    settings = SamplingSettings(temperature=0.0, max_new_tokens=NEW_TOKENS)
    assert len(PROMPTS) == 20
    for prompt in PROMPTS:
        ids = tokenizer(prompt).input_ids
        found = generate(network, [ids], settings, stop_ids=())[0].token_ids
        expected = theirs.generate(
            torch.tensor([ids]),
            attention_mask=torch.ones(1, len(ids)),
            do_sample=False,
            max_new_tokens=NEW_TOKENS,
            min_new_tokens=NEW_TOKENS,
            eos_token_id=None,
        )[0, len(ids) :].tolist()
        assert found == expected, prompt


def test_token_ids_are_those_of_llama_cpp(source: Path, tokenizer: Any) -> None:
    reference, texts = LlamaCpp(source), hard_texts(1000)
    backend = tokenizer.backend_tokenizer
    for specials in (True, False):
        backend.encode_special_tokens = not specials
        expected = reference.token_ids(texts, specials=specials)
        found = [backend.encode(text, add_special_tokens=False).ids for text in texts]
        wrong = [text for text, ours, other in zip(texts, found, expected, strict=True) if ours != other]
        assert wrong == []
