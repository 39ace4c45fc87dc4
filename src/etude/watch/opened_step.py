"""One training step of a run, opened: its batch, predictions, losses, activations, gradients and update.

Gradient and update are those of the compiled path that trained. Activations and their gradients come from the same
weights and rows, run uncompiled (:mod:`etude.watch.tapped_forward`), one row at a time and on demand;
:mod:`etude.watch.reconciliation` measures how closely the two agree.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from etude.config import Resolved
from etude.data.tokens.coverage import IGNORE_INDEX
from etude.device import free_memory_bytes
from etude.errors import InputError
from etude.messages import suggest_name
from etude.model.build import empty_model, materialise
from etude.model.language_model import LOGITS, LanguageModel
from etude.model.taps import Taps, every_activation
from etude.run.events import RowSource
from etude.train.batch import MicroBatch, Row, total_weight
from etude.train.checkpoint import Snapshot
from etude.train.loop import TrainState
from etude.train.optimizer import UpdateRules, freeze_others
from etude.train.rules import Hyperparameters, rule_named
from etude.train.rules.applied import ParameterUpdate
from etude.train.rules.frozen import FROZEN
from etude.train.schedule import momentum
from etude.train.step import clip_factor
from etude.watch.proof import Proof
from etude.watch.tapped_forward import activation_bytes, run_with_taps
from etude.watch.time_machine import Era, TimeMachine


@dataclass(frozen=True)
class OpenedRow:
    """One row of a step's batch, forward and backward.

    Attributes:
        inputs, targets: (T,) token ids; targets are ``IGNORE_INDEX`` where :attr:`loss_mask` is False.
        losses: (T,) nats for each token, unweighted; 0 where the loss does not count it.
        activations, gradients: by name, (1, T, ...); see :mod:`etude.watch.tapped_forward`. The gradient is that of the
            loss of the whole batch. In bf16 the results of products, and their gradients, are bfloat16.
        parameter_gradients: this row's share of the gradient of each parameter.
        weights: (T,) how much each loss counts; None if all count the same.
    """

    row: int
    inputs: Int[Tensor, " T"]
    targets: Int[Tensor, " T"]
    losses: Float[Tensor, " T"]
    activations: dict[str, Tensor]
    gradients: dict[str, Tensor]
    parameter_gradients: dict[str, Tensor]
    weights: Float[Tensor, " T"] | None = None

    @property
    def loss_mask(self) -> Bool[Tensor, " T"]:
        """(T,) True where the loss counts the next token."""
        return self.targets != IGNORE_INDEX

    @property
    def summed_loss(self) -> Float[Tensor, ""]:
        """The row's losses times their weights, summed; the step divides it by its ``total_weight``."""
        return self.losses.sum() if self.weights is None else (self.losses * self.weights).sum()

    @property
    def probabilities(self) -> Float[Tensor, "T V"]:
        """(T, V) the predicted distribution at every position."""
        return self.activations[LOGITS][0].float().softmax(-1)


@dataclass
class OpenedStep:
    """The update that led to ``step``.

    Attributes:
        settings: in force at that step.
        batch: its micro-batches, as the network read them.
        sources: the documents of each row.
        loss, grad_norm: of the training path; nats per token, and before clipping.
        clip_factor: what the gradient was multiplied by; 1 if it was not clipped.
        applied: False if the loss or the gradient was not finite, and the update was skipped.
        gradients: of every parameter, before clipping.
        before, after: weights and optimizer state.
        used: learning rate, weight decay and so on, of each parameter.
        proof: how the replay up to and including this step compares with the record.
    """

    step: int
    settings: Resolved
    batch: list[MicroBatch]
    sources: list[RowSource]
    loss: float
    grad_norm: float
    clip_factor: float
    applied: bool
    gradients: dict[str, Tensor]
    before: Snapshot
    after: Snapshot
    used: dict[str, Hyperparameters]
    proof: Proof
    era: Era = field(repr=False)

    @property
    def num_rows(self) -> int:
        return sum(len(part.inputs) for part in self.batch)

    @property
    def num_targets(self) -> int:
        """Tokens that the loss counts in the whole batch."""
        return sum(part.num_targets for part in self.batch)

    @property
    def total_weight(self) -> int | float:
        """What the summed losses of the batch are divided by: :attr:`num_targets`, or the sum of their weights."""
        return total_weight(self.batch)

    @cached_property
    def model(self) -> LanguageModel:
        """The uncompiled network with the weights before the step."""
        return model_with(self.before.weights, self.era)

    @cached_property
    def model_after(self) -> LanguageModel:
        """The uncompiled network with the weights after the step."""
        return model_with(self.after.weights, self.era)

    def apply_rules(self, weights: Mapping[str, Tensor]) -> Snapshot:
        """Apply the update rules once more, to ``weights``, from the opened gradients and state alone."""
        model = model_with(weights, self.era)
        freeze_others(model, self.settings.train.only)
        rules = UpdateRules(model, self.settings.train, self.era.plan.device)
        rules.load_named_state(self.before.optimizer)
        for name, parameter in model.named_parameters():
            if name in self.used:
                parameter.grad = self.gradients[name].to(parameter.device) * self.clip_factor
        rules.step(self.era.lr_factor(self.step), momentum(self.step, self.settings.train))
        return Snapshot(self.step, {}, dict(model.state_dict()), rules.named_state())

    @cached_property
    def moved_from_zero(self) -> dict[str, Tensor]:
        """What the same update adds to weights of zero, in float64: -lr * direction, by the run's own update rules."""
        zeros = {name: torch.zeros_like(weight) for name, weight in self.before.weights.items()}
        return {name: weight.cpu().double() for name, weight in self.apply_rules(zeros).weights.items()}

    def of_whole(self, name: str) -> dict[str, Tensor]:
        """Return what a rule's terms derive from the whole parameter, as the run computed it; zero for a skipped step.

        Not recomputed in float64: Muon's iteration in single precision is a few ten-thousandths off from that.
        """
        used, weight = self.used.get(name), self.before.weights[name]
        if used is None:
            return {}
        rule = rule_named(used.rule)
        if rule.whole and self.applied and used.lr:
            return rule.of_whole(self.moved_from_zero[name], used)
        return {symbol: torch.zeros_like(weight, dtype=torch.float64) for symbol in rule.whole}

    def parameter(self, name: str) -> ParameterUpdate:
        """Return how one parameter moved; for one that is not trained, with the gradient that was not applied.

        Raises:
            InputError: no parameter has that name.
        """
        if name not in self.gradients:
            raise InputError(f"no parameter is called '{name}': {suggest_name(name, list(self.gradients))}")
        used = self.used.get(name)
        return ParameterUpdate(
            FROZEN if used is None else rule_named(used.rule),
            name,
            self.before.weights[name],
            self.after.weights[name],
            self.gradients[name],
            self.clip_factor,
            _state_of(self.before, name),
            _state_of(self.after, name),
            used or FROZEN.hyperparameters({}, self.before.weights[name].shape),
        )

    def row(
        self,
        row: int = 0,
        wanted: Callable[[str], bool] = every_activation,
        *,
        model: LanguageModel | None = None,
    ) -> OpenedRow:
        """Return one row, forward and backward, with the activations whose name is ``wanted``.

        ``model`` replaces the network before the step, for example by one in float64.

        Raises:
            InputError: the batch has no such row, or all its activations do not fit the free memory.
        """
        read = self.read(row)
        model = model or self.model
        if wanted is every_activation:
            self._require_room(2 * activation_bytes(model, read.inputs.shape[1]))
        taps = Taps(lambda name: name == LOGITS or wanted(name), gradients=True)
        model.zero_grad(set_to_none=True)
        with torch.enable_grad(), self.era.plan.device.autocast():
            opened = activations_of(model, read, taps)
            losses = self.era.objective.token_losses(opened[LOGITS], read)
            summed = losses.sum() if read.weights is None else (losses * read.weights).sum()
            (summed / self.total_weight).backward()  # type: ignore[no-untyped-call]
        gradients = {name: value.grad for name, value in opened.items() if value.grad is not None}
        shares = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
        model.zero_grad(set_to_none=True)
        activations = {name: value.detach() for name, value in opened.items()}
        return OpenedRow(
            row,
            read.inputs[0],
            read.targets[0],
            losses.detach()[0],
            activations,
            gradients,
            shares,
            None if read.weights is None else read.weights[0],
        )

    @torch.no_grad()
    def losses_after(self, row: int = 0) -> Float[Tensor, " T"]:
        """(T,) nats for each token of a row with the weights after the step, and dropout as in the step.

        Raises:
            InputError: the batch has no such row.
        """
        read = self.read(row)
        with self.era.plan.device.autocast():
            logits = activations_of(self.model_after, read, Taps(LOGITS.__eq__))[LOGITS]
        return self.era.objective.token_losses(logits, read)[0]

    def read(self, row: int) -> Row:
        """Return what the network reads of one row of the batch, and what it should predict.

        Raises:
            InputError: the batch has no such row.
        """
        return self.era.objective.row(*self._place(row))

    def _require_room(self, needed: int) -> None:
        """Raise InputError if all activations of a row and their gradients do not fit the free memory."""
        free = free_memory_bytes(self.era.plan.device.kind)
        if free is not None and needed > free:
            raise InputError(
                f"all activations of a row and their gradients take {needed / 2**30:,.1f} GiB, and "
                f"{free / 2**30:,.1f} GiB are free: request a few of them (wanted=lambda name: ...)"
            )

    def _place(self, row: int) -> tuple[MicroBatch, int]:
        if not 0 <= row < self.num_rows:
            raise InputError(f"the batch has rows 0 to {self.num_rows - 1}, not {row}")
        first = 0
        for part in self.batch:
            if row < first + len(part.inputs):
                return part, row - first
            first += len(part.inputs)
        raise AssertionError(row)


def open_step(machine: TimeMachine, step: int) -> OpenedStep:
    """Replay the update that leads to ``step``, and keep everything it was computed from.

    Raises:
        InputError: the run has no such step, or the machine lacks the memory.
    """
    machine.recorded.require_step(step)
    machine.go_to(step - 1)
    era = machine.enter(step)
    _require_memory(era)
    before, before_proof = Snapshot.of(era.state), machine.proof
    capture = _GradientCapture(era.state.model)
    with _gradients_of_all(era.state):
        result = machine.advance(capture.read)
    after = Snapshot.of(era.state)
    machine.states.put(before, before_proof)
    machine.states.put(after, machine.proof)
    era.state.rules.zero_grad()
    return OpenedStep(
        step,
        era.plan.settings,
        list(capture.batch),
        list(era.objective.row_sources(step)),
        float(result.loss),
        float(result.grad_norm),
        clip_factor(result.grad_norm, era.plan.settings.train.max_grad_norm),
        result.applied,
        capture.by_name,
        before,
        after,
        era.state.rules.used(),
        machine.proof,
        era,
    )


@contextmanager
def _gradients_of_all(state: TrainState) -> Iterator[None]:
    """Compute the gradients of parameters that are not trained as well: those that would have been applied."""
    others = [parameter for parameter in state.model.parameters() if not parameter.requires_grad]
    try:
        for parameter in others:
            parameter.requires_grad_(True)
        yield
    finally:
        for parameter in others:
            parameter.requires_grad_(False)
            parameter.grad = None


@dataclass
class _GradientCapture:
    """Copies the gradient of an update, and keeps its batch."""

    model: LanguageModel
    batch: Sequence[MicroBatch] = ()
    by_name: dict[str, Tensor] = field(default_factory=dict)

    def read(self, batch: Sequence[MicroBatch]) -> None:
        """Keep ``batch``, and a copy of the gradient of every parameter before clipping."""
        self.batch = batch
        self.by_name = {
            name: parameter.grad.detach().cpu().clone()
            for name, parameter in self.model.named_parameters()
            if parameter.grad is not None
        }


def activations_of(model: LanguageModel, row: Row, taps: Taps) -> dict[str, Tensor]:
    """Return the activations of a row of a batch that ``taps`` keeps."""
    return run_with_taps(model, row.inputs, document_ids=row.document_ids, dropout=row.dropout, taps=taps)


def model_with(weights: Mapping[str, Tensor], era: Era, dtype: torch.dtype = torch.float32) -> LanguageModel:
    """Return the uncompiled network of ``era`` with a copy of ``weights``."""
    model = materialise(empty_model(era.plan.model), era.plan.device.torch, dtype)
    model.load_state_dict(weights)
    return model


def model_at(machine: TimeMachine, step: int) -> LanguageModel:
    """Return a copy of the run's network after ``step``, uncompiled.

    Raises:
        InputError: the run has no such step.
    """
    return model_with(machine.go_to(step).model.state_dict(), machine.era)


def _state_of(snapshot: Snapshot, name: str) -> dict[str, Tensor]:
    return {
        key.removeprefix(f"{name}."): value
        for key, value in snapshot.optimizer.items()
        if key.startswith(f"{name}.") and "." not in key.removeprefix(f"{name}.")
    }


def _require_memory(era: Era) -> None:
    """Raise InputError if memory is short for two states, the gradients, and a second network for the rows."""
    memory, free = era.plan.memory, free_memory_bytes(era.plan.device.kind)
    needed = 2 * (memory.weights + memory.optimizer) + 3 * memory.weights
    if free is not None and needed > free:
        raise InputError(
            f"opening a step of this run takes about {needed / 2**30:,.1f} GiB of memory, and "
            f"{free / 2**30:,.1f} GiB are free: close other programs, or inspect a checkpoint with --prompt"
        )
