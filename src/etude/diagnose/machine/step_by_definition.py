"""One update of a Llama once more, written from its definitions in float64: what a device's step is held against.

None of the code that trains and no fused operation: sums, products, exponentials, and PyTorch's derivatives of these.
Update rules bring their own definitions. Only the numbers of the recipe are shared. Parameters and their state go by
name.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from etude.config import ResolvedTrain
from etude.data.tokens.coverage import IGNORE_INDEX
from etude.model.config import ModelConfig
from etude.train.optimizer import hyperparameters
from etude.train.rules import rule_named

Named = Mapping[str, Tensor]


@dataclass(frozen=True)
class Prediction:
    """Forward and backward: all in float64, gradients before clipping."""

    logits: Tensor  # (B, T, V)
    loss: Tensor
    gradients: dict[str, Tensor]
    grad_norm: Tensor


def predict(config: ModelConfig, weights: Named, inputs: Tensor, targets: Tensor) -> Prediction:
    """Logits, mean loss over the real targets, and its gradient for every parameter."""
    leaves = {name: weight.detach().clone().requires_grad_() for name, weight in weights.items()}
    with torch.enable_grad():
        logits = _logits(config, leaves, inputs)
        real = targets != IGNORE_INDEX
        largest = logits.amax(-1, keepdim=True)
        normalizer = (logits - largest).exp().sum(-1).log() + largest[..., 0]
        desired = logits.gather(-1, targets.clamp(min=0)[..., None])[..., 0]
        loss = ((normalizer - desired) * real).sum() / real.sum()
        found = torch.autograd.grad(loss, list(leaves.values()))
    gradients = dict(zip(leaves, found, strict=True))
    norm = torch.stack([(gradient**2).sum() for gradient in found]).sum().sqrt()
    return Prediction(logits.detach(), loss.detach(), gradients, norm)


def updates(
    config: ModelConfig,
    settings: ResolvedTrain,
    weights: Named,
    gradients: Named,
    state: Named,
    *,
    lr_factor: float,
    momentum: float,
) -> dict[str, Tensor]:
    """Return what is added to each parameter, by the definition of its rule.

    ``gradients`` are the clipped ones, ``state`` is that before the update, named as a checkpoint names it.
    """
    found = {}
    for name, used in hyperparameters(config, settings, lr_factor, momentum).items():
        rule, weight = rule_named(used.rule), weights[name]
        leaves = {leaf: state[f"{name}.{leaf}"] for leaf in rule.state_shapes(weight.shape)}
        move = rule.definition(gradients[name], leaves, used).move
        found[name] = -used.lr * used.weight_decay * weight - move
    return found


def _logits(config: ModelConfig, weights: Named, inputs: Tensor) -> Tensor:
    eps = config.rms_norm_eps
    x = weights["model.embed_tokens.weight"][inputs]
    for layer in range(config.num_hidden_layers):
        here = f"model.layers.{layer}."
        normed = _rms_norm(x, weights[here + "input_layernorm.weight"], eps)
        x = x + _attention(config, weights, here + "self_attn.", normed)
        normed = _rms_norm(x, weights[here + "post_attention_layernorm.weight"], eps)
        gate, up = (_linear(weights, f"{here}mlp.{kind}_proj", normed) for kind in ("gate", "up"))
        x = x + _linear(weights, here + "mlp.down_proj", gate / (1 + (-gate).exp()) * up)
    return _rms_norm(x, weights["model.norm.weight"], eps) @ weights["lm_head.weight"].T


def _linear(weights: Named, name: str, x: Tensor) -> Tensor:
    return x @ weights[name + ".weight"].T + weights[name + ".bias"]


def _rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return x / ((x**2).mean(-1, keepdim=True) + eps).sqrt() * weight


def _attention(config: ModelConfig, weights: Named, here: str, x: Tensor) -> Tensor:
    rows, count, _ = x.shape
    shape = (rows, count, -1, config.head_dim)
    queries, keys, values = (
        _linear(weights, f"{here}{kind}_proj", x).view(shape).transpose(1, 2) for kind in ("q", "k", "v")
    )
    queries, keys = _turned(queries, config.rope_theta), _turned(keys, config.rope_theta)
    served = config.num_attention_heads // config.num_key_value_heads
    mixed = causal_attention(queries, keys.repeat_interleave(served, 1), values.repeat_interleave(served, 1))
    return _linear(weights, here + "o_proj", mixed.transpose(1, 2).reshape(rows, count, -1))


def _turned(x: Tensor, theta: float) -> Tensor:
    """Each pair (x_i, x_{i + Dh/2}) turned by position * theta^(-2i/Dh)."""
    half = x.shape[-1] // 2
    frequencies = theta ** (-torch.arange(half, dtype=x.dtype) / half)
    angles = torch.arange(x.shape[-2], dtype=x.dtype)[:, None] * frequencies
    first, second = x[..., :half], x[..., half:]
    cos, sin = angles.cos(), angles.sin()
    return torch.cat((first * cos - second * sin, second * cos + first * sin), -1)


def causal_attention(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(Dh)) v, (B, H, T, Dh) each; the last query stands at the last key."""
    scores = queries @ keys.mT / math.sqrt(queries.shape[-1])
    count, seen = scores.shape[-2:]
    visible = torch.ones(count, seen, dtype=torch.bool).tril(seen - count)
    powers: Tensor = (scores - scores.amax(-1, keepdim=True)).exp() * visible
    return powers / powers.sum(-1, keepdim=True) @ values
