"""Names of tasks and files for them, on a small index like the library's, and the errors without the library."""

from __future__ import annotations

import json
import sys
import zipfile
from enum import Enum
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from etude.errors import InputError
from etude.interop.local_tasks import leaf_tasks, local_task
from etude.interop.public_suites import public_suite

Kind = Enum("Kind", ["TASK", "PY_TASK", "GROUP", "TAG"])


def entry(kind: str, cfg: dict[str, Any] | None = None, tags: tuple[str, ...] = ()) -> Any:
    return SimpleNamespace(kind=Kind[kind], cfg=cfg, tags=set(tags), yaml_path=Path("/tasks/a.yaml"))


def task(**cfg: Any) -> Any:
    return entry("TASK", {"dataset_path": "owner/set", **cfg})


INDEX = {
    "suite_part": task(dataset_name="part", validation_split="train"),
    "choose": task(training_split="train", validation_split="validation", test_split="test"),
    "other": task(test_split="test"),
    "suite": entry("GROUP", {"task": ["suite_part", {"task": "choose", "num_fewshot": 0}, "tagged"]}),
    "tagged": entry("TAG", tags=("other", "choose")),
    "by_code": entry("PY_TASK", {"class": "x"}),
}


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def test_groups_and_tags_stand_for_their_tasks() -> None:
    assert leaf_tasks(["suite"], INDEX) == ["suite_part", "choose", "other"]
    assert leaf_tasks(["tagged", "suite_part", "other"], INDEX) == ["choose", "other", "suite_part"]
    with pytest.raises(InputError, match="no task 'suite_prat'; near it: suite_part"):
        leaf_tasks(["suite_prat"], INDEX)


@pytest.mark.parametrize("name", ["suite_part", "part"])
def test_one_file_is_the_split_that_is_scored(tmp_path: Path, name: str) -> None:
    (tmp_path / f"{name}.jsonl").write_text("{}")
    config = read(local_task("suite_part", INDEX["suite_part"], tmp_path, tmp_path))
    assert config["include"] == "/tasks/a.yaml"
    assert config["task"] == "suite_part"
    assert (config["dataset_path"], config["dataset_name"]) == ("json", None)
    assert config["dataset_kwargs"]["data_files"] == {"train": str(tmp_path / f"{name}.jsonl")}
    assert "validation_split" not in config


def test_splits_without_a_file_are_not_requested(tmp_path: Path) -> None:
    (tmp_path / "choose").mkdir()
    for split in ("train", "test"):
        (tmp_path / "choose" / f"{split}.parquet").write_text("")
    config = read(local_task("choose", INDEX["choose"], tmp_path, tmp_path))
    assert config["dataset_path"] == "parquet"
    assert set(config["dataset_kwargs"]["data_files"]) == {"train", "test"}
    assert config["validation_split"] is None
    assert "test_split" not in config


def test_rows_in_a_zip(tmp_path: Path) -> None:
    archive = tmp_path / "all.zip"
    with zipfile.ZipFile(archive, "w") as out:
        out.writestr("data/part.jsonl", '{"a": 1}')
    config = read(local_task("suite_part", INDEX["suite_part"], archive, tmp_path))
    (file,) = config["dataset_kwargs"]["data_files"].values()
    assert read(Path(file)) == {"a": 1}
    with pytest.raises(InputError, match=r"no rows for the task 'other': put other\.jsonl"):
        local_task("other", INDEX["other"], archive, tmp_path)
    archive.write_text("not a zip")
    with pytest.raises(InputError, match="cannot be read as a zip"):
        local_task("suite_part", INDEX["suite_part"], archive, tmp_path)


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"put part\.jsonl there, or a folder part with train\.jsonl.*owner/set"
    ):
        local_task("suite_part", INDEX["suite_part"], tmp_path, tmp_path)
    with pytest.raises(InputError, match="neither a folder nor a zip"):
        local_task("suite_part", INDEX["suite_part"], tmp_path / "nowhere", tmp_path)
    with pytest.raises(InputError, match="by its own code"):
        local_task("by_code", INDEX["by_code"], tmp_path, tmp_path)
    (tmp_path / "choose").mkdir()
    for name in ("train.jsonl", "test.csv"):
        (tmp_path / "choose" / name).write_text("")
    with pytest.raises(InputError, match="several formats"):
        local_task("choose", INDEX["choose"], tmp_path, tmp_path)


def test_the_missing_library_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    with pytest.raises(InputError, match=r"pip install 'etude\[eval\]'"):
        public_suite(tmp_path, ["blimp"])
