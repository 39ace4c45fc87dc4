"""Run tasks of the lm-eval library on local files instead of data sets on the Hub."""

from __future__ import annotations

import difflib
import json
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from etude.errors import InputError
from etude.untrusted import MAX_JSON_BYTES, shown

_BUILDERS = {".jsonl": "json", ".json": "json", ".parquet": "parquet", ".csv": "csv"}
_SPLITS = ("training_split", "validation_split", "test_split", "fewshot_split")


def leaf_tasks(names: Iterable[str], index: Any) -> list[str]:
    """Return the tasks that `names` (of tasks, groups, tags) stand for, each once. `index`: the library's, by name.

    Raises InputError for an unknown name, with the nearest known ones.
    """
    tasks: list[str] = []
    for name in names:
        if name not in index:
            near = difflib.get_close_matches(name, list(index), 3)
            hint = f"; near it: {', '.join(near)}" if near else "; `lm_eval ls tasks` lists all"
            raise InputError(f"lm-eval has no task '{shown(name)}'{hint}")
        entry = index[name]
        kind = entry.kind.name
        if kind == "TAG":
            tasks += leaf_tasks(sorted(entry.tags), index)
        elif kind == "GROUP":
            members = entry.cfg.get("task") or []
            names_of = [member if isinstance(member, str) else _name_of(member) for member in members]
            tasks += leaf_tasks(names_of, index)
        else:
            tasks.append(name)
    return list(dict.fromkeys(tasks))


def local_task(name: str, entry: Any, files: Path, work: Path) -> Path:
    """Write a YAML file to `work` that defines the task `name` with its rows taken from `files`, a folder or zip.

    The files may have the task's name or that of its data set's part (``adjunct_island``): one file (NAME.jsonl, .json,
    .parquet or .csv), used for the split on which the task is scored, or a folder NAME with a file for each split
    (train.jsonl, test.jsonl, ...).
    Raises InputError with the names that were tried.
    """
    config = entry.cfg
    if entry.yaml_path is None or "class" in config:
        raise InputError(f"the task '{name}' fetches its data by its own code: run it with access to the Hub")
    names = [name, *([config["dataset_name"]] if config.get("dataset_name") else [])]
    splits = {config[key] for key in _SPLITS if isinstance(config.get(key), str)}
    scored = config.get("test_split") or config.get("validation_split")
    by_split = _find(names, files, scored, splits, work)
    if scored not in by_split:
        raise InputError(
            f"{files} holds no rows for the task '{name}': put {names[-1]}.jsonl there, or a folder {names[-1]} with "
            f"{scored}.jsonl, in the same form as the data set {config.get('dataset_path')} on the Hub"
        )
    suffixes = {file.suffix for file in by_split.values()}
    if len({_BUILDERS[suffix] for suffix in suffixes}) > 1:
        raise InputError(f"the files for '{name}' in {files} have several formats: use one format for all")
    task: dict[str, Any] = {
        "include": str(entry.yaml_path),
        "task": name,
        "dataset_path": _BUILDERS[suffixes.pop()],
        "dataset_name": None,
        "dataset_kwargs": {
            "data_files": {split: str(file) for split, file in by_split.items()},
            "cache_dir": str(work / "cache"),
        },
    }
    for key in _SPLITS:  # do not request splits that do not exist
        if isinstance(config.get(key), str) and config[key] not in by_split:
            task[key] = None
    file = work / f"{name}.yaml"
    file.write_text(json.dumps(task))  # JSON is YAML
    return file


def _find(names: list[str], files: Path, scored: str | None, splits: set[str], work: Path) -> dict[str, Path]:
    """Return the file of each split."""
    if files.is_file():
        return _from_zip(names, files, scored, work)
    if not files.is_dir():
        raise InputError(f"{files} is neither a folder nor a zip: give the one that holds the tasks' files")
    for name in names:
        for suffix in _BUILDERS:
            if (files / f"{name}{suffix}").is_file() and scored is not None:
                return {scored: (files / f"{name}{suffix}").absolute()}
        in_folder = {
            split: (files / name / f"{split}{suffix}").absolute()
            for split in sorted(splits)
            for suffix in _BUILDERS
            if (files / name / f"{split}{suffix}").is_file()
        }
        if in_folder:
            return in_folder
    return {}


def _from_zip(names: list[str], files: Path, scored: str | None, work: Path) -> dict[str, Path]:
    wanted = {f"{name}{suffix}" for name in names for suffix in _BUILDERS}
    try:
        with zipfile.ZipFile(files) as archive:
            for member in archive.infolist():
                if Path(member.filename).name in wanted and scored is not None:
                    if member.file_size > MAX_JSON_BYTES:
                        raise InputError(f"{files}: {shown(member.filename)} is too long: unpack the archive")
                    target = work / "unpacked" / Path(member.filename).name
                    target.parent.mkdir(exist_ok=True)
                    target.write_bytes(archive.read(member))
                    return {scored: target}
    except (OSError, zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
        raise InputError(
            f"{files} cannot be read as a zip ({shown(str(error))}): unpack it into a folder"
        ) from None
    return {}


def _name_of(member: dict[str, Any]) -> str:
    return str(member.get("task") or member.get("group"))
