"""Model folders from strangers: absurd sizes, foreign files, pickles."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from anything import ANYTHING, many, refusal
from etude.data.tables import load_table
from etude.errors import InputError
from etude.files import write_json
from etude.model.folder import load_model_folder, save_model_folder
from etude.model.hf_config import config_from_hf, config_to_hf
from networks import make_config, make_network
from waiting import PATIENCE

CONFIGS = {
    name: config_to_hf(make_config(name))
    for name in ("llama", "qwen3", "gpt2", "qwen2", "smollm3", "gemma3_text", "mlp")
}


@many
@given(name=st.sampled_from(sorted(CONFIGS)), data=st.data(), value=ANYTHING)
def test_configurations_of_any_value(name: str, data: st.DataObject, value: Any) -> None:
    key = data.draw(st.sampled_from([*CONFIGS[name], "rope_scaling", "head_dim", "n_inner"]))
    with refusal():
        config_from_hf({**CONFIGS[name], key: value})
    with refusal():
        config_from_hf(value)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    config = make_config("llama")
    save_model_folder(tmp_path / "model", make_network(config), config, None)
    return tmp_path / "model"


BILLION = 10**9
ABSURD: dict[str, dict[str, Any]] = {
    "wide": {"hidden_size": BILLION},
    "as wide as can be": {"hidden_size": 2**20, "intermediate_size": 2**22, "vocab_size": 2**24},
    "many words": {"vocab_size": 2**24},
    "deep": {"num_hidden_layers": BILLION},
    "heads": {
        "num_attention_heads": 2**12,
        "num_key_value_heads": 2**12,
        "head_dim": 2**24,
        "hidden_size": 2**12,
    },
    "positions": {"max_position_embeddings": 2**24},
    "sliding positions": {"max_position_embeddings": 2**24},
    "sliding and deep": {"num_hidden_layers": BILLION, "layer_types": None},
    "window": {
        "model_type": "mlp",
        "context_size": 2**16,
        "hidden_size": 2**20,
        "max_position_embeddings": 2**16,
    },
}


def test_absurd_sizes_are_refused_before_memory_is_taken(tmp_path: Path) -> None:
    """In a process that may take 200 MB more than it has, and would want terabytes for most of these."""
    folders = []
    for kind, changes in ABSURD.items():
        config = make_config("mlp" if kind == "window" else "gemma3_text" if "sliding" in kind else "llama")
        save_model_folder(tmp_path / kind, make_network(config), config, None)
        write_json(tmp_path / kind / "config.json", config_to_hf(config) | changes)
        folders.append(str(tmp_path / kind))
    program = (
        "import pathlib, resource, sys; from etude.errors import InputError\n"
        "from etude.model.folder import load_model_folder\n"
        "taken = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (taken + 200_000_000, resource.RLIM_INFINITY))\n"
        "for path in sys.argv[1:]:\n"
        "    try: load_model_folder(pathlib.Path(path)); print('read')\n"
        "    except InputError as error: print(error)\n"
    )
    command = [sys.executable, "-c", program, *folders]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    assert ended.returncode == 0, ended.stderr
    for line, folder in zip(ended.stdout.splitlines(), folders, strict=True):
        assert folder in line


def test_many_positions_are_fine_where_the_weights_are_large_or_the_tables_small(model: Path) -> None:
    config = json.loads((model / "config.json").read_text())
    write_json(model / "config.json", config | {"max_position_embeddings": 131_072})
    assert load_model_folder(model)[1].max_position_embeddings == 131_072


HEADERS: dict[str, Any] = {
    "more than the file": {"a": {"dtype": "F32", "shape": [10**9, 10**9], "data_offsets": [0, 4 * 10**18]}},
    "a shape that does not fit": {"a": {"dtype": "F32", "shape": [10**12], "data_offsets": [0, 4]}},
    "a product beyond 64 bits": {"a": {"dtype": "F32", "shape": [2**62, 2**62], "data_offsets": [0, 4]}},
    "backwards": {"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]}},
    "negative": {"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}},
    "objects": {"a": {"dtype": "O", "shape": [1], "data_offsets": [0, 4]}},
    "a name of two lines": {"a\nb" * 900: {"dtype": "I32", "shape": [1], "data_offsets": [0, 4]}},
    "a list": [1],
}


@pytest.mark.parametrize("kind", HEADERS)
def test_absurd_headers_of_weights(kind: str, model: Path) -> None:
    header = json.dumps(HEADERS[kind]).encode()
    (model / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + b"\0" * 4)
    with refusal():
        load_model_folder(model)
        raise AssertionError("read")
    (model / "model.safetensors").write_bytes(struct.pack("<Q", 2**62) + header)
    with pytest.raises(InputError, match=r"model\.safetensors is damaged"):
        load_model_folder(model)


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "/etc/passwd", "..", "a\0.safetensors", "../one.safetensors"]
)
def test_an_index_names_files_of_its_folder_only(name: str, model: Path) -> None:
    (model / "model.safetensors").rename(model.parent / "one.safetensors")
    write_json(model / "model.safetensors.index.json", {"weight_map": {"lm_head.weight": name}})
    with pytest.raises(InputError, match=r"not a \.safetensors file of its folder"):
        load_model_folder(model)


class Bomb:
    """A pickle of it makes a file when it is read."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.touch, (self.file,)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.safetensors", "model.pt", "a.npy"])
def test_a_pickle_is_never_opened(name: str, model: Path) -> None:
    made = model / "made"
    (model / "model.safetensors").unlink()
    torch.save(Bomb(made), model / name)
    if name == "a.npy":
        np.save(model / name, np.array([Bomb(made)], object), allow_pickle=True)
        with pytest.raises(InputError, match=r"a\.npy is damaged"):
            load_table(model / name, np.int64, (None,))
    else:
        with pytest.raises(InputError, match=r"is a pickle|is damaged"):
            load_model_folder(model)
    assert not made.exists()
