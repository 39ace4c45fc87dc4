"""The settings that a run was made with: those in its folder, and what they were at any of its steps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from etude.config import Settings, get_value, known_keys, load_settings, with_values
from etude.errors import InputError
from etude.files import hash_file, read_object
from etude.run import RunFolder


def own_settings(run: RunFolder) -> tuple[Settings, dict[str, Any]]:
    """The settings of a run, and its manifest, once it is known that they belong together.

    Raises:
        InputError: they do not.
    """
    recorded = read_object(run.manifest_file)
    # The second while a change is being written down: then it has not come to pass.
    if hash_file(run.settings_file) not in (
        recorded.get("settings_hash"),
        recorded.get("settings_hash_before"),
    ):
        raise InputError(
            f"{run.settings_file} is damaged or was changed since the run began: put it back, change it with --resume "
            f"{run.path} --set KEY=VALUE, or begin a new run from it with --config {run.settings_file}"
        )
    return load_settings(run.settings_file), recorded


def differences(before: Settings, after: Settings) -> dict[str, tuple[Any, Any]]:
    """The settings that are not the same, by key."""
    pairs = {key: (get_value(before, key), get_value(after, key)) for key in known_keys()}
    return {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}


def settings_for_step(settings: Settings, recorded: Mapping[str, Any], step: int) -> Settings:
    """What was set when the update was made that led to ``step``: later changes, noted in the manifest, undone.

    Raises:
        InputError: the manifest is damaged.
    """
    try:
        for change in reversed(recorded.get("changes", [])):
            if int(change["from_step"]) >= step:
                before = {key: values["before"] for key, values in change["settings"].items()}
                settings = with_values(settings, before)
    except (KeyError, TypeError, ValueError, AttributeError):
        raise InputError("the changes in the run's manifest.json are damaged: restore it") from None
    return settings
