"""One update of a Llama, written again from its definitions in float64: the reference for a device's step.

It shares no code with training and uses no fused operation: only sums, products, exponentials, and PyTorch's
derivatives of these. Update rules supply their own definitions; only the hyperparameters are shared. Parameters and
their state go by name.
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
    """Forward and backward pass in float64; gradients before clipping."""

    logits: Tensor  # (B, T, V)
    loss: Tensor
    gradients: dict[str, Tensor]
    grad_norm: Tensor


def predict(config: ModelConfig, weights: Named, inputs: Tensor, targets: Tensor) -> Prediction:
    """Return logits, the mean loss over the counted targets, and its gradient for every parameter."""
    leaves = {name: weight.detach().clone().requires_grad_() for name, weight in weights.items()}
    with torch.enable_grad():
        logits = _logits(config, leaves, inputs)
        real = targets != IGNORE_INDEX
        largest = logits.amax(-1, keepdim=True)
        normalizer = (logits - largest).exp().sum(-1).log() + largest[..., 0]
        desired = logits.gather(-1, targets.clamp(min=0)[..., None])[..., 0]
        loss = ((normalizer - desired) * real).sum() / real.sum()
        flat = torch.autograd.grad(loss, list(leaves.values()))
    gradients = dict(zip(leaves, flat, strict=True))
    norm = torch.stack([(gradient**2).sum() for gradient in flat]).sum().sqrt()
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
    """Return what the definition of its rule adds to each parameter.

    ``gradients`` are the clipped ones; ``state`` is that before the update, named as in a checkpoint.
    """
    by_name = {}
    for name, used in hyperparameters(config, settings, lr_factor, momentum).items():
        rule, weight = rule_named(used.rule), weights[name]
        leaves = {leaf: state[f"{name}.{leaf}"] for leaf in rule.state_shapes(weight.shape)}
        move = rule.definition(gradients[name], leaves, used).move
        by_name[name] = -used.lr * used.weight_decay * weight - move
    return by_name


def _logits(config: ModelConfig, weights: Named, inputs: Tensor) -> Tensor:
    eps = config.rms_norm_eps
    x = weights["model.embed_tokens.weight"][inputs]
    for layer in range(config.num_hidden_layers):
        prefix = f"model.layers.{layer}."
        normed = _rms_norm(x, weights[prefix + "input_layernorm.weight"], eps)
        x = x + _attention(config, weights, prefix + "self_attn.", normed)
        normed = _rms_norm(x, weights[prefix + "post_attention_layernorm.weight"], eps)
        gate, up = (_linear(weights, f"{prefix}mlp.{kind}_proj", normed) for kind in ("gate", "up"))
        x = x + _linear(weights, prefix + "mlp.down_proj", gate / (1 + (-gate).exp()) * up)
    return _rms_norm(x, weights["model.norm.weight"], eps) @ weights["lm_head.weight"].T


def _linear(weights: Named, name: str, x: Tensor) -> Tensor:
    return x @ weights[name + ".weight"].T + weights[name + ".bias"]


def _rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return x / ((x**2).mean(-1, keepdim=True) + eps).sqrt() * weight


def _attention(config: ModelConfig, weights: Named, prefix: str, x: Tensor) -> Tensor:
    rows, count, _ = x.shape
    shape = (rows, count, -1, config.head_dim)
    queries, keys, values = (
        _linear(weights, f"{prefix}{kind}_proj", x).view(shape).transpose(1, 2) for kind in ("q", "k", "v")
    )
    queries, keys = _rotated(queries, config.rope_theta), _rotated(keys, config.rope_theta)
    group = config.num_attention_heads // config.num_key_value_heads
    mixed = causal_attention(queries, keys.repeat_interleave(group, 1), values.repeat_interleave(group, 1))
    return _linear(weights, prefix + "o_proj", mixed.transpose(1, 2).reshape(rows, count, -1))


def _rotated(x: Tensor, theta: float) -> Tensor:
    """Rotate each pair (x_i, x_{i + Dh/2}) by the angle position * theta^(-2i/Dh)."""
    half = x.shape[-1] // 2
    frequencies = theta ** (-torch.arange(half, dtype=x.dtype) / half)
    angles = torch.arange(x.shape[-2], dtype=x.dtype)[:, None] * frequencies
    first, second = x[..., :half], x[..., half:]
    cos, sin = angles.cos(), angles.sin()
    return torch.cat((first * cos - second * sin, second * cos + first * sin), -1)


def causal_attention(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Return softmax(q k^T / sqrt(Dh)) v, (B, H, T, Dh) each; the last query is at the position of the last key."""
    scores = queries @ keys.mT / math.sqrt(queries.shape[-1])
    count, seen = scores.shape[-2:]
    visible = torch.ones(count, seen, dtype=torch.bool).tril(seen - count)
    powers: Tensor = (scores - scores.amax(-1, keepdim=True)).exp() * visible
    return powers / powers.sum(-1, keepdim=True) @ values
