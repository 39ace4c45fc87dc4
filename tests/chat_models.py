"""Write tiny published models that know turns: random weights, a tokenizer with the tokens of ChatML, a template."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import pytest
import torch
from rich.console import Console

from etude.config import load_settings
from etude.data.conversations.template import CHATML_SOURCE
from etude.data.primer.generator import documents
from etude.model.folder import load_model_folder, save_model_folder, write_tensors
from etude.workflow import jobs
from gguf_files import published_tokenizer
from networks import make_config, make_network

VOCAB = 420
CONTEXT = 96
HEAD = "lm_head.weight"
END_OF_TURN = 2
"""The id of ``<|im_end|>``."""
DEFAULT_SYSTEM = (
    "{% if messages[0]['role'] != 'system' %}{{ '<|im_start|>system\\nBe kind.<|im_end|>\\n' }}{% endif %}"
    + CHATML_SOURCE
)
"""A template that writes a system prompt of its own, as that of SmolLM2 does."""


def make_chat_model(
    folder: Path, template: str | None = CHATML_SOURCE, context: int = CONTEXT, seed: int = 0
) -> Path:
    """Write a model into ``folder``; without a template, it is a base model."""
    config = make_config("llama-plain", vocab_size=VOCAB, max_position_embeddings=context)
    tokenizer = folder.with_name(f"{folder.name}-tokenizer")
    tokenizer.mkdir(parents=True)
    (tokenizer / "tokenizer.json").write_text(json.dumps(published_tokenizer("qwen2", VOCAB)))
    stated = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|im_end|>"}
    (tokenizer / "tokenizer_config.json").write_text(
        json.dumps(stated | ({} if template is None else {"chat_template": template}))
    )
    save_model_folder(folder, make_network(config, seed), config, tokenizer)
    shutil.rmtree(tokenizer)
    return folder


def make_shelf(folder: Path) -> Path:
    """Write two models into ``folder``: ``talks`` with a template, ``base`` without."""
    make_chat_model(folder / "talks")
    make_chat_model(folder / "base", None)
    return folder


def train_chat_model(base: Path, home: Path, runs: Path) -> Path:
    """Train four steps from a model on stories; return the run, whose checkpoints carry the template."""
    text = home / "stories.txt"
    text.write_text("\n\n".join(document.text for document in documents(5, 20_000)))
    values = {
        "data.sources": (str(text),),
        "data.workers": 1,
        "model.base": str(base),
        "train.steps": 4,
        "train.context": 32,
        "train.batch_rows": 2,
        "train.lr": 0.01,
        "train.eval_tokens": 300,
        "device.kind": "cpu",
        "device.dtype": "fp32",
        "device.threads": 1,
        "run.folder": str(runs),
        "run.name": "tuned",
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ETUDE_CACHE", str(home / "cache"))
        return jobs.grow(load_settings(values=values), Console(file=io.StringIO())).run.path


def end_turns_instead_of(token: int, folder: Path, changed: Path) -> Path:
    """Copy a model so that the likeliest token is ``<|im_end|>`` wherever it was ``token``."""
    shutil.copytree(folder, changed)
    model, _ = load_model_folder(folder)
    weights = {name: value.detach().clone() for name, value in model.named_parameters()}
    with torch.no_grad():
        weights[HEAD][END_OF_TURN] = weights[HEAD][token]  # of equals, the lower id is taken
    write_tensors(changed / "model.safetensors", weights)
    return changed
