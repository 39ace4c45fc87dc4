"""Sources of models: every way to name one gives a model folder, and `etude import` makes a folder of it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from rich.console import Console

from etude.config import load_settings
from etude.errors import InputError
from etude.generate.language import load
from etude.model.folder import load_model_folder
from etude.pretrained.base import open_base
from etude.pretrained.facts import licence_of, rounding_of
from etude.pretrained.import_model import import_model
from etude.pretrained.resolve_source import model_folder
from etude.pretrained.source_names import source_name
from etude.run.checkpoints import checkpoint_name
from etude.workflow import jobs
from gguf_files import network_tensors, write_gguf
from networks import make_config, make_network

VOCAB = 300


@pytest.fixture
def gguf_file(tmp_path: Path) -> Path:
    path = tmp_path / "small.gguf"
    config = make_config("llama-plain", vocab_size=VOCAB)
    write_gguf(path, config, network_tensors(make_network(config), config), kind="Q8_0")
    return path


def printed(console: Console) -> str:
    return console.file.getvalue()  # type: ignore[attr-defined,no-any-return]


def test_a_gguf_file_is_imported_with_its_rounding(
    gguf_file: Path, tmp_path: Path, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = import_model(str(gguf_file), None, console)
    assert folder == Path("small")
    output = printed(console)
    assert "rounded when the file was made: Q8_0" in output
    assert "begins a document" in output
    assert rounding_of(folder) == "Q8_0"
    one, two = load_model_folder(folder)[0], load_model_folder(model_folder(gguf_file))[0]
    assert all(torch.equal(one.state_dict()[name], two.state_dict()[name]) for name in one.state_dict())
    with pytest.raises(InputError, match="exists already"):
        import_model(str(gguf_file), None, console)


def test_a_folder_without_a_usable_tokenizer_is_refused_before_it_is_copied(
    gguf_file: Path, tmp_path: Path, console: Console
) -> None:
    folder = import_model(str(gguf_file), str(tmp_path / "small"), console)
    (folder / "tokenizer.json").rename(folder / "tokenizer.model")
    with pytest.raises(
        InputError, match=r"small has a tokenizer\.model and no tokenizer\.json: write it once"
    ):
        import_model(str(folder), str(tmp_path / "copy"), console)
    assert not (tmp_path / "copy").exists()


def test_an_imported_folder_is_imported_again_with_its_origin(
    gguf_file: Path, tmp_path: Path, console: Console
) -> None:
    first = import_model(str(gguf_file), str(tmp_path / "one"), console)
    second = import_model(str(first), str(tmp_path / "two"), console)
    assert (second / "origin.json").read_bytes() == (first / "origin.json").read_bytes()
    assert open_base(second).hash == open_base(first).hash


def test_a_run_begins_with_a_gguf_file(
    gguf_file: Path, text_folder: Path, tmp_path: Path, console: Console
) -> None:
    values: dict[str, Any] = {
        "data.sources": (str(text_folder),),
        "data.workers": 1,
        "model.base": str(gguf_file),
        "train.steps": 2,
        "train.context": 16,
        "train.batch_rows": 2,
        "train.eval_tokens": 200,
        "train.sample_every": 1000,
        "device.kind": "cpu",
        "device.threads": 1,
        "run.folder": str(tmp_path / "runs"),
    }
    run = jobs.grow(load_settings(values=values), console).run
    assert "its weights were rounded when the file was made (Q8_0)" in printed(console)
    assert run.read_manifest()["base"]["rounding"] == "Q8_0"
    first = run.checkpoints / checkpoint_name(0) / "model.safetensors"
    assert first.stat().st_ino == (model_folder(gguf_file) / "model.safetensors").stat().st_ino
    assert isinstance(load(f"{run.path}@1").generate("One", max_new_tokens=3), str)


def test_a_folder_that_is_copied_records_where_it_came_from(
    gguf_file: Path, tmp_path: Path, console: Console
) -> None:
    folder = import_model(str(gguf_file), str(tmp_path / "one"), console)
    (folder / "origin.json").unlink()
    (folder / "README.md").write_text("---\ntags:\n- a\nlicense: 'apache-2.0'\n---\nlicense: mit\n")
    copy = import_model(str(folder), str(tmp_path / "two"), console)
    origin = json.loads((copy / "origin.json").read_text())
    assert origin["source"] == str(folder)
    assert origin["license"] == licence_of(copy) == "apache-2.0"
    assert rounding_of(copy) is None


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("nothing", "is not a run or a model folder"),
        ("nothing@5", "is not a run or a model folder"),
        ("text.txt", "is no model"),
        ("config.json", "give the folder"),
        ("hf:name", "type hf:owner/name"),
        ("hf:a/b/c", "type hf:owner/name"),
    ],
)
def test_what_is_no_model_is_refused(source: str, words: str, tmp_path: Path) -> None:
    for name in ("text.txt", "config.json"):
        (tmp_path / name).write_text("words")
    with pytest.raises(InputError, match=words):
        model_folder(source if source.startswith("hf:") else tmp_path / source)


def test_without_the_library_of_the_hub_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(InputError, match=r"pip install 'etude\[hub\]'"):
        model_folder("hf:owner/name")


def test_a_hub_that_cannot_be_reached_is_one_line() -> None:
    """The tests have no network: this is the library's own error."""
    pytest.importorskip("huggingface_hub")
    with pytest.raises(InputError, match="hf:owner/name cannot be downloaded"):
        model_folder("hf:owner/name")


def test_no_pickles_are_downloaded(monkeypatch: pytest.MonkeyPatch, gguf_file: Path) -> None:
    hub = pytest.importorskip("huggingface_hub")
    requested: dict[str, Any] = {}
    folder = model_folder(gguf_file)

    def download(repository: str, **options: Any) -> str:
        requested.update(options, repository=repository)
        return str(folder)

    assert isinstance(hub, ModuleType)
    monkeypatch.setattr(hub, "snapshot_download", download)
    assert model_folder("hf:owner/name@v2") == folder
    assert (requested["repository"], requested["revision"]) == ("owner/name", "v2")
    assert not any(
        pattern.endswith((".bin", ".pt", ".pkl", "*")) and "LICENSE" not in pattern
        for pattern in requested["allow_patterns"]
    )


@pytest.mark.parametrize(
    ("source", "name"), [("hf:owner/some-model@v2", "some-model"), ("folder/other", "other")]
)
def test_the_folder_is_named_as_the_model(source: str, name: str) -> None:
    assert source_name(source) == name
