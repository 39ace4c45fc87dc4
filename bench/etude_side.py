"""Etude as a contestant: the only module of the benchmarks that assembles its training from parts."""

from __future__ import annotations

import atexit
import dataclasses
import io
import shutil
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from rich.console import Console

from etude.config import DeviceSettings, Settings, load_settings
from etude.data.prepared_data import prepare
from etude.data.tokens.parts import TokenPart
from etude.device import Dtype, choose_device, measured_peak_flops
from etude.evaluate.ladder import build_ladder
from etude.model.cost import count_parameters, training_flops_per_token
from etude.plan.plan import Plan, initial_state, make_objective, plan_on
from etude.run import RunFolder
from etude.run.writer import RecordWriter
from etude.train.checksum import checksum
from etude.train.compilation import compile_objective
from etude.train.loop import Loop, Task, TrainState
from etude.train.validation import ValidationText
from etude.workflow.prepare import make_plan
from etude.workflow.run_tasks import step_tasks
from memory import MemoryWatch

MODEL_KEYS = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
)
EARLY = 100
"""Steps of a run with more summaries than the later ones."""
PRODUCTS = ("::mm", "addmm", "bmm", "linear", "matmul", "packed_gemm")
"""Parts of the names of operations that multiply matrices."""


class Training:
    """A training of a plan before its first step, compiled as a run would be."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.state: TrainState = initial_state(plan)
        objective = make_objective(plan, self.state)
        begin = time.perf_counter()
        problem = compile_objective(objective, plan.device, plan.settings.device.compile)
        self.compiled = problem is None
        self.compile_seconds = time.perf_counter() - begin if self.compiled else 0.0
        self.num_steps = objective.num_steps
        self.tokens_per_step = objective.tokens_per_step
        self._loop = Loop(self.state, objective, plan.settings.train, plan.device)

    def step(self) -> None:
        """Make one optimizer step."""
        self._loop.one_step()


def settings_of(sources: Sequence[str], overrides: Sequence[str]) -> Settings:
    return load_settings(None, list(overrides), {"data.sources": tuple(sources)})


def quiet_plan(settings: Settings) -> Plan:
    """Return the plan without printing anything. The text is prepared, or loaded from the cache."""
    return make_plan(settings, Console(file=io.StringIO()))[0]


def time_to_loss(
    sources: Sequence[str], overrides: Sequence[str], evaluations: int = 20, max_steps: int | None = None
) -> Callable[[], dict[str, Any]]:
    """Return a round that trains from scratch and scores the validation part ``evaluations`` times, off the clock."""
    plan = quiet_plan(settings_of(sources, overrides))
    validation = ValidationText(plan.data.validation, plan.settings.train.context, plan.device)

    def one_round() -> dict[str, Any]:
        training = Training(plan)
        state, seconds, curve = training.state, 0.0, []
        num_steps = min(training.num_steps, max_steps or training.num_steps)
        eval_every = max(1, num_steps // evaluations)
        while state.step < num_steps:
            begin = time.perf_counter()
            for _ in range(min(eval_every, num_steps - state.step)):
                training.step()
            plan.device.synchronize()
            seconds += time.perf_counter() - begin
            score = validation.score(state.model)
            curve.append((state.step, seconds, score.loss, score.bits_per_byte))
        return {
            "dtype": plan.device.dtype,
            "train_seconds": seconds,
            "compile_seconds": training.compile_seconds,
            "seconds_per_step": seconds / state.step,
            "final_loss": curve[-1][2],
            "final_bits_per_byte": curve[-1][3],
            "steps": state.step,
            "tokens": state.tokens_seen,
            "parameters": sum(parameter.numel() for parameter in state.model.parameters()),
            "curve": curve,
        }

    return one_round


def ngram_rungs(sources: Sequence[str], overrides: Sequence[str]) -> dict[int, float]:
    """Return the bits per byte of n-gram models on the whole validation part, by order."""
    data = quiet_plan(settings_of(sources, overrides)).data
    ladder = build_ladder(data.documents("train"), data.documents("validation"))
    return {rung.order: rung.bits_per_byte for rung in ladder.rungs}


def throughput(
    shape: Mapping[str, int], overrides: Sequence[str], steps: int
) -> Callable[[], dict[str, Any]]:
    """Return a round of ``steps`` steps on random tokens. Compiling and the first two steps are not measured."""
    training = Training(random_text_plan(shape, overrides))
    for _ in range(2):
        training.step()

    def one_round() -> dict[str, Any]:
        begin = time.perf_counter()
        for _ in range(steps):
            training.step()
        training.plan.device.synchronize()
        seconds = (time.perf_counter() - begin) / steps
        return {
            "dtype": training.plan.device.dtype,
            "tokens_per_second": training.tokens_per_step / seconds,
            "seconds_per_step": seconds,
            "compile_seconds": training.compile_seconds,
        }

    return one_round


def watched(shape: Mapping[str, int], overrides: Sequence[str], steps: int) -> Callable[[], dict[str, Any]]:
    """Return a round of ``steps`` steps of the loop with its log, checksums and summaries, as ``overrides`` set them.

    The first round begins at step ``EARLY``, because a run makes additional summaries of its first steps.
    """
    plan = random_text_plan(shape, overrides, biases=True)
    state = initial_state(plan)
    objective = make_objective(plan, state)
    compile_objective(objective, plan.device, plan.settings.device.compile)
    spent: dict[str, list[float]] = {"checksum": [], "summary": []}
    tasks = [timed(task, spent) for task in step_tasks(plan.settings.train, objective)]
    folder = Path(tempfile.mkdtemp(prefix="etude-watching-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    state.step, last = EARLY, EARLY
    loop = Loop(
        state,
        objective,
        plan.settings.train,
        plan.device,
        tasks=tasks,
        listeners=[RecordWriter(RunFolder(folder))],
        should_stop=lambda: state.step >= last,
    )

    def one_round() -> dict[str, Any]:
        nonlocal last
        for times in spent.values():
            times.clear()
        last += steps
        begin = time.perf_counter()
        loop.run()
        plan.device.synchronize()
        seconds = time.perf_counter() - begin
        result: dict[str, Any] = {"seconds_per_step": seconds / steps, "checksum": checksum(state.model)}
        for name, times in spent.items():
            if times:
                calls = 2 if name == "summary" else 1  # a summary is called before and after its step
                count = len(times) // calls
                result |= {f"count_of_{name}": count, f"seconds_per_{name}": sum(times) / count}
        return result | {"share": sum(map(sum, spent.values())) / seconds}

    one_round()  # the first steps allocate memory, and compile what is compiled on first use
    return one_round


def timed(task: Task, spent: Mapping[str, list[float]]) -> Task:
    """Return the task, which then appends the seconds of every call to ``spent``."""
    times = spent["checksum" if task.before is None else "summary"]

    def clocked(call: Callable[[TrainState], Any]) -> Callable[[TrainState], Any]:
        def wrapped(state: TrainState) -> Any:
            begin = time.perf_counter()
            result = call(state)
            times.append(time.perf_counter() - begin)
            return result

        return wrapped

    before = None if task.before is None else clocked(task.before)
    return dataclasses.replace(task, run=clocked(task.run), before=before)


def peak_flops(threads: int, dtype: Dtype, seconds: float = 2.0) -> Callable[[], dict[str, Any]]:
    """Return a round that measures the processor's peak: the rate of a large matrix product, as runs measure it."""
    device = choose_device(DeviceSettings(kind="cpu", dtype=dtype, threads=threads))
    return lambda: {"flops_per_second": measured_peak_flops(device, seconds)}


def profile(shape: Mapping[str, int], overrides: Sequence[str], steps: int) -> Callable[[], dict[str, Any]]:
    """Return a round that measures the seconds per step by kind of work, with torch's profiler.

    The profiler itself slows small operations down.
    """
    import torch
    import torch._inductor.config as inductor

    inductor.cpp.enable_kernel_profile = True  # compiled kernels then appear by name
    training = Training(random_text_plan(shape, overrides))
    for _ in range(2):
        training.step()

    def one_round() -> dict[str, Any]:
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
            for _ in range(steps):
                training.step()
        seconds: dict[str, float] = defaultdict(float)
        for event in profiler.events():
            seconds[kind_of_work(event)] += event.self_cpu_time_total / 1e6 / steps
        return {"kinds": dict(seconds)}

    return one_round


def kind_of_work(event: Any) -> str:
    """Return the part of a step to which an operation of the profile belongs.

    Attention is recognised by its kernel. In bf16 on a CPU it has none, and counts among matrix products and compiled
    kernels.
    """
    names = [event.name]
    while (event := event.cpu_parent) is not None:
        names.append(event.name)
    multiplies = any(part in names[0] for part in PRODUCTS)
    if any(name.startswith("Optimizer.step") for name in names):
        return "optimizer: matrix products" if multiplies else "optimizer: the rest"
    if "attention" in names[0]:
        return "attention"
    if multiplies:
        return "matrix products"
    if any(part in names[0] for part in ("log_softmax", "nll_loss", "cross_entropy", "logsumexp")):
        return "loss"
    return "compiled kernels" if "cpp_fused" in names[0] else "other"


def random_text_plan(shape: Mapping[str, int], overrides: Sequence[str], *, biases: bool = False) -> Plan:
    """Return a plan on random tokens, with a Llama of ``shape``, by default without biases as in transformers."""
    values = {f"model.{key}": value for key, value in shape.items() if key in MODEL_KEYS}
    values |= {"model.attention_bias": biases, "model.mlp_bias": biases, "model.tie_word_embeddings": False}
    values |= {"train.context": shape["context"], "train.batch_rows": shape["rows"], "train.steps": 1_000_000}
    values |= {"train.dropout": 0.0}  # the dial would choose dropout for so many steps over so little text
    settings = load_settings(None, list(overrides), values)
    tokens = np.random.default_rng(0).integers(1, shape["vocab_size"], 1_000_000)
    part = TokenPart.from_documents([tokens], document_id=0)
    tokenizer = SimpleNamespace(vocab_size=shape["vocab_size"], roles=SimpleNamespace(document_id=0))
    data: Any = SimpleNamespace(train=part, validation=part, tokenizer=tokenizer)
    return plan_on(data, settings)


def flops_per_token(shape: Mapping[str, int]) -> tuple[int, float]:
    """Return (parameters, floating-point operations per token of training), with attention counted causally."""
    config = random_text_plan(shape, ()).model
    return count_parameters(config).total, training_flops_per_token(config, shape["context"], causal=True)


def prepared(
    file: str, text_bytes: int, tokenizer: str, workers: int, overrides: Sequence[str]
) -> Callable[[], dict[str, Any]]:
    """Return a round that turns the raw text into shards of tokens, with an empty cache and a given tokenizer."""
    values = {"data.sources": (file,), "tokenizer.kind": tokenizer, "data.workers": workers}
    settings = load_settings(None, list(overrides), values)

    def one_round() -> dict[str, Any]:
        begun: dict[str, float] = {}
        with tempfile.TemporaryDirectory(prefix="etude-prepare-") as cache, MemoryWatch() as watch:
            begin = time.perf_counter()

            def note_stage(stage: str, done: int, total: int | None) -> None:
                begun.setdefault(stage, time.perf_counter() - begin)

            data = prepare(
                settings.data,
                settings.tokenizer,
                family_pattern="llama3",
                seed=1,
                cache=Path(cache),
                progress=note_stage,
            )
            seconds = time.perf_counter() - begin
            parts = (data.train, data.validation)
            tokens = sum(part.num_tokens - part.num_documents for part in parts)
        return {
            "megabytes_per_second": text_bytes / 1e6 / seconds,
            "seconds": seconds,
            "peak_bytes": watch.peak_bytes,
            "text_tokens": tokens,
            "stages_begin_at_seconds": begun,
        }

    return one_round
