"""Start: make the folder of a run, with all that is known of it before step 0."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

from rich.console import Console

from etude.config import get_value, to_toml
from etude.evaluate.run_ladder import cached_ladder
from etude.files import hash_file, staged_folder, sweep_staging, write_atomic, write_json
from etude.messages import command
from etude.plan.plan import Plan
from etude.run import RunFolder, free_name
from etude.train.provenance import FILES, files_of
from etude.workflow.continuing import Parent, from_any_folder
from etude.workflow.prepare import default_name
from etude.workflow.saving import require_disk

MANIFEST_SCHEMA = 1


def start(plan: Plan, console: Console, parent: Parent | None = None) -> RunFolder:
    """Make the run folder, whole: tokenizer, n-gram ladder, manifest and settings, before step 0.

    A run that is forked off a ``parent`` begins with what that leaves it.

    Raises:
        InputError: the name is taken.
        EtudeError: the folder cannot be written, or has no room for the checkpoints of the run.
    """
    settings = plan.settings
    folder, name = Path(settings.run.folder), settings.run.name
    run = RunFolder.new(folder, free_name(folder, default_name(settings)) if name == "auto" else name)
    require_disk(plan, folder)
    sweep_staging(folder)  # what processes that were killed while they did this have left
    ladder = cached_ladder(plan, console)
    with staged_folder(run.path, replace=False) as staging:
        made = RunFolder(staging)
        plan.data.tokenizer.save(made.tokenizer)
        write_json(made.ladder_file, ladder.to_json())
        write_atomic(made.settings_file, to_toml(from_any_folder(settings)))
        hashes = {"settings_hash": hash_file(made.settings_file), FILES: files_of(made)}
        record = {**manifest(plan), **hashes}
        if parent is not None:
            record["parent"] = parent.record()
        made.write_manifest(record)
        if parent is not None:
            parent.bequeath(made)
    return run


def manifest(plan: Plan) -> dict[str, Any]:
    """What manifest.json says: enough to know later what this run was, and why its settings are as they are."""
    data = plan.data
    return {
        "schema": MANIFEST_SCHEMA,
        "command": command(*sys.argv[1:]),
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
        "data_report": data.report.as_json(),
        "derived": {
            key: {"value": get_value(plan.settings, key), "reason": reason}
            for key, reason in plan.resolution.reasons.items()
        },
        "expected_bits_per_byte": dataclasses.astuple(plan.expected) if plan.expected else None,
        "sittings": [],
    }
