"""The layers besides attention: norms, activation functions, positions, and the two kinds of MLP.

Each value of a switch in the configuration is one class or function, chosen when the network is built. So the forward
pass has no branches for families.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from etude.model.config import ModelConfig
from etude.model.dropout import Dropout
from etude.model.lora import project
from etude.model.taps import Taps, tap

Rotation = tuple[Tensor, Tensor]
"""cos and signed sin of the positions, each (1 or B, 1, T, R). The first R numbers of a head are rotated."""


class RMSNorm(nn.Module):
    """Normalise the last axis: x / sqrt(mean(x^2) + eps) * weight (Zhang and Sennrich 2019)."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def gain(self, dtype: torch.dtype) -> Float[Tensor, " D"]:
        """Return the factor of each normalised number."""
        return self.weight.to(dtype)

    def forward(self, x: Float[Tensor, "*shape D"]) -> Float[Tensor, "*shape D"]:
        return F.rms_norm(x, self.weight.shape, self.weight, self.eps)


class ZeroCenteredNorm(RMSNorm):
    """RMSNorm that multiplies by 1 + weight (Gemma). It computes in float32, as Gemma was trained."""

    def gain(self, dtype: torch.dtype) -> Float[Tensor, " D"]:
        return 1.0 + self.weight.to(dtype)

    def forward(self, x: Float[Tensor, "*shape D"]) -> Float[Tensor, "*shape D"]:
        wide = torch.promote_types(x.dtype, torch.float32)
        return F.rms_norm(x.to(wide), self.weight.shape, self.gain(wide), self.eps).to(x.dtype)


class ProjectionNorm(RMSNorm):
    """RMSNorm over all heads of a position together, for queries and keys of OLMo 2. The weight is (H * Dh,)."""

    def forward(self, x: Float[Tensor, "B T H Dh"]) -> Float[Tensor, "B T H Dh"]:
        return super().forward(x.flatten(-2)).view_as(x)  # over (B, T, H * Dh)


def make_norm(config: ModelConfig, width: int) -> nn.Module:
    """Build the norm that the configuration names, over ``width`` numbers."""
    if config.norm == "layernorm":
        return nn.LayerNorm(width, eps=config.rms_norm_eps)
    kind = ZeroCenteredNorm if config.zero_centered_norm else RMSNorm
    return kind(width, config.rms_norm_eps)


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
    """Rotary position embedding (Su et al. 2021) in Hugging Face's layout: components i and i + R/2 form a pair.

    cos and sin of all angles are computed once, in float32. The buffers are not in the state dict, because they follow
    from the configuration; `reset_buffers` fills them after the memory of a meta network is allocated.
    """

    cos: Tensor
    sin: Tensor

    def __init__(self, config: ModelConfig, *, local: bool = False) -> None:
        """Build the tables of the layers that see all positions, or of the sliding ones (``local``)."""
        super().__init__()
        self.width = config.rotary_dim
        self.theta = config.rope_local_base_freq if local else config.rope_theta
        self.scaling = None if local else config.rope_scaling
        shape = (config.max_position_embeddings, self.width)
        self.register_buffer("cos", torch.empty(shape, dtype=torch.float32), persistent=False)
        self.register_buffer("sin", torch.empty(shape, dtype=torch.float32), persistent=False)
        self.reset_buffers()

    @torch.no_grad()
    def reset_buffers(self) -> None:
        """Fill the tables. The first half of `sin` is negated, so that a rotation is x * cos + swapped halves * sin."""
        device = self.cos.device
        exponent = torch.arange(0, self.width, 2, dtype=torch.float32, device=device) / self.width  # (R/2,)
        positions = torch.arange(self.cos.shape[0], dtype=torch.float32, device=device)
        frequencies = 1.0 / (self.theta**exponent)
        if self.scaling is not None:
            frequencies = self.scaling.apply(frequencies)
        angles = torch.outer(positions, frequencies)  # (T, R/2), radians
        self.cos.copy_(torch.cat((angles.cos(), angles.cos()), dim=-1))
        self.sin.copy_(torch.cat((-angles.sin(), angles.sin()), dim=-1))

    def forward(
        self, embedded: Float[Tensor, "B T D"], start: int, positions: Int[Tensor, "B T"] | None
    ) -> tuple[Float[Tensor, "B T D"], Rotation]:
        """Return the embeddings unchanged, and the rotation that attention applies to queries and keys."""
        if positions is None:
            window = slice(start, start + embedded.shape[1])
            cos, sin = self.cos[window][None, None], self.sin[window][None, None]  # (1, 1, T, R)
        else:
            cos, sin = self.cos[positions][:, None], self.sin[positions][:, None]  # (B, 1, T, R)
        return embedded, (cos.to(embedded.dtype), sin.to(embedded.dtype))


def rotate(x: Float[Tensor, "B H T Dh"], rotation: Rotation) -> Float[Tensor, "B H T Dh"]:
    """Rotate each pair (x_i, x_{i + Dh/2}) by the angle of its position."""
    cos, signed_sin = rotation
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat((second, first), dim=-1) * signed_sin


def rotate_part(x: Float[Tensor, "B H T Dh"], rotation: Rotation) -> Float[Tensor, "B H T Dh"]:
    """Rotate the first R numbers of each head; the others stay unchanged."""
    width = rotation[0].shape[-1]
    return torch.cat((rotate(x[..., :width], rotation), x[..., width:]), dim=-1)


def no_rotation(x: Float[Tensor, "B H T Dh"], rotation: Rotation | None) -> Float[Tensor, "B H T Dh"]:
    """Return ``x``: learned positions are added to the embeddings instead, and some layers use no positions."""
    return x


def rounded_scale(scale: float, embedded: Tensor) -> Float[Tensor, ""]:
    """Return the scale of embeddings in their dtype: Gemma was trained with the rounded number."""
    return torch.full((), scale, dtype=embedded.dtype, device=embedded.device)


class LearnedPositions(nn.Embedding):
    """One trained vector for each position, added to the token's embedding (GPT-2)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config.max_position_embeddings, config.hidden_size)

    def forward(  # type: ignore[override]
        self, embedded: Float[Tensor, "B T D"], start: int, positions: Int[Tensor, "B T"] | None
    ) -> tuple[Float[Tensor, "B T D"], None]:
        """Return the embeddings plus the vectors of their positions, and no rotation."""
        if positions is None:
            return embedded + self.weight[start : start + embedded.shape[1]], None
        return embedded + F.embedding(positions, self.weight), None


class GatedMLP(nn.Module):
    """down(act(gate(x)) * up(x)): a gated linear unit, SwiGLU with silu (Shazeer 2020)."""

    def __init__(self, config: ModelConfig, path: str) -> None:
        super().__init__()
        self.path = path
        width, inner, bias = config.hidden_size, config.intermediate_size, config.mlp_bias
        self.gate_proj = nn.Linear(width, inner, bias=bias)
        self.up_proj = nn.Linear(width, inner, bias=bias)
        self.down_proj = nn.Linear(inner, width, bias=bias)
        self.activation = ACTIVATION_FUNCTIONS[config.hidden_act]

    def forward(
        self, x: Float[Tensor, "B T D"], dropout: Dropout | None = None, taps: Taps | None = None
    ) -> Float[Tensor, "B T D"]:
        gate = self.activation(tap(taps, self.path, "pre", project(self.gate_proj, x, dropout)))  # (B, T, F)
        post = gate * tap(taps, self.path, "pre_linear", project(self.up_proj, x, dropout))  # (B, T, F)
        return project(self.down_proj, tap(taps, self.path, "post", post), dropout)


class PlainMLP(nn.Module):
    """down(act(up(x))): one hidden layer of neurons."""

    def __init__(self, config: ModelConfig, path: str) -> None:
        super().__init__()
        self.path = path
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=config.mlp_bias)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=config.mlp_bias)
        self.activation = ACTIVATION_FUNCTIONS[config.hidden_act]

    def forward(
        self, x: Float[Tensor, "B T D"], dropout: Dropout | None = None, taps: Taps | None = None
    ) -> Float[Tensor, "B T D"]:
        post = self.activation(tap(taps, self.path, "pre", project(self.up_proj, x, dropout)))  # (B, T, F)
        return project(self.down_proj, tap(taps, self.path, "post", post), dropout)


def make_mlp(config: ModelConfig, path: str) -> GatedMLP | PlainMLP:
    """Build the MLP that the configuration names. The names of its activations begin with ``path``."""
    return GatedMLP(config, path) if config.mlp == "gated" else PlainMLP(config, path)
