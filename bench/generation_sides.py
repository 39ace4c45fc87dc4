"""The contestants of generate.py: Etude, transformers, and the memory bandwidth of the machine."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from etude.config import DeviceSettings
from etude.device import Dtype, choose_device
from etude.model.build import build_model
from etude.model.config import preset
from etude.model.folder import load_model_folder, save_model_folder

CASES = {
    "1 row, greedy": (1, 0.0),
    "1 row, sampled": (1, 0.8),
    "8 rows, greedy": (8, 0.0),
    "8 rows, sampled": (8, 0.8),
}
"""Rows and temperature. Sampled cases also have top_p 0.95."""
TOP_P = 0.95
PROMPT_TOKENS = 16
_READ_BYTES = 512 * 2**20


def make_checkpoint(folder: Path, shape: Mapping[str, Any]) -> int:
    """Save a Llama with random weights, and return its number of parameters.

    The weights are large enough for one token to stand out, as in a trained network, so that sampling costs as much as
    in real use.
    """
    config = preset("llama", attention_bias=False, mlp_bias=False, **shape)
    model = build_model(config, seed=1)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "layers." in name and parameter.dim() == 2:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) / parameter.shape[1] ** 0.5)
        head = model.unembedding()[0]
        head.copy_(torch.randn(head.shape, generator=generator) * 3 / head.shape[1] ** 0.5)
    save_model_folder(folder, model, config, None)
    return sum(parameter.numel() for parameter in model.parameters())


def prompts(rows: int) -> list[list[int]]:
    generator = torch.Generator().manual_seed(3)
    return torch.randint(1, 1000, (rows, PROMPT_TOKENS), generator=generator).tolist()


def etude(
    folder: str, tokens: int, threads: int, compile: bool = False, dtype: Dtype = "fp32"
) -> Callable[[], dict[str, float]]:
    """Return a round of `etude.generate`, uncompiled, or compiled (then only cases with one row)."""
    from etude.generate.engine import generate
    from etude.generate.sampling import SamplingSettings

    choose_device(DeviceSettings(kind="cpu", threads=threads))
    model = load_model_folder(Path(folder))[0].eval()

    def run(rows: int, temperature: float) -> list[int]:
        top_p = TOP_P if temperature else 1.0
        settings = SamplingSettings(temperature=temperature, top_p=top_p, max_new_tokens=tokens)
        made = generate(model, prompts(rows), settings, stop_ids=(), seed=1, compile=compile, dtype=dtype)
        return made[0].token_ids

    cases = {name: case for name, case in CASES.items() if case[0] == 1 or not compile}
    return _measured(run, cases, tokens)


def transformers(
    folder: str, tokens: int, threads: int, static: bool = False, dtype: Dtype = "fp32"
) -> Callable[[], dict[str, float]]:
    """Return a round of `transformers.generate` with its default cache, or a static one (then compiled if possible)."""
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    torch.set_num_threads(threads)
    torch_dtype = torch.bfloat16 if dtype == "bf16" else torch.float32
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch_dtype).eval()
    if static:
        model.forward = torch.compile(model.forward, fullgraph=True)

    def run(rows: int, temperature: float) -> list[int]:
        inputs = torch.tensor(prompts(rows))
        options: dict[str, Any] = {"do_sample": bool(temperature)}
        if temperature:
            options |= {"temperature": temperature, "top_p": TOP_P, "top_k": 0}
        if static:
            options["cache_implementation"] = "static"
        made = model.generate(
            inputs,
            attention_mask=torch.ones_like(inputs),
            min_new_tokens=tokens,
            max_new_tokens=tokens,
            use_cache=True,
            pad_token_id=0,
            eos_token_id=None,
            **options,
        )
        answer: list[int] = made[0, PROMPT_TOKENS:].tolist()
        return answer

    cases = {name: case for name, case in CASES.items() if case[0] == 1 or not static}
    return _measured(run, cases, tokens)


def _measured(
    run: Callable[[int, float], list[int]], cases: Mapping[str, tuple[int, float]], tokens: int
) -> Callable[[], dict[str, Any]]:
    """Call each case once to warm up. A round then measures the median of three calls of each, in tokens per second."""
    warm: dict[str, Any] = {}
    for name, case in cases.items():
        begin = time.perf_counter()
        answer = run(*case)
        warm[f"first call of {name}, seconds"] = time.perf_counter() - begin
        if name == "1 row, greedy":
            warm["answer"] = answer

    def one_round() -> dict[str, Any]:
        result: dict[str, Any] = dict(warm)
        for name, (rows, temperature) in cases.items():
            seconds = []
            for _ in range(3):
                begin = time.perf_counter()
                answer = run(rows, temperature)
                seconds.append(time.perf_counter() - begin)
                assert len(answer) == tokens
            result[name] = rows * tokens / statistics.median(seconds)
        return result

    return one_round


def bandwidth(threads: int) -> Callable[[], dict[str, float]]:
    """Return a round that measures the bytes per second at which all threads together read 512 MiB.

    It is the fastest of several compiled matrix-vector products, which write only one number per row, and of several
    `torch.sum`. `etude.device.measured_bandwidth` (a copy, which reads and writes) is noted beside it.
    """
    from etude.device import measured_bandwidth

    device = choose_device(DeviceSettings(kind="cpu", threads=threads))
    matrix = torch.randn(_READ_BYTES // 4 // 1024, 1024)
    vector = torch.randn(1024)
    product = torch.compile(lambda: (matrix * vector).sum(dim=-1))

    def fastest(call: Callable[[], object]) -> float:
        times = []
        for _ in range(8):
            begin = time.perf_counter()
            call()
            times.append(time.perf_counter() - begin)
        return _READ_BYTES / min(times)

    def one_round() -> dict[str, float]:
        by_product, by_sum = fastest(product), fastest(lambda: matrix.sum())
        return {
            "bytes_per_second": max(by_product, by_sum),
            "product_bytes_per_second": by_product,
            "sum_bytes_per_second": by_sum,
            "copy_bytes_per_second": measured_bandwidth(device),
        }

    product()
    return one_round
