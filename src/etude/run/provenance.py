"""What a checkpoint vouches for besides its own files: the run that it belongs to, and the record up to its step.

Each commit marker holds hashes of everything that its run consists of, and of the logs as they were when it was saved.
A resume compares them. What has a good copy elsewhere is restored (:mod:`etude.run.mending`), all else is refused. A
damaged record may be accepted by an explicit choice, which the manifest then records.
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
    MODEL_FILES,
    OPTIMIZER_FILE,
    Checkpoint,
    Provenance,
    newest_good_checkpoint,
)
from etude.run.folder import SESSIONS, RunFolder
from etude.run.log import JsonLines, Prefix
from etude.untrusted import Unreadable

FILES = "files"
"""The key of the manifest that holds the hashes of the run's other files, as they were when it began."""
ACCEPTED = "accepted_records"
CHANGING = frozenset(
    {"schema", SESSIONS, "changes", "settings_hash", "settings_hash_before", ACCEPTED, DIGEST}
)
"""The keys of the manifest that may change after a run has begun."""


def files_of(run: RunFolder) -> dict[str, str]:
    """Return the hashes of the files that a run consists of and never changes, by path in its folder."""
    files = [*sorted(run.tokenizer.iterdir()), run.ladder_file]
    return {file.relative_to(run.path).as_posix(): hash_file(file) for file in files if file.is_file()}


def consists_of(manifest: Mapping[str, Any]) -> dict[str, str]:
    """Return the hashes of all that a run with this manifest consists of, by file.

    Of the manifest itself only what never changes is hashed.
    """
    lasting = {key: value for key, value in manifest.items() if key not in CHANGING}
    return {
        "run.toml": str(manifest.get("settings_hash")),
        "manifest.json": json_digest(lasting),
        **(_files(manifest) or {}),
    }


def _files(manifest: Mapping[str, Any]) -> dict[str, str] | None:
    """Return the hashes that the manifest holds, by file; None for a run of the first edition, which has none."""
    files = manifest.get(FILES)
    if not isinstance(files, dict):
        return None
    recomputed = {
        entry["file"]: entry.get("hash") for entry in _entries(manifest, ACCEPTED) if "num_bytes" not in entry
    }
    return {str(name): str(value) for name, value in (files | recomputed).items()}


def expected_files(checkpoint: Checkpoint | None, manifest: Mapping[str, Any]) -> dict[str, str]:
    """Return the known hashes of the run's files other than settings and manifest, by path in its folder.

    Of a run of the first edition only those of its tokenizer are known, which each checkpoint has a copy of.
    """
    known = _files(manifest)
    if known is not None or checkpoint is None:
        return known or {}
    others = MODEL_FILES | {OPTIMIZER_FILE}
    return {f"tokenizer/{name}": value for name, value in checkpoint.checksums.items() if name not in others}


def require_own(checkpoint: Checkpoint, run: RunFolder, manifest: Mapping[str, Any]) -> None:
    """Raise InputError where the settings or the manifest are not those that ``checkpoint`` was saved with."""
    saved, now = checkpoint.provenance.run, consists_of(manifest)
    if not saved:
        return
    if saved.get("manifest.json") != now["manifest.json"]:
        raise InputError(f"{run.manifest_file} is not that of {checkpoint.folder}: put the right one back")
    before = [change.get("settings_hash_before") for change in _entries(manifest, "changes")]
    known = (now["run.toml"], manifest.get("settings_hash_before"), *before)
    # None: a change that the first edition made.
    if None not in before and saved.get("run.toml") not in known:
        raise InputError(f"{run.settings_file} is not that of {checkpoint.folder}: put the right one back")


def _entries(manifest: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    """Return the objects in a list of the manifest, which anyone may have written."""
    value = manifest.get(key)
    return [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []


def tokens_agree(
    run: RunFolder, settings: Resolved, manifest: Mapping[str, Any]
) -> Callable[[Checkpoint], None]:
    """Return a check that raises InputError for a checkpoint whose number of tokens does not follow from its step."""
    each = settings.train.batch_rows * settings.train.context
    parent = manifest.get("parent")
    first, before = (parent.get("step"), parent.get("tokens_seen")) if isinstance(parent, dict) else (0, 0)

    def agrees(checkpoint: Checkpoint) -> None:
        if not isinstance(first, int) or not isinstance(before, int):  # a fork of the first edition
            return
        if checkpoint.tokens_seen != before + (checkpoint.step - first) * each:
            raise InputError(
                f"{checkpoint.folder} is damaged or of another run (step {checkpoint.step} and "
                f"{checkpoint.tokens_seen} tokens do not go with {each} tokens a step in {run.settings_file}): "
                "use an older checkpoint of the run"
            )

    return agrees


def newest_of(
    run: RunFolder, settings: Resolved, manifest: Mapping[str, Any]
) -> tuple[Checkpoint, list[str]]:
    """Return the newest checkpoint that verifies and belongs to the run, and a line for each newer one.

    Raises:
        InputError: there is none; or none was saved with these settings and this manifest, which then are damaged.
    """
    agrees = tokens_agree(run, settings, manifest)

    def belongs(checkpoint: Checkpoint) -> None:
        agrees(checkpoint)
        require_own(checkpoint, run, manifest)

    try:
        return newest_good_checkpoint(run.checkpoints, belongs)
    except Unreadable:
        raise
    except InputError:
        checkpoint, _ = newest_good_checkpoint(run.checkpoints, agrees)
        require_own(checkpoint, run, manifest)
        raise


def expected_prefix(checkpoint: Checkpoint, manifest: Mapping[str, Any], name: str) -> Prefix | None:
    """Return how the log ``name`` must begin for ``checkpoint``; None where that is not known.

    It is not for checkpoints of the first edition, and for those before one at which a damaged record was accepted.
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


def damage_of_log(log: JsonLines, checkpoint: Checkpoint, manifest: Mapping[str, Any]) -> str | None:
    """Return what is wrong with a log for ``checkpoint``, in words that follow its name; None where nothing is."""
    if checkpoint.step == 0:  # a run that resumes there writes its record again
        return None
    expected = expected_prefix(checkpoint, manifest, log.path.name)
    if expected is None:
        return _damage_of_first_edition(log, checkpoint, manifest)
    if log.begins_with(expected):
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
    """Look for the line of a checkpoint of the first edition in the record: it holds no hash of it."""
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
    """Give ``child`` the logs of ``parent``, whose manifest it is, up to ``step``.

    ``checkpoint`` is the one of ``step``, the first after it, or the newest: the logs must be those that it was saved
    with. With ``accept`` the readable lines of a damaged log are copied.

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
        if prefix is not None and copy.begins_with(prefix):
            copy.cut_to(prefix)
        else:
            copy.cut_back(step)


def require_log(
    log: JsonLines, checkpoint: Checkpoint, manifest: Mapping[str, Any], otherwise: str = ""
) -> None:
    """Raise InputError where a log is not the one that ``checkpoint`` was saved with.

    ``otherwise`` is what the user may do instead of putting it back, in words.
    """
    problem = damage_of_log(log, checkpoint, manifest)
    if problem is not None:
        raise InputError(
            f"{log.path} {problem}: it is not the record that {checkpoint.folder.name} was saved with. Put it back"
            f"{otherwise and f', or {otherwise}'}"
        )


def recomputed(name: str, hash: str) -> dict[str, Any]:
    """Return the manifest entry of a file that was lost and computed again, and differs in its bits."""
    return {"file": name, "hash": hash}


def accepted_record(log: JsonLines, step: int) -> dict[str, Any]:
    """Return the manifest entry of a damaged log that was accepted for the resume from ``step``."""
    return {"step": step, "file": log.path.name, **asdict(log.prefix())}


def provenance_of(manifest: Mapping[str, Any], logs: Mapping[str, JsonLines]) -> Provenance:
    """Return what a checkpoint that is saved now vouches for."""
    return Provenance(consists_of(manifest), {name: log.prefix() for name, log in logs.items()})
