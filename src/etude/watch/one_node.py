"""One neuron of a run at one step: its weights, its activation, its gradient, its effect on the logits, and its
history."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

from etude.errors import InputError
from etude.model.language_model import LanguageModel
from etude.model.nodes import NodeLayer
from etude.model.taps import Taps
from etude.plan.plan import Plan
from etude.watch.activity import Activity, NodeHistory, activity, node_history
from etude.watch.held_out import HeldOut, held_out
from etude.watch.node_layers import find_node_layer, token_effects
from etude.watch.opened_step import OpenedRow, OpenedStep, model_at, open_step
from etude.watch.passages import Passage, extreme_passages, plain
from etude.watch.proof import Proof
from etude.watch.tapped_forward import run_with_taps
from etude.watch.terms import NodeSum, node_sum
from etude.watch.time_machine import TimeMachine

TOKENS = 10
"""Promoted tokens listed, and as many suppressed ones."""
PASSAGES = 5
"""Passages listed, of the highest and of the lowest activation."""


@dataclass(frozen=True)
class TokenEffect:
    """What an activation of 1 adds to a token's logit, relative to the mean of the vocabulary."""

    token_id: int
    text: str
    value: float


@dataclass(frozen=True, eq=False)
class NodeGradient:
    """Gradient of the loss of a step's batch, before clipping, by a neuron's weights; fields as in :class:`Node`."""

    step: int  # the update leads to it
    weights: Float[Tensor, " N"]
    bias: float | None
    up_weights: Float[Tensor, " N"] | None
    up_bias: float | None
    outgoing: Float[Tensor, " M"]

    def __repr__(self) -> str:
        bias = "no bias" if self.bias is None else f"bias {self.bias:+.3g}"
        up = "" if self.up_weights is None else f", up weights |{float(self.up_weights.norm()):.3g}|"
        return (
            f"gradient of the update {self.step - 1} -> {self.step}: weights |{float(self.weights.norm()):.3g}|, "
            f"{bias}{up}, outgoing |{float(self.outgoing.norm()):.3g}|"
        )


@dataclass(frozen=True, eq=False)
class NodeSignal:
    """A neuron along one row of a step's batch, forward and backward; each value is (T,).

    The gradients are those of the loss of the whole batch. ``pre_linear`` is what the gate multiplies; None without a
    gate.
    """

    row: int
    inputs: Int[Tensor, " T"]
    pre: Float[Tensor, " T"]
    pre_linear: Float[Tensor, " T"] | None
    post: Float[Tensor, " T"]
    pre_gradient: Float[Tensor, " T"]
    pre_linear_gradient: Float[Tensor, " T"] | None
    post_gradient: Float[Tensor, " T"]

    def __repr__(self) -> str:
        most = int(self.post_gradient.abs().argmax())
        return (
            f"row {self.row}, {len(self.inputs)} tokens: activation {float(self.post.min()):+.3g} to "
            f"{float(self.post.max()):+.3g}, its gradient largest at position {most} "
            f"({float(self.post_gradient[most]):+.3g})"
        )


@dataclass(eq=False)
class Node:
    """A neuron with its weights after ``step`` updates (N inputs, M numbers it adds to, V tokens).

    The gradient is that of the next update, ``step`` -> ``step + 1``: it was computed at exactly these weights, and
    step 0 has one as well. After the run's last step there is none.

    Attributes:
        weights, bias: its incoming weights, (N,), and bias (None if it has none); in a gated MLP those of the gate.
        up_weights, up_bias: in a gated MLP, those of the values that the gate multiplies; otherwise None.
        outgoing: what an activation of 1 adds, (M,).
        effects: what that changes in each logit directly, (V,) float64; :func:`etude.watch.node_layers.token_effects`
            lists what this ignores.
        promoted, suppressed: the tokens with the highest and the lowest effects.
        activity: its activation at every token of ``sample``.
        most, least: the passages of ``sample`` with the highest and the lowest activation.
        proof: how the replay up to ``step`` compares with the record.
    """

    machine: TimeMachine
    step: int
    node_layer: NodeLayer
    unit: int
    model: LanguageModel
    plan: Plan
    proof: Proof
    sample: HeldOut
    activity: Activity
    effects: Float[Tensor, " V"]
    promoted: tuple[TokenEffect, ...]
    suppressed: tuple[TokenEffect, ...]
    most: tuple[Passage, ...]
    least: tuple[Passage, ...]
    _row: tuple[int, OpenedRow] | None = field(default=None, repr=False)

    @property
    def layer(self) -> str:
        return self.node_layer.path

    @property
    def weights(self) -> Float[Tensor, " N"]:
        return self.node_layer.incoming(self.model, self.node_layer.gate, self.unit)[0]

    @property
    def bias(self) -> float | None:
        return self.node_layer.incoming(self.model, self.node_layer.gate, self.unit)[1]

    @property
    def up_weights(self) -> Float[Tensor, " N"] | None:
        up = self.node_layer.up
        return None if up is None else self.node_layer.incoming(self.model, up, self.unit)[0]

    @property
    def up_bias(self) -> float | None:
        up = self.node_layer.up
        return None if up is None else self.node_layer.incoming(self.model, up, self.unit)[1]

    @property
    def outgoing(self) -> Float[Tensor, " M"]:
        return self.node_layer.outgoing(self.model, self.unit)

    @cached_property
    def opened(self) -> OpenedStep:
        """The update that leads to ``step + 1``, opened on first use, which moves the time machine there.

        Raises:
            InputError: ``step`` is the run's last, or memory is short.
        """
        if self.step >= self.machine.recorded.last_step:
            raise InputError(
                f"no update follows step {self.step}, the run's last, so it has no gradient: "
                f"inspect the neuron at step {self.step - 1}"
            )
        return open_step(self.machine, self.step + 1)

    @cached_property
    def gradient(self) -> NodeGradient:
        """Gradient of the next update's loss. Raises InputError as :attr:`opened` does."""
        gradients, node_layer, unit = self.opened.gradients, self.node_layer, self.unit

        def bias_of(linear: str) -> float | None:
            bias = gradients.get(f"{linear}.bias")
            return None if bias is None else float(bias[unit])

        return NodeGradient(
            self.opened.step,
            gradients[f"{node_layer.gate}.weight"][unit],
            bias_of(node_layer.gate),
            None if node_layer.up is None else gradients[f"{node_layer.up}.weight"][unit],
            None if node_layer.up is None else bias_of(node_layer.up),
            gradients[f"{node_layer.out}.weight"][:, unit],
        )

    def signal(self, row: int) -> NodeSignal:
        """Return the neuron along a row of the next update's batch, with the gradient at it.

        Raises:
            InputError: no such row, or no next update.
        """
        opened, layer = self._opened_row(row), self.layer

        def along(values: dict[str, Tensor], leaf: str) -> Tensor:
            return values[f"{layer}.{leaf}"][0, :, self.unit].float().cpu()

        gated = self.node_layer.up is not None
        return NodeSignal(
            row,
            opened.inputs.cpu(),
            along(opened.activations, "pre"),
            along(opened.activations, "pre_linear") if gated else None,
            along(opened.activations, "post"),
            along(opened.gradients, "pre"),
            along(opened.gradients, "pre_linear") if gated else None,
            along(opened.gradients, "post"),
        )

    def on(self, row: int, position: int) -> NodeSum:
        """Return what it computes at a token of the next update's batch.

        Raises:
            InputError: no such row or position, or no next update.
        """
        opened = self._opened_row(row)
        position = _place(position, len(opened.inputs))
        ids = tuple(opened.inputs[: position + 1].tolist())
        text, dropout = self._text(ids[-1]), self.opened.read(row).dropout
        return node_sum(self.model, self.node_layer, self.unit, opened.activations, ids, text, dropout)

    @torch.no_grad()
    def on_tokens(self, token_ids: Sequence[int], position: int = -1) -> NodeSum:
        """Return what it computes at a token (default: the last) of any text, read from its beginning.

        Raises:
            InputError: no tokens, more than the network has positions for, or ids outside its vocabulary.
        """
        config, ids = self.model.config, tuple(token_ids)
        limit = config.max_position_embeddings
        if not ids or (self.model.has_attention and len(ids) > limit):
            raise InputError(f"give from 1 to {limit:,} tokens, not {len(ids):,}")
        if not all(0 <= token < config.vocab_size for token in ids):
            raise InputError(f"token ids go from 0 to {config.vocab_size - 1}")
        ids = ids[: _place(position, len(ids)) + 1]
        device = self.plan.device
        with device.autocast():
            taps = Taps(self.node_layer.watched.__contains__)
            activations = run_with_taps(self.model, torch.tensor([ids], device=device.torch), taps=taps)
        return node_sum(self.model, self.node_layer, self.unit, activations, ids, self._text(ids[-1]))

    def history(
        self, steps: Sequence[int] | None = None, on_progress: Callable[[int, int], None] | None = None
    ) -> NodeHistory:
        """Return the neuron at the run's checkpoints (all, or those of ``steps``), on the same sample of text.

        ``on_progress(done, total)`` is called before each checkpoint.

        Raises:
            InputError: a step has no checkpoint, or a damaged one.
        """
        recorded, device = self.machine.recorded, self.plan.device
        return node_history(recorded, self.layer, self.unit, self.sample, device, steps, on_progress)

    def _opened_row(self, row: int) -> OpenedRow:
        if self._row is None or self._row[0] != row:
            self._row = (row, self.opened.row(row, self.node_layer.watched.__contains__))
        return self._row[1]

    def _text(self, token_id: int) -> str:
        return self.plan.data.tokenizer.decode([token_id])

    def __repr__(self) -> str:
        bias = "no bias" if self.bias is None else f"bias {self.bias:+.3g}"
        up = "" if self.up_weights is None else f", up |{float(self.up_weights.norm()):.3g}|"
        last = self.step >= self.machine.recorded.last_step
        update = "none, the run's last step" if last else f"of the update {self.step} -> {self.step + 1}"
        tokens = self.sample.num_tokens
        return "\n".join(
            [
                f"{self.layer} neuron {self.unit} after {self.step:,} updates ({self.model.config.hidden_act})",
                f"{len(self.weights)} inputs, weights |{float(self.weights.norm()):.3g}|, {bias}{up}; "
                f"out |{float(self.outgoing.norm()):.3g}|; gradient: {update}",
                *effect_lines(self.promoted, self.suppressed, self.node_layer),
                f"{'dead: ' if self.activity.dead else ''}active at {self.activity.share_active:.1%} of {tokens:,} "
                "held-out tokens, most at",
                *(f"  {passage}" for passage in self.most[:3]),
                "least at",
                *(f"  {passage}" for passage in self.least[:2]),
                str(self.proof),
            ]
        )


def look_at_node(
    machine: TimeMachine,
    step: int,
    layer: str,
    unit: int,
    *,
    tokens: int = TOKENS,
    passages: int = PASSAGES,
    max_tokens: int | None = None,
) -> Node:
    """Return a neuron after ``step`` updates; ``layer`` is a name such as "model.layers.2.mlp" ("model" in the mlp
    family).

    This takes a forward pass over ``max_tokens`` of held-out text. ``Node`` opens the next update only on demand.

    Args:
        tokens: how many promoted and suppressed tokens to list.
        passages: how many passages to list.
        max_tokens: size of the sample; see :func:`etude.watch.held_out.held_out`.

    Raises:
        InputError: no such step, layer or neuron.
    """
    node_layer_at(machine, layer).require_unit(unit)
    model = model_at(machine, step)
    plan, proof = machine.era.plan, machine.proof
    node_layer, sample = find_node_layer(model, layer), held_out(plan, max_tokens)
    observed = activity(model, node_layer, unit, sample, plan.device)
    effects = token_effects(model, node_layer, unit)
    tokenizer = plan.data.tokenizer

    def extremes(highest: bool) -> tuple[Passage, ...]:
        return extreme_passages(observed.post, sample, tokenizer, count=passages, highest=highest)

    return Node(
        machine,
        step,
        node_layer,
        unit,
        model,
        plan,
        proof,
        sample,
        observed,
        effects,
        *extreme_effects(effects, lambda token: tokenizer.decode([token]), tokens),
        extremes(True),
        extremes(False),
    )


def extreme_effects(
    effects: Float[Tensor, " V"], decode: Callable[[int], str], count: int = TOKENS
) -> tuple[tuple[TokenEffect, ...], tuple[TokenEffect, ...]]:
    """Return the ``count`` tokens with the highest positive effect, and those with the lowest negative one."""
    order = effects.argsort(descending=True, stable=True).tolist()

    def with_text(ids: list[int]) -> tuple[TokenEffect, ...]:
        return tuple(TokenEffect(token, decode(token), float(effects[token])) for token in ids)

    highest, lowest = order[:count], order[::-1][:count]
    return with_text([t for t in highest if effects[t] > 0]), with_text([t for t in lowest if effects[t] < 0])


def effect_lines(
    promoted: tuple[TokenEffect, ...], suppressed: tuple[TokenEffect, ...], node_layer: NodeLayer
) -> list[str]:
    """Return what a neuron does to the logits, as text."""

    def line(effects: tuple[TokenEffect, ...]) -> str:
        return (
            "  ".join(f"[{plain(effect.text)}] {effect.value:+.2g}" for effect in effects[:6]) or "no token"
        )

    scaled = "  (directly, before the last norm's scale)" if node_layer.path != "model" else ""
    return [f"promotes   {line(promoted)}", f"suppresses {line(suppressed)}{scaled}"]


def node_layer_at(machine: TimeMachine, layer: str) -> NodeLayer:
    """Return the layer called ``layer`` of the run's network, from its configuration alone."""
    return find_node_layer(machine.empty_model(), layer)


def _place(position: int, count: int) -> int:
    """Return ``position``, counted from the end if negative."""
    if not -count <= position < count:
        raise InputError(f"this text has positions 0 to {count - 1}, not {position}")
    return position % count
