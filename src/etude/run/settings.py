"""The settings of a run: those in its folder, those of any earlier step, and their changes on a resume.

Each setting declares whether the user may change it on a resume: :class:`etude.setting_types.Change`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from etude.config import (
    NO_BASE,
    Resolved,
    Settings,
    get_value,
    known_keys,
    load_settings,
    to_toml,
    with_values,
)
from etude.errors import InputError
from etude.files import hash_bytes, hash_file, write_atomic
from etude.messages import quoted
from etude.run.folder import RunFolder
from etude.setting_declarations import declarations, require_resolved
from etude.setting_types import Change

LATER_SETTINGS = {"train.lr_by_width": True, "train.state_every": 1}
"""Settings that earlier versions lacked, and how they trained; with a base model, no version lacked them."""

NO_ADAPTER = {"train.lora_rank": 0}
"""The same of all runs."""


def load_run_settings(
    file: Path, overrides: Sequence[str] = (), values: Mapping[str, Any] | None = None
) -> Settings:
    """Return the settings in ``file``, the run.toml of a run of any version, with ``overrides`` and ``values``.

    Raises:
        InputError: the file is unreadable or damaged, or a setting is unknown or has an impossible value.
    """
    settings = load_settings(file, overrides, values or {})
    later = NO_ADAPTER | (LATER_SETTINGS if settings.model.base == NO_BASE else {})
    lacking = {key: value for key, value in later.items() if get_value(settings, key) == "auto"}
    return with_values(settings, lacking) if lacking else settings


def read_settings(file: Path) -> Resolved:
    """Return the settings in ``file``, the run.toml of a run.

    Raises:
        InputError: the file is unreadable or damaged, or its settings are not resolved.
    """
    settings = load_run_settings(file)
    try:
        return require_resolved(settings)
    except InputError as error:
        raise InputError(f"{file} is damaged ({error}): restore it") from None


def verified_settings(run: RunFolder) -> tuple[Resolved, dict[str, Any]]:
    """Return the settings and the manifest of a run, after verifying that they belong together.

    Raises:
        InputError: they do not, or one of them is damaged.
    """
    manifest = run.read_manifest()
    # The second hash is valid only between writing the manifest and writing run.toml: a run that was killed between
    # the two keeps its old settings, and the change is not committed.
    if hash_file(run.settings_file) not in (
        manifest.get("settings_hash"),
        manifest.get("settings_hash_before"),
    ):
        raise InputError(
            f"{run.settings_file} is damaged or was edited since the run began: restore it, change settings with "
            f"--resume {quoted(run.path)} --set KEY=VALUE, or start a new run with --config {quoted(run.settings_file)}"
        )
    return read_settings(run.settings_file), manifest


def differences(before: Settings, after: Settings) -> dict[str, tuple[Any, Any]]:
    """Return the settings that differ, by key, as (before, after)."""
    pairs = {key: (get_value(before, key), get_value(after, key)) for key in known_keys()}
    return {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}


def settings_for_step(settings: Resolved, manifest: Mapping[str, Any], step: int) -> Resolved:
    """Return the settings of the update that leads to ``step``: changes after it, in the manifest, are undone.

    Raises:
        InputError: the manifest is damaged.
    """
    try:
        for change in reversed(manifest.get("changes", [])):
            if int(change["from_step"]) >= step:
                before = {key: values["before"] for key, values in change["settings"].items()}
                settings = require_resolved(with_values(settings, before))
    except (KeyError, TypeError, ValueError, AttributeError):
        raise InputError("the changes in the run's manifest.json are damaged: restore it") from None
    return settings


def resumed_settings(run: RunFolder, own: Resolved, overrides: Sequence[str]) -> tuple[Settings, list[str]]:
    """Return the settings for a resume: the run's ``own`` with ``overrides``; and a message about each change.

    Raises:
        InputError: a setting cannot be changed on a resume.
    """
    settings, lines = load_run_settings(run.settings_file, overrides), []
    for key, (before, after) in differences(own, settings).items():
        # A run with a time budget computes its number of steps from the budget.
        follows_budget = key == "train.steps" and own.train.seconds != "auto"
        change = declarations()[key].change
        if change in (Change.FORK, Change.NEVER) or follows_budget:
            alternative = "start a new run without --resume"
            if change is not Change.NEVER:
                alternative = f"start a fork with --fork {quoted(run.path)} --set {quoted(f'{key}={after}')}"
            raise InputError(
                f"{run.path} has {key} = {before!r}, which cannot become {after!r} on a resume: omit it, or "
                f"{alternative}"
            )
        effect = "" if change is Change.OBSERVING else ": this changes the training from the resumed step on"
        lines.append(f"{key} changes from {before!r} to {after!r}{effect}")
    return settings, lines


def record_changes(run: RunFolder, manifest: dict[str, Any], settings: Settings, step: int) -> None:
    """Write the run's ``manifest`` and its new ``settings``, with their differences recorded as of ``step``."""
    content = to_toml(settings)
    changes = differences(read_settings(run.settings_file), settings)
    if not changes:
        run.write_manifest(manifest)
        return
    values = {key: {"before": before, "after": after} for key, (before, after) in changes.items()}
    before = hash_file(run.settings_file)
    change = {"from_step": step, "settings": values, "settings_hash_before": before}
    manifest.setdefault("changes", []).append(change)
    manifest["settings_hash_before"], manifest["settings_hash"] = before, hash_bytes(content.encode())
    # In this order: until run.toml is written too, the hash "before" keeps the run valid with its old settings.
    run.write_manifest(manifest)
    write_atomic(run.settings_file, content)
