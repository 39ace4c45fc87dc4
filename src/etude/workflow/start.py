"""Start training: a new run, a fork of another run, or a run that was stopped.

Each yields a plan (settings, text, network, device) and a run folder for :func:`etude.workflow.fit.fit`. The parts that
need neither text nor network are in :mod:`etude.run`: making the folder (:mod:`etude.run.create`), the settings that
may change (:mod:`etude.run.settings`), the repair of damaged files (:mod:`etude.run.repair`).
"""

from __future__ import annotations

import dataclasses
import shutil
import sys
from collections.abc import Collection, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from etude.config import NO_BASE, Settings, get_value, with_values
from etude.data.prepared_data import PreparedData, open_prepared
from etude.data.reading.sources import absolute_source
from etude.data.reference import BUILT_IN, NONE, REFERENCE, reference_text
from etude.data.tokens.tokenizer import EtudeTokenizer
from etude.data.tokens.vocabulary import BASE
from etude.errors import InputError
from etude.evaluate.run_ladder import cached_ladder
from etude.files import file_errors_in_one_line, hash_file, sweep_staging, write_json
from etude.messages import command, quoted
from etude.model.adapter import begins
from etude.model.folder import load_config
from etude.places import cache_folder, expand_home
from etude.plan.constants import has_constants, write_constants
from etude.plan.disk_use import require_disk
from etude.plan.model_card import model_card
from etude.plan.plan import Plan, plan_on, require_memory
from etude.pretrained.base import base_config
from etude.pretrained.source_names import HUB
from etude.pretrained.store import restore_first_checkpoint
from etude.run import RunFolder, free_name
from etude.run.checkpoints import (
    MARKER,
    Checkpoint,
    Provenance,
    copy_checkpoint,
    list_checkpoints,
    newest_good_checkpoint,
)
from etude.run.create import Origin, create_run, find_origin
from etude.run.folder import SESSIONS
from etude.run.record import RunRecord
from etude.run.repair import repair_run, require_record
from etude.run.settings import differences, load_run_settings, resumed_settings, verified_settings
from etude.show.lines import print_line
from etude.train.checkpoint import save_base_checkpoint
from etude.train.run_text import (
    is_text_of,
    require_used,
    text_of_run,
    text_with_progress,
    with_objective_of,
    with_own_base,
)
from etude.train.schedule import last_step
from etude.untrusted import readable
from etude.workflow.prepare import default_name
from etude.workflow.replay import keep_samples, own_samples

OBJECTIVE = frozenset(
    f"train.{name}" for name in ("objective", "answer_separator", "beta", "group", "kl", "shuffle_rewards")
)
"""The settings that decide what the loss is."""


def start(plan: Plan, console: Console, origin: Origin | None = None) -> RunFolder:
    """Create the complete run folder of ``plan`` before its first step. A fork begins at its ``origin``.

    Raises:
        InputError: the name is taken, or the run needs more memory than is free, or more disk space.
        EtudeError: the folder cannot be written.
    """
    settings = plan.settings
    folder, name = Path(settings.run.folder), settings.run.name
    run = RunFolder.new(folder, free_name(folder, default_name(settings)) if name == "auto" else name)
    require_memory(plan)
    require_disk(plan, folder, 0 if origin is None else origin.step)
    sweep_staging(folder)  # remove half-written folders of killed processes
    ladder = cached_ladder(plan, console)

    def fill(made: RunFolder) -> None:
        plan.data.tokenizer.save(made.tokenizer)
        keep_samples(settings, made)
        write_json(made.ladder_file, ladder.to_json())
        if has_constants(plan):
            _fill_constants(plan, made, origin)

    base, first = plan.base, None
    entry: dict[str, Any] | None = None if origin is None else origin.parent.manifest.get("base")
    if base is not None:
        entry = base.manifest_entry()

        def first(new: RunFolder, provenance: Provenance) -> None:
            card = model_card(plan, run, 0, content)
            save_base_checkpoint(new.checkpoints, base, new.tokenizer, card, provenance)

    content = manifest(plan) | ({} if entry is None else {"base": entry}) | _reference(plan, origin)
    create_run(run, with_absolute_paths(settings, run), content, fill, origin, first)
    return run


def _fill_constants(plan: Plan, made: RunFolder, origin: Origin | None) -> None:
    """Write what the loss needs of the network at step 0: of the parent, for a fork with the parent's objective."""
    if origin is None:
        write_constants(plan, made, None if plan.base is None else plan.base.folder)
    elif origin.parent.settings.train.objective == plan.settings.train.objective:
        with readable(origin.parent.run.constants_file):
            shutil.copyfile(origin.parent.run.constants_file, made.constants_file)
    else:
        write_constants(plan, made, origin.checkpoint().folder)


def _reference(plan: Plan, origin: Origin | None) -> dict[str, Any]:
    """Return the manifest's entry of the reference text: the parent's, for a fork that does not change it."""
    source = plan.settings.train.reference
    if origin is not None and origin.parent.settings.train.reference == source:
        entry = origin.parent.manifest.get(REFERENCE)
        return {} if entry is None else {REFERENCE: entry}
    text = reference_text(source)
    return {} if text is None else {REFERENCE: text.to_json()}


def manifest(plan: Plan) -> dict[str, Any]:
    """Return the first content of manifest.json: what the run is trained on, and the reasons for its settings."""
    data = plan.data
    return {
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
        SESSIONS: [],
    }


def _refuse_changes(changes: Collection[str], origin: str) -> None:
    """Raise InputError for a changed setting that a fork cannot have."""
    if "model.base" in changes:
        raise InputError("a fork keeps its parent's weights: omit --from and --set model.base")
    if any(key.startswith("train.lora_") for key in changes):
        raise InputError(
            f"a fork keeps its parent's adapter, if it has one: begin a new run with --from {quoted(origin)}"
        )
    if "data.replay" in changes:
        raise InputError(
            f"a fork takes no new samples of a base: omit --replay, or begin a new run with --from {quoted(origin)}"
        )
    if any(key.startswith("tokenizer.") for key in changes):
        raise InputError("a fork keeps its parent's tokenizer: omit --tokenizer and --set tokenizer...")


def plan_fork(
    origin: str,
    overrides: Sequence[str],
    values: dict[str, Any],
    console: Console,
    *,
    accept_record: bool = False,
) -> tuple[Plan, Origin]:
    """Return the plan of a new run that continues from ``RUN@STEP``, or from the newest checkpoint of ``RUN``.

    A fork has its parent's settings except for ``overrides`` and ``values``. Tokenizer and network cannot change.

    Raises:
        InputError: no such run or checkpoint, settings that the weights do not fit, or a damaged record that would be
            copied and is not accepted.
    """
    parent, checkpoint = find_origin(origin)
    run, own = parent.run, parent.settings
    named = {"run.folder": str(run.path.parent), "run.name": free_name(run.path.parent, f"{run.name}-fork")}
    settings = load_run_settings(run.settings_file, overrides, named | values)
    changes = differences(own, settings)
    _refuse_changes(changes.keys(), origin)
    if any(key.startswith("data.") for key in changes):
        if settings.model.base == NO_BASE:
            settings = with_values(settings, {"tokenizer.kind": str(run.tokenizer.absolute())})
        data = text_with_progress(with_own_base(settings, run.path), console)
    else:
        data = _text_of(parent) or text_with_progress(own, console)
    settings = with_objective_of(settings, data)
    require_used(
        settings, data, {override.partition("=")[0].strip() for override in overrides} | values.keys()
    )
    plan = plan_on(data, settings, base=base_config(parent.manifest))
    other_data = [key for key in changes if key == "train.context" or key.startswith("data.")]
    same_objective = own.train.objective == plan.settings.train.objective
    if has_constants(plan) and same_objective and other_data:
        raise InputError(
            "a fork of a run on pairs keeps its data and train.context, for which the answers of its base are known: "
            f"begin a new run with --from {quoted(origin)}"
        )
    tokenizer = parent.manifest.get("tokenizer_hash")
    fits = begins(load_config(checkpoint.folder), plan.model, checkpoint.step)
    if data.tokenizer.hash != tokenizer or not fits:
        raise InputError(
            f"the weights of {origin} belong to another network or tokenizer than these settings: omit the settings "
            "that change them, or begin a new run without --fork"
        )
    same_length = _keeps_length(origin, checkpoint, plan, "train.steps" in changes)
    # The record of another objective holds losses of another kind.
    same_text = is_text_of(plan.data, parent.manifest) and not changes.keys() & OBJECTIVE
    if same_text and not accept_record:
        require_record(run, parent.manifest, checkpoint, "fork with what is left of it, with ")
    return plan, _at_checkpoint(parent, checkpoint, same_text, same_length, accept_record)


def _keeps_length(origin: str, checkpoint: Checkpoint, plan: Plan, other_steps: bool) -> bool:
    """Return whether a fork has its parent's length, as revised.

    Raises:
        InputError: the fork has no step to make.
    """
    train = plan.settings.train
    if checkpoint.ended_early and train.stop_early:
        raise InputError(
            f"{origin} ended early, since it gained no more than it cost: add --set train.stop_early=false, or fork an "
            "earlier step"
        )
    same_length = not (other_steps or checkpoint.ended_early)
    if checkpoint.step >= (last_step(train.steps, checkpoint.revisions) if same_length else train.steps):
        raise InputError(f"{origin} has made its {train.steps} steps: give more with --steps")
    return same_length


def _text_of(parent: RunRecord) -> PreparedData | None:
    return open_prepared(cache_folder(), str(parent.manifest.get("data_fingerprint")))


def _at_checkpoint(
    parent: RunRecord, checkpoint: Checkpoint, same_text: bool, same_length: bool, accept_record: bool
) -> Origin:
    """Return the origin of a fork whose first checkpoint is a copy of the parent's."""
    return Origin(
        parent,
        checkpoint.step,
        checkpoint.tokens_seen,
        # Revisions by the clock concern the parent's number of steps: a fork with another number drops them.
        lambda made, provenance: copy_checkpoint(
            checkpoint, made.checkpoints, provenance, keep_revisions=same_length
        ),
        same_text,
        accept_record,
        {"checkpoint_hash": hash_file(checkpoint.folder / MARKER)},
    )


def reopen(
    path: Path, overrides: Sequence[str], console: Console, *, accept_record: bool = False
) -> tuple[Plan, RunFolder]:
    """Return the plan of an existing run: its own settings, except for the few that may be changed, on the same text.

    The tokens come from the cache, by their fingerprint; if they are not there, the sources are read again. Damaged
    files of the run are restored from a good copy; ``accept_record`` accepts a damaged record.

    Raises:
        InputError: there is no run, a damaged file has no good copy, the tokens are not in the cache and the text has
            changed, or a setting that must not change.
    """
    report = partial(print_line, console)
    run = RunFolder.open(path)
    with file_errors_in_one_line():
        own, recorded = verified_settings(run)
    settings, changes = resumed_settings(run, own, overrides)
    for line in changes:
        report(line)
    with run.locked(), file_errors_in_one_line():
        restore_first_checkpoint(run, recorded, own.model.base, report)
        repair_run(run, own, recorded, report, accept_record=accept_record)
    EtudeTokenizer.load(run.tokenizer, str(recorded.get("tokenizer_hash")))
    data = text_of_run(path, settings, recorded, lambda settings: text_with_progress(settings, console))
    plan = plan_on(data, settings, base=base_config(recorded))
    require_memory(plan)
    return plan, run


def require_steps_left(plan: Plan, run: RunFolder) -> None:
    """Raise InputError for a run that is finished, or whose new number of steps is already reached."""
    newest = newest_good_checkpoint(run.checkpoints)[0] if list_checkpoints(run.checkpoints) else None
    last = 0 if newest is None else newest.step
    train, own, status = plan.settings.train, load_run_settings(run.settings_file).train, run.status()
    steps = train.steps
    finished = status.get("state") == "finished"
    if newest is not None and newest.ended_early:
        if finished and train.stop_early and train.patience == own.patience:
            raise InputError(
                f"{run.path} ended early at step {last}, since it gained no more than it cost: add --set "
                "train.stop_early=false, or a larger --set train.patience"
            )
        return
    if steps != own.steps:
        if last >= steps:
            raise InputError(f"{run.path} has made {last} steps already: give it more than that, not {steps}")
        return
    reported = status.get("step", 0)
    if finished and isinstance(reported, int) and last >= reported:
        raise InputError(
            f"{run.path} is finished at step {last}: use it with `{command('generate', run.path)}`, or give it more "
            f"steps with --set train.steps={2 * last}"
        )


def with_absolute_paths(settings: Settings, run: RunFolder) -> Settings:
    """Return the settings with absolute paths, so that ``run`` can be resumed from any working directory."""
    settings = own_samples(settings, run)
    kind = settings.tokenizer.kind
    values: dict[str, Any] = {"data.sources": tuple(map(absolute_source, settings.data.sources))}
    base, reference = settings.model.base, settings.train.reference
    if reference not in ("auto", NONE, BUILT_IN):
        values["train.reference"] = str(expand_home(reference).absolute())
    if base != NO_BASE and not base.startswith(HUB):
        values["model.base"] = str(expand_home(base).absolute())
    if kind not in ("bpe", "char", BASE):
        values["tokenizer.kind"] = str(expand_home(kind).absolute())
    return with_values(settings, values)
