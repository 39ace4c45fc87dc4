"""The machine: the device, dtype and threads of a run; memory; speed.

Importing this module has no side effects. A run chooses its device once, when it starts.
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
"""Precision of matrix products."""


@dataclass(frozen=True)
class Device:
    """The device of a run, and the dtype of its matrix products. Parameters are always fp32.

    The default dtype on a CPU is fp32. For a run, the dial (``etude.plan.dial``) chooses it by ``fast_bf16``.
    """

    kind: Literal["cpu", "cuda", "mps"]
    dtype: Dtype
    threads: int  # of all processes of the run together
    index: int = 0  # of the GPU; 0 on other devices
    fast_bf16: bool = False  # whether bf16 products are known to be faster than fp32

    @property
    def torch(self) -> torch.device:
        """The device for PyTorch."""
        import torch

        # With the index: in a new thread the current device is GPU 0, even if this process has set another.
        return torch.device(self.kind, self.index) if self.kind == "cuda" else torch.device(self.kind)

    def autocast(self) -> AbstractContextManager[Any]:
        """Return the context for the forward pass: bf16 matrix products, or no change for fp32."""
        import torch

        if self.dtype == "fp32":
            return nullcontext()
        return torch.autocast(self.kind, dtype=torch.bfloat16)

    def release_memory(self) -> None:
        """Return the free memory in PyTorch's cache to the device."""
        import torch

        if self.kind == "cuda":
            torch.cuda.empty_cache()
        elif self.kind == "mps":
            torch.mps.empty_cache()

    def synchronize(self) -> None:
        """Wait for all work queued on the device; required before reading a clock."""
        import torch

        if self.kind == "cuda":
            torch.cuda.synchronize()
        elif self.kind == "mps":
            torch.mps.synchronize()


def choose_device(settings: DeviceSettings) -> Device:
    """Return the device of ``settings``, and configure PyTorch for it (threads, full-precision fp32 products).

    Under ``torchrun`` each process gets one GPU, or its share of the threads.

    Raises:
        InputError: this machine does not have the device.
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
    # Without this, compiled code sums the gradient of an embedding with atomics, in the order in which threads arrive:
    # repeating a step gives different bits. Not on a GPU: there it costs too much time.
    torch.use_deterministic_algorithms(kind == "cpu")
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    return Device(kind, dtype, threads, place if kind == "cuda" else 0, fast_bf16)


def has_fast_bf16(kind: Literal["cpu", "cuda", "mps"]) -> bool:
    """Return whether bf16 products are known to be faster than fp32 products, by measurements in the lab notebook.

    On a CPU they are with AMX, and with AVX-512 bf16 on AMD. On Intel without AMX they may be slower; without any bf16
    instructions they run at a hundredth of the speed.
    """
    import torch

    if kind == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    get_capabilities = getattr(torch.cpu, "get_capabilities", None)  # missing in the oldest supported PyTorch
    if kind != "cpu" or get_capabilities is None:
        return False
    capabilities = get_capabilities()
    is_amd = str(capabilities.get("cpu_name", "")).startswith("AMD")
    return bool(capabilities.get("amx_bf16") or (is_amd and capabilities.get("avx512_bf16")))


def keep_freed_memory() -> None:
    """Configure malloc to keep freed memory in this process, for the next step.

    By default glibc maps new pages for every large tensor, and a step spends up to a seventh of its time on clearing
    them (lab notebook). No effect without glibc.
    """
    import ctypes

    trim_threshold, mmap_max = -1, -4  # of <malloc.h>
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # not glibc
        return
    mallopt(mmap_max, 0)
    mallopt(trim_threshold, 2**31 - 1)


def return_free_pages() -> None:
    """Return the pages of freed memory to the system now. No effect without glibc.

    A large network leaves so many holes between the blocks in use that they would take a third more memory.
    """
    import ctypes

    with suppress(AttributeError, OSError, TypeError):  # not glibc
        ctypes.CDLL(None).malloc_trim(0)


def place_on_machine() -> tuple[int, int]:
    """Return (rank, number) of this process among those of ``torchrun`` on this machine; (0, 1) without torchrun.

    Raises:
        InputError: an environment variable of torchrun is invalid.
    """
    return _count_in_environment("LOCAL_RANK", 0), _count_in_environment("LOCAL_WORLD_SIZE", 1)


def place_in_run() -> tuple[int, int]:
    """Return (rank, number) of this process among those of ``torchrun`` on all machines; (0, 1) without torchrun.

    Raises:
        InputError: an environment variable of torchrun is invalid, or another program than torchrun has set it.
    """
    place, count = place_on_machine()
    total = _count_in_environment("WORLD_SIZE", count)
    if total > count and "TORCHELASTIC_RUN_ID" not in os.environ:
        raise InputError(
            f"WORLD_SIZE is {total} where {count} process{' runs' if count == 1 else 'es run'}, and torchrun did not "
            "set it: start the run with torchrun on each machine (--nnodes), or unset WORLD_SIZE"
        )
    return _count_in_environment("RANK", place), total


def _count_in_environment(name: str, default: int) -> int:
    """Return the number in an environment variable of torchrun."""
    value = os.environ.get(name, "")
    if value and not (value.isascii() and value.isdecimal()):
        raise InputError(
            f"the environment variable {name} is {value!r}, and torchrun sets it to a number: unset it"
        )
    return int(value) if value else default


def available_cores() -> int:
    """Return the number of processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def measured_peak_flops(device: Device, seconds: float = 0.3) -> float:
    """Measure floating-point operations per second of a large matrix product in the run's dtype."""
    import torch

    size = 1024 if device.kind == "cpu" else 8192
    dtype = torch.bfloat16 if device.dtype == "bf16" else torch.float32
    left = torch.randn(size, size, device=device.torch).to(dtype)
    right = torch.randn(size, size, device=device.torch).to(dtype)
    return 2 * size**3 * _calls_per_second(device, lambda: left @ right, seconds)


def measured_bandwidth(device: Device, seconds: float = 0.3) -> float:
    """Measure bytes per second that a copy of a large array reads and writes."""
    import torch

    source = torch.zeros(64 * 2**20 // 4, device=device.torch)
    target = torch.empty_like(source)
    return 2 * source.numel() * 4 * _calls_per_second(device, lambda: target.copy_(source), seconds)


def _calls_per_second(device: Device, call: Callable[[], object], seconds: float) -> float:
    """Return the fastest of several short timings: other programs can only slow a timing down."""
    call()  # warm-up: allocates memory, chooses kernels
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
    """Describe the machine and its software, for the manifest of a run."""
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
    """Return the total memory of ``device`` in bytes; None where the system does not report it."""
    import torch

    if device.kind == "cuda":
        return int(torch.cuda.mem_get_info()[1])
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # Windows
        return None


def reset_peak_memory(device: Device) -> None:
    """Reset :func:`peak_memory_bytes`, where the system supports it, so that it covers the time after this call."""
    import torch

    if device.kind == "cuda":
        torch.cuda.reset_peak_memory_stats()
        return
    with suppress(OSError):  # not Linux: the peak remains that of the whole process
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory_bytes(device: Device) -> int | None:
    """Return peak memory in bytes: of PyTorch's allocator on a GPU, else the RSS; None if the OS does not report it."""
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


def free_memory_bytes(kind: str) -> int | None:
    """Return the free memory in bytes of the device of this ``kind``; None where the system does not report it."""
    import torch

    if kind == "cuda":
        return int(torch.cuda.mem_get_info()[0])
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):  # not Linux
        return None


def _processor_name() -> str:
    """Return the model name of the processor, or else its architecture."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _version(library: str) -> str:
    """Return the installed version of a library."""
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def git_commit() -> str | None:
    """Return the git commit of this source tree; None if Etude does not run from one."""
    folder = Path(__file__).parent
    command = ["git", "-C", str(folder), "rev-parse", "HEAD"]
    try:
        completed = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return completed.stdout.strip() or None
