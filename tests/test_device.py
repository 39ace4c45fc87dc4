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
        assert device.dtype == "fp32"  # only the dial chooses bf16, for a wide network


@pytest.mark.parametrize("kind", ["cuda", "mps"])
def test_a_missing_device_is_refused(kind: str) -> None:
    available = torch.cuda.is_available() if kind == "cuda" else torch.backends.mps.is_available()
    if available:
        pytest.skip(f"this machine has {kind}")
    with pytest.raises(InputError, match=r"device\.kind=cpu"):
        choose_device(DeviceSettings(kind=kind))  # type: ignore[arg-type]


def test_bf16_products_are_bf16() -> None:
    with Device("cpu", "bf16", 1).autocast():
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16


def test_measured_speeds_are_plausible() -> None:
    device = Device("cpu", "fp32", 1)
    # Between a slow emulator and the fastest accelerators.
    assert 1e8 < measured_peak_flops(device, 0.05) < 1e17
    assert 1e7 < measured_bandwidth(device, 0.05) < 1e14


def test_the_description_of_the_machine_is_plain_json() -> None:
    import json

    description = describe_machine(Device("cpu", "fp32", 1))
    assert json.loads(json.dumps(description)) == description
    assert description["versions"]["torch"] == torch.__version__


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of glibc")
def test_freed_memory_is_kept_for_the_next_step() -> None:
    code = (
        "import resource, torch; from etude.device import keep_freed_memory; keep_freed_memory()\n"
        "def faults(): return resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "before = faults()\n"
        "for _ in range(100): torch.ones(8_000_000)\n"
        "print(faults() - before)"
    )
    completed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(completed.stdout) < 20 * 8_000_000 * 4 / 4096  # without it, the pages of 100 tensors
