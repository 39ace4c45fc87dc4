from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from etude.config import DeviceSettings
from etude.device import (
    Device,
    choose_device,
    describe_machine,
    measured_bandwidth,
    measured_peak_flops,
)
from etude.errors import InputError


def test_auto_is_a_device_that_computes() -> None:
    device = choose_device(DeviceSettings(threads=1))
    assert device.threads == torch.get_num_threads() == 1
    with device.autocast():
        product = torch.ones(2, 2, device=device.torch) @ torch.ones(2, 2, device=device.torch)
    device.synchronize()
    assert product.sum().item() == 8
    if device.kind == "cpu" and platform.system() == "Linux":
        flags = Path("/proc/cpuinfo").read_text().split()
        by_amd = "AuthenticAMD" in flags and "avx512_bf16" in flags
        assert device.fast_bf16 == (by_amd or "amx_bf16" in flags)
        assert device.dtype == "fp32"  # unless a run is wide enough


@pytest.mark.parametrize("kind", ["cuda", "mps"])
def test_a_device_that_is_not_there_is_refused(kind: str) -> None:
    there = torch.cuda.is_available() if kind == "cuda" else torch.backends.mps.is_available()
    if there:
        pytest.skip(f"this machine has {kind}")
    with pytest.raises(InputError, match=r"device\.kind=cpu"):
        choose_device(DeviceSettings(kind=kind))  # type: ignore[arg-type]


def test_bf16_products_are_bf16() -> None:
    with Device("cpu", "bf16", 1).autocast():
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16


def test_speeds_are_measured_and_possible() -> None:
    device = Device("cpu", "fp32", 1)
    # Between a slow emulator and the largest accelerator there is.
    assert 1e8 < measured_peak_flops(device, 0.05) < 1e17
    assert 1e7 < measured_bandwidth(device, 0.05) < 1e14


def test_the_machine_is_described_in_plain_values() -> None:
    import json

    description = describe_machine(Device("cpu", "fp32", 1))
    assert json.loads(json.dumps(description)) == description
    assert description["versions"]["torch"] == torch.__version__


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's own rule")
def test_memory_that_a_step_frees_is_there_for_the_next() -> None:
    code = (
        "import resource, torch; from etude.device import keep_freed_memory; keep_freed_memory()\n"
        "def faults(): return resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "before = faults()\n"
        "for _ in range(100): torch.ones(8_000_000)\n"
        "print(faults() - before)"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(answer.stdout) < 20 * 8_000_000 * 4 / 4096  # without the rule 100 times a tensor's pages
