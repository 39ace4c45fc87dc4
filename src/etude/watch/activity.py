"""The activation of a neuron over a text, and over the checkpoints of a run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from etude.device import Device
from etude.errors import InputError
from etude.model.folder import load_model_folder
from etude.model.language_model import LOGITS, LanguageModel
from etude.model.nodes import NodeLayer
from etude.model.taps import Taps
from etude.run.record import RunRecord
from etude.watch.held_out import HeldOut
from etude.watch.node_layers import find_node_layer
from etude.watch.tapped_forward import run_with_taps

Float64 = npt.NDArray[np.float64]
DEAD_REACH = 1e-4
"""A neuron is active at a token when it adds more than this share of the norm of what it is added to; it is dead when
no token reaches it. Far below the 2^-9 that an addition in bfloat16 loses."""


@dataclass(frozen=True, eq=False)
class Activity:
    """A neuron on a sample of text, token by token.

    Attributes:
        post: (N, T) its activation, after the activation function (and the gate).
        reach: (N, T) the norm of what it adds over the norm of what it is added to: the residual stream after its
            layer, or the logits minus their mean in the mlp family.
        real: (N, T) True where a position holds text.
    """

    post: Float64
    reach: Float64
    real: npt.NDArray[np.bool_]

    @property
    def share_active(self) -> float:
        """Share of the tokens at which the reach is above :data:`DEAD_REACH`."""
        return float((self.reach[self.real] > DEAD_REACH).mean())

    @property
    def dead(self) -> bool:
        """True if the neuron is active at no token."""
        return not bool((self.reach[self.real] > DEAD_REACH).any())


@torch.no_grad()
def activity(
    model: LanguageModel, node_layer: NodeLayer, unit: int, sample: HeldOut, device: Device
) -> Activity:
    """Run ``sample`` through ``model`` (uncompiled, on ``device``) and record one neuron."""
    node_layer.require_unit(unit)
    post, reach = np.zeros(sample.inputs.shape), np.zeros(sample.inputs.shape)
    name, length = f"{node_layer.path}.post", node_layer.outgoing(model, unit).float().norm()
    for rows in sample.batches(model.config):
        inputs = torch.from_numpy(sample.inputs[rows]).to(device.torch)
        documents = sample.document_ids
        ids = None if documents is None else torch.from_numpy(documents[rows]).to(device.torch)
        with device.autocast():
            taps = Taps(lambda tapped: tapped in (name, node_layer.added_to))
            activations = run_with_taps(model, inputs, document_ids=ids, taps=taps)
        added_to, post_values = activations[node_layer.added_to].float(), activations[name][..., unit].float()
        if node_layer.added_to == LOGITS:
            added_to = added_to - added_to.mean(-1, keepdim=True)
        post[rows] = post_values.cpu().numpy()
        tiny = torch.finfo(torch.float32).tiny
        reach[rows] = (post_values.abs() * length / added_to.norm(dim=-1).clamp(min=tiny)).cpu().numpy()
    return Activity(post, reach, sample.real)


@dataclass(frozen=True)
class Moment:
    """A neuron at a checkpoint: its activation over the sample, and the norms of its weights."""

    step: int
    mean: float
    std: float  # population standard deviation over all tokens
    max: float
    share_active: float
    norm_in: float  # of the incoming weights; in a gated MLP those of the gate
    norm_up: float | None
    norm_out: float


@dataclass(frozen=True)
class NodeHistory:
    """A neuron over the checkpoints of a run, oldest first, always on the same ``num_tokens`` held-out tokens."""

    layer: str
    unit: int
    num_tokens: int
    moments: tuple[Moment, ...]

    @property
    def came_alive(self) -> int | None:
        """The first checkpoint at which it is active, after a checkpoint at which it was dead.

        None if it is active from the first checkpoint on, or never.
        """
        alive = self._alive
        first = alive.index(True) if True in alive else 0
        return self.moments[first].step if first else None

    @property
    def died(self) -> int | None:
        """The first checkpoint of its final dead stretch, if it was active before; otherwise None."""
        alive = self._alive
        if True not in alive or alive[-1]:
            return None
        last = max(place for place, active in enumerate(alive) if active)
        return self.moments[last + 1].step

    @property
    def _alive(self) -> list[bool]:
        return [moment.share_active > 0 for moment in self.moments]

    def __repr__(self) -> str:
        lines = [f"{self.layer} neuron {self.unit} on {self.num_tokens:,} held-out tokens"]
        lines.append(f"{'step':>8} {'mean':>9} {'std':>9} {'max':>9} {'active':>7} {'in':>8} {'out':>8}")
        lines += shortened(
            [
                f"{m.step:8,} {m.mean:9.3g} {m.std:9.3g} {m.max:9.3g} {m.share_active:7.1%} "
                f"{m.norm_in:8.3g} {m.norm_out:8.3g}"
                for m in self.moments
            ]
        )
        changes = [f"came alive at step {self.came_alive:,}"] if self.came_alive is not None else []
        changes += [f"died at step {self.died:,}"] if self.died is not None else []
        criterion = f"active: it adds more than {DEAD_REACH:g} of the norm of what it is added to"
        return "\n".join([*lines, f"{'; '.join(changes) or 'neither came alive nor died'} ({criterion})"])


def node_history(
    recorded: RunRecord,
    layer: str,
    unit: int,
    sample: HeldOut,
    device: Device,
    steps: Sequence[int] | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> NodeHistory:
    """Record a neuron at ``steps`` (default: every checkpoint), with one network in memory at a time.

    ``on_progress(done, total)`` is called before each checkpoint.

    Raises:
        InputError: no such layer or neuron, no checkpoint of a step, or a damaged checkpoint.
    """
    folders = recorded.checkpoints
    moments: list[Moment] = []
    requested = sorted(set(folders if steps is None else steps))
    for step in requested:
        if on_progress is not None:
            on_progress(len(moments), len(requested))
        if step not in folders:
            available = ", ".join(str(known) for known in folders) or "none"
            raise InputError(f"{recorded.run.path} has no checkpoint of step {step}; it has: {available}")
        model, _ = load_model_folder(folders[step], device=device.torch)
        node_layer = find_node_layer(model, layer)
        moments.append(
            _moment(step, model, node_layer, unit, activity(model, node_layer, unit, sample, device))
        )
        del model  # before the next one is loaded
    return NodeHistory(layer, unit, sample.num_tokens, tuple(moments))


def _moment(
    step: int, model: LanguageModel, node_layer: NodeLayer, unit: int, activity_at_step: Activity
) -> Moment:
    values = activity_at_step.post[activity_at_step.real]
    up = (
        None
        if node_layer.up is None
        else float(node_layer.incoming(model, node_layer.up, unit)[0].cpu().double().norm())
    )
    return Moment(
        step,
        float(values.mean()),
        float(values.std()),
        float(values.max()),
        activity_at_step.share_active,
        float(node_layer.incoming(model, node_layer.gate, unit)[0].cpu().double().norm()),
        up,
        float(node_layer.outgoing(model, unit).cpu().double().norm()),
    )


def shortened(lines: list[str], max_lines: int = 10) -> list[str]:
    """Return at most ``max_lines`` lines: the first ones, a line that counts those skipped, and the last ones."""
    if len(lines) <= max_lines:
        return lines
    first = max_lines // 2
    return [
        *lines[:first],
        f"     ... {len(lines) - max_lines + 1} more",
        *lines[len(lines) - (max_lines - first - 1) :],
    ]
