"""The parts between the attentions: norms, activations, positions and the two kinds of MLP.

Each switch of the configuration is a class or a function here, chosen once when the network is built.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from etude.model.config import ModelConfig

Rotation = tuple[Tensor, Tensor]
"""cos and signed sin of the positions at hand, each (1 or B, 1, T, Dh)."""


class RMSNorm(nn.Module):
    """x / sqrt(mean(x^2) + eps) * weight over the last axis (Zhang and Sennrich 2019)."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Float[Tensor, "*shape D"]) -> Float[Tensor, "*shape D"]:
        return F.rms_norm(x, self.weight.shape, self.weight, self.eps)


def make_norm(config: ModelConfig, width: int) -> nn.Module:
    if config.norm == "layernorm":
        return nn.LayerNorm(width, eps=config.rms_norm_eps)
    return RMSNorm(width, config.rms_norm_eps)


def _gelu_tanh(x: Tensor) -> Tensor:
    return F.gelu(x, approximate="tanh")


def _relu_squared(x: Tensor) -> Tensor:
    return F.relu(x).square()


ACTIVATION_FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu_new": _gelu_tanh,
    "gelu_pytorch_tanh": _gelu_tanh,
    "relu": F.relu,
    "relu2": _relu_squared,
    "tanh": torch.tanh,
}


class RotaryPositions(nn.Module):
    """Rotary position embedding (Su et al. 2021) in Hugging Face's layout: component i turns with i + Dh/2.

    The angles are tables in float32, computed once. They are buffers outside the state dict, because they
    follow from the configuration; `reset_buffers` fills them after the network was built without memory.
    """

    cos: Tensor
    sin: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.head_dim = config.head_dim
        self.theta = config.rope_theta
        shape = (config.max_position_embeddings, config.head_dim)
        self.register_buffer("cos", torch.empty(shape, dtype=torch.float32), persistent=False)
        self.register_buffer("sin", torch.empty(shape, dtype=torch.float32), persistent=False)
        self.reset_buffers()

    @torch.no_grad()
    def reset_buffers(self) -> None:
        """Fill the tables. The first half of `sin` is negated: turning then needs only a swap of halves."""
        device = self.cos.device
        exponent = torch.arange(0, self.head_dim, 2, dtype=torch.float32, device=device) / self.head_dim
        positions = torch.arange(self.cos.shape[0], dtype=torch.float32, device=device)
        angles = torch.outer(positions, 1.0 / (self.theta**exponent))
        self.cos.copy_(torch.cat((angles.cos(), angles.cos()), dim=-1))
        self.sin.copy_(torch.cat((-angles.sin(), angles.sin()), dim=-1))

    def forward(
        self, embedded: Float[Tensor, "B T D"], start: int, positions: Int[Tensor, "B T"] | None
    ) -> tuple[Float[Tensor, "B T D"], Rotation]:
        """Leave the embeddings as they are; return the rotation that attention gives to queries and keys."""
        if positions is None:
            here = slice(start, start + embedded.shape[1])
            cos, sin = self.cos[here][None, None], self.sin[here][None, None]
        else:
            cos, sin = self.cos[positions][:, None], self.sin[positions][:, None]
        return embedded, (cos.to(embedded.dtype), sin.to(embedded.dtype))


def rotate(x: Float[Tensor, "B H T Dh"], rotation: Rotation) -> Float[Tensor, "B H T Dh"]:
    """Turn each pair (x_i, x_{i + Dh/2}) by its position's angle."""
    cos, signed_sin = rotation
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat((second, first), dim=-1) * signed_sin


def no_rotation(x: Float[Tensor, "B H T Dh"], rotation: None) -> Float[Tensor, "B H T Dh"]:
    return x


class LearnedPositions(nn.Embedding):
    """One trained vector per position, added to the token's embedding (GPT-2)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config.max_position_embeddings, config.hidden_size)

    def forward(  # type: ignore[override]
        self, embedded: Float[Tensor, "B T D"], start: int, positions: Int[Tensor, "B T"] | None
    ) -> tuple[Float[Tensor, "B T D"], None]:
        if positions is None:
            return embedded + self.weight[start : start + embedded.shape[1]], None
        return embedded + F.embedding(positions, self.weight), None


class GatedMLP(nn.Module):
    """down(act(gate(x)) * up(x)): the gate decides how much of each up-value passes (Shazeer 2020)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width, inner, bias = config.hidden_size, config.intermediate_size, config.mlp_bias
        self.gate_proj = nn.Linear(width, inner, bias=bias)
        self.up_proj = nn.Linear(width, inner, bias=bias)
        self.down_proj = nn.Linear(inner, width, bias=bias)
        self.activation = ACTIVATION_FUNCTIONS[config.hidden_act]

    def forward(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        return self.down_proj(self.activation(self.gate_proj(x)) * self.up_proj(x))  # type: ignore[no-any-return]


class PlainMLP(nn.Module):
    """down(act(up(x))): one layer of nodes, each a weighted sum plus a bias."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=config.mlp_bias)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=config.mlp_bias)
        self.activation = ACTIVATION_FUNCTIONS[config.hidden_act]

    def forward(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        return self.down_proj(self.activation(self.up_proj(x)))  # type: ignore[no-any-return]


def make_mlp(config: ModelConfig) -> nn.Module:
    return GatedMLP(config) if config.mlp == "gated" else PlainMLP(config)
