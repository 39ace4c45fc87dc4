"""Everything that is known before a run folder exists: the text as tokens, the device, every setting."""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from etude.config import Settings, get_value, resolved
from etude.data.prepare import PreparedData, default_cache, prepare
from etude.device import Device, choose_device, describe_machine, total_memory_bytes
from etude.errors import InputError
from etude.model.config import ModelConfig
from etude.model.cost import TrainingMemory, training_memory
from etude.train.dial import Facts, Resolution, resolve
from etude.workflow.progress import data_progress

MANIFEST_SCHEMA = 1


@dataclass(frozen=True)
class Plan:
    """A run that could begin now."""

    device: Device
    data: PreparedData
    resolution: Resolution

    @property
    def settings(self) -> Settings:
        return self.resolution.settings

    @property
    def model(self) -> ModelConfig:
        return self.resolution.model

    @property
    def memory(self) -> TrainingMemory:
        """What a step needs, counted from structure."""
        train = self.settings.train
        return training_memory(
            self.model,
            batch_size=resolved(train.micro_batch_rows, "train.micro_batch_rows"),
            context=resolved(train.context, "train.context"),
            optimizer=train.optimizer,
        )


def make_plan(settings: Settings, console: Console) -> Plan:
    """Prepare the text (or find it prepared) and resolve the settings; only the cache is written.

    Raises:
        InputError: no usable text, or settings that do not fit together.
    """
    return plan_on(prepare_data(settings, console), settings)


def plan_on(data: PreparedData, settings: Settings) -> Plan:
    """A plan on text that is prepared already.

    Raises:
        InputError: settings that do not fit together, or a model that does not fit the machine.
    """
    device = choose_device(settings.device)
    facts = Facts(data.train.num_tokens, data.tokenizer.vocab_size, data.tokenizer.eos_id)
    plan = Plan(device, data, resolve(settings, facts, device))
    needed, there = plan.memory.total, total_memory_bytes(device)
    if there is not None and needed > there:
        raise InputError(
            f"this would need about {needed / 2**30:,.0f} GiB of memory and this {device.kind} has "
            f"{there / 2**30:,.0f}: choose a smaller --size, train.context or train.micro_batch_rows"
        )
    return plan


def prepare_data(settings: Settings, console: Console) -> PreparedData:
    """The text as tokens, from the cache when nothing has changed; what a person should know of it is printed.

    Raises:
        InputError: no usable text.
    """
    with data_progress(console) as progress:
        data = prepare(
            settings.data,
            settings.tokenizer,
            family=settings.model.preset,
            seed=settings.run.seed,
            cache=default_cache(),
            progress=progress,
        )
    for note in data.report.notes:
        console.print(note, markup=False, highlight=False, soft_wrap=True)
    return data


def manifest(plan: Plan) -> dict[str, Any]:
    """What manifest.json says: enough to know later what this run was, and why its settings are as they are."""
    data = plan.data
    return {
        "schema": MANIFEST_SCHEMA,
        "command": shlex.join(["etude", *sys.argv[1:]]),
        "machine": describe_machine(plan.device),
        "seed": plan.settings.run.seed,
        "sources": list(plan.settings.data.sources),
        "data_fingerprint": data.fingerprint,
        "corpus_hash": data.corpus_hash,
        "tokenizer_hash": data.tokenizer.hash,
        "vocab_size": data.tokenizer.vocab_size,
        "train_tokens": data.train.num_tokens,
        "train_bytes": data.train.source_bytes,
        "validation_tokens": data.validation.num_tokens,
        "validation_bytes": data.validation.source_bytes,
        "derived": {
            key: {"value": get_value(plan.settings, key), "reason": reason}
            for key, reason in plan.resolution.reasons.items()
        },
    }


def default_name(settings: Settings) -> str:
    """What a run is called when nobody names it: after its first source."""
    source = settings.data.sources[0]
    if source == "-":
        return "stdin"
    last = Path(source.split(":", 1)[-1].rstrip("/")).resolve().name if ":" not in source else source
    stem = last.split(":", 1)[-1].rsplit("/", 1)[-1].split(".", 1)[0]
    plain = "".join(c if c.isalnum() or c in "-_" else "-" for c in stem).strip("-")
    return plain or "run"
