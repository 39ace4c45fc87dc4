"""Links, pipes and devices in folders from strangers; and no code from anywhere."""

from __future__ import annotations

import ast
import os
from pathlib import Path
from typing import Any

import pytest
import torch

import etude
from etude.config import to_toml
from etude.data.reading.sources import open_sources
from etude.data.tokens.published import existing_tokenizer
from etude.data.tokens.vocabulary import train_char
from etude.errors import EtudeError, InputError
from etude.run import RunFolder
from etude.run.listing import list_runs
from etude.run.record import RunRecord
from resolved import resolved_settings

SOURCE = Path(etude.__file__).parent


def test_the_source_runs_no_code_from_a_file() -> None:
    forbidden = {"eval", "exec", "compile", "__import__"}
    found = []
    for file in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            names = []
            if isinstance(node, ast.Import | ast.ImportFrom):
                modules = (
                    [a.name for a in node.names] if isinstance(node, ast.Import) else [node.module or ""]
                )
                names = [
                    m
                    for m in modules
                    if m.split(".")[0] in {"pickle", "dill", "joblib", "shelve", "marshal", "yaml"}
                ]
            elif isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                safe = any(k.arg == "weights_only" and ast.unparse(k.value) == "True" for k in node.keywords)
                trusting = any(
                    k.arg in ("allow_pickle", "trust_remote_code") and ast.unparse(k.value) != "False"
                    for k in node.keywords
                )
                if called in forbidden or trusting or (called == "torch.load" and not safe):
                    names = [called]
                elif called in ("np.load", "numpy.load"):
                    explicit = any(k.arg == "allow_pickle" for k in node.keywords)
                    names = [] if explicit else [called]
            found += [f"{file.relative_to(SOURCE)}:{node.lineno} {name}" for name in names]
    assert found == []


def stranger(folder: Path) -> RunFolder:
    """A run folder with settings in it."""
    folder.mkdir()
    run = RunFolder(folder)
    run.settings_file.write_text(to_toml(resolved_settings()))
    return run


@pytest.mark.parametrize(
    "name", ["metrics.jsonl", "checkpoints", "manifest.json", "tokenizer", "derived", ".lock"]
)
def test_a_run_with_a_link_out_of_it_is_refused(name: str, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "diary.txt").write_text("dear diary")
    run = stranger(tmp_path / "run")
    (run.path / name).symlink_to(
        mine if name in ("checkpoints", "tokenizer", "derived") else mine / "diary.txt"
    )
    with pytest.raises(InputError, match=rf"{name} is a link that leads out of the run"):
        RunFolder.open(run.path)
    assert [line.state for line in list_runs(tmp_path)] == ["damaged"]
    if name == ".lock":
        with pytest.raises(EtudeError, match=r"could not write .*\.lock"), run.locked():
            pass
    assert (mine / "diary.txt").read_text() == "dear diary"


def test_a_pipe_among_the_files_of_a_run_is_not_waited_for(tmp_path: Path) -> None:
    run = stranger(tmp_path / "run")
    for name in ("metrics.jsonl", "samples.jsonl", "status.json"):
        os.mkfifo(run.path / name)
    assert RunRecord.open(run.path).history.steps == []
    assert run.status() == {}
    os.mkfifo(run.ladder_file)
    with pytest.raises(InputError, match="not a plain file"):
        _ = RunRecord.open(run.path).history


def test_a_device_is_no_text(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="neither a file nor a folder"):
        open_sources(["/dev/zero"], text_field="text", max_bytes=None, seed=1, spool=tmp_path)


def test_optimizer_state_of_another_kind_is_refused_by_name() -> None:
    from etude.train.optimizer import _matching

    expected: Any = ("w.exp_avg", (2, 3), torch.float32)
    assert _matching({"w.exp_avg": torch.ones(2, 3)}, *expected).sum() == 6
    for wrong in (torch.ones(2, 3, dtype=torch.int32), torch.ones(3, 2), torch.ones(2, 3).half()):
        with pytest.raises(InputError, match=r"'w\.exp_avg' has shape"):
            _matching({"w.exp_avg": wrong}, *expected)


def test_a_deeply_nested_tokenizer_configuration_says_nothing(tmp_path: Path) -> None:
    train_char(["abc"]).save(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text("[" * 200_000)
    assert existing_tokenizer(tmp_path).roles.document == "<|endoftext|>"
