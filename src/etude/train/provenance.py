"""What a checkpoint vouches for beyond its own files: the run that it belongs to, and the record up to its step.

Each commit marker holds hashes of everything that its run consists of, and of the logs as they were when it was saved.
A resume compares them. What stands elsewhere in a good copy is restored (:mod:`etude.workflow.mending`), all else is
refused; the record may be accepted as it is by an explicit choice, which the manifest then holds.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from etude.config import Settings
from etude.errors import InputError
from etude.files import DIGEST, hash_file, json_digest
from etude.model.folder import OWN_FILES
from etude.run import JsonLines, Prefix, RunFolder
from etude.train.checkpoint import OPTIMIZER_FILE, Checkpoint, Provenance, newest_good_checkpoint
from etude.untrusted import Unreadable

FILES = "files"
"""The key of the manifest with the hashes of the run's other files, as they were when it began."""
ACCEPTED = "accepted_records"
CHANGING = frozenset(
    {"schema", "sittings", "changes", "settings_hash", "settings_hash_before", ACCEPTED, DIGEST}
)
"""The keys of the manifest that change while a run lives."""


def files_of(run: RunFolder) -> dict[str, str]:
    """The hashes of the files that a run consists of and never changes, by path in its folder."""
    files = [*sorted(run.tokenizer.iterdir()), run.ladder_file]
    return {file.relative_to(run.path).as_posix(): hash_file(file) for file in files if file.is_file()}


def consists_of(manifest: Mapping[str, Any]) -> dict[str, str]:
    """The hashes of all that a run with this manifest consists of, by file.

    Of the manifest itself only what never changes is hashed.
    """
    lasting = {key: value for key, value in manifest.items() if key not in CHANGING}
    return {
        "run.toml": str(manifest.get("settings_hash")),
        "manifest.json": json_digest(lasting),
        **(_files(manifest) or {}),
    }


def _files(manifest: Mapping[str, Any]) -> dict[str, str] | None:
    """The hashes that the manifest holds, by file; None for a run of the first edition, whose holds none."""
    files = manifest.get(FILES)
    if not isinstance(files, dict):
        return None
    again = {
        entry["file"]: entry.get("hash") for entry in _entries(manifest, ACCEPTED) if "num_bytes" not in entry
    }
    return {str(name): str(value) for name, value in (files | again).items()}


def logs_of(run: RunFolder) -> dict[str, JsonLines]:
    """The logs that training writes, by file name."""
    return {log.path.name: log for log in (run.metrics, run.samples)}


def expected_files(checkpoint: Checkpoint | None, manifest: Mapping[str, Any]) -> dict[str, str]:
    """The hashes of the run's files other than settings and manifest, by path in its folder, as far as they are known.

    A run of the first edition knows only those of its tokenizer, copies of which are in the checkpoint.
    """
    known = _files(manifest)
    if known is not None or checkpoint is None:
        return known or {}
    theirs = OWN_FILES | {OPTIMIZER_FILE}
    return {f"tokenizer/{name}": value for name, value in checkpoint.checksums.items() if name not in theirs}


def require_own(checkpoint: Checkpoint, run: RunFolder, manifest: Mapping[str, Any]) -> None:
    """Raises InputError when the settings or the manifest are not those that ``checkpoint`` was saved with."""
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
    """The objects in a list of the manifest, which may come from elsewhere."""
    found = manifest.get(key)
    return [entry for entry in found if isinstance(entry, dict)] if isinstance(found, list) else []


def tokens_agree(
    run: RunFolder, settings: Settings, manifest: Mapping[str, Any]
) -> Callable[[Checkpoint], None]:
    """What raises InputError for a checkpoint whose number of tokens does not follow from its step."""
    train = settings.train
    rows, context = train.batch_rows, train.context
    parent = manifest.get("parent")
    first, before = (parent.get("step"), parent.get("tokens_seen")) if isinstance(parent, dict) else (0, 0)

    def agrees(checkpoint: Checkpoint) -> None:
        if not isinstance(first, int) or not isinstance(before, int):  # a fork of the first edition
            return
        if rows == "auto" or context == "auto":
            return
        each = rows * context
        if checkpoint.tokens_seen != before + (checkpoint.step - first) * each:
            raise InputError(
                f"{checkpoint.folder} is damaged or of another run (step {checkpoint.step} and "
                f"{checkpoint.tokens_seen} tokens do not go with {each} tokens a step in {run.settings_file}): "
                "use an older checkpoint of the run"
            )

    return agrees


def newest_of(
    run: RunFolder, settings: Settings, manifest: Mapping[str, Any]
) -> tuple[Checkpoint, list[str]]:
    """:func:`newest_good_checkpoint` of those that belong to the run.

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
    """How the log ``name`` must begin for ``checkpoint``; None where nothing is known of it.

    That is so for checkpoints of the first edition, and for those before one at which a damaged record was accepted.
    """
    found = checkpoint.provenance.logs.get(name)
    for entry in _entries(manifest, ACCEPTED):
        step, num_bytes = entry.get("step"), entry.get("num_bytes")
        if entry.get("file") != name or type(step) is not int or type(num_bytes) is not int:
            continue
        if step > checkpoint.step:
            return None
        if step == checkpoint.step and num_bytes >= 0:
            found = Prefix(num_bytes, str(entry.get("hash")))
    return found


def damage_of_log(log: JsonLines, checkpoint: Checkpoint, manifest: Mapping[str, Any]) -> str | None:
    """What is wrong with a log, seen from ``checkpoint``, in a few words after its name; None when nothing is."""
    if checkpoint.step == 0:  # a run that resumes there writes it again
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
    """A checkpoint of the first edition holds no hash of the record, but the record tells of the checkpoint."""
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
    return f"does not tell of the checkpoint of step {checkpoint.step}"


def copy_record(
    parent: RunFolder, manifest: Mapping[str, Any], checkpoint: Checkpoint, heir: RunFolder
) -> None:
    """Give ``heir`` the logs of ``parent``, whose manifest it is, up to ``checkpoint``."""
    logs = logs_of(heir)
    for name, old in logs_of(parent).items():
        if old.path.exists():
            shutil.copyfile(old.path, logs[name].path)
            prefix = expected_prefix(checkpoint, manifest, name)
            if prefix is None or not old.begins_with(prefix):
                logs[name].cut_back(checkpoint.step)
            else:
                logs[name].cut_to(prefix)


def counted_again(name: str, hash: str) -> dict[str, Any]:
    """The manifest entry of a file that was lost, computed again, and is not equal to the bit."""
    return {"file": name, "hash": hash}


def accepted_record(log: JsonLines, step: int) -> dict[str, Any]:
    """What the manifest says of a log that was taken as it is for the resume from ``step``."""
    return {"step": step, "file": log.path.name, **asdict(log.prefix())}


def provenance_of(manifest: Mapping[str, Any], logs: Mapping[str, JsonLines]) -> Provenance:
    """What a checkpoint that is saved now vouches for."""
    return Provenance(consists_of(manifest), {name: log.prefix() for name, log in logs.items()})
