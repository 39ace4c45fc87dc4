"""What a node does over a text, and over the life of a run."""

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
from etude.watch.forward import run_opened
from etude.watch.held_out import HeldOut
from etude.watch.node_layers import find_node_layer

Float64 = npt.NDArray[np.float64]
DEAD_REACH = 1e-4
"""Share of the length of what a node is added to, up to which it counts as not active at a token; a node that never
adds more is dead. Far below the 2^-9 that an addition in bfloat16 loses."""


@dataclass(frozen=True, eq=False)
class Activity:
    """A node on a sample of text, token by token.

    Attributes:
        post: (N, T) its activation, behind the activation function (and the gate).
        reach: (N, T) the length of what it adds over the length of what it is added to: the residual stream behind its
            layer, or the logits less their mean in the mlp family.
        real: (N, T) which places are text.
    """

    post: Float64
    reach: Float64
    real: npt.NDArray[np.bool_]

    @property
    def share_active(self) -> float:
        """Of the tokens: those at which the reach is above :data:`DEAD_REACH`."""
        return float((self.reach[self.real] > DEAD_REACH).mean())

    @property
    def dead(self) -> bool:
        """Not active at a single token."""
        return not bool((self.reach[self.real] > DEAD_REACH).any())


@torch.no_grad()
def activity(
    model: LanguageModel, node_layer: NodeLayer, unit: int, sample: HeldOut, device: Device
) -> Activity:
    """Run ``sample`` through ``model`` (uncompiled, on ``device``) and watch one node."""
    node_layer.require_unit(unit)
    post, reach = np.zeros(sample.inputs.shape), np.zeros(sample.inputs.shape)
    name, length = f"{node_layer.path}.post", node_layer.outgoing(model, unit).float().norm()
    for rows in sample.batches(model.config):
        inputs = torch.from_numpy(sample.inputs[rows]).to(device.torch)
        documents = sample.document_ids
        ids = None if documents is None else torch.from_numpy(documents[rows]).to(device.torch)
        with device.autocast():
            taps = Taps(lambda activation: activation in (name, node_layer.added_to))
            kept = run_opened(model, inputs, document_ids=ids, taps=taps)
        whole, nodes = kept[node_layer.added_to].float(), kept[name][..., unit].float()
        if node_layer.added_to == LOGITS:
            whole = whole - whole.mean(-1, keepdim=True)
        post[rows] = nodes.cpu().numpy()
        least = torch.finfo(torch.float32).tiny
        reach[rows] = (nodes.abs() * length / whole.norm(dim=-1).clamp(min=least)).cpu().numpy()
    return Activity(post, reach, sample.real)


@dataclass(frozen=True)
class Moment:
    """A node at a checkpoint: its activation over the sample, and the lengths of its weights."""

    step: int
    mean: float
    std: float  # of all tokens (divided by their number)
    max: float
    share_active: float
    norm_in: float  # of the weights it reads with; of the gate in a gated MLP
    norm_up: float | None
    norm_out: float


@dataclass(frozen=True)
class NodeHistory:
    """A node over the checkpoints of a run, oldest first, always on the same ``num_tokens`` held-out tokens."""

    layer: str
    unit: int
    num_tokens: int
    moments: tuple[Moment, ...]

    @property
    def came_alive(self) -> int | None:
        """The first checkpoint at which it is active, after one at which it was dead.

        None where it is active from the first on, or never.
        """
        alive = self._alive
        first = alive.index(True) if True in alive else 0
        return self.moments[first].step if first else None

    @property
    def died(self) -> int | None:
        """The checkpoint from which on it is dead, having been active before; None where it is not so."""
        alive = self._alive
        if True not in alive or alive[-1]:
            return None
        last = max(place for place, there in enumerate(alive) if there)
        return self.moments[last + 1].step

    @property
    def _alive(self) -> list[bool]:
        return [moment.share_active > 0 for moment in self.moments]

    def __repr__(self) -> str:
        lines = [f"{self.layer} node {self.unit} on {self.num_tokens:,} held-out tokens"]
        lines.append(f"{'step':>8} {'mean':>9} {'std':>9} {'max':>9} {'active':>7} {'in':>8} {'out':>8}")
        lines += shortened(
            [
                f"{m.step:8,} {m.mean:9.3g} {m.std:9.3g} {m.max:9.3g} {m.share_active:7.1%} "
                f"{m.norm_in:8.3g} {m.norm_out:8.3g}"
                for m in self.moments
            ]
        )
        lived = [f"came alive at step {self.came_alive:,}"] if self.came_alive is not None else []
        lived += [f"died at step {self.died:,}"] if self.died is not None else []
        by = f"active: it adds more than {DEAD_REACH:g} of the length of what it is added to"
        return "\n".join([*lines, f"{'; '.join(lived) or 'neither came alive nor died'} ({by})"])


def node_history(
    recorded: RunRecord,
    layer: str,
    unit: int,
    sample: HeldOut,
    device: Device,
    steps: Sequence[int] | None = None,
    told: Callable[[int, int], None] | None = None,
) -> NodeHistory:
    """Watch a node at ``steps`` (all that have a checkpoint, unless told). One network is in memory at a time.

    ``told`` hears, before each, how many were watched, of how many.

    Raises:
        InputError: no such layer or node, no checkpoint of a step, or a damaged one.
    """
    folders = recorded.checkpoints
    moments: list[Moment] = []
    wanted = sorted(set(folders if steps is None else steps))
    for step in wanted:
        if told is not None:
            told(len(moments), len(wanted))
        if step not in folders:
            there = ", ".join(str(known) for known in folders) or "none"
            raise InputError(f"{recorded.run.path} has no checkpoint of step {step}: there is {there}")
        model, _ = load_model_folder(folders[step], device=device.torch)
        node_layer = find_node_layer(model, layer)
        moments.append(
            _moment(step, model, node_layer, unit, activity(model, node_layer, unit, sample, device))
        )
        del model  # before the next one is loaded
    return NodeHistory(layer, unit, sample.num_tokens, tuple(moments))


def _moment(step: int, model: LanguageModel, node_layer: NodeLayer, unit: int, seen: Activity) -> Moment:
    values = seen.post[seen.real]
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
        seen.share_active,
        float(node_layer.incoming(model, node_layer.gate, unit)[0].cpu().double().norm()),
        up,
        float(node_layer.outgoing(model, unit).cpu().double().norm()),
    )


def shortened(lines: list[str], most: int = 10) -> list[str]:
    """At most ``most`` lines: the first, the last, and a mark for those between."""
    if len(lines) <= most:
        return lines
    first = most // 2
    return [
        *lines[:first],
        f"     ... {len(lines) - most + 1} more",
        *lines[len(lines) - (most - first - 1) :],
    ]
