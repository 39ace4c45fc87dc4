"""What the page shows of a model that has no run, or of its saved versions: shape, origin and licence."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from etude.errors import InputError
from etude.files import read_json
from etude.messages import command
from etude.model.config import ModelConfig
from etude.model.hf_config import config_from_hf
from etude.run.published_history import (
    NOT_RECORDED,
    PublishedHistory,
    is_history,
    step_in,
    tokenizer_folder,
    version_source,
)
from etude.run.weight_files import config_file, weight_files
from etude.serve.chat_facts import knows_turns
from etude.serve.collection import Collection
from etude.serve.facts import run_lines, shape_facts, tensors_of
from etude.serve.run_types import PublishedFacts, Rows, RunFacts, RunLine

_NOT_PARAMETERS = ("rotary_emb.inv_freq", ".attn.bias", ".attn.masked_bias")
"""Ends of the names of tables that old model files store beside their parameters."""


def lines_of(collection: Collection) -> list[RunLine]:
    """Return what the studio lists: the named models, the runs, and then the models of the folder.

    Raises:
        Unreadable: this account may not read the folder.
    """
    named = {name for name, _ in collection.models}
    models = [_line(name, path) for name, path in collection.model_folders().items()]
    return [
        *(line for line in models if line["name"] in named),
        *run_lines(collection.folder),
        *(line for line in models if line["name"] not in named),
    ]


def _line(name: str, path: Path) -> RunLine:
    history = is_history(path)
    steps = [step_in(folder.name) or 0 for folder in path.iterdir()] if history else [0]
    return {
        "name": name,
        "state": "history" if history else "model",
        "step": max(steps),
        "loss": None,
        "val_loss": None,
        "bits_per_byte": None,
        "changed": (path if history else config_file(path)).stat().st_mtime,
    }


def facts_of_published(name: str, path: Path) -> RunFacts:
    """Return the facts of a model without a run, or of a history that Etude did not record.

    Raises:
        InputError: its family is unknown, a config.json is damaged, or the versions do not fit together.
    """
    history = PublishedHistory.at(path)
    if history is None:
        return facts_of_model(name, path)
    facts = facts_of_model(name, history.folder_of(history.last))
    published = facts["published"]
    assert published is not None
    published["train"] = command("train", "TEXT", "--from", version_source(path, history.last))
    facts["state"], facts["checkpoints"] = "history", list(history.checkpoints)
    facts["first_step"], facts["step"] = min(history.checkpoints), history.last
    facts["last_step"] = history.last
    note = "; ".join((NOT_RECORDED, *history.skipped_lines))
    facts["history"] = {"note": note, "evaluate": command("eval", path, "--steps", "all")}
    return facts


def facts_of_model(name: str, folder: Path) -> RunFacts:
    """Return the facts of a model as those of a run that has only step 0.

    Raises:
        InputError: its family is unknown, or its config.json is damaged.
    """
    try:
        config = config_from_hf(read_json(config_file(folder)))
    except InputError as error:
        raise InputError(f"{name}: {error}") from None
    return {
        "name": name,
        "state": "model",
        "step": 0,
        "num_steps": None,
        "reason": "",
        "heartbeat": None,
        "now": time.time(),
        "paused": False,
        "control": False,
        "fork": False,
        "schema_known": True,
        "model": shape_facts(config, _parameters(folder, config)),
        "published": _published(folder),
        "history": None,
        "base": None,
        "optimizer": "",
        "sources": [],
        "uniform_loss": None,
        "ladder": [],
        "checkpoints": [0],
        "first_step": 1,
        "last_step": 0,
        "compiled": False,
        "turns": knows_turns(tokenizer_folder(folder)),
    }


def no_rows() -> Rows:
    """Return the log of a model that has no run: nothing, and never more."""
    return {"reset": False, "cursor": "0,0", "more": False, "every": 1, "metrics": [], "samples": []}


def _parameters(folder: Path, config: ModelConfig) -> list[dict[str, Any]]:
    """Return names and shapes of the stored parameters, each once."""
    tensors = [tensor for file in weight_files(folder) for tensor in tensors_of(file)]
    return [
        tensor
        for tensor in tensors
        if not tensor["name"].endswith(_NOT_PARAMETERS)
        and not (config.tie_word_embeddings and tensor["name"] == "lm_head.weight")
    ]


def _published(folder: Path) -> PublishedFacts:
    from etude.pretrained.facts import licence_of, origin_of, rounding_of  # imports torch, in a thread

    source = origin_of(folder).get("source")
    return {
        "source": source if isinstance(source, str) else "",
        "licence": licence_of(folder),
        "rounding": rounding_of(folder),
        "chat_template": knows_turns(tokenizer_folder(folder)),
        "train": command("train", "TEXT", "--from", folder),
    }
