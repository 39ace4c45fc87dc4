"""Model folders from GGUF files: made whole or not at all, once, with their origin; what is not supported is named."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from gguf import GGUFWriter

import etude.pretrained.gguf_model as gguf_model
from etude.errors import EtudeError, InputError
from etude.model.folder import load_model_folder
from etude.pretrained.gguf_model import ORIGIN, cached_gguf_folder, folder_from_gguf
from gguf_files import network_tensors, write_gguf
from networks import make_config, make_network
from waiting import PATIENCE

VOCAB = 300


def write(path: Path, name: str = "llama-plain", kind: str = "Q8_0", **options: Any) -> None:
    config = make_config(name, vocab_size=VOCAB)
    write_gguf(path, config, network_tensors(make_network(config), config), kind=kind, **options)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ETUDE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_the_origin_and_the_card(tmp_path: Path) -> None:
    write(tmp_path / "a.gguf")
    folder_from_gguf(tmp_path / "a.gguf", tmp_path / "folder")
    origin = json.loads((tmp_path / "folder" / ORIGIN).read_text())
    content = (tmp_path / "a.gguf").read_bytes()
    assert origin["sha256"] == hashlib.sha256(content).hexdigest()
    assert (origin["source"], origin["bytes"], origin["name"]) == ("a.gguf", len(content), "Tiny")
    assert (origin["license"], origin["architecture"], origin["rounded"]) == ("mit", "llama", True)
    assert origin["token_roles"] == {"bos": 1, "eos": 2, "pad": 0}
    assert origin["stop_tokens"] == [2, 0]
    assert origin["parameters"] == sum(
        p.numel() for p in load_model_folder(tmp_path / "folder")[0].parameters()
    )
    assert sum(counts["parameters"] for counts in origin["quantisation"].values()) == origin["parameters"]
    card = (tmp_path / "folder" / "README.md").read_text()
    assert card.startswith("---\nlicense: mit\n")
    assert origin["sha256"] in card
    assert "Q8_0" in card
    config = json.loads((tmp_path / "folder" / "config.json").read_text())
    assert (config["rms_norm_eps"], config["rope_theta"], config["pad_token_id"]) == (1e-06, 500.0, 0)


def test_words_of_a_stranger_stay_words(tmp_path: Path) -> None:
    def extra(writer: GGUFWriter) -> None:
        writer.add_string("general.license.name", "MIT")
        writer.add_string("tokenizer.chat_template.../../up", "up")
        writer.add_string("tokenizer.chat_template.tools", "tools")

    write(tmp_path / "b.gguf", extra=extra, license="x\nlicense: gpl\n# Title")
    folder_from_gguf(tmp_path / "b.gguf", tmp_path / "folder")
    card = (tmp_path / "folder" / "README.md").read_text()
    assert card.startswith("---\nlicense: other\n")
    assert "\nlicense: gpl" not in card
    names = {
        str(path.relative_to(tmp_path / "folder"))
        for path in (tmp_path / "folder").rglob("*")
        if path.is_file()
    }
    assert {name for name in names if "jinja" in name} == {"additional_chat_templates/tools.jinja"}


def test_a_folder_that_exists_is_not_touched(tmp_path: Path) -> None:
    write(tmp_path / "a.gguf")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="exists already: choose another name"):
        folder_from_gguf(tmp_path / "a.gguf", tmp_path / "folder")
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["mine.txt"]


def test_no_space_is_reported_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "a.gguf")
    monkeypatch.setattr(gguf_model.shutil, "disk_usage", lambda place: type("Usage", (), {"free": 1000})())
    with pytest.raises(EtudeError, match=r"needs 0\.0 GB, and .* has 0\.0 GB free"):
        folder_from_gguf(tmp_path / "a.gguf", tmp_path / "folder")
    assert [path.name for path in tmp_path.iterdir()] == ["a.gguf"]


def test_the_cache_makes_a_folder_once(tmp_path: Path, cache: Path) -> None:
    write(tmp_path / "a.gguf")
    (tmp_path / "b.gguf").write_bytes((tmp_path / "a.gguf").read_bytes())
    folder = cached_gguf_folder(tmp_path / "a.gguf")
    assert folder == cache / "models" / hashlib.sha256((tmp_path / "a.gguf").read_bytes()).hexdigest()
    made = (folder / "model.safetensors").stat()
    assert cached_gguf_folder(tmp_path / "b.gguf") == folder
    assert (folder / "model.safetensors").stat() == made
    load_model_folder(folder)


def test_a_file_that_was_seen_before_is_not_hashed_again(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[Path] = []
    sha256 = gguf_model._sha256
    monkeypatch.setattr(gguf_model, "_sha256", lambda file: (hashed.append(file.path), sha256(file))[1])
    monkeypatch.setattr(gguf_model, "_RECENT_NS", -1)
    path = tmp_path / "a.gguf"
    write(path)
    folder = cached_gguf_folder(path)
    assert cached_gguf_folder(path) == folder
    assert hashed == [path]
    write(path, name="qwen3", kind="F16")
    assert cached_gguf_folder(path) != folder
    assert hashed == [path, path]
    for note in (cache / "models" / "seen").iterdir():
        note.write_text("../" * 20)
    assert cached_gguf_folder(path) != folder
    monkeypatch.setattr(gguf_model, "_RECENT_NS", 2 * 10**9)
    for note in (cache / "models" / "seen").iterdir():
        note.unlink()
    cached_gguf_folder(path)
    assert not list((cache / "models" / "seen").iterdir())


def test_a_file_that_changes_while_it_is_read_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.gguf"
    write(path)
    write_weights = gguf_model.write_weights

    def changed(*args: Any) -> None:
        write_weights(*args)
        path.touch()

    monkeypatch.setattr(gguf_model, "write_weights", changed)
    with pytest.raises(InputError, match="was changed while it was read: try again"):
        folder_from_gguf(path, tmp_path / "folder")
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.gguf"]


def test_a_folder_of_another_version_or_a_damaged_one_is_made_again(tmp_path: Path, cache: Path) -> None:
    write(tmp_path / "a.gguf")
    folder = cached_gguf_folder(tmp_path / "a.gguf")
    for damage in ('{"schema": 0}', "["):
        (folder / ORIGIN).write_text(damage)
        assert cached_gguf_folder(tmp_path / "a.gguf") == folder
        assert json.loads((folder / ORIGIN).read_text())["schema"] == gguf_model.SCHEMA


def test_several_processes_make_one_folder(tmp_path: Path, cache: Path) -> None:
    write(tmp_path / "a.gguf", kind="F32")
    (cache / "models").mkdir(parents=True)
    (cache / "models" / ".staging-left-by-a-killed-process").mkdir()
    program = (
        "import pathlib, sys; import etude.pretrained.gguf_model as m\n"
        "write = m._write_folder\n"
        "def counted(*args, **options): print('made'); write(*args, **options)\n"
        "m._write_folder = counted\n"
        "print(m.cached_gguf_folder(pathlib.Path(sys.argv[1])))\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "a.gguf")]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    lines = [line for process in running for line in process.communicate(timeout=PATIENCE)[0].splitlines()]
    assert all(process.returncode == 0 for process in running)
    assert lines.count("made") == 1
    assert len(set(lines)) == 2
    load_model_folder(Path(next(line for line in lines if line != "made")))
    assert not list((cache / "models").glob(".staging-*"))


REFUSED: dict[str, tuple[Callable[[GGUFWriter], None], str]] = {
    "a sliding window": (
        lambda writer: writer.add_sliding_window(64),
        r"sets llama\.attention\.sliding_window = 64, which is not supported",
    ),
    "experts": (lambda writer: writer.add_expert_count(8), r"sets llama\.expert_count = 8"),
    "a scale of logits": (lambda writer: writer.add_logit_scale(0.5), r"sets llama\.logit_scale = 0\.5"),
    "not causal": (lambda writer: writer.add_causal_attention(False), r"attention\.causal = False"),
    "yarn": (
        lambda writer: writer.add_string("llama.rope.scaling.type", "yarn"),
        "its rotary positions are scaled by 'yarn'",
    ),
    "another tensor": (
        lambda writer: writer.add_tensor(
            "blk.0.ffn_gate_inp.weight",
            make_network(make_config("llama")).state_dict()["model.norm.weight"].numpy(),
        ),
        r"has the tensor blk\.0\.ffn_gate_inp\.weight, which a llama network does not have",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_the_network_cannot_compute_is_refused_by_name(kind: str, tmp_path: Path) -> None:
    extra, message = REFUSED[kind]
    write(tmp_path / "a.gguf", extra=extra)
    with pytest.raises(InputError, match=rf"a\.gguf.*{message}"):
        folder_from_gguf(tmp_path / "a.gguf", tmp_path / "folder")
    assert not (tmp_path / "folder").exists()


def test_absent_properties_are_accepted(tmp_path: Path) -> None:
    write(tmp_path / "a.gguf", extra=lambda writer: writer.add_expert_count(0))
    folder_from_gguf(tmp_path / "a.gguf", tmp_path / "folder")


def test_other_architectures_are_refused_with_the_list(tmp_path: Path) -> None:
    write(tmp_path / "a.gguf")
    content = (tmp_path / "a.gguf").read_bytes()
    (tmp_path / "a.gguf").write_bytes(content.replace(b"\5\0\0\0\0\0\0\0llama", b"\5\0\0\0\0\0\0\0mamba", 1))
    with pytest.raises(InputError, match=r"the architecture 'mamba': only llama, qwen3, gpt2.* can be read"):
        folder_from_gguf(tmp_path / "a.gguf", tmp_path / "folder")


def test_a_missing_tensor_or_one_of_another_shape_is_named(tmp_path: Path) -> None:
    config = make_config("llama-plain", vocab_size=VOCAB)
    tensors = network_tensors(make_network(config), config)
    missing = {name: tensor for name, tensor in tensors.items() if "layers.1.mlp.up_proj" not in name}
    write_gguf(tmp_path / "a.gguf", config, missing)
    with pytest.raises(InputError, match=r"it has no tensor blk\.1\.ffn_up\.weight"):
        folder_from_gguf(tmp_path / "a.gguf", tmp_path / "folder")
    name = "model.layers.0.mlp.up_proj.weight"
    write_gguf(tmp_path / "a.gguf", config, tensors | {name: tensors[name][:-1]})
    with pytest.raises(InputError, match=r"the shape of blk\.0\.ffn_up\.weight is"):
        folder_from_gguf(tmp_path / "a.gguf", tmp_path / "folder")


def test_more_tokens_than_rows_are_refused(tmp_path: Path) -> None:
    from gguf_files import published_tokenizer

    write(tmp_path / "a.gguf", stated=published_tokenizer("qwen2", VOCAB + 1))
    with pytest.raises(InputError, match=f"{VOCAB + 1} tokens, and {VOCAB} rows"):
        folder_from_gguf(tmp_path / "a.gguf", tmp_path / "folder")
