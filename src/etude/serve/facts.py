"""What a run is, from its files alone: its state, network, checkpoints, and the lines that its loss is held against."""

from __future__ import annotations

import json
import math
import os
import re
import struct
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

from etude.config import load_settings
from etude.errors import InputError
from etude.files import read_json
from etude.model.hf_config import config_from_hf
from etude.run import EVENT_SCHEMA, RunFolder
from etude.train.control import Control
from etude.train.run_state import changed, runs_in, state_of
from etude.untrusted import MAX_JSON_BYTES, open_plain, shown

Stamp = tuple[int, int, int] | None
TAIL = 2**16
"""Bytes at the end of a log in which its newest events are looked for."""
_CHECKPOINT = re.compile(r"step-(\d{1,15})")


def list_runs(folder: Path) -> list[dict[str, Any]]:
    """A line for each run of a folder, the last changed first."""
    found = []
    for run in runs_in(folder):
        status = run.status()
        last = _newest(run, ("step", "eval"))
        found.append(
            {
                "name": run.name,
                "state": state_of(run, status),
                "step": _whole(last.get("step", status).get("step")),
                "loss": _real(last.get("step", {}).get("loss")),
                "val_loss": _real(last.get("eval", {}).get("val_loss")),
                "bits_per_byte": _real(last.get("eval", {}).get("bits_per_byte")),
                "changed": changed(run, status),
            }
        )
    return sorted(found, key=lambda line: float(line["changed"]), reverse=True)


def facts_of(path: Path, may_control: bool) -> dict[str, Any]:
    """All that the page needs to know of a run before it asks anything.

    Raises:
        InputError: there is no run, or a link in it leads out of it.
    """
    run = RunFolder.open(path)
    status, manifest = run.status(), _object(run.manifest_file)
    state, step = state_of(run, status), _last_step(run, status)
    checkpoints = _checkpoints(run)
    settings = _settings(run)
    config = _object(next(iter(checkpoints.values()), path) / "config.json")
    tensors = _tensors(next(iter(checkpoints.values()), None))
    first = min(checkpoints, default=0) + 1
    return {
        "name": run.name,
        "state": state,
        "step": step,
        "num_steps": settings.get("num_steps"),
        "reason": str(status.get("reason") or ""),
        "heartbeat": status.get("heartbeat"),
        "now": time.time(),
        "paused": Control(path).paused,
        "control": may_control and _is_mine(path),
        "fork": may_control,
        "schema_known": status.get("schema", EVENT_SCHEMA) == EVENT_SCHEMA,
        "model": _model(config, tensors) if config else None,
        "optimizer": settings.get("optimizer", ""),
        "sources": _texts(manifest.get("sources")),
        "uniform_loss": _uniform_loss(manifest),
        "ladder": _ladder(run, manifest),
        "checkpoints": sorted(checkpoints),
        "first_step": first,
        "last_step": step,
        "compiled": _compiled(manifest),
    }


def _last_step(run: RunFolder, status: dict[str, Any]) -> int:
    """The last step that the log tells of: the status is written more rarely."""
    for event in _from_the_end(run):
        if event.get("event") in ("step", "left_out"):
            return _whole(event.get("step"))
    return _whole(status.get("step"))


def _newest(run: RunFolder, kinds: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """The newest event of each kind, as far as the end of the log has one."""
    found: dict[str, dict[str, Any]] = {}
    for event in _from_the_end(run):
        if event.get("event") in kinds:
            found.setdefault(event["event"], event)
        if len(found) == len(kinds):
            break
    return found


def _from_the_end(run: RunFolder) -> Iterator[dict[str, Any]]:
    """The events at the end of the log, the newest first."""
    try:
        with open_plain(run.metrics.path) as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - TAIL))
            lines = file.read(TAIL).splitlines()
    except (OSError, InputError):
        return
    for line in reversed(lines):
        with suppress(ValueError, RecursionError):
            event = json.loads(line)
            if isinstance(event, dict):
                yield event


def _checkpoints(run: RunFolder) -> dict[int, Path]:
    """Folders of the checkpoints, by step."""
    found = {}
    for folder in run.checkpoints.glob("step-*"):
        match = _CHECKPOINT.fullmatch(folder.name)
        if match and (folder / "config.json").is_file():
            found[int(match[1])] = folder
    return dict(sorted(found.items()))


def _settings(run: RunFolder) -> dict[str, Any]:
    return _settings_as_of(run.settings_file, _stamp(run.settings_file))


@lru_cache(64)
def _settings_as_of(file: Path, stamp: Stamp) -> dict[str, Any]:
    try:
        settings = load_settings(file)
    except InputError:
        return {}
    steps = settings.train.steps
    return {"num_steps": steps if isinstance(steps, int) else None, "optimizer": settings.train.optimizer}


def _tensors(checkpoint: Path | None) -> list[dict[str, Any]]:
    """Names and shapes of the parameters, from the header of their file."""
    if checkpoint is None:
        return []
    return _tensors_as_of(checkpoint / "model.safetensors", _stamp(checkpoint / "model.safetensors"))


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


def _model(values: dict[str, Any], tensors: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Return the network's shape in the same words for all families; None for one that is not known here."""
    try:
        config = config_from_hf(values)
    except InputError:
        return None
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
    }


def _uniform_loss(manifest: dict[str, Any]) -> float | None:
    size = manifest.get("vocab_size")
    return math.log(size) if type(size) is int and size > 0 else None


def _ladder(run: RunFolder, manifest: dict[str, Any]) -> list[dict[str, Any]]:
    """Earlier kinds of language model on the same held-out text, in nats a token of this run's tokens."""
    ladder = _object(run.ladder_file)
    tokens, size = manifest.get("validation_tokens"), manifest.get("validation_bytes")
    if (
        type(tokens) is not int
        or type(size) is not int
        or tokens < 1
        or not isinstance(ladder.get("rungs"), list)
    ):
        return []
    nats = math.log(2) * size / tokens
    unit = shown(ladder.get("unit") or "byte")
    found = []
    for rung in ladder["rungs"]:
        if not isinstance(rung, dict) or type(rung.get("order")) is not int:
            continue
        order, bits = rung["order"], rung.get("bits_per_byte")
        if isinstance(bits, int | float) and math.isfinite(bits):
            name = f"how often each {unit} comes" if order == 1 else f"{order}-gram"
            found.append({"order": order, "name": name, "loss": bits * nats, "bits_per_byte": bits})
    return sorted(found, key=lambda rung: int(rung["order"]))


def _compiled(manifest: dict[str, Any]) -> bool:
    sittings = manifest.get("sittings")
    last = sittings[-1] if isinstance(sittings, list) and sittings else {}
    return bool(isinstance(last, dict) and last.get("compiled"))


def _is_mine(path: Path) -> bool:
    """Whether the person who runs this server started the run."""
    return not hasattr(os, "getuid") or path.stat().st_uid == os.getuid()


def _object(file: Path) -> dict[str, Any]:
    """A file's JSON object; an empty one where there is none."""
    return _object_as_of(file, _stamp(file))


@lru_cache(256)
def _object_as_of(file: Path, stamp: Stamp) -> dict[str, Any]:
    try:
        value = read_json(file)
    except InputError:
        return {}
    return value if isinstance(value, dict) else {}


def _stamp(file: Path) -> Stamp:
    """Another one when the file is another one: the page asks each second, and most files stay as they are."""
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def _real(value: Any) -> float | None:
    return float(value) if type(value) in (int, float) and abs(value) < 1e39 else None


def _texts(value: Any) -> list[str]:
    return [one for one in value if isinstance(one, str)] if isinstance(value, list) else []


def _whole(value: Any) -> int:
    return value if type(value) is int and 0 <= value < 2**50 else 0
