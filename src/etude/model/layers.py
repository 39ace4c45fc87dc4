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
from etude.model.taps import Taps, tap

Rotation = tuple[Tensor, Tensor]
"""cos and signed sin of the tokens' positions, each (1 or B, 1, T, R); R numbers of each head are turned."""


class RMSNorm(nn.Module):
    """x / sqrt(mean(x^2) + eps) * weight over the last axis (Zhang and Sennrich 2019)."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Float[Tensor, "*shape D"]) -> Float[Tensor, "*shape D"]:
        return F.rms_norm(x, self.weight.shape, self.weight, self.eps)


class ProjectionNorm(RMSNorm):
    """RMSNorm over all heads of a position together, as OLMo 2 normalises queries and keys; weight (H * Dh,)."""

    def forward(self, x: Float[Tensor, "B T H Dh"]) -> Float[Tensor, "B T H Dh"]:
        return super().forward(x.flatten(-2)).view_as(x)


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
    """Rotary position embedding (Su et al. 2021) in Hugging Face's layout: component i turns with i + R/2.

    The angles are tables in float32, computed once. They are buffers outside the state dict, because they
    follow from the configuration; `reset_buffers` fills them after the network was built without memory.
    """

    cos: Tensor
    sin: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.width = config.rotary_dim
        self.theta = config.rope_theta
        self.scaling = config.rope_scaling
        shape = (config.max_position_embeddings, self.width)
        self.register_buffer("cos", torch.empty(shape, dtype=torch.float32), persistent=False)
        self.register_buffer("sin", torch.empty(shape, dtype=torch.float32), persistent=False)
        self.reset_buffers()

    @torch.no_grad()
    def reset_buffers(self) -> None:
        """Fill the tables. The first half of `sin` is negated: turning then needs only a swap of halves."""
        device = self.cos.device
        exponent = torch.arange(0, self.width, 2, dtype=torch.float32, device=device) / self.width
        positions = torch.arange(self.cos.shape[0], dtype=torch.float32, device=device)
        frequencies = 1.0 / (self.theta**exponent)
        if self.scaling is not None:
            frequencies = self.scaling.apply(frequencies)
        angles = torch.outer(positions, frequencies)
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


def rotate_part(x: Float[Tensor, "B H T Dh"], rotation: Rotation) -> Float[Tensor, "B H T Dh"]:
    """Turn the first R numbers of each head, and leave the rest as they are."""
    width = rotation[0].shape[-1]
    return torch.cat((rotate(x[..., :width], rotation), x[..., width:]), dim=-1)


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

    def __init__(self, config: ModelConfig, path: str) -> None:
        super().__init__()
        self.path = path
        width, inner, bias = config.hidden_size, config.intermediate_size, config.mlp_bias
        self.gate_proj = nn.Linear(width, inner, bias=bias)
        self.up_proj = nn.Linear(width, inner, bias=bias)
        self.down_proj = nn.Linear(inner, width, bias=bias)
        self.activation = ACTIVATION_FUNCTIONS[config.hidden_act]

    def forward(self, x: Float[Tensor, "B T D"], taps: Taps | None = None) -> Float[Tensor, "B T D"]:
        gate = self.activation(tap(taps, self.path, "pre", self.gate_proj(x)))  # (B, T, F)
        post = gate * tap(taps, self.path, "pre_linear", self.up_proj(x))  # (B, T, F)
        return self.down_proj(tap(taps, self.path, "post", post))  # type: ignore[no-any-return]


class PlainMLP(nn.Module):
    """down(act(up(x))): one layer of nodes, each a weighted sum plus a bias."""

    def __init__(self, config: ModelConfig, path: str) -> None:
        super().__init__()
        self.path = path
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=config.mlp_bias)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=config.mlp_bias)
        self.activation = ACTIVATION_FUNCTIONS[config.hidden_act]

    def forward(self, x: Float[Tensor, "B T D"], taps: Taps | None = None) -> Float[Tensor, "B T D"]:
        post = self.activation(tap(taps, self.path, "pre", self.up_proj(x)))  # (B, T, F)
        return self.down_proj(tap(taps, self.path, "post", post))  # type: ignore[no-any-return]


def make_mlp(config: ModelConfig, path: str) -> GatedMLP | PlainMLP:
    """The MLP that the configuration asks for; its activations are named under ``path``."""
    return GatedMLP(config, path) if config.mlp == "gated" else PlainMLP(config, path)
