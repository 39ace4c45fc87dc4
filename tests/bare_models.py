"""Write tiny published models: a network with random weights, and a tokenizer without any file of Etude's."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

from etude.model.folder import save_model_folder
from gguf_files import published_tokenizer
from networks import make_config, make_network

VOCAB = 420


def make_model(folder: Path, kind: str, seed: int = 0, **sizes: int) -> Path:
    """Write a model of a kind into ``folder``; its weights follow from ``seed``."""
    config = make_config(kind, **{"vocab_size": VOCAB, **sizes})
    tokenizer = folder.with_name(f"{folder.name}-tokenizer")
    tokenizer.mkdir(parents=True)
    (tokenizer / "tokenizer.json").write_text(json.dumps(published_tokenizer("qwen2", VOCAB)))
    (tokenizer / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|endoftext|>"}))
    save_model_folder(folder, make_network(config, seed=seed), config, tokenizer)
    shutil.rmtree(tokenizer)
    return folder


def make_versions(folder: Path, kind: str, seeds: Mapping[int, int], name: str = "checkpoint-{}") -> Path:
    """Write several versions of a model, by step, with weights of the given seeds; the last has the tokenizer."""
    for step, seed in seeds.items():
        version = make_model(folder / name.format(step), kind, seed)
        if step != max(seeds):
            (version / "tokenizer.json").unlink()
            (version / "tokenizer_config.json").unlink()
    return folder
