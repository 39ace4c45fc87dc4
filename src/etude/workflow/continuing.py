"""Going on with what is there: a run that was stopped, with its own settings, or a new run from one of its checkpoints.

A run keeps the settings that it was begun with. Of those that a person asks to change when it goes on

- some only say what is written down, and may be changed (``OBSERVING``);
- some steer the training from there on; they may be changed, and the manifest says from which step (``STEERING``);
- the others are what the run is: text, tokenizer, network, order of the batches. They are refused. A fork is a run of
  its own, and may have another text too.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from etude.config import Settings, load_settings, resolved, to_toml, with_values
from etude.data.prepare import open_prepared
from etude.data.reading.sources import absolute_source
from etude.data.tokens.tokenizer import EtudeTokenizer
from etude.errors import InputError
from etude.files import file_errors_in_one_line, hash_bytes, hash_file, read_object, write_atomic
from etude.messages import quoted
from etude.model.folder import load_config
from etude.places import cache_folder, expanded
from etude.plan.plan import Plan, plan_on
from etude.run import RunFolder, free_name
from etude.train.checkpoint import (
    MARKER,
    Checkpoint,
    list_checkpoints,
    step_of,
    verify_checkpoint,
    write_marker,
)
from etude.train.frozen import differences, own_settings
from etude.train.provenance import copy_record, logs_of, provenance_of
from etude.train.run_data import is_text_of, own_text
from etude.train.schedule import last_step
from etude.workflow.mending import mend, require_whole_record
from etude.workflow.prepare import prepare_data

OBSERVING = frozenset(
    {
        "train.log_every",
        "train.eval_every",
        "train.sample_every",
        "train.sample_prompt",
        "train.checkpoint_every",
        "train.keep_checkpoints",
        "train.keep_every",
        "train.checksum_every",
        "train.summary_every",
        "train.on_nonfinite",
        "train.nonfinite_in_a_row",
    }
)
STEERING = frozenset(
    {
        "train.steps",
        "train.lr",
        "train.muon_lr",
        "train.betas",
        "train.eps",
        "train.momentum",
        "train.momentum_warmup_steps",
        "train.weight_decay",
        "train.dropout",
        "train.schedule",
        "train.warmup_fraction",
        "train.decay_fraction",
        "train.min_lr_ratio",
        "train.max_grad_norm",
        "train.micro_batch_rows",
        "train.activation_checkpointing",
        "device.threads",
    }
)


OBJECTIVE = frozenset({"train.objective", "train.answer_separator"})


@dataclass(frozen=True)
class Parent:
    """The checkpoint that a forked run begins with."""

    run: RunFolder
    checkpoint: Checkpoint
    same_text: bool
    same_length: bool

    def record(self) -> dict[str, Any]:
        """What the fork's manifest says of it."""
        return {
            "run": str(self.run.path.absolute()),
            "step": self.checkpoint.step,
            "tokens_seen": self.checkpoint.tokens_seen,
            "checkpoint_hash": hash_file(self.checkpoint.folder / MARKER),
        }

    def bequeath(self, heir: RunFolder) -> None:
        """Copy the checkpoint, and the record up to it where it is about the same text.

        The marker of the copy vouches for the heir, whose manifest is written.
        """
        copy = heir.checkpoints / self.checkpoint.folder.name
        shutil.copytree(self.checkpoint.folder, copy)
        if self.same_text:
            copy_record(self.run, self.run.read_manifest(), self.checkpoint, heir)
        marker = read_object(copy / MARKER)
        if not self.same_length:  # what a clock made of the parent's number of steps is of no concern
            marker |= {"revisions": []}
        write_marker(copy, marker, provenance_of(heir.read_manifest(), logs_of(heir)))


def reopen(
    path: Path, overrides: Sequence[str], console: Console, *, accept_record: bool = False
) -> tuple[Plan, RunFolder]:
    """The plan of an existing run, from its own settings and the few that may be changed, on the same text.

    The tokens are found in the cache by their fingerprint; only when they are gone are the sources read again. What is
    damaged in the run is restored from a good copy; ``accept_record`` takes a damaged record as it is.

    Raises:
        InputError: no run there, something in it is damaged and has no good copy, its tokens are gone and its text has
            changed, or a setting that cannot be changed.
    """
    run = RunFolder.open(path)
    with file_errors_in_one_line():
        own, recorded = own_settings(run)
    settings = load_settings(run.settings_file, overrides)
    changes = differences(own, settings)
    for key, (before, after) in changes.items():
        follows_clock = key == "train.steps" and own.train.seconds != "auto"
        if key not in OBSERVING | STEERING or follows_clock:
            other = "begin a new run without --resume"
            if not key.startswith(("tokenizer.", "model.")):  # with these its weights would be of no use
                other = f"begin one from it with --fork {quoted(path)} --set {quoted(f'{key}={after}')}"
            raise InputError(
                f"{path} has {key} = {before!r}, and with {after!r} it would be another run: leave that out, or {other}"
            )
        meaning = "" if key in OBSERVING else ": it goes another way from here on"
        console.print(
            f"{key} was {before!r} and is {after!r} now{meaning}",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
    with run.held(), file_errors_in_one_line():
        mend(run, own, recorded, console, accept_record=accept_record)
    EtudeTokenizer.load(run.tokenizer, str(recorded.get("tokenizer_hash")))
    data = own_text(path, settings, recorded, lambda settings: prepare_data(settings, console))
    return plan_on(data, settings), run


def record_changes(run: RunFolder, recorded: dict[str, Any], settings: Settings, step: int) -> None:
    """Write ``recorded``, the run's manifest, and with it what is set otherwise from ``step`` on."""
    content = to_toml(settings)
    changes = differences(load_settings(run.settings_file), settings)
    if not changes:
        run.write_manifest(recorded)
        return
    told = {key: {"before": before, "after": after} for key, (before, after) in changes.items()}
    before = hash_file(run.settings_file)
    change = {"from_step": step, "settings": told, "settings_hash_before": before}
    recorded.setdefault("changes", []).append(change)
    recorded["settings_hash_before"], recorded["settings_hash"] = before, hash_bytes(content.encode())
    run.write_manifest(recorded)
    write_atomic(run.settings_file, content)


def fork(
    origin: str,
    overrides: Sequence[str],
    values: dict[str, Any],
    console: Console,
    *,
    accept_record: bool = False,
) -> tuple[Plan, Parent]:
    """The plan of a new run that goes on from ``RUN@STEP``, or from the newest checkpoint of ``RUN``.

    It has its parent's settings but for ``overrides`` and ``values``, and its tokenizer and network always.

    Raises:
        InputError: no such run or checkpoint, settings for which its weights are of no use, or a damaged record that
            would be copied and is not accepted.
    """
    path, _, step = origin.rpartition("@")
    if not path or (Path(origin) / "run.toml").is_file():
        path, step = origin, ""
    run = RunFolder.open(Path(path))
    own, recorded = own_settings(run)
    checkpoint = verify_checkpoint(_checkpoint_at(run, step))
    named = {"run.folder": str(run.path.parent), "run.name": free_name(run.path.parent, f"{run.name}-fork")}
    settings = load_settings(run.settings_file, overrides, named | values)
    changes = differences(own, settings)
    if any(key.startswith("tokenizer.") for key in changes):
        raise InputError("a fork keeps its parent's tokenizer: leave --tokenizer and --set tokenizer... out")
    if any(key.startswith("data.") for key in changes):
        settings = with_values(settings, {"tokenizer.kind": str(run.tokenizer.absolute())})
        data = prepare_data(settings, console)
    else:
        data = open_prepared(cache_folder(), str(recorded.get("data_fingerprint"))) or prepare_data(
            own, console
        )
    plan = plan_on(data, settings)
    if data.tokenizer.hash != recorded.get("tokenizer_hash") or plan.model != load_config(checkpoint.folder):
        raise InputError(
            f"the weights of {origin} are of another network or tokenizer than these settings ask for: leave out what "
            "changes them, or begin a new run without --fork"
        )
    steps, same_length = resolved(plan.settings.train.steps, "train.steps"), "train.steps" not in changes
    if checkpoint.step >= (last_step(steps, checkpoint.revisions) if same_length else steps):
        raise InputError(f"{origin} has made its {steps} steps: give more with --steps")
    # The record of another objective holds losses of another kind.
    same_text = is_text_of(plan.data, recorded) and not changes.keys() & OBJECTIVE
    if same_text and not accept_record:
        require_whole_record(run, recorded, checkpoint)
    return plan, Parent(run, checkpoint, same_text, same_length)


def from_any_folder(settings: Settings) -> Settings:
    """The same settings with absolute paths."""
    kind = settings.tokenizer.kind
    values: dict[str, Any] = {"data.sources": tuple(map(absolute_source, settings.data.sources))}
    if kind not in ("bpe", "char"):
        values["tokenizer.kind"] = str(expanded(kind).absolute())
    return with_values(settings, values)


def _checkpoint_at(run: RunFolder, step: str) -> Path:
    """The folder of the checkpoint of a step in digits, or of the newest."""
    found = list_checkpoints(run.checkpoints)
    if not found:
        raise InputError(f"{run.path} has no checkpoint yet: train it for a while first")
    if not step:
        return found[-1]
    there = [step_of(folder) for folder in found]
    if not step.isdecimal() or int(step) not in there:
        raise InputError(
            f"{run.path} has no checkpoint of step {step}: choose one of {', '.join(map(str, there[-12:]))}"
        )
    return found[there.index(int(step))]
