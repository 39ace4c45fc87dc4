"""What the nodes and heads of a trained network do on text that it has not seen.

Hooks on the plain module, never a compiled one, read what passes: for every MLP node how much it adds to the residual
stream and whether its activation function still bends, for every head how concentrated its attention is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from etude.data.tokens.coverage import IGNORE_INDEX, EvaluationWindows
from etude.model.attention import Attention
from etude.model.language_model import LanguageModel
from etude.model.layers import ACTIVATION_FUNCTIONS, GatedMLP
from etude.model.mlp import WindowMLP
from etude.model.transformer import Transformer
from etude.watch.nodes import ends

Float64 = npt.NDArray[np.float64]
MEASURED_TOKENS = 16_384
"""Held-out tokens that nodes and heads are looked at on: as many as the smallest evaluation has."""
PATTERN_NUMBERS = 2**24
"""Attention weights of one layer held at a time: 64 MiB in fp32."""
PEAK = 0.99
"""A query attends to one position only when its largest weight is above this."""
FEWEST_VISIBLE = 16
"""Queries that see fewer positions are left out: theirs is no choice."""


@dataclass(frozen=True)
class NodeState:
    """The nodes of one layer, each value (F,)."""

    layer: int
    reach: (
        Float64  # the largest share that the node added to the length of what it is added to, over all tokens
    )
    low: Float64  # share of the tokens at which its activation function was at its lower end
    high: Float64


@dataclass(frozen=True)
class HeadState:
    """The heads of one layer, each value (H,)."""

    layer: int
    peaked: Float64  # share of the queries that attended to one position only
    evenness: Float64  # entropy over that of a uniform choice, the mean over queries


@dataclass(frozen=True)
class NetworkState:
    """What was seen at a checkpoint."""

    step: int
    num_tokens: int
    hidden_act: str
    nodes: tuple[NodeState, ...]
    heads: tuple[HeadState, ...]


@torch.no_grad()
def look_inside(
    model: LanguageModel, windows: EvaluationWindows, step: int, *, within_documents: bool = False
) -> NetworkState:
    """Run the first :data:`MEASURED_TOKENS` of ``windows`` through ``model`` and watch its nodes and heads."""
    device = model.unembedding()[0].device
    nodes, heads = _watchers(model)
    real: list[Tensor] = []  # of the batch at hand: which positions are text, set before each pass
    seen = 0
    with _hooked(nodes, heads, real):
        for first, rows in _batches(windows, model.config.num_attention_heads):
            inputs, targets = (torch.from_numpy(a).to(device) for a in windows.batch(first, rows))
            documents = (
                torch.from_numpy(windows.document_ids(first, rows)).to(device) if within_documents else None
            )
            real[:] = [targets != IGNORE_INDEX]
            logits = model(inputs, document_ids=documents)
            for watcher in nodes if isinstance(model, WindowMLP) else ():
                watcher.add(real[0], logits - logits.mean(-1, keepdim=True))
            seen += int(real[0].sum())
    return NetworkState(
        step,
        seen,
        model.config.hidden_act,
        tuple(watcher.state(seen) for watcher in nodes),
        tuple(watcher.state() for watcher in heads),
    )


def _batches(windows: EvaluationWindows, num_heads: int) -> Iterator[tuple[int, int]]:
    """(first window, number of windows) of each pass."""
    context = windows.context
    rows = max(1, min(PATTERN_NUMBERS // (max(1, num_heads) * context**2), MEASURED_TOKENS // context))
    for first in range(0, min(len(windows), max(1, MEASURED_TOKENS // context)), rows):
        yield first, rows


@dataclass
class _Nodes:
    """Watches the nodes of one layer: ``before`` is what their activation function reads."""

    layer: int
    activation: str
    before: nn.Module
    outgoing: Tensor  # (F,) the length of each node's outgoing weights
    after: nn.Module | None  # reads the nodes; None where they are the activations themselves
    whole: nn.Module | None  # returns what the nodes are added to
    sums: Tensor = field(init=False)
    _before: Tensor = field(init=False)
    _after: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.sums = torch.zeros(3, len(self.outgoing), dtype=torch.float64, device=self.outgoing.device)

    def add(self, real: Tensor, whole: Tensor) -> None:
        """Take in the pass that is over; ``whole`` (B, T, D) is what the nodes were added to."""
        low, high = ends(self.activation, self._before[real])
        length = whole[real].norm(dim=-1, keepdim=True)
        reach = self._after[real].abs() * self.outgoing / length.clamp(min=torch.finfo(length.dtype).tiny)
        self.sums[0] = torch.maximum(self.sums[0], reach.amax(0).double())
        self.sums[1] += low.sum(0)
        self.sums[2] += high.sum(0)

    def state(self, num_tokens: int) -> NodeState:
        reach, low, high = self.sums.cpu().numpy()
        return NodeState(self.layer, reach, low / num_tokens, high / num_tokens)


@dataclass
class _Heads:
    """Watches the heads of one layer."""

    layer: int
    attention: Attention
    num_queries: int = 0
    sums: Tensor | None = None  # (2, H)

    def add(self, real: Tensor, x: Tensor, rotation: Any, mask: Tensor | None) -> None:
        """Take in one pass."""
        weights = attention_weights(self.attention, x, rotation, mask)
        visible = _visible(weights.shape[-1], mask, x.device).sum(-1).expand(x.shape[0], 1, -1)
        entropy = torch.special.entr(weights).sum(-1) / visible.log()
        peaked = weights.amax(-1) > PEAK
        wanted = (real & (visible[:, 0] >= FEWEST_VISIBLE))[:, None]
        found = torch.stack(
            [torch.where(wanted, value.double(), 0.0).sum((0, 2)) for value in (peaked, entropy)]
        )
        self.sums = found if self.sums is None else self.sums + found
        self.num_queries += int(wanted.sum())

    def state(self) -> HeadState:
        assert self.sums is not None
        peaked, evenness = (self.sums / max(1, self.num_queries)).cpu().numpy()
        unseen = np.full_like(peaked, np.nan)
        return HeadState(self.layer, *((peaked, evenness) if self.num_queries else (unseen, unseen)))


def attention_weights(attention: Attention, x: Tensor, rotation: Any, mask: Tensor | None) -> Tensor:
    """(B, H, T, T) what each query attends to, as the layer computes it from its input ``x`` (B, T, D)."""
    shape = (*x.shape[:2], -1, attention.head_dim)
    queries = attention.q_norm(attention.q_proj(x).view(shape)).transpose(1, 2)
    keys = attention.k_norm(attention.k_proj(x).view(shape)).transpose(1, 2)
    queries, keys = attention.rotate(queries, rotation), attention.rotate(keys, rotation)
    keys = keys.repeat_interleave(queries.shape[1] // keys.shape[1], dim=1)
    scores = queries @ keys.transpose(-1, -2) / math.sqrt(attention.head_dim)
    return scores.masked_fill(~_visible(x.shape[1], mask, x.device), -math.inf).softmax(-1)


def _visible(count: int, mask: Tensor | None, device: torch.device) -> Tensor:
    """(B or 1, 1, T, T) True where a query may look."""
    if mask is not None:
        return mask
    return torch.ones(count, count, dtype=torch.bool, device=device).tril()[None, None]


def _watchers(model: LanguageModel) -> tuple[list[_Nodes], list[_Heads]]:
    act = model.config.hidden_act
    if isinstance(model, WindowMLP):
        outgoing = model.lm_head.weight[:, : model.config.intermediate_size].norm(dim=0)
        return [_Nodes(0, act, model.model.hidden, outgoing, None, None)], []
    assert isinstance(model, Transformer)
    nodes, heads = [], []
    for layer, block in enumerate(model.model.layers):
        mlp: Any = block.mlp
        before = mlp.gate_proj if isinstance(mlp, GatedMLP) else mlp.up_proj
        nodes.append(_Nodes(layer, act, before, mlp.down_proj.weight.norm(dim=0), mlp.down_proj, block))
        heads.append(_Heads(layer, block.self_attn))  # type: ignore[arg-type]
    return nodes, heads


@contextmanager
def _hooked(nodes: list[_Nodes], heads: list[_Heads], real: list[Tensor]) -> Iterator[None]:
    """The watchers see every pass through their modules until the block ends."""
    handles = []
    try:
        for watcher in nodes:
            handles.append(watcher.before.register_forward_hook(_keep_before(watcher)))
            if watcher.after is not None and watcher.whole is not None:
                handles.append(watcher.after.register_forward_pre_hook(_keep_after(watcher)))
                handles.append(watcher.whole.register_forward_hook(_finish(watcher, real)))
        for head in heads:
            handles.append(head.attention.register_forward_pre_hook(_attend(head, real)))
        yield
    finally:
        for handle in handles:
            handle.remove()


def _keep_before(nodes: _Nodes) -> Callable[..., None]:
    def hook(module: nn.Module, arguments: Any, output: Tensor) -> None:
        nodes._before = output
        if nodes.after is None:
            nodes._after = ACTIVATION_FUNCTIONS[nodes.activation](output)

    return hook


def _keep_after(nodes: _Nodes) -> Callable[..., None]:
    def hook(module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        nodes._after = arguments[0]

    return hook


def _finish(nodes: _Nodes, real: list[Tensor]) -> Callable[..., None]:
    return lambda module, arguments, output: nodes.add(real[0], output)


def _attend(heads: _Heads, real: list[Tensor]) -> Callable[..., None]:
    def hook(module: nn.Module, arguments: tuple[Any, ...]) -> None:
        x, rotation, visibility = arguments[:3]
        heads.add(real[0], x, rotation, visibility.mask)

    return hook
