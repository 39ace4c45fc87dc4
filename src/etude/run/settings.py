"""The settings that a run was trained with: those in its folder, what they were at any step, and what may be changed.

A run keeps the settings that it began with. What the user may change of them on a resume, each setting declares:
:class:`etude.setting_types.Change`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from etude.config import (
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


def read_settings(file: Path) -> Resolved:
    """Return the settings in ``file``, the run.toml of a run.

    Raises:
        InputError: it cannot be read, or does not hold the settings of a run.
    """
    settings = load_settings(file)
    try:
        return require_resolved(settings)
    except InputError as error:
        raise InputError(f"{file} is damaged ({error}): restore it") from None


def own_settings(run: RunFolder) -> tuple[Resolved, dict[str, Any]]:
    """Return the settings of a run and its manifest, verified to belong together.

    Raises:
        InputError: they do not, or one of them is damaged.
    """
    manifest = run.read_manifest()
    # The second hash is valid only between the writing of the manifest and that of run.toml: a run that was killed
    # there still has its old settings, and the change did not take place.
    if hash_file(run.settings_file) not in (
        manifest.get("settings_hash"),
        manifest.get("settings_hash_before"),
    ):
        raise InputError(
            f"{run.settings_file} is damaged or was changed since the run began: put it back, change it with --resume "
            f"{quoted(run.path)} --set KEY=VALUE, or begin a new run from it with --config {quoted(run.settings_file)}"
        )
    return read_settings(run.settings_file), manifest


def differences(before: Settings, after: Settings) -> dict[str, tuple[Any, Any]]:
    """Return the settings that differ, by key, as (before, after)."""
    pairs = {key: (get_value(before, key), get_value(after, key)) for key in known_keys()}
    return {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}


def settings_for_step(settings: Resolved, manifest: Mapping[str, Any], step: int) -> Resolved:
    """Return the settings that the update to ``step`` was made with: later changes, in the manifest, are undone.

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
    """Return the settings for a resume with ``overrides`` of the run's ``own``, and a line about each change.

    Raises:
        InputError: a setting that cannot be changed.
    """
    settings, lines = load_settings(run.settings_file, overrides), []
    for key, (before, after) in differences(own, settings).items():
        follows_clock = key == "train.steps" and own.train.seconds != "auto"
        change = declarations()[key].change
        if change in (Change.FORK, Change.NEVER) or follows_clock:
            other = "begin a new run without --resume"
            if change is not Change.NEVER:
                other = f"begin one from it with --fork {quoted(run.path)} --set {quoted(f'{key}={after}')}"
            raise InputError(
                f"{run.path} has {key} = {before!r}, and with {after!r} it would be another run: leave that out, or "
                f"{other}"
            )
        effect = "" if change is Change.OBSERVING else ": this changes the training from here on"
        lines.append(f"{key} was {before!r} and is {after!r} now{effect}")
    return settings, lines


def record_changes(run: RunFolder, manifest: dict[str, Any], settings: Settings, step: int) -> None:
    """Write the run's ``manifest``, and with it the settings that differ from ``step`` on."""
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
    run.write_manifest(manifest)
    write_atomic(run.settings_file, content)
