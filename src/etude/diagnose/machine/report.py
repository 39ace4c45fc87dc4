"""``etude doctor``: test the device that a run would use, and report what the machine offers a run."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import math
import os
import platform
import re
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from etude.config import Settings
from etude.device import (
    Device,
    Dtype,
    available_cores,
    choose_device,
    describe_machine,
    free_memory_bytes,
    measured_bandwidth,
    measured_peak_flops,
    total_memory_bytes,
)
from etude.diagnose.machine.self_test import SelfTest, remedy, self_test
from etude.errors import InputError
from etude.places import cache_folder, expand_home
from etude.setting_types import Auto
from etude.show.lines import say

MACHINE_SETTINGS = ("device.", "run.folder")
WHAT_EXTRAS_ADD = {
    "hub": "data sets and models of the Hugging Face Hub, by hf:owner/name",
    "structured": "answers of `etude serve` that follow a JSON schema",
    "llamacpp": "comparisons of GGUF files with llama.cpp in the tests",
    "documents": "text of .pdf, .docx and .rtf files",
    "eval": "public benchmarks through lm-eval: BLiMP, LAMBADA, HellaSwag and others by their names",
    "test": "the project's own tests and checks, for its developers",
}


@dataclass(frozen=True)
class Compiler:
    """Whether ``torch.compile`` works on this machine, by compiling something."""

    seconds: float
    problem: str | None

    @property
    def works(self) -> bool:
        return self.problem is None


@dataclass(frozen=True)
class Place:
    """A folder that runs write to, and its free space."""

    holds: str
    folder: Path
    free_bytes: int


@dataclass(frozen=True)
class Extra:
    """An optional part of this package."""

    name: str
    adds: str
    missing: tuple[str, ...]  # packages that it needs and that are not installed


@dataclass(frozen=True)
class Report:
    """Everything ``etude doctor`` reports of a machine."""

    self_test: SelfTest
    machine: dict[str, Any]
    threads_in_use: int
    compiler: Compiler
    peak_flops: dict[Dtype, float]  # per second, in each dtype that runs use
    bandwidth: float  # bytes per second
    memory_total: int | None
    memory_free: int | None
    places: tuple[Place, ...]
    extras: tuple[Extra, ...]

    @property
    def healthy(self) -> bool:
        """Whether a run may start on this machine."""
        return self.self_test.passed


def require_machine_settings(overrides: Sequence[str]) -> None:
    """Refuse settings that do not concern the machine.

    Raises:
        InputError: an override of another setting.
    """
    for override in overrides:
        if not override.startswith(MACHINE_SETTINGS):
            raise InputError(
                f"the doctor uses only --set device.* and run.folder: omit {override.split('=')[0]}"
            )


def examine(settings: Settings) -> Report:
    """Test and measure the machine; takes a few seconds, mostly for a compilation.

    Raises:
        InputError: a device that this machine does not have.
    """
    device = choose_device(settings.device)
    return Report(
        self_test=self_test(device),
        machine=describe_machine(device),
        threads_in_use=torch.get_num_threads(),
        compiler=try_compiler(device),
        peak_flops=_peak_flops(device, settings.device.dtype),
        bandwidth=measured_bandwidth(device),
        memory_total=total_memory_bytes(device),
        memory_free=free_memory_bytes(device.kind),
        places=(
            _place("runs", Path(settings.run.folder)),
            _place("cache of prepared text (set by ETUDE_CACHE)", cache_folder()),
        ),
        extras=optional_extras(),
    )


def _peak_flops(device: Device, requested: Dtype | Auto) -> dict[Dtype, float]:
    """Return the peak of the requested dtype, or if that is auto, of both that the dial chooses from."""
    both = requested == "auto" and device.kind == "cpu" and device.fast_bf16
    dtypes: tuple[Dtype, ...] = ("fp32", "bf16") if both else (device.dtype,)
    return {dtype: measured_peak_flops(dataclasses.replace(device, dtype=dtype)) for dtype in dtypes}


def try_compiler(device: Device) -> Compiler:
    """Compile a one-line function, run it on the device, and compare the results."""
    # A constant never used before: otherwise an earlier compilation's cache could answer.
    shift = float(time.time_ns() % 10**9)
    x = torch.linspace(0, 1, 64, device=device.torch)
    began = time.perf_counter()
    try:
        compiled = torch.compile(lambda x: (x.sin() + shift).sum(), dynamic=False)(x)
        agrees = math.isclose(float(compiled), float((x.sin() + shift).sum()), rel_tol=1e-5)
        problem = None if agrees else "the compiled function computes wrongly"
    except Exception as error:  # compiler failures have no common base class
        lines = str(error).strip().splitlines()
        problem = f"{type(error).__name__}: {lines[0][:120] if lines else 'no message'}"
    return Compiler(time.perf_counter() - began, problem)


def compiler_advice(device: Device) -> str:
    """Return what to install if ``torch.compile`` does not work."""
    if device.kind == "cuda":
        return (
            "install a C compiler and Python's headers (apt install gcc python3-dev), and pip install triton"
        )
    by_system = {
        "Linux": "install a C++ compiler: apt install g++ (Debian, Ubuntu) or dnf install gcc-c++ (Fedora)",
        "Darwin": "install the command line tools: xcode-select --install",
        "Windows": "install the Visual Studio Build Tools with C++, and start from their command prompt",
    }
    return by_system.get(platform.system(), "install a C++ compiler")


def optional_extras() -> tuple[Extra, ...]:
    """Return the extras that this package's metadata names, with their missing packages."""
    try:
        metadata = importlib.metadata.metadata("etude")
    except importlib.metadata.PackageNotFoundError:  # run from a source tree that was never installed
        return ()
    extras = []
    for name in metadata.get_all("Provides-Extra") or []:
        wanted = re.compile(rf"extra\s*==\s*['\"]{re.escape(name)}['\"]")
        packages = [
            re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0]
            for requirement in importlib.metadata.requires("etude") or []
            if wanted.search(requirement)
        ]
        missing = tuple(package for package in packages if not _is_installed(package))
        extras.append(Extra(name, WHAT_EXTRAS_ADD.get(name, ", ".join(packages)), missing))
    return tuple(extras)


def _is_installed(package: str) -> bool:
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _place(holds: str, folder: Path) -> Place:
    folder = expand_home(folder).absolute()
    existing = next(parent for parent in (folder, *folder.parents) if os.path.isdir(parent))
    return Place(holds, folder, shutil.disk_usage(existing).free)


def as_plain(report: Report) -> dict[str, Any]:
    """Return the report as plain values for JSON. An error that is not finite is null."""
    test, device = report.self_test, report.self_test.device
    checks = [
        {
            "quantity": check.name,
            "error": check.error if math.isfinite(check.error) else None,
            "tolerance": check.tolerance,
            "passed": check.passed,
            "worst": check.where or None,
        }
        for check in test.checks
    ]
    return {
        "healthy": report.healthy,
        "self_test": {
            "device": dataclasses.asdict(device),
            "passed": test.passed,
            "problem": test.problem,
            "seconds": test.seconds,
            "checks": checks,
        },
        "machine": report.machine,
        "threads": {"cores": available_cores(), "in_use": report.threads_in_use},
        "compiler": {
            "works": report.compiler.works,
            "seconds": report.compiler.seconds,
            "problem": report.compiler.problem,
            "advice": None if report.compiler.works else compiler_advice(device),
        },
        "speed": {"peak_flops": report.peak_flops, "bandwidth": report.bandwidth},
        "memory": {"total": report.memory_total, "free": report.memory_free},
        "disk": [
            {"holds": place.holds, "folder": str(place.folder), "free_bytes": place.free_bytes}
            for place in report.places
        ],
        "extras": [
            {
                "name": extra.name,
                "installed": not extra.missing,
                "missing": list(extra.missing),
                "adds": extra.adds,
            }
            for extra in report.extras
        ],
    }


def show(report: Report, *, as_json: bool = False, console: Console | None = None) -> None:
    """Print the report, as text or as one JSON object."""
    if as_json:
        print(json.dumps(as_plain(report), allow_nan=False))
        return
    console = console or Console()
    test = report.self_test
    console.print(_table(test))
    say(console, _verdict(test) + "\n")
    for label, text in _facts(report):
        say(console, f"{label + ':':<14}{text}")


def _table(test: SelfTest) -> Table:
    table = Table(box=None, header_style="bold")
    for heading in ("self-test", "error", "allowed", ""):
        table.add_column(
            heading, justify="right" if heading in ("error", "allowed") else "left", no_wrap=True
        )
    table.add_column("largest in", overflow="fold")
    for check in test.checks:
        limit = f"{check.tolerance:.0e}" if check.tolerance else "exact"
        verdict = "ok" if check.passed else "WRONG"
        table.add_row(check.name, f"{check.error:.1e}", limit, verdict, check.where)
    return table


def _verdict(test: SelfTest) -> str:
    where = f"{test.device.kind} in {test.device.dtype}"
    if test.problem is not None:
        return f"{test.problem}; {remedy(test.device)}"
    return (
        f"{where} computes correctly. The test compared one update of a small network, and operations that devices are "
        f"known to get wrong, with float64 on the CPU, in {test.seconds:.1f} s. Errors are relative."
    )


def _facts(report: Report) -> list[tuple[str, str]]:
    machine, compiler = report.machine, report.compiler
    versions = " ".join(f"{name} {version}" for name, version in machine["versions"].items())
    compiles = f"torch.compile works (one line of code took {compiler.seconds:.1f} s)"
    if not compiler.works:
        advice = compiler_advice(report.self_test.device)
        compiles = (
            f"torch.compile does not work ({compiler.problem}): runs work without it, but slower; {advice}"
        )
    facts = [
        ("versions", f"{versions}, python {machine['python']}, {machine['system']}"),
        (
            "processor",
            f"{machine['processor']}, {machine['cores']} cores, {report.threads_in_use} threads used",
        ),
        ("accelerator", str(machine["accelerator"] or "none")),
        ("compiler", compiles),
        (
            "speed",
            f"{_products(report.peak_flops)}, {report.bandwidth / 1e9:,.1f} GB/s, measured now",
        ),
        ("memory", _memory(report)),
    ]
    facts += [
        ("disk", f"{p.free_bytes / 2**30:,.1f} GiB free for {p.holds} ({p.folder})") for p in report.places
    ]
    return facts + [("extra", _extra(extra)) for extra in report.extras]


def _products(peak_flops: dict[Dtype, float]) -> str:
    speeds = [f"{flops / 1e9:,.0f} GFLOP/s in {dtype}" for dtype, flops in peak_flops.items()]
    return " and ".join(speeds)


def _memory(report: Report) -> str:
    if report.memory_total is None:
        return "not reported by the system"
    total = f"{report.memory_total / 2**30:,.1f} GiB"
    return (
        total if report.memory_free is None else f"{total}, of which {report.memory_free / 2**30:,.1f} free"
    )


def _extra(extra: Extra) -> str:
    if not extra.missing:
        return f"{extra.name} is installed: {extra.adds}"
    return (
        f"{extra.name} is not installed ({', '.join(extra.missing)} missing). pip install 'etude[{extra.name}]' "
        f"adds {extra.adds}"
    )
