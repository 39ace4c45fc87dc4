"""Where the saved format of a family has the linear layers that a low-rank adapter may change. Needs no PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from etude.model.config import ModelConfig

LINEAR_LAYERS = (
    *("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"),
    *("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"),
)
"""The linear layers of a transformer's layer, by their path in it."""


def side_by_side(parts: list[Tensor], config: ModelConfig) -> Tensor:
    """Join matrices along their outputs."""
    import torch

    return torch.cat(parts)


def equal_parts(joined: Tensor, config: ModelConfig) -> list[Tensor]:
    """Split a matrix along its outputs into three: those of queries, keys and values."""
    return list(joined.chunk(3))


@dataclass(frozen=True)
class AdapterForm:
    """The linear layers of a family, as PEFT names them.

    Attributes:
        layers: saved path of the list of layers.
        names: saved path of each linear layer within its layer; several of one name are stored as one matrix.
        transposed: whether matrices are stored as (in, out): PEFT's ``fan_in_fan_out``.
        join, split: convert between the matrices (out, in) of a fused layer and the stored one.
    """

    layers: str = "model.layers"
    names: Mapping[str, str] = field(default_factory=lambda: {name: name for name in LINEAR_LAYERS})
    transposed: bool = False
    join: Callable[[list[Tensor], ModelConfig], Tensor] = side_by_side
    split: Callable[[Tensor, ModelConfig], list[Tensor]] = equal_parts


PLAIN = AdapterForm()
"""The form of Llama's layers, which most families share."""
