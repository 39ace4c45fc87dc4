"""The provenance of a checkpoint: hashes of its run, and of the logs up to its step.

Each commit marker holds these hashes besides the checksums of its own files. A resume compares the run with them.
Files that have a good copy are restored (:mod:`etude.run.repair`); any other difference is refused. The user may
accept damaged logs explicitly, and the manifest then records this.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from etude.config import Resolved
from etude.errors import InputError
from etude.files import DIGEST, hash_file, json_digest
from etude.run.checkpoints import (
    Checkpoint,
    Provenance,
    is_model_file,
    is_optimizer_file,
    newest_good_checkpoint,
    require_optimizer_state,
)
from etude.run.folder import SESSIONS, RunFolder
from etude.run.log import JsonLines, Prefix
from etude.untrusted import Unreadable

FILES = "files"
"""Key of the manifest: hashes of the files that never change, when the run was created."""
ACCEPTED = "accepted_records"
"""Key of the manifest: damaged logs that the user accepted, and files that were computed again and differ."""
CHANGING = frozenset(
    {"schema", SESSIONS, "changes", "settings_hash", "settings_hash_before", ACCEPTED, DIGEST}
)
"""Keys of the manifest that may change after the run was created."""


def file_hashes(run: RunFolder) -> dict[str, str]:
    """Return the hashes of the files that never change, by path in the run folder.

    They are those of the tokenizer, the ladder, and what the loss needs of the network at step 0.
    """
    files = [*sorted(run.tokenizer.iterdir()), run.ladder_file, run.constants_file]
    return {file.relative_to(run.path).as_posix(): hash_file(file) for file in files if file.is_file()}


def run_hashes(manifest: Mapping[str, Any]) -> dict[str, str]:
    """Return the hashes of all files of a run with this manifest, except logs and checkpoints, by file.

    The hash of the manifest covers only the keys that never change.
    """
    constant = {key: value for key, value in manifest.items() if key not in CHANGING}
    return {
        "run.toml": str(manifest.get("settings_hash")),
        "manifest.json": json_digest(constant),
        **(_files(manifest) or {}),
    }


def _files(manifest: Mapping[str, Any]) -> dict[str, str] | None:
    """Return the hashes in the manifest, by file; None for a run of the first edition, which has none."""
    files = manifest.get(FILES)
    if not isinstance(files, dict):
        return None
    # Entries of logs have a "num_bytes"; the others are of files that were computed again (`recomputed_entry`).
    recomputed = {
        entry["file"]: entry.get("hash") for entry in _entries(manifest, ACCEPTED) if "num_bytes" not in entry
    }
    return {str(name): str(value) for name, value in (files | recomputed).items()}


def expected_files(checkpoint: Checkpoint | None, manifest: Mapping[str, Any]) -> dict[str, str]:
    """Return the known hashes of the files that never change, by path in the run folder.

    For a run of the first edition only the tokenizer's are known, from the copy in each checkpoint.
    """
    known = _files(manifest)
    if known is not None or checkpoint is None:
        return known or {}
    return {
        f"tokenizer/{name}": value
        for name, value in checkpoint.checksums.items()
        if not is_model_file(name) and not is_optimizer_file(name)
    }


def require_saved_with(checkpoint: Checkpoint, run: RunFolder, manifest: Mapping[str, Any]) -> None:
    """Raise InputError unless ``checkpoint`` was saved with the run's manifest, and its settings of now or earlier."""
    saved, current = checkpoint.provenance.run, run_hashes(manifest)
    if not saved:  # a checkpoint of the first edition
        return
    if saved.get("manifest.json") != current["manifest.json"]:
        raise InputError(
            f"{run.manifest_file} is not the one that {checkpoint.folder} was saved with: restore that one"
        )
    earlier = [change.get("settings_hash_before") for change in _entries(manifest, "changes")]
    known = (current["run.toml"], manifest.get("settings_hash_before"), *earlier)
    # A change that the first edition recorded has no hash: then the earlier settings are unknown.
    if None not in earlier and saved.get("run.toml") not in known:
        raise InputError(
            f"{run.settings_file} is not the one that {checkpoint.folder} was saved with: restore that one"
        )


def _entries(manifest: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    """Return the objects in a list of the manifest. The manifest is untrusted, so anything else is skipped."""
    value = manifest.get(key)
    return [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []


def token_count_check(
    run: RunFolder, settings: Resolved, manifest: Mapping[str, Any]
) -> Callable[[Checkpoint], None]:
    """Return a check that raises InputError for a checkpoint whose number of tokens does not follow from its step."""
    tokens_per_step = settings.train.batch_rows * settings.train.context
    parent = manifest.get("parent")
    first, before = (parent.get("step"), parent.get("tokens_seen")) if isinstance(parent, dict) else (0, 0)

    def check(checkpoint: Checkpoint) -> None:
        if not isinstance(first, int) or not isinstance(before, int):  # a fork of the first edition
            return
        if checkpoint.tokens_seen != before + (checkpoint.step - first) * tokens_per_step:
            raise InputError(
                f"{checkpoint.folder} is damaged or of another run ({checkpoint.tokens_seen} tokens at step "
                f"{checkpoint.step} do not match {tokens_per_step} tokens per step in {run.settings_file}): "
                "use an older checkpoint of the run"
            )

    return check


def newest_own_checkpoint(
    run: RunFolder, settings: Resolved, manifest: Mapping[str, Any]
) -> tuple[Checkpoint, list[str]]:
    """Return the newest checkpoint that verifies and belongs to the run, and a message for each newer one.

    Raises:
        InputError: no checkpoint verifies; or none was saved with these settings and this manifest.
    """
    check_tokens = token_count_check(run, settings, manifest)

    def check_all(checkpoint: Checkpoint) -> None:
        require_optimizer_state(checkpoint)
        check_tokens(checkpoint)
        require_saved_with(checkpoint, run, manifest)

    try:
        return newest_good_checkpoint(run.checkpoints, check_all)
    except Unreadable:
        raise
    except InputError:
        # If whole checkpoints exist, the settings or the manifest are damaged: report those, not the checkpoints.
        checkpoint, _ = newest_good_checkpoint(run.checkpoints, check_tokens)
        require_saved_with(checkpoint, run, manifest)
        raise


def expected_prefix(checkpoint: Checkpoint, manifest: Mapping[str, Any], name: str) -> Prefix | None:
    """Return the prefix with which the log ``name`` must start for ``checkpoint``; None if it is unknown.

    It is unknown for a checkpoint of the first edition, and for one before a step at which a damaged log was accepted.
    """
    expected = checkpoint.provenance.logs.get(name)
    for entry in _entries(manifest, ACCEPTED):
        step, num_bytes = entry.get("step"), entry.get("num_bytes")
        if entry.get("file") != name or type(step) is not int or type(num_bytes) is not int:
            continue
        if step > checkpoint.step:
            return None
        if step == checkpoint.step and num_bytes >= 0:
            expected = Prefix(num_bytes, str(entry.get("hash")))
    return expected


def log_damage(log: JsonLines, checkpoint: Checkpoint, manifest: Mapping[str, Any]) -> str | None:
    """Return what is wrong with a log for ``checkpoint``, as the end of a sentence; None if nothing is."""
    if checkpoint.step == 0:  # a run that resumes from step 0 starts its logs again
        return None
    expected = expected_prefix(checkpoint, manifest, log.path.name)
    if expected is None:
        return _damage_of_first_edition(log, checkpoint, manifest)
    if log.starts_with(expected):
        return None
    if not log.path.is_file():
        return "is missing"
    size = log.path.stat().st_size
    if size < expected.num_bytes:
        return f"is cut off ({size:,} of {expected.num_bytes:,} bytes)"
    return f"was changed in its first {expected.num_bytes:,} bytes"


def _damage_of_first_edition(
    log: JsonLines, checkpoint: Checkpoint, manifest: Mapping[str, Any]
) -> str | None:
    """Return what is wrong with a log for a checkpoint of the first edition, which has no hash of it; else None.

    The log must hold the line of the checkpoint.
    """
    parent = manifest.get("parent")
    inherited = isinstance(parent, dict) and parent.get("step") == checkpoint.step
    accepted = any(entry.get("file") == log.path.name for entry in _entries(manifest, ACCEPTED))
    if inherited or accepted or log.path.name != "metrics.jsonl":
        return None
    if not log.path.is_file():
        return "is missing"
    for event in log.read():
        if event.get("event") == "checkpoint" and event.get("step") == checkpoint.step:
            agrees = event.get("tokens_seen") == checkpoint.tokens_seen
            return None if agrees else f"counts other tokens at step {checkpoint.step}"
    return f"has no line of the checkpoint of step {checkpoint.step}"


def copy_record(
    parent: RunFolder,
    manifest: Mapping[str, Any],
    checkpoint: Checkpoint,
    child: RunFolder,
    step: int,
    *,
    accept: bool = False,
) -> None:
    """Copy the logs of ``parent``, which has the ``manifest``, up to ``step`` into ``child``.

    The logs must be those that ``checkpoint`` was saved with: the parent's first at or after ``step``, else its newest.
    With ``accept`` the readable lines of a damaged log are copied.

    Raises:
        InputError: a log is damaged.
    """
    for name, log in parent.logs.items():
        if not accept:
            require_log(log, checkpoint, manifest)
        if not log.path.exists():
            continue
        copy = child.logs[name]
        shutil.copyfile(log.path, copy.path)
        prefix = expected_prefix(checkpoint, manifest, name) if checkpoint.step == step else None
        if prefix is not None and copy.starts_with(prefix):
            copy.truncate_to(prefix)
        else:
            copy.drop_after(step)


def require_log(
    log: JsonLines, checkpoint: Checkpoint, manifest: Mapping[str, Any], otherwise: str = ""
) -> None:
    """Raise InputError if a log is not the one that ``checkpoint`` was saved with.

    ``otherwise``: what the user may do instead of restoring it, as the end of the message.
    """
    problem = log_damage(log, checkpoint, manifest)
    if problem is not None:
        raise InputError(
            f"{log.path} {problem}: it is not the log that {checkpoint.folder.name} was saved with. Restore it"
            f"{otherwise and f', or {otherwise}'}"
        )


def recomputed_entry(name: str, hash: str) -> dict[str, Any]:
    """Return the manifest entry of a file that was lost, and computed again with other bits."""
    return {"file": name, "hash": hash}


def accepted_entry(log: JsonLines, step: int) -> dict[str, Any]:
    """Return the manifest entry of a damaged log that the user accepted for a resume from ``step``."""
    return {"step": step, "file": log.path.name, **asdict(log.prefix())}


def provenance_of(manifest: Mapping[str, Any], logs: Mapping[str, JsonLines]) -> Provenance:
    """Return the provenance for a checkpoint that is saved now."""
    return Provenance(run_hashes(manifest), {name: log.prefix() for name, log in logs.items()})
