"""What `etude doctor` measures on a machine, and how it reports it."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import io
import json
import math
import shutil
import tomllib
from pathlib import Path

import pytest
import torch
from rich.console import Console

from etude.config import Settings, load_settings
from etude.device import Device
from etude.diagnose.machine import report as doctor
from etude.errors import InputError
from etude.model.layers import ACTIVATION_FUNCTIONS

CPU = Device("cpu", "fp32", 1)
PROJECT = Path(__file__).parent.parent.parent / "pyproject.toml"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    values = {"run.folder": str(tmp_path / "not" / "there"), "device.threads": 1, "device.kind": "cpu"}
    return load_settings(values=values)


@pytest.fixture
def report(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> doctor.Report:
    monkeypatch.setattr(doctor, "try_compiler", lambda device: doctor.Compiler(0.5, None))
    return doctor.examine(settings)


def text_of(report: doctor.Report) -> str:
    console = Console(file=io.StringIO(), width=120)
    doctor.show(report, console=console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_healthy_machine(report: doctor.Report, tmp_path: Path) -> None:
    assert report.healthy
    runs, cache = report.places
    assert runs.folder == tmp_path / "not" / "there"
    assert not runs.folder.parent.exists(), "the doctor creates no folder"
    assert runs.free_bytes == pytest.approx(shutil.disk_usage(tmp_path).free, rel=0.2)
    assert "cache" in cache.holds
    assert report.memory_total is None or 0 < (report.memory_free or 1) <= report.memory_total
    text = text_of(report)
    for words in (
        "logits",
        "update by Muon",
        "cpu in fp32 computes correctly",
        torch.__version__,
        "GFLOP/s",
        "GiB free",
    ):
        assert words in text
    assert "WRONG" not in text


def test_the_speed_is_that_of_the_dtypes_that_runs_use(monkeypatch: pytest.MonkeyPatch) -> None:
    known = {"fp32": 2e11, "bf16": 4e11}
    monkeypatch.setattr(doctor, "measured_peak_flops", lambda device: known[device.dtype])
    fast = dataclasses.replace(CPU, fast_bf16=True)
    assert doctor._peak_flops(fast, "auto") == known
    assert doctor._products(known) == "200 GFLOP/s in fp32 and 400 GFLOP/s in bf16"
    assert doctor._peak_flops(fast, "fp32") == {"fp32": 2e11}
    assert doctor._peak_flops(dataclasses.replace(CPU, fast_bf16=False), "auto") == {"fp32": 2e11}


def test_the_report_is_plain_values(report: doctor.Report, capsys: pytest.CaptureFixture[str]) -> None:
    doctor.show(report, as_json=True)
    plain = json.loads(capsys.readouterr().out)
    assert plain == doctor.as_plain(report)
    assert {"self_test", "machine", "threads", "compiler", "speed", "memory", "disk", "extras"} <= set(plain)
    assert plain["threads"]["in_use"] == 1
    assert all(
        check["passed"] and check["error"] <= check["tolerance"] for check in plain["self_test"]["checks"]
    )


def test_an_unsound_device_is_reported_as_text_and_as_json(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "try_compiler", lambda device: doctor.Compiler(0.5, None))
    monkeypatch.setitem(ACTIVATION_FUNCTIONS, "silu", lambda x: x * math.nan)
    report = doctor.examine(settings)
    assert not report.healthy
    text = text_of(report)
    assert "the logits are not finite" in text
    assert "WRONG" in text
    doctor.show(report, as_json=True)
    plain = json.loads(capsys.readouterr().out)
    assert (plain["healthy"], plain["self_test"]["passed"]) == (False, False)
    wrong = [check for check in plain["self_test"]["checks"] if not check["passed"]]
    assert wrong[0]["quantity"] == "logits"
    assert wrong[0]["error"] is None


def test_the_compiler_is_really_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("no C++ compiler\nsecond line")

    monkeypatch.setattr(torch, "compile", broken)
    assert doctor.try_compiler(CPU).problem == "RuntimeError: no C++ compiler"
    monkeypatch.setattr(torch, "compile", lambda function, **_: lambda x: function(x) + 1e6)
    assert doctor.try_compiler(CPU).problem == "the compiled function computes wrongly"
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)
    assert doctor.try_compiler(CPU).works


@pytest.mark.parametrize(
    ("kind", "system", "words"),
    [
        ("cpu", "Linux", "apt install g++"),
        ("cpu", "Darwin", "xcode-select --install"),
        ("cpu", "Windows", "Build Tools"),
        ("cpu", "Plan9", "C++ compiler"),
        ("cuda", "Linux", "triton"),
    ],
)
def test_advice_names_what_the_compiler_lacks(
    kind: str, system: str, words: str, monkeypatch: pytest.MonkeyPatch, report: doctor.Report
) -> None:
    monkeypatch.setattr(doctor.platform, "system", lambda: system)
    assert words in doctor.compiler_advice(Device(kind, "fp32", 1))  # type: ignore[arg-type]


def test_every_extra_is_listed_with_what_it_adds(monkeypatch: pytest.MonkeyPatch) -> None:
    declared = tomllib.loads(PROJECT.read_text())["project"]["optional-dependencies"]
    assert set(declared) == set(doctor.WHAT_EXTRAS_ADD)
    version = importlib.metadata.version

    def without_datasets(name: str) -> str:
        if name == "datasets":
            raise importlib.metadata.PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr(importlib.metadata, "version", without_datasets)
    extras = {extra.name: extra for extra in doctor.optional_extras()}
    assert extras["hub"].missing == ("datasets",)
    assert "datasets" in extras["test"].missing
    assert "pip install 'etude[hub]'" in doctor._extra(extras["hub"])


@pytest.mark.parametrize("override", ["train.lr=1", "run.name=x", "devices.kind=cpu"])
def test_settings_that_do_not_concern_the_machine_are_refused(override: str) -> None:
    with pytest.raises(InputError, match="device"):
        doctor.require_machine_settings([override])
    doctor.require_machine_settings(["device.kind=cpu", "run.folder=x"])
