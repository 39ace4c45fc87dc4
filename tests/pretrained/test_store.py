"""Files of a base model: only its own are used, weights are stored once, and damage to one run stays in that run."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from etude.config import Settings, load_settings
from etude.diagnose.run.printed_checks import print_checks
from etude.errors import EtudeError, InputError
from etude.files import hash_file
from etude.model.folder import load_model_folder
from etude.places import cache_folder
from etude.plan.disk_use import disk_use
from etude.pretrained import store
from etude.pretrained.base import open_base
from etude.pretrained.chat_tokens import base_tokenizer
from etude.pretrained.facts import licence_of, rounding_of
from etude.pretrained.import_model import import_model
from etude.pretrained.resolve_source import model_folder
from etude.run import RunFolder
from etude.run.checkpoints import checkpoint_name, list_checkpoints, verify_checkpoint
from etude.workflow import jobs
from etude.workflow.prepare import make_plan
from gguf_files import network_tensors, write_gguf
from networks import make_config, make_network

WEIGHTS = "model.safetensors"


@pytest.fixture
def gguf_file(tmp_path: Path) -> Path:
    path = tmp_path / "small.gguf"
    config = make_config("llama-plain", vocab_size=300)
    write_gguf(path, config, network_tensors(make_network(config), config), kind="Q8_0")
    return path


@pytest.fixture
def model(gguf_file: Path, tmp_path: Path, console: Console) -> Path:
    """Return a model folder with a licence and a card."""
    folder = import_model(str(gguf_file), str(tmp_path / "model"), console)
    (folder / "origin.json").unlink()
    (folder / "README.md").write_text("---\nlicense: mit\n---\n")
    (folder / "LICENSE").write_text("Do as you like.\n")
    return folder


Make = Callable[..., Settings]


@pytest.fixture
def begin(text_folder: Path, tmp_path: Path) -> Make:
    """Return a function that returns the settings of two steps from a base."""

    def make(base: Path | str, **train: Any) -> Settings:
        values: dict[str, Any] = {
            "data.sources": (str(text_folder),),
            "data.workers": 1,
            "model.base": str(base),
            "train.steps": 2,
            "train.context": 16,
            "train.batch_rows": 2,
            "train.eval_tokens": 200,
            "device.kind": "cpu",
            "device.threads": 1,
            "run.folder": str(tmp_path / "runs"),
        }
        return load_settings(values=values | {f"train.{key}": value for key, value in train.items()})

    return make


def first(run: RunFolder) -> Path:
    return run.checkpoints / checkpoint_name(0)


def stored() -> list[Path]:
    return [path for path in cache_folder().rglob("*") if path.is_file() and path.stat().st_size > 50_000]


@pytest.mark.parametrize("name", ["README.md", "LICENSE", "tokenizer_config.json", WEIGHTS, "config.json"])
def test_links_that_leave_the_folder_are_refused(model: Path, tmp_path: Path, name: str) -> None:
    """What they name, such as a private key, would be copied into the cache and every checkpoint."""
    other = tmp_path / "elsewhere"
    (model / name).rename(other)
    (model / name).symlink_to(other)
    with pytest.raises(InputError, match="leads out of its folder"):
        open_base(model)
    if name == "tokenizer_config.json":
        with pytest.raises(InputError, match="leads out of its folder"):
            base_tokenizer(model)


def test_links_of_the_hub_are_followed_to_its_own_files_only(model: Path, tmp_path: Path) -> None:
    """Its cache holds ``snapshots/VERSION/NAME``, which are links to ``blobs/HASH``."""
    version = tmp_path / "models--owner--name" / "snapshots" / "abc123"
    blobs = version.parent.parent / "blobs"
    version.mkdir(parents=True)
    blobs.mkdir()
    for number, file in enumerate(model.iterdir()):
        shutil.copy(file, blobs / str(number))
        (version / file.name).symlink_to(Path("../../blobs") / str(number))
    base = open_base(version)
    assert base.hash == open_base(model).hash
    assert base.manifest_entry()["revision"] == "abc123"
    (version / "LICENSE").unlink()
    (version / "LICENSE").symlink_to(model / "LICENSE")
    with pytest.raises(InputError, match="leads out of its folder"):
        open_base(version)


def test_only_plain_files_are_taken(model: Path) -> None:
    (model / "NOTICE").mkdir()
    with pytest.raises(InputError, match=r"NOTICE is not a plain file"):
        open_base(model)
    (model / "NOTICE").rmdir()
    os.mkfifo(model / "NOTICE")
    with pytest.raises(InputError, match=r"NOTICE is not a plain file"):
        open_base(model)
    (model / "NOTICE").unlink()
    (model / "NOTICE").symlink_to("nothing")
    with pytest.raises(InputError, match=r"NOTICE is not a plain file"):
        open_base(model)


@pytest.mark.parametrize("name", ["README.md", "LICENSE", "tokenizer_config.json"])
def test_a_text_of_any_length_is_not_read(model: Path, name: str) -> None:
    os.truncate(model / name, 1 << 40)  # sparse: it takes no space
    with pytest.raises(InputError, match=rf"{name} has more than \d+ MiB"):
        open_base(model)
    if name == "README.md":
        assert licence_of(model) == "mit"


def test_a_tensor_that_is_missing_is_noticed_before_anything_is_written(
    model: Path, begin: Make, console: Console, tmp_path: Path
) -> None:
    config = json.loads((model / "config.json").read_text())
    config["num_hidden_layers"] += 1
    (model / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="missing; restore both files"):
        jobs.grow(begin(model), console)
    assert not (tmp_path / "runs").exists()
    assert not store.store().exists()


def test_a_pattern_without_a_parameter_is_noticed_before_anything_is_written(
    model: Path, begin: Make, console: Console, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="no parameter has"):
        jobs.grow(begin(model, only="layers.77"), console)
    assert not (tmp_path / "runs").exists()
    assert not store.store().exists()


def test_a_dry_run_stores_no_model(model: Path, begin: Make, console: Console) -> None:
    jobs.explain(begin(model), console)
    assert not store.store().exists()


def test_weights_are_linked_read_only_and_small_files_are_copied(
    model: Path, begin: Make, console: Console
) -> None:
    one, two = (jobs.grow(begin(model), console).run for _ in range(2))
    for name in ("config.json", "tokenizer.json", "LICENSE"):
        assert (first(one) / name).stat().st_ino != (first(two) / name).stat().st_ino
        assert (first(one) / name).stat().st_nlink == 1
    weights = (first(one) / WEIGHTS).stat()
    assert weights.st_ino == (first(two) / WEIGHTS).stat().st_ino
    assert weights.st_mode & 0o777 == 0o444
    assert (model / WEIGHTS).stat().st_mode & 0o200  # the user's own stays as it was


def test_the_same_weights_with_other_licences_are_stored_once(
    model: Path, begin: Make, console: Console, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    shutil.copytree(model, other)
    (other / "LICENSE").write_text("All rights reserved.\n")
    (other / "README.md").write_text("---\nlicense: cc-by-nc-4.0\n---\n")
    (other / "origin.json").write_text(json.dumps({"schema": 1, "format": "folder", "source": "elsewhere"}))
    one, two = (jobs.grow(begin(folder), console).run for folder in (model, other))
    assert one.read_manifest()["base"]["hash"] == two.read_manifest()["base"]["hash"]
    assert [one.read_manifest()["base"]["licence"], two.read_manifest()["base"]["licence"]] == [
        "mit",
        "cc-by-nc-4.0",
    ]
    assert (first(one) / WEIGHTS).stat().st_ino == (first(two) / WEIGHTS).stat().st_ino
    assert (first(one) / "LICENSE").read_text() == "Do as you like.\n"
    assert (first(two) / "LICENSE").read_text() == "All rights reserved.\n"
    for run in (one, two):
        for name, value in run.read_manifest()["base"]["files"].items():
            assert hash_file(store.store() / value / store.CONTENT) == value, name


def damage(file: Path) -> None:
    """Change one byte of a file in place, whatever its mode."""
    file.chmod(0o644)
    with file.open("r+b") as content:
        content.seek(-3, os.SEEK_END)
        content.write(b"\x55")


def test_a_damaged_step_0_is_restored_from_the_store(model: Path, begin: Make, console: Console) -> None:
    one, two = (jobs.grow(begin(model), console).run for _ in range(2))
    whole = (first(one) / WEIGHTS).read_bytes()
    (first(one) / WEIGHTS).unlink()
    (first(one) / "tokenizer.json").write_text("{}")
    assert not print_checks(one.path, console)
    assert f"etude train --resume {one.path}  restores it" in console.file.getvalue()  # type: ignore[attr-defined]
    with pytest.raises(InputError, match=f"etude train --resume {one.path} does"):
        verify_checkpoint(first(one))
    jobs.resume(one.path, console, ["train.steps=3"])
    assert (first(one) / WEIGHTS).read_bytes() == whole
    assert print_checks(one.path, console)
    assert (first(one) / WEIGHTS).stat().st_ino == (first(two) / WEIGHTS).stat().st_ino
    assert "{}" in [file.read_text() for file in one.set_aside_folder.iterdir()]


@pytest.mark.parametrize("source", ["folder", "gguf"])
def test_weights_damaged_in_place_are_restored_in_each_run_and_in_the_store(
    model: Path, gguf_file: Path, begin: Make, console: Console, source: str
) -> None:
    """Runs share them with the store, so only the model itself still has a good copy."""
    base = model if source == "folder" else gguf_file
    one, two = (jobs.grow(begin(base), console).run for _ in range(2))
    whole = (first(one) / WEIGHTS).read_bytes()
    damage(first(one) / WEIGHTS)
    assert (first(two) / WEIGHTS).read_bytes() != whole
    three = jobs.grow(begin(base), console).run
    for run in (one, two):
        jobs.resume(run.path, console, ["train.steps=3"])
    for run in (one, two, three):
        assert (first(run) / WEIGHTS).read_bytes() == whole
        assert print_checks(run.path, console)


def test_what_cannot_be_restored_is_reported(model: Path, begin: Make, console: Console) -> None:
    run = jobs.grow(begin(model), console).run
    damage(first(run) / WEIGHTS)
    shutil.rmtree(model)
    assert jobs.resume(run.path, console, ["train.steps=3"]).step == 3
    output = console.file.getvalue()  # type: ignore[attr-defined]
    assert "neither the cache nor" in output
    assert "put it back" in output


def test_an_edit_of_the_converted_weights_converts_the_file_again(gguf_file: Path) -> None:
    folder = model_folder(gguf_file)
    whole = (folder / WEIGHTS).read_bytes()
    damage(folder / WEIGHTS)
    assert (model_folder(gguf_file) / WEIGHTS).read_bytes() == whole


def test_the_space_of_step_0_is_predicted(
    model: Path, begin: Make, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = (model / WEIGHTS).stat().st_size
    settings = begin(model)
    absent = disk_use(make_plan(settings, console)[0]).final
    jobs.grow(settings, console)
    there = disk_use(make_plan(settings, console)[0]).final
    assert absent - there == size  # the store has the weights by now
    with monkeypatch.context() as patch:  # another disk: nothing can be linked
        patch.setattr("etude.pretrained.store.links_to_store", lambda folder: False)
        plan = make_plan(settings, console)[0]
        assert disk_use(plan).final == absent
        copied = jobs.grow(settings, console).run
    assert (first(copied) / WEIGHTS).stat().st_nlink == 1
    files = [file for file in copied.checkpoints.rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) == pytest.approx(absent, rel=0.05)


@pytest.mark.parametrize("step", [0, 2])
def test_the_space_of_a_fork_is_predicted(model: Path, begin: Make, console: Console, step: int) -> None:
    """Its first checkpoint is a copy, and it has none before."""
    run = jobs.grow(begin(model), console).run
    plan, _ = jobs.plan_fork(f"{run.path}@{step}", ["train.steps=9"], {}, console)
    use = disk_use(plan, step)
    fork = jobs.fork(f"{run.path}@{step}", console, ["train.steps=9"]).run
    assert use.kept == len(list_checkpoints(fork.checkpoints))
    files = [file for file in fork.checkpoints.rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) == pytest.approx(use.final, rel=0.05)


def test_the_source_must_not_change_while_it_is_read(model: Path, tmp_path: Path) -> None:
    base = open_base(model)
    assert base.files
    damage(model / WEIGHTS)
    target = tmp_path / "target"
    target.mkdir()
    with pytest.raises(EtudeError, match="was changed while it was read"):
        store.put_files(base, target)


def test_a_run_as_base_is_recorded_with_its_step_licence_and_rounding(
    gguf_file: Path, begin: Make, console: Console, tmp_path: Path
) -> None:
    parent = jobs.grow(begin(gguf_file), console).run
    child = jobs.grow(begin(parent.path), console).run
    entry = child.read_manifest()["base"]
    assert (entry["step"], entry["source"]) == (2, f"{parent.path}@2")
    assert f"the weights of `{parent.path}@2` at step 2" in (first(child) / "README.md").read_text()
    assert f'base = "{parent.path}@2"' in child.settings_file.read_text()
    jobs.resume(parent.path, console, ["train.steps=4"])
    jobs.resume(child.path, console, ["train.steps=3"])
    assert child.read_manifest()["changes"][0]["settings"].keys() == {"train.steps"}
    grandchild = jobs.grow(begin(f"{child.path}@1"), console).run
    assert entry["rounding"] == grandchild.read_manifest()["base"]["rounding"] == "Q8_0"
    copy = import_model(str(grandchild.path), str(tmp_path / "copy"), console)
    assert rounding_of(copy) == "Q8_0"


def test_the_licence_of_a_base_is_that_of_its_grandchildren(
    model: Path, begin: Make, console: Console
) -> None:
    child = jobs.grow(begin(model), console).run
    (child.checkpoints / checkpoint_name(2) / "README.md").unlink()  # may be edited
    grandchild = jobs.grow(begin(child.path), console).run
    assert grandchild.read_manifest()["base"]["licence"] == "mit"
    assert "license: mit\n" in (first(grandchild) / "README.md").read_text()


def test_step_0_is_the_model_itself(model: Path, begin: Make, console: Console) -> None:
    run = jobs.grow(begin(model), console).run
    weights = [load_model_folder(folder)[0].state_dict() for folder in (model, first(run))]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert stored()


def test_the_weights_of_a_converted_file_are_hashed_once_before_they_are_stored(
    gguf_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are in the cache already, and the store links to them; a run on them has intact links."""
    hashed: list[str] = []

    def counted(path: Path) -> str:
        hashed.append(path.name)
        return hash_file(path)

    for module in ("base", "store"):
        monkeypatch.setattr(f"etude.pretrained.{module}.hash_file", counted)
    for name in ("one", "two"):  # the second finds the stored file
        base = open_base(gguf_file)
        (tmp_path / name).mkdir()
        store.put_files(base, tmp_path / name)
        assert hash_file(tmp_path / name / WEIGHTS) == base.files[WEIGHTS]
        assert hashed.count(WEIGHTS) == 1
        assert store.CONTENT not in hashed
        hashed.clear()
