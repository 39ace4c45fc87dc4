"""``etude doctor``: test the device that a run would choose, and report what the machine has for a run."""

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
from etude.places import cache_folder, expanded
from etude.setting_types import Auto
from etude.show.lines import say

MACHINE_SETTINGS = ("device.", "run.folder")
WHAT_EXTRAS_ADD = {
    "hub": "data sets of the Hugging Face Hub: etude train hf:owner/name",
    "documents": "text of .pdf, .docx and .rtf files",
    "eval": "public benchmarks through lm-eval: BLiMP, LAMBADA, HellaSwag and others by their names",
    "test": "the project's own tests and checks, for who changes its code",
}


@dataclass(frozen=True)
class Compiler:
    """Whether ``torch.compile`` works here: tried, not looked up."""

    seconds: float
    problem: str | None

    @property
    def works(self) -> bool:
        return self.problem is None


@dataclass(frozen=True)
class Place:
    """A folder that is written to, and what is free there."""

    holds: str
    folder: Path
    free_bytes: int


@dataclass(frozen=True)
class Extra:
    """An optional part of this package."""

    name: str
    adds: str
    missing: tuple[str, ...]  # of the packages that it needs


@dataclass(frozen=True)
class Report:
    """All that ``etude doctor`` says of a machine."""

    self_test: SelfTest
    machine: dict[str, Any]
    threads_in_use: int
    compiler: Compiler
    peak_flops: dict[Dtype, float]  # a second, in each arithmetic that runs use here
    bandwidth: float  # bytes a second
    memory_total: int | None
    memory_free: int | None
    places: tuple[Place, ...]
    extras: tuple[Extra, ...]

    @property
    def healthy(self) -> bool:
        """Whether a run may begin here."""
        return self.self_test.passed


def require_machine_settings(overrides: Sequence[str]) -> None:
    """Only settings of the machine mean something here.

    Raises:
        InputError: another one.
    """
    for override in overrides:
        if not override.startswith(MACHINE_SETTINGS):
            raise InputError(
                f"only --set device.* and run.folder mean something here: leave {override.split('=')[0]} out"
            )


def examine(settings: Settings) -> Report:
    """Test, try and measure; takes a few seconds, most of them for a compilation.

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
        memory_free=free_memory_bytes(device),
        places=(
            _place("runs", Path(settings.run.folder)),
            _place("cache of prepared text, which ETUDE_CACHE chooses", cache_folder()),
        ),
        extras=optional_extras(),
    )


def _peak_flops(device: Device, asked: Dtype | Auto) -> dict[Dtype, float]:
    """Of the arithmetic that was asked for; where it is left open, of both that the dial chooses from."""
    both = asked == "auto" and device.kind == "cpu" and device.fast_bf16
    used: tuple[Dtype, ...] = ("fp32", "bf16") if both else (device.dtype,)
    return {dtype: measured_peak_flops(dataclasses.replace(device, dtype=dtype)) for dtype in used}


def try_compiler(device: Device) -> Compiler:
    """Compile a function of one line, run it there, and compare."""
    # A number that no function had before: what an earlier compilation left in a cache would prove nothing.
    shift = float(time.time_ns() % 10**9)
    x = torch.linspace(0, 1, 64, device=device.torch)
    began = time.perf_counter()
    try:
        found = torch.compile(lambda x: (x.sin() + shift).sum(), dynamic=False)(x)
        agrees = math.isclose(float(found), float((x.sin() + shift).sum()), rel_tol=1e-5)
        problem = None if agrees else "what it compiled computes wrongly"
    except Exception as error:  # the compiler's failures have no common type
        lines = str(error).strip().splitlines()
        problem = f"{type(error).__name__}: {lines[0][:120] if lines else 'no message'}"
    return Compiler(time.perf_counter() - began, problem)


def compiler_advice(device: Device) -> str:
    """What to install where ``torch.compile`` does not work."""
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
    """The extras that this package's metadata names, and which of their packages are missing."""
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
    folder = expanded(folder).absolute()
    there = next(parent for parent in (folder, *folder.parents) if os.path.isdir(parent))
    return Place(holds, folder, shutil.disk_usage(there).free)


def as_plain(report: Report) -> dict[str, Any]:
    """The report in plain values, for JSON. An error that is not a finite number is null."""
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
    """Print the report, for a person or as one JSON object."""
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
    for heading in ("self-test", "error", "at most", ""):
        table.add_column(
            heading, justify="right" if heading in ("error", "at most") else "left", no_wrap=True
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
        f"{where} computes rightly. This was one update of a small network, and operations that devices are known "
        f"to get wrong, against float64 on the CPU, in {test.seconds:.1f} s; errors are relative to what is computed."
    )


def _facts(report: Report) -> list[tuple[str, str]]:
    machine, compiler = report.machine, report.compiler
    versions = " ".join(f"{name} {version}" for name, version in machine["versions"].items())
    compiles = f"torch.compile works (a line of code took {compiler.seconds:.1f} s)"
    if not compiler.works:
        advice = compiler_advice(report.self_test.device)
        compiles = (
            f"torch.compile does not work ({compiler.problem}): runs go on without it, slower; {advice}"
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
            f"{_products(report.peak_flops)}, {report.bandwidth / 1e9:,.1f} GB/s, measured just now",
        ),
        ("memory", _memory(report)),
    ]
    facts += [
        ("disk", f"{p.free_bytes / 2**30:,.1f} GiB free for {p.holds} ({p.folder})") for p in report.places
    ]
    return facts + [("extra", _extra(extra)) for extra in report.extras]


def _products(peak_flops: dict[Dtype, float]) -> str:
    said = [f"{flops / 1e9:,.0f} GFLOP/s in {dtype}" for dtype, flops in peak_flops.items()]
    return " and ".join(said)


def _memory(report: Report) -> str:
    if report.memory_total is None:
        return "the system does not say"
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
