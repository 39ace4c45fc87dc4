"""The machine: which device computes, in which arithmetic, with how many threads, and how fast it is.

Nothing here happens at import; a run chooses its device once, at its start.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from etude.config import DeviceSettings
from etude.errors import InputError

if TYPE_CHECKING:
    import torch

VERSIONED_LIBRARIES = ("etude", "torch", "numpy", "tokenizers", "safetensors", "pydantic")

Dtype = Literal["fp32", "bf16"]
"""Arithmetic of matrix products."""


@dataclass(frozen=True)
class Device:
    """Where and how the arithmetic of a run happens. Parameters are fp32 whatever ``dtype`` says.

    A processor computes in fp32 unless told; for a run the dial decides (``etude.plan.dial``), by ``fast_bf16``.
    """

    kind: Literal["cpu", "cuda", "mps"]
    dtype: Dtype
    threads: int  # of all the processes of the run together
    index: int = 0  # which GPU of the machine; 0 elsewhere
    fast_bf16: bool = False  # whether bf16 products are known to be faster than fp32 ones

    @property
    def torch(self) -> torch.device:
        import torch

        # By number: a thread of its own would otherwise begin at the first GPU, whatever this process chose.
        return torch.device(self.kind, self.index) if self.kind == "cuda" else torch.device(self.kind)

    def autocast(self) -> AbstractContextManager[Any]:
        """The context in which the forward pass runs: bf16 matrix products, or nothing at all."""
        import torch

        if self.dtype == "fp32":
            return nullcontext()
        return torch.autocast(self.kind, dtype=torch.bfloat16)

    def release_memory(self) -> None:
        """Give back what PyTorch keeps of the device's memory for later use."""
        import torch

        if self.kind == "cuda":
            torch.cuda.empty_cache()
        elif self.kind == "mps":
            torch.mps.empty_cache()

    def synchronize(self) -> None:
        """Wait until the device has done all it was asked; needed before a clock is read."""
        import torch

        if self.kind == "cuda":
            torch.cuda.synchronize()
        elif self.kind == "mps":
            torch.mps.synchronize()


def choose_device(settings: DeviceSettings) -> Device:
    """The device that ``settings`` ask for, ready to use (threads set, fp32 products in full fp32).

    Of the processes that ``torchrun`` started each gets a GPU of its own, or its share of the threads.

    Raises:
        InputError: a device that this machine does not have.
    """
    import torch

    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    kind = settings.kind
    if kind == "auto":
        kind = "cuda" if available["cuda"] else "cpu"
    if not available[kind]:
        raise InputError(f"this machine has no '{kind}' device: use --set device.kind=cpu (or auto)")
    place, processes = place_on_machine()
    if kind == "cuda":
        if place >= torch.cuda.device_count():
            raise InputError(
                f"torchrun started {processes} processes and this machine has {torch.cuda.device_count()} "
                f"GPUs: use --nproc-per-node={torch.cuda.device_count()}"
            )
        torch.cuda.set_device(place)
    fast_bf16 = has_fast_bf16(kind)
    dtype = settings.dtype
    if dtype == "auto":
        dtype = "bf16" if kind == "cuda" and fast_bf16 else "fp32"
    threads = available_cores() if settings.threads == "auto" else settings.threads
    torch.set_num_threads(max(1, threads // processes))
    torch.set_float32_matmul_precision("highest")
    # Compiled code would otherwise add up an embedding's gradient with atomics, in whatever order threads arrive:
    # the same step would not give the same bits twice. A GPU is not asked to: there it costs more than it is worth.
    torch.use_deterministic_algorithms(kind == "cpu")
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    return Device(kind, dtype, threads, place if kind == "cuda" else 0, fast_bf16)


def has_fast_bf16(kind: Literal["cpu", "cuda", "mps"]) -> bool:
    """Whether bf16 products are known to be faster than fp32 ones: from measurements in the lab notebook.

    On a CPU they are with AMX, and with the AVX-512 instructions of AMD's; those of Intel's without AMX may be slower,
    and a CPU without any is at a hundredth of its speed.
    """
    import torch

    if kind == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    tell = getattr(torch.cpu, "get_capabilities", None)  # newer than the oldest PyTorch that Etude takes
    if kind != "cpu" or tell is None:
        return False
    found = tell()
    by_amd = str(found.get("cpu_name", "")).startswith("AMD")
    return bool(found.get("amx_bf16") or (by_amd and found.get("avx512_bf16")))


def keep_freed_memory() -> None:
    """Let this process keep the memory that it frees, for its next step.

    glibc otherwise takes every large tensor fresh from the system, and a step spends up to a seventh of its time on
    having the same pages cleared again (notebook). Elsewhere nothing changes.
    """
    import ctypes

    trim_threshold, mmap_max = -1, -4  # of <malloc.h>
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # not glibc
        return
    mallopt(mmap_max, 0)
    mallopt(trim_threshold, 2**31 - 1)


def place_on_machine() -> tuple[int, int]:
    """Which of the processes that ``torchrun`` started here this one is, and how many they are; else (0, 1).

    Raises:
        InputError: the environment that is to say so is damaged.
    """
    return _count_in_environment("LOCAL_RANK", 0), _count_in_environment("LOCAL_WORLD_SIZE", 1)


def require_one_machine() -> None:
    """Raises InputError where this process is one of several machines': each would train a run of its own."""
    _, count = place_on_machine()
    everywhere = _count_in_environment("WORLD_SIZE", count)
    if everywhere > count:
        raise InputError(
            f"a run is trained on one machine, and WORLD_SIZE is {everywhere} where {count} "
            f"{'process runs' if count == 1 else 'processes run'} on this one: use torchrun with --nproc-per-node and "
            "without --nnodes; without torchrun, unset WORLD_SIZE"
        )


def _count_in_environment(name: str, otherwise: int) -> int:
    value = os.environ.get(name, "")
    if value and not (value.isascii() and value.isdecimal()):
        raise InputError(
            f"the environment variable {name} is {value!r}, and torchrun sets it to a number: unset it"
        )
    return int(value) if value else otherwise


def available_cores() -> int:
    """Processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def measured_peak_flops(device: Device, seconds: float = 0.3) -> float:
    """Floating-point operations a second of a large matrix product in the run's arithmetic."""
    import torch

    size = 1024 if device.kind == "cpu" else 8192
    dtype = torch.bfloat16 if device.dtype == "bf16" else torch.float32
    left = torch.randn(size, size, device=device.torch).to(dtype)
    right = torch.randn(size, size, device=device.torch).to(dtype)
    return 2 * size**3 * _calls_per_second(device, lambda: left @ right, seconds)


def measured_bandwidth(device: Device, seconds: float = 0.3) -> float:
    """Bytes a second that a copy of a large array reads and writes."""
    import torch

    source = torch.zeros(64 * 2**20 // 4, device=device.torch)
    target = torch.empty_like(source)
    return 2 * source.numel() * 4 * _calls_per_second(device, lambda: target.copy_(source), seconds)


def _calls_per_second(device: Device, call: Callable[[], object], seconds: float) -> float:
    """The fastest of several short timings: other programs can only make a timing slower."""
    call()
    device.synchronize()
    best, deadline = 0.0, time.perf_counter() + seconds
    while time.perf_counter() < deadline:
        start = time.perf_counter()
        for _ in range(3):
            call()
        device.synchronize()
        best = max(best, 3 / (time.perf_counter() - start))
    return best


def describe_machine(device: Device) -> dict[str, Any]:
    """What a manifest says of the machine and its software."""
    import torch

    accelerator = torch.cuda.get_device_name() if device.kind == "cuda" else None
    return {
        "processor": _processor_name(),
        "cores": available_cores(),
        "accelerator": accelerator,
        "system": platform.platform(),
        "python": platform.python_version(),
        "device": device.kind,
        "dtype": device.dtype,
        "threads": device.threads,
        "versions": {name: _version(name) for name in VERSIONED_LIBRARIES},
        "git_commit": git_commit(),
    }


def total_memory_bytes(device: Device) -> int | None:
    """The memory that ``device`` has in all (None where the system does not say)."""
    import torch

    if device.kind == "cuda":
        return int(torch.cuda.mem_get_info()[1])
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # Windows
        return None


def reset_peak_memory(device: Device) -> None:
    """From now on :func:`peak_memory_bytes` tells the most that is used after this call, where the system can."""
    import torch

    if device.kind == "cuda":
        torch.cuda.reset_peak_memory_stats()
        return
    with suppress(OSError):  # not Linux: it stays the peak of the whole process
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory_bytes(device: Device) -> int | None:
    """The most memory that this process has used: of a GPU PyTorch's part, else all of it; None where nobody says."""
    import torch

    if device.kind == "cuda":
        return int(torch.cuda.max_memory_allocated())
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    try:
        import resource
    except ImportError:  # Windows
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if platform.system() == "Darwin" else 1024)


def free_memory_bytes(device: Device) -> int | None:
    """What of it could be taken now (None where the system does not say)."""
    import torch

    if device.kind == "cuda":
        return int(torch.cuda.mem_get_info()[0])
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):  # not Linux
        return None


def _processor_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _version(library: str) -> str:
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def git_commit() -> str | None:
    """The commit of this source tree, when Etude runs from one."""
    here = Path(__file__).parent
    command = ["git", "-C", str(here), "rev-parse", "HEAD"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip() or None
