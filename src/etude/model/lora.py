"""A linear layer with a low-rank branch (LoRA, Hu et al. 2021): y = x W' + scale * (x A') B'.

Its ``weight`` reads as the sum W + scale * B A. So every reader of a layer's weight, such as the fast decoding and the
contributions of neurons, sees the matrix that the layer computes with. The parameter of that name is W alone, frozen.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from etude.model.adapter import adapted_matrices, is_factor
from etude.model.config import ModelConfig
from etude.model.init import first_value


class LoRALinear(nn.Linear):
    """A linear layer with a low-rank branch.

    Attributes:
        scale: alpha / rank.
        lora_A: (R, in). A later part of a fused matrix has none and uses that of the first.
        lora_B: (out, R).
    """

    lora_A: nn.Parameter
    lora_B: nn.Parameter

    def __init__(self, layer: nn.Linear, rank: int, scale: float, first: LoRALinear | None) -> None:
        """Take over the parameters of ``layer``; ``first`` owns the A that the parts of a fused matrix share."""
        nn.Module.__init__(self)  # not that of Linear, which would allocate another matrix
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self.scale = scale
        # Not as an attribute: the one of this name is the sum.
        self._parameters["weight"] = layer._parameters["weight"]
        self.register_parameter("bias", layer.bias)
        device = self.base_weight.device
        self._first = () if first is None else (first,)  # a tuple: no submodule of this layer
        if first is None:
            self.lora_A = nn.Parameter(torch.empty(rank, layer.in_features, device=device))
        self.lora_B = nn.Parameter(torch.empty(layer.out_features, rank, device=device))

    @property
    def base_weight(self) -> Float[Tensor, "O I"]:
        """The frozen matrix W."""
        weight = self._parameters["weight"]
        assert weight is not None
        return weight

    @property
    def down(self) -> Float[Tensor, "R I"]:
        """The factor A."""
        return self._first[0].lora_A if self._first else self.lora_A

    @property
    def weight(self) -> Float[Tensor, "O I"]:  # type: ignore[override]
        """The matrix that the layer computes with: W + scale * B A, in the precision of the parameters."""
        with torch.autocast(self.base_weight.device.type, enabled=False):
            return self.base_weight + (self.lora_B @ self.down) * self.scale

    def forward(self, x: Float[Tensor, "*shape I"]) -> Float[Tensor, "*shape O"]:
        branch = F.linear(F.linear(x, self.down), self.lora_B)  # (*shape, O)
        return F.linear(x, self.base_weight, self.bias) + branch * self.scale


def add_adapter(model: nn.Module, config: ModelConfig) -> None:
    """Give the linear layers that the adapter of ``config`` names their branches, on the device of their weights."""
    adapter = config.adapter
    for matrix in adapted_matrices(config):
        assert adapter is not None
        first: LoRALinear | None = None
        for path in matrix.parts:
            layer = model.get_submodule(path)
            assert isinstance(layer, nn.Linear)
            parent, _, name = path.rpartition(".")
            adapted = LoRALinear(layer, adapter.rank, adapter.scale, first)
            setattr(model.get_submodule(parent), name, adapted)
            first = first or adapted


def first_factors(model: nn.Module, config: ModelConfig, seed: int) -> dict[str, Tensor]:
    """Return the factors before the first update, by name: a function of the seed and the name alone.

    B is zero, so the network begins as its base.
    """
    return {
        name: first_value(name, parameter.shape, config, seed)
        for name, parameter in model.named_parameters()
        if is_factor(name)
    }


def merged_state(state: Mapping[str, Tensor], config: ModelConfig) -> dict[str, Tensor]:
    """Return the tensors of the network without its adapter that computes the same: every matrix is the sum."""
    merged = {name: tensor for name, tensor in state.items() if not is_factor(name)}
    for matrix in adapted_matrices(config):
        assert config.adapter is not None
        down = state[f"{matrix.parts[0]}.lora_A"].detach()
        for path in matrix.parts:
            product = (state[f"{path}.lora_B"].detach() @ down) * config.adapter.scale
            merged[f"{path}.weight"] = merged[f"{path}.weight"].detach() + product
    return merged
