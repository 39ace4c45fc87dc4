"""``etude doctor`` as a user types it: its output and its exit code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from test_cli import etude
from typer.testing import CliRunner

from etude.cli.main import app
from etude.diagnose.machine import report as doctor
from etude.model.layers import ACTIVATION_FUNCTIONS


def test_a_sound_machine_is_exit_code_0(tmp_path: Path) -> None:
    result = etude("doctor", "--set=device.threads=1", "--set=device.kind=cpu", cwd=tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr
    for words in (
        "self-test",
        "computes correctly",
        "versions:",
        "compiler:",
        "GFLOP/s",
        "memory:",
        "disk:",
        "hub is",
    ):
        assert words in result.stdout
    assert not list(tmp_path.iterdir()), "it leaves nothing behind"


def test_without_a_compiler_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", str(tmp_path / "no-such-compiler"))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "inductor"))
    result = etude("doctor", "--json", "--set=device.threads=1", "--set=device.kind=cpu", cwd=tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr
    (line,) = result.stdout.splitlines()
    report = json.loads(line)
    assert report["healthy"] is True
    assert report["compiler"]["works"] is False
    assert "compiler" in report["compiler"]["advice"]


def test_a_device_that_computes_wrongly_is_exit_code_1(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "try_compiler", lambda device: doctor.Compiler(0.5, None))
    monkeypatch.setitem(ACTIVATION_FUNCTIONS, "silu", lambda x: x * torch.sigmoid(1.01 * x))
    options = ["doctor", "--set=device.threads=1", "--set=device.kind=cpu"]
    result = CliRunner().invoke(app, options)
    assert result.exit_code == 1
    assert "computes wrongly" in result.stdout
    result = CliRunner().invoke(app, [*options, "--json"])
    assert result.exit_code == 1
    assert "logits" in json.loads(result.stdout)["self_test"]["problem"]


@pytest.mark.parametrize("option", ["--set=train.lr=1", "--set=device.kind=mps", "--set=device.kid=cpu"])
def test_a_mistake_is_one_line_and_exit_code_2(option: str, tmp_path: Path) -> None:
    if option.endswith("mps") and torch.backends.mps.is_available():
        pytest.skip("this machine has mps")
    result = etude("doctor", option, cwd=tmp_path)
    assert result.returncode == 2
    assert len(result.stderr.strip().splitlines()) == 1
