"""The plan of a run: tokens, device and resolved settings; and the objects that are built from them.

Training and replay both build model, objective and evaluation text by these functions, so that they are identical.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial

import numpy as np
from torch import Tensor

from etude.config import NO_BASE, Resolved, Settings
from etude.data.prepared_data import PreparedData
from etude.data.reference import ReferenceText
from etude.data.tokens.packing import training_rows
from etude.data.tokens.parts import TokenPart
from etude.device import (
    Device,
    choose_device,
    free_memory_bytes,
    keep_freed_memory,
    place_in_run,
    total_memory_bytes,
)
from etude.errors import InputError
from etude.model.attention import takes_blocks
from etude.model.build import build_model, zero_model
from etude.model.config import ModelConfig
from etude.model.cost import TrainingMemory, training_memory
from etude.model.init import initialise
from etude.model.run_layer import compiles_by_layer
from etude.plan.derivation import Derived, Facts
from etude.plan.dial import Resolution, resolve
from etude.plan.divided_memory import chosen_shard, memory_of_piece, require_processes
from etude.plan.forecast import Forecast
from etude.plan.sizes import Size
from etude.pretrained.base import Base
from etude.train.divided import divided_model
from etude.train.loop import TrainState
from etude.train.loss import MOST_LOGITS, piece_positions
from etude.train.objectives import LossScope, Objective, ObjectiveParts, objective_kind, require_objective
from etude.train.optimizer import (
    UpdateRules,
    freeze_others,
    layers_in_backward,
    require_trained,
    saved_weights,
    state_bytes,
    trained_parameters,
    trains_head,
)
from etude.train.parallel import ALONE, Ranks, require_even_rows
from etude.train.validation import TOKENS_AT_ONCE, ValidationText

PROCESS_BYTES = 380 * 2**20
"""Memory of a process that trains on a CPU, before it has a network: Python, PyTorch, tokenizers (Linux)."""
HOLES = 0.18
"""Share of a step's memory in freed blocks between those in use, measured for SmolLM2-135M (lab notebook)."""
LARGEST_COPY = 2**30
"""Bytes of weights and optimizer state up to which a checkpoint is written from a copy in the same memory."""


@dataclass(frozen=True)
class Plan:
    """A run that is ready to start."""

    device: Device
    data: PreparedData
    resolution: Resolution
    expected: Forecast | None = None  # if the size was chosen for a time budget
    base: Base | None = None  # of a new run that begins with the weights of a published model

    @property
    def settings(self) -> Resolved:
        """The resolved settings."""
        return self.resolution.settings

    @property
    def model(self) -> ModelConfig:
        """The configuration of the network."""
        return self.resolution.model

    @cached_property
    def scope(self) -> LossScope | None:
        """The tokens that the losses of the run count, in training and in evaluations; None: all of them."""
        return objective_kind(self.settings.train.objective).scope(self.data, self.settings)

    @property
    def state_every(self) -> int:
        """Steps between the old checkpoints that keep their optimizer state; the others keep only weights."""
        every = self.settings.train.state_every
        return 1 if every == "auto" else every

    @property
    def saves_in_background(self) -> bool:
        """Whether checkpoints are written from a copy while training continues: a large copy takes too much memory."""
        train = self.settings.train
        copied = state_bytes(self.model, train.optimizer, train.only) + 4 * saved_weights(self.model)
        return self.device.kind == "cuda" or copied < LARGEST_COPY

    @cached_property
    def shard(self) -> int:
        """The number of processes that share one copy of the network."""
        whole, available = self._memory_of_copy(), total_memory_bytes(self.device)
        return chosen_shard(self.settings, self.model, place_in_run()[1], whole, available)

    @property
    def memory(self) -> TrainingMemory:
        """Peak memory of a step of one process, counted from the configuration."""
        whole = self._memory_of_copy()
        return whole if self.shard == 1 else memory_of_piece(whole, self.model, self.shard)

    def _memory_of_copy(self) -> TrainingMemory:
        """Return the peak memory of a process with a whole copy of the network."""
        train, on_cpu = self.settings.train, self.device.kind == "cpu"
        context, rounded = train.context, self.device.dtype == "bf16"
        memory = training_memory(
            self.model,
            batch_size=train.micro_batch_rows,
            context=context,
            trained=trained_parameters(self.model, train.only),
            state_bytes=state_bytes(self.model, train.optimizer, train.only),
            recompute=train.activation_checkpointing,
            in_blocks=takes_blocks(self.device.kind, rounded, context),
            compiled=self.settings.device.compile is not False and self.compiles_by_layer,
            snapshot=self.device.kind != "cuda" and self.saves_in_background,
            compared=self.device.kind != "cuda" and train.summary_every > 0,
            rounded=rounded,
            accumulated=train.batch_rows > train.micro_batch_rows * place_in_run()[1],
            layers=layers_in_backward(self.model, train.only),
            trains_head=trains_head(self.model, train.only),
            piece=piece_positions(self.model.vocab_size, lean=self.has_base),
            evaluated=min(self.evaluated_at_once, train.eval_tokens),
            sampled=self.model.family.decodes_fast,
            process=PROCESS_BYTES if on_cpu else 0,
        )
        return replace(memory, holes=HOLES if on_cpu else 0.0)

    @property
    def has_base(self) -> bool:
        """Whether the run began with the weights of a base model."""
        return self.settings.model.base != NO_BASE

    @property
    def compiles_by_layer(self) -> bool:
        """Whether all layers share the code of one, where the run is compiled."""
        return self.has_base and compiles_by_layer(self.model, self.settings.train.dropout)

    @property
    def compiled_layers(self) -> int:
        """Layers whose compilation takes time: where all share code, the first two at most."""
        layers = self.model.num_hidden_layers
        return min(layers, 2) if self.compiles_by_layer else layers

    @property
    def pass_tokens(self) -> int:
        """Tokens that the steps of one pass over the text read: of conversations, with what pads their rows."""
        part, context = self.data.train, self.settings.train.context
        return part.num_tokens if part.examples is None else _packed_rows(part, context) * context

    @property
    def evaluated_at_once(self) -> int:
        """Tokens that an evaluation reads together: fewer for the large vocabulary of a base model."""
        if not self.has_base:
            return TOKENS_AT_ONCE
        return max(self.settings.train.context, min(TOKENS_AT_ONCE, MOST_LOGITS // self.model.vocab_size))


def plan_on(
    data: PreparedData,
    settings: Settings,
    timed: Size | None = None,
    expected: Forecast | None = None,
    derived: Derived | None = None,
    base: ModelConfig | None = None,
) -> Plan:
    """Plan a run on prepared text.

    Args:
        timed: the size that was chosen for a time budget.
        expected: the forecast of its loss.
        derived: settings derived from measurements, with their reasons.
        base: the configuration of the base model, of a run that has one.

    Raises:
        InputError: contradictory settings, a text that does not fit the objective, or a model that does not fit the
            machine.
    """
    objective_kind(settings.train.objective).require(data, settings)
    requested = settings.device
    if requested.threads == "auto" and "device.threads" in (derived or {}):
        requested = requested.model_copy(update={"threads": (derived or {})["device.threads"][0]})
    device = choose_device(requested)
    facts = _facts_of(data)
    if settings.train.stop_early and facts.has_pairs:
        raise InputError(
            "--stop-early compares bits per byte, and the loss of pairs of answers is in another unit: omit it"
        )
    resolution = resolve(settings, facts, device, timed, derived, base)
    device = replace(device, dtype=resolution.settings.device.dtype)
    require_trained(resolution.model, resolution.settings.train.only)
    if data.tokenizer.vocab_size > resolution.model.vocab_size:
        raise InputError(
            f"the tokenizer has {data.tokenizer.vocab_size} tokens and the model {resolution.model.vocab_size}: "
            "they do not belong together"
        )
    context, positions = resolution.settings.train.context, resolution.model.max_position_embeddings
    if context > positions:
        raise InputError(
            f"train.context={context} is more than the {positions} positions of the base model: choose at most that"
        )
    plan = Plan(device, data, resolution, expected)
    _, processes = place_in_run()
    require_even_rows(plan.settings.train.batch_rows, processes)
    needed, available = plan.memory.total, total_memory_bytes(device)
    if available is not None and needed > available:
        smaller = "a smaller --size," if base is None else "--train for fewer parameters, a smaller"
        raise InputError(
            f"this would need about {needed / 2**30:,.0f} GiB of memory and this {device.kind} has "
            f"{available / 2**30:,.0f}: choose {smaller} train.context or train.micro_batch_rows"
        )
    return plan


def _facts_of(data: PreparedData) -> Facts:
    """Return what the dial needs to know of the text."""
    examples = data.train.examples
    longest = rows = None
    if examples is not None:
        longest = max(int(np.diff(part.documents).max()) for part in (data.train, data.validation))
        rows = partial(_packed_rows, data.train)
    return Facts(
        data.train.num_tokens,
        data.tokenizer.vocab_size,
        data.tokenizer.roles.document_id,
        longest,
        examples is not None and examples.rejected is not None,
        rows,
    )


def _packed_rows(part: TokenPart, context: int) -> int:
    return len(training_rows(part, context).rows)


def require_memory(plan: Plan) -> None:
    """Raise InputError where less memory is free than a run needs, or fewer processes run than share a copy of it."""
    require_processes(plan.settings, place_in_run()[1])
    memory, free = plan.memory, free_memory_bytes(plan.device.kind)
    needed = memory.total - memory.process  # this process has its own part already
    if free is None or needed <= free:
        return
    layers = plan.model.num_hidden_layers
    adapted = plan.model.adapter is not None
    fewer = f" --lora, --train 'layers.{layers - 1}',"
    fewer = fewer if plan.has_base and not adapted and not plan.settings.train.only else ""
    raise InputError(
        f"this run needs about {needed / 2**30:,.1f} GiB of memory and {free / 2**30:,.1f} GiB are free: close other "
        f"programs, or choose{fewer} a smaller train.context, or --set train.activation_checkpointing=true"
    )


def initial_state(plan: Plan, ranks: Ranks = ALONE) -> TrainState:
    """Build the state at step 0, a function of the settings alone. From now on this process keeps its freed memory.

    The weights of a run with a base model are zeros: they come from its first checkpoint. If ``ranks`` divide the
    network, this is the rank's part.
    """
    if plan.device.kind == "cpu":
        keep_freed_memory()
    if ranks.divided:
        model = divided_model(plan.model, plan.settings.train, ranks.mesh, plan.device.torch)
        if not plan.has_base:
            initialise(model, plan.model, plan.settings.run.seed)
    elif not plan.has_base:
        model = build_model(plan.model, seed=plan.settings.run.seed, device=plan.device.torch)
    else:
        model = zero_model(plan.model, device=plan.device.torch)
    freeze_others(model, plan.settings.train.only)
    rules = UpdateRules(model, plan.settings.train, plan.device)
    return TrainState(model, rules, seed=plan.settings.run.seed)


def make_objective(
    plan: Plan, state: TrainState, ranks: Ranks = ALONE, constants: Mapping[str, Tensor] | None = None
) -> Objective:
    """Build the plan's objective for the model of ``state``, as one of ``ranks``.

    ``constants`` are those of the run (:mod:`etude.plan.constants`); None to measure the speed of a step.
    """
    train = plan.settings.train
    parts = ObjectiveParts(
        state.model,
        plan.data,
        plan.settings,
        plan.device,
        ranks,
        state.micro_batch_rows or train.micro_batch_rows,
        plan.scope,
        constants,
    )
    objective = objective_kind(train.objective).make(parts)
    require_objective(objective)
    return objective


def reference_validation(plan: Plan, text: ReferenceText) -> ValidationText:
    """Return the reference text as tokens, in consecutive windows of the context of training."""
    tokenizer = plan.data.tokenizer
    documents = [tokenizer.normalise(document) for document in text.documents]
    part = TokenPart.from_documents(
        tokenizer.encode_batch(documents),
        tokenizer.roles.document_id,
        [len(document.encode()) for document in documents],
    )
    return ValidationText(part, plan.settings.train.context, plan.device, at_once=plan.evaluated_at_once)


def validation_text(plan: Plan) -> ValidationText:
    """Return the held-out text of all evaluations of the run, and of its n-gram models."""
    settings = plan.settings
    return ValidationText(
        plan.data.validation,
        settings.train.context,
        plan.device,
        max_tokens=settings.train.eval_tokens,
        within_documents=not settings.data.cross_document_attention,
        scope=plan.scope,
        documents=partial(plan.data.documents, "validation"),
        at_once=plan.evaluated_at_once,
    )
