"""Etude as a contestant: the only module of the benchmarks that knows how its training is put together."""

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
from etude.data.prepare import prepare
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
from etude.workflow.fit import step_tasks
from etude.workflow.prepare import make_plan
from memory import MemoryWatch

MODEL_KEYS = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
)
EARLY = 100
"""Steps of a run that are watched more closely than the others."""
PRODUCTS = ("::mm", "addmm", "bmm", "linear", "matmul", "packed_gemm")
"""How operations that multiply matrices are called."""


class Training:
    """A plan about to be trained, compiled as a run of it would be."""

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
        """One step of optimisation."""
        self._loop.one_step()


def settings_of(sources: Sequence[str], overrides: Sequence[str]) -> Settings:
    return load_settings(None, list(overrides), {"data.sources": tuple(sources)})


def quiet_plan(settings: Settings) -> Plan:
    """The plan, with nothing shown; the text is prepared, or found prepared in the cache."""
    return make_plan(settings, Console(file=io.StringIO()))[0]


def time_to_loss(
    sources: Sequence[str], overrides: Sequence[str], evaluations: int = 20, max_steps: int | None = None
) -> Callable[[], dict[str, Any]]:
    """A whole training, stopped so many times to score the whole validation part, off the clock."""
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
    """Bits per byte that counting achieves on the whole validation part, by order."""
    data = quiet_plan(settings_of(sources, overrides)).data
    ladder = build_ladder(data.documents("train"), data.documents("validation"))
    return {rung.order: rung.bits_per_byte for rung in ladder.rungs}


def throughput(
    shape: Mapping[str, int], overrides: Sequence[str], steps: int
) -> Callable[[], dict[str, Any]]:
    """``steps`` steps on random tokens; compiling and the first two steps are not measured."""
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
    """``steps`` steps of the loop with its record, and with what a run notes of its own steps as ``overrides`` say.

    It begins at step ``EARLY``, as if those before had been made: a run has a few more summaries of its first steps.
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
        found: dict[str, Any] = {"seconds_per_step": seconds / steps, "checksum": checksum(state.model)}
        for name, times in spent.items():
            if times:
                count = len(times) // (
                    1 + (name == "summary")
                )  # of which each looks before and after its step
                found |= {f"count_of_{name}": count, f"seconds_per_{name}": sum(times) / count}
        return found | {"share": sum(map(sum, spent.values())) / seconds}

    one_round()  # the first steps find the memory, and compile what is compiled on first use
    return one_round


def timed(task: Task, spent: Mapping[str, list[float]]) -> Task:
    """The task, with a note of the seconds of every call."""
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
    """What the processor does at most: the rate of a large matrix product, as runs measure it."""
    device = choose_device(DeviceSettings(kind="cpu", dtype=dtype, threads=threads))
    return lambda: {"flops_per_second": measured_peak_flops(device, seconds)}


def profile(shape: Mapping[str, int], overrides: Sequence[str], steps: int) -> Callable[[], dict[str, Any]]:
    """Seconds a step by kind of work, from torch's profiler, which itself slows small operations down."""
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
    """Which part of a step an operation of the profile belongs to.

    Attention is told by its kernel: in bf16 on a CPU it is matrix products and compiled kernels like others.
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
    """A plan on random tokens, with a Llama of ``shape`` as transformers builds it: without biases."""
    wanted = {f"model.{key}": value for key, value in shape.items() if key in MODEL_KEYS}
    wanted |= {"model.attention_bias": biases, "model.mlp_bias": biases, "model.tie_word_embeddings": False}
    wanted |= {"train.context": shape["context"], "train.batch_rows": shape["rows"], "train.steps": 1_000_000}
    wanted |= {"train.dropout": 0.0}  # which a run of so many steps over so little text would have
    settings = load_settings(None, list(overrides), wanted)
    tokens = np.random.default_rng(0).integers(1, shape["vocab_size"], 1_000_000)
    part = TokenPart.from_documents([tokens], document_id=0)
    tokenizer = SimpleNamespace(vocab_size=shape["vocab_size"], roles=SimpleNamespace(document_id=0))
    data: Any = SimpleNamespace(train=part, validation=part, tokenizer=tokenizer)
    return plan_on(data, settings)


def flops_per_token(shape: Mapping[str, int]) -> tuple[int, float]:
    """(parameters, floating-point operations a token of training), attention counted causally."""
    config = random_text_plan(shape, ()).model
    return count_parameters(config).total, training_flops_per_token(config, shape["context"], causal=True)


def prepared(
    file: str, text_bytes: int, tokenizer: str, workers: int, overrides: Sequence[str]
) -> Callable[[], dict[str, Any]]:
    """From the raw text to shards of tokens, without a cache from before, with a tokenizer that is there."""
    values = {"data.sources": (file,), "tokenizer.kind": tokenizer, "data.workers": workers}
    settings = load_settings(None, list(overrides), values)

    def one_round() -> dict[str, Any]:
        begun: dict[str, float] = {}
        with tempfile.TemporaryDirectory(prefix="etude-prepare-") as cache, MemoryWatch() as watch:
            begin = time.perf_counter()

            def tell(stage: str, done: int, total: int | None) -> None:
                begun.setdefault(stage, time.perf_counter() - begin)

            data = prepare(
                settings.data,
                settings.tokenizer,
                family_pattern="llama3",
                seed=1,
                cache=Path(cache),
                progress=tell,
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
