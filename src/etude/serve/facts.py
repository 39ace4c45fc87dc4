"""What the page shows of a run before any question: its state, network, checkpoints, and n-gram ladder."""

from __future__ import annotations

import json
import math
import os
import struct
import time
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

from etude.errors import InputError
from etude.files import read_json
from etude.model.config import ModelConfig
from etude.model.families.node_layers import NodeLayerPlan
from etude.model.hf_config import config_from_hf
from etude.run import EVENT_SCHEMA
from etude.run.follow import TAIL_BYTES
from etude.run.listing import list_runs
from etude.run.record import RunRecord, Stamp, stamp_of
from etude.run.weight_files import config_file
from etude.serve.chat_facts import knows_turns
from etude.serve.run_types import BaseFacts, ModelFacts, NodeLayerFacts, RunFacts, Rung, RunLine
from etude.train.control import Control
from etude.untrusted import MAX_JSON_BYTES, open_plain, shown

T = TypeVar("T")


def run_lines(folder: Path) -> list[RunLine]:
    """Return the lines of ``etude runs`` for a folder, from the ends of the logs, last changed first.

    Raises:
        Unreadable: this account may not read the folder.
    """
    return [
        {
            "name": line.name,
            "state": line.state,
            "step": line.step,
            "loss": line.loss,
            "val_loss": line.val_loss,
            "bits_per_byte": line.bits_per_byte,
            "changed": line.changed,
        }
        for line in list_runs(folder, TAIL_BYTES)
    ]


def facts_of(path: Path, may_control: bool) -> RunFacts:
    """Return everything the page needs before it asks a question. Damaged files count as absent.

    Raises:
        InputError: there is no run, or a link in it leads out of it.
    """
    record = RunRecord.open(path, remember=True)
    status, manifest = record.status, _readable(lambda: record.manifest) or {}
    settings = _readable(lambda: record.settings)
    newest = _readable(lambda: record.newest("step", "left_out", most_bytes=TAIL_BYTES)) or {}
    steps = None if settings is None else settings.train.steps
    step, checkpoints = record.newest_step(newest), record.checkpoints
    first = next(iter(checkpoints.values()), None)
    described = None if first is None else _readable(lambda: config_file(first))
    config = {} if described is None else _object(described)
    return {
        "name": record.run.name,
        "state": record.state,
        "step": step,
        "num_steps": steps,
        "reason": str(status.get("reason") or ""),
        "heartbeat": status.get("heartbeat"),
        "now": time.time(),
        "paused": Control(path).paused,
        "control": may_control and _is_mine(path),
        "fork": may_control,
        "schema_known": status.get("schema", EVENT_SCHEMA) == EVENT_SCHEMA,
        "model": model_facts(config, _tensors(first)) if config else None,
        "published": None,
        "history": None,
        "base": _base(manifest),
        "optimizer": "" if settings is None else settings.train.optimizer,
        "sources": _texts(manifest.get("sources")),
        "uniform_loss": _uniform_loss(manifest),
        "ladder": _ladder(record, manifest),
        "checkpoints": list(checkpoints),
        "first_step": min(checkpoints, default=0) + 1,
        "last_step": step,
        "compiled": _compiled(record),
        "turns": first is not None and knows_turns(first),
    }


def _readable(read: Callable[[], T]) -> T | None:
    """Return what ``read`` returns; None if it is damaged or unreadable."""
    try:
        return read()
    except InputError:
        return None


def _tensors(checkpoint: Path | None) -> list[dict[str, Any]]:
    """Return the names and shapes of the parameters, from the header of their file."""
    if checkpoint is None:
        return []
    return tensors_of(checkpoint / "model.safetensors")


def tensors_of(file: Path) -> list[dict[str, Any]]:
    """Return the names and shapes in the header of a file of weights; an empty list for a damaged one."""
    return _tensors_as_of(file, stamp_of(file))


@lru_cache(64)
def _tensors_as_of(path: Path, stamp: Stamp) -> list[dict[str, Any]]:
    try:
        with open_plain(path) as file:
            (length,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(min(length, MAX_JSON_BYTES)))
        return [
            {"name": str(name), "shape": [int(size) for size in entry["shape"]]}
            for name, entry in header.items()
            if name != "__metadata__"
        ]
    except (
        OSError,
        InputError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        struct.error,
        RecursionError,
    ):
        return []


def model_facts(values: dict[str, Any], tensors: list[dict[str, Any]]) -> ModelFacts | None:
    """Return the network's shape, with the same keys for all families; None for an unknown family."""
    try:
        config = config_from_hf(values)
    except InputError:
        return None
    return shape_facts(config, tensors)


def shape_facts(config: ModelConfig, tensors: list[dict[str, Any]]) -> ModelFacts:
    """Return a network's shape; its number of parameters is that of the stored ``tensors``."""
    return {
        "family": config.model_type,
        "attention": config.family.has_attention,
        "layers": config.num_hidden_layers,
        "width": config.hidden_size,
        "nodes": config.intermediate_size,
        "heads": config.num_attention_heads,
        "kv_heads": config.num_key_value_heads,
        "vocabulary": config.vocab_size,
        "context": config.max_position_embeddings,
        "activation": config.hidden_act,
        "gated": config.mlp == "gated",
        "biases": config.mlp_bias,
        "parameters": sum(math.prod(tensor["shape"]) for tensor in tensors),
        "tied": config.tie_word_embeddings,
        "window": max(1, config.context_size),
        "node_layers": [_node_layer(plan) for plan in config.family.node_layers(config)],
    }


def _node_layer(plan: NodeLayerPlan) -> NodeLayerFacts:
    return {
        "path": plan.path,
        "units": plan.size,
        "inputs": plan.inputs,
        "gate": plan.gate,
        "up": plan.up,
        "out": plan.out,
        "drops_units": plan.drops_units,
    }


def _uniform_loss(manifest: dict[str, Any]) -> float | None:
    size = manifest.get("vocab_size")
    return math.log(size) if type(size) is int and size > 0 else None


def _ladder(record: RunRecord, manifest: dict[str, Any]) -> list[Rung]:
    """Return the n-gram models on the same held-out text, in nats per token of this run's tokens."""
    ladder = _readable(lambda: record.ladder)
    tokens, size = manifest.get("validation_tokens"), manifest.get("validation_bytes")
    if ladder is None or type(tokens) is not int or type(size) is not int or tokens < 1:
        return []
    nats, unit = math.log(2) * size / tokens, shown(ladder.unit or "byte")
    return [
        {
            "order": rung.order,
            "name": f"how often each {unit} comes" if rung.order == 1 else f"{rung.order}-gram",
            "loss": rung.bits_per_byte * nats,
            "bits_per_byte": rung.bits_per_byte,
        }
        for rung in ladder.rungs
    ]


def _base(manifest: dict[str, Any]) -> BaseFacts | None:
    entry = manifest.get("base")
    if not isinstance(entry, dict):
        return None
    step, source = entry.get("step"), str(entry.get("source"))
    name = shown(source.rstrip("/").replace("\\", "/").rsplit("/", 1)[-1])
    return {"name": name, "step": step if type(step) is int else None}


def _compiled(record: RunRecord) -> bool:
    """Return whether the newest session trained with torch.compile."""
    sessions = _readable(lambda: record.sessions)
    return bool(sessions and sessions[-1].get("compiled"))


def _is_mine(path: Path) -> bool:
    """Return whether the user who runs this server started the run."""
    return not hasattr(os, "getuid") or path.stat().st_uid == os.getuid()


def _object(file: Path) -> dict[str, Any]:
    """Return a file's JSON object; an empty one if there is none."""
    return _object_as_of(file, stamp_of(file))


@lru_cache(256)
def _object_as_of(file: Path, stamp: Stamp) -> dict[str, Any]:
    value = _readable(lambda: read_json(file))
    return value if isinstance(value, dict) else {}


def _texts(value: Any) -> list[str]:
    return [text for text in value if isinstance(text, str)] if isinstance(value, list) else []
