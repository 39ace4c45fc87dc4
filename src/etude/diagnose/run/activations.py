"""What the neurons and heads of a trained network do on held-out text.

For every MLP neuron: how much it adds to the residual stream, and whether its activation function is saturated. For
every head: how concentrated its attention is. Both are read during the forward pass, and not stored.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from etude.data.tokens.coverage import IGNORE_INDEX
from etude.data.tokens.rows import EvaluationRows
from etude.model.language_model import LOGITS, LanguageModel
from etude.model.taps import Taps
from etude.watch.saturation import ends
from etude.watch.tapped_forward import entropy, run_with_taps

Float64 = npt.NDArray[np.float64]
MEASURED_TOKENS = 16_384
"""Held-out tokens on which neurons and heads are measured: as many as the smallest evaluation reads."""
PATTERN_NUMBERS = 2**24
"""Attention weights of one layer in memory at a time: 64 MiB in fp32."""
PEAK = 0.99
"""A query attends to a single position if its largest weight is above this."""
FEWEST_VISIBLE = 16
"""Queries that see fewer positions are skipped: they have little choice."""


@dataclass(frozen=True)
class NodeState:
    """The neurons of one layer, each value (F,).

    Attributes:
        reach: the largest share of the norm of what a neuron adds to, over all tokens, that it added.
        low, high: share of the tokens at which the activation function was at its lower, and upper, end.
    """

    layer: int
    reach: Float64
    low: Float64
    high: Float64


@dataclass(frozen=True)
class HeadState:
    """The heads of one layer, each value (H,)."""

    layer: int
    peaked: Float64  # share of the queries that attended to a single position
    evenness: Float64  # entropy over that of uniform attention, mean over queries


@dataclass(frozen=True)
class NetworkState:
    """The measurements at a checkpoint."""

    step: int
    num_tokens: int
    hidden_act: str
    nodes: tuple[NodeState, ...]
    heads: tuple[HeadState, ...]


@torch.no_grad()
def look_inside(
    model: LanguageModel, windows: EvaluationRows, step: int, *, within_documents: bool = False
) -> NetworkState:
    """Run the first :data:`MEASURED_TOKENS` of ``windows`` through ``model``, and measure its neurons and heads."""
    device = model.unembedding()[0].device
    watcher = _Watcher(model)
    for first, rows in _batches(windows, model.config.num_attention_heads):
        inputs, targets = (torch.from_numpy(a).to(device) for a in windows.batch(first, rows))
        documents = (
            torch.from_numpy(windows.document_ids(first, rows)).to(device) if within_documents else None
        )
        watcher.begin(targets != IGNORE_INDEX)
        run_with_taps(model, inputs, document_ids=documents, taps=watcher)
    return watcher.state(step)


@torch.no_grad()
def look_at_rows(model: LanguageModel, rows: Sequence[Tensor]) -> NetworkState:
    """Run each of ``rows`` (T,), token ids, through ``model``, and measure its neurons and heads."""
    watcher = _Watcher(model)
    for row in rows:
        inputs = row[None].to(model.unembedding()[0].device)
        watcher.begin(torch.ones_like(inputs, dtype=torch.bool))
        run_with_taps(model, inputs, taps=watcher)
    return watcher.state(0)


def _batches(windows: EvaluationRows, num_heads: int) -> Iterator[tuple[int, int]]:
    """Yield (first window, number of windows) of each forward pass."""
    context = windows.context
    rows = max(1, min(PATTERN_NUMBERS // (max(1, num_heads) * context**2), MEASURED_TOKENS // context))
    for first in range(0, min(len(windows), max(1, MEASURED_TOKENS // context)), rows):
        yield first, rows


@dataclass
class _Nodes:
    """Running statistics of the neurons of one layer."""

    activation: str
    outgoing: Tensor  # (F,) norm of each neuron's outgoing weights
    sums: Tensor = field(init=False)  # (3, F)

    def __post_init__(self) -> None:
        self.sums = torch.zeros(3, len(self.outgoing), dtype=torch.float64, device=self.outgoing.device)

    def add(self, before: Tensor, after: Tensor, added_to: Tensor) -> None:
        """Add some tokens: (N, F) input and output of the activation function, (N, D) what the output was added to."""
        low, high = ends(self.activation, before)
        norm = added_to.norm(dim=-1, keepdim=True)
        reach = after.abs() * self.outgoing / norm.clamp(min=torch.finfo(norm.dtype).tiny)
        self.sums[0] = torch.maximum(self.sums[0], reach.amax(0).double())
        self.sums[1] += low.sum(0)
        self.sums[2] += high.sum(0)

    def state(self, layer: int, num_tokens: int) -> NodeState:
        reach, low, high = self.sums.cpu().numpy()
        return NodeState(layer, reach, low / num_tokens, high / num_tokens)


@dataclass
class _Heads:
    """Running statistics of the heads of one layer."""

    num_queries: int = 0
    sums: Tensor | None = None  # (2, H)

    def add(self, real: Tensor, visible: Tensor, pattern: Tensor) -> None:
        """Add a forward pass: (B, T) which queries are text, how many positions each sees; (B, H, T, T) the pattern."""
        evenness = entropy(pattern) / visible.log()[:, None]
        peaked = pattern.amax(-1) > PEAK
        counted = (real & (visible >= FEWEST_VISIBLE))[:, None]
        sums = torch.stack(
            [torch.where(counted, value.double(), 0.0).sum((0, 2)) for value in (peaked, evenness)]
        )
        self.sums = sums if self.sums is None else self.sums + sums
        self.num_queries += int(counted.sum())

    def state(self, layer: int) -> HeadState:
        assert self.sums is not None
        peaked, evenness = (self.sums / max(1, self.num_queries)).cpu().numpy()
        unseen = np.full_like(peaked, np.nan)
        return HeadState(layer, *((peaked, evenness) if self.num_queries else (unseen, unseen)))


class _Watcher(Taps):
    """Accumulates statistics of neurons and heads; keeps only the activations that later ones are compared with."""

    def __init__(self, model: LanguageModel) -> None:
        super().__init__()
        self.act, self.num_tokens = model.config.hidden_act, 0
        layers = model.node_layers()
        self.nodes = [_Nodes(self.act, layer.all_outgoing(model).norm(dim=0)) for layer in layers]
        self.heads = [_Heads() for _ in range(model.config.num_hidden_layers if model.has_attention else 0)]

    def begin(self, real: Tensor) -> None:
        """Start a batch, in which ``real`` (B, T) marks the tokens that are text."""
        self.real = real
        self.num_tokens += int(real.sum())

    def __call__(self, name: str, value: Tensor) -> Tensor:
        layer = int(name.split(".")[2]) if name.startswith("model.layers.") else 0
        leaf = name.rsplit(".", 1)[-1]
        if leaf == "scores":
            self.visible = value[:, 0].isfinite().sum(-1)
        elif leaf == "pattern":
            self.heads[layer].add(self.real, self.visible, value)
        elif leaf == "pre":
            self.before = value[self.real]
        elif leaf == "post":
            self.after = value[self.real]
        elif leaf == "resid_post":
            self.nodes[layer].add(self.before, self.after, value[self.real])
        elif name == LOGITS and not self.heads:  # the neurons add to the logits
            self.nodes[0].add(self.before, self.after, (value - value.mean(-1, keepdim=True))[self.real])
        return value

    def state(self, step: int) -> NetworkState:
        return NetworkState(
            step,
            self.num_tokens,
            self.act,
            tuple(nodes.state(layer, self.num_tokens) for layer, nodes in enumerate(self.nodes)),
            tuple(heads.state(layer) for layer, heads in enumerate(self.heads)),
        )
