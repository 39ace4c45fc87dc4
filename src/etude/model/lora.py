"""A linear layer with a low-rank branch (LoRA, Hu et al. 2021): y = x W' + scale * (x A') B'.

In training, dropout may zero some of the numbers that the branch reads, as in PEFT: x A' is then dropout(x) A'.

Its ``weight`` reads as the sum W + scale * B A. So every reader of a layer's weight, such as the fast decoding and the
contributions of neurons, sees the matrix that the layer computes with. The parameter of that name is W alone, frozen.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from etude.model.adapter import LoRA, adapted_matrices, is_factor
from etude.model.config import ModelConfig
from etude.model.dropout import Dropout, branch_keep_mask, keep_scale
from etude.model.init import first_value


class LoRALinear(nn.Linear):
    """A linear layer with a low-rank branch.

    Attributes:
        scale: alpha / rank.
        dropout: probability, in training, of zeroing each number that the branch reads.
        place: of its dropout mask, which the parts of a fused matrix share.
        lora_A: (R, in). A later part of a fused matrix has none and uses that of the first.
        lora_B: (out, R).
    """

    lora_A: nn.Parameter
    lora_B: nn.Parameter

    def __init__(self, layer: nn.Linear, adapter: LoRA, place: int, first: LoRALinear | None) -> None:
        """Take over the parameters of ``layer``; ``first`` owns the A that the parts of a fused matrix share."""
        nn.Module.__init__(self)  # not that of Linear, which would allocate another matrix
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self.scale, self.dropout, self.place = adapter.scale, adapter.dropout, place
        # Not as an attribute: the one of this name is the sum.
        self._parameters["weight"] = layer._parameters["weight"]
        self.register_parameter("bias", layer.bias)
        device = self.base_weight.device
        self._first = () if first is None else (first,)  # a tuple: no submodule of this layer
        if first is None:
            self.lora_A = nn.Parameter(torch.empty(adapter.rank, layer.in_features, device=device))
        self.lora_B = nn.Parameter(torch.empty(layer.out_features, adapter.rank, device=device))

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
    def product(self) -> Float[Tensor, "O I"]:
        """What the branch adds to the matrix: scale * B A, in the precision of the parameters."""
        with torch.autocast(self.base_weight.device.type, enabled=False):
            return (self.lora_B @ self.down) * self.scale

    @property
    def weight(self) -> Float[Tensor, "O I"]:  # type: ignore[override]
        """The matrix that the layer computes with: W + scale * B A, in the precision of the parameters."""
        return self.base_weight + self.product

    def keep_mask(self, dropout: Dropout | None, context: int) -> Bool[Tensor, "B T I"] | None:
        """Return which numbers of rows of ``context`` tokens the branch reads; None: all."""
        if dropout is None or dropout.branch_rows is None or not self.dropout:
            return None
        return branch_keep_mask(self.dropout, dropout.branch_rows, self.place, context, self.in_features)

    def forward(
        self, x: Float[Tensor, "*shape I"], dropout: Dropout | None = None
    ) -> Float[Tensor, "*shape O"]:
        mask = self.keep_mask(dropout, x.shape[-2])
        read = x if mask is None else torch.where(mask, x * keep_scale(self.dropout), 0.0)
        # Scaled at rank R, and added by the product itself: the results of both products are read once.
        inner = F.linear(read, self.down) * self.scale  # (*shape, R)
        frozen = F.linear(x, self.base_weight, self.bias)  # (*shape, O)
        return torch.addmm(frozen.flatten(0, -2), inner.flatten(0, -2), self.lora_B.t()).view_as(frozen)


def add_adapter(model: nn.Module, config: ModelConfig) -> None:
    """Give the linear layers that the adapter of ``config`` names their branches, on the device of their weights."""
    adapter = config.adapter
    for number, matrix in enumerate(adapted_matrices(config)):
        assert adapter is not None
        first: LoRALinear | None = None
        for path in matrix.parts:
            layer = model.get_submodule(path)
            assert isinstance(layer, nn.Linear)
            parent, _, name = path.rpartition(".")
            adapted = LoRALinear(layer, adapter, -1 - number, first)
            setattr(model.get_submodule(parent), name, adapted)
            first = first or adapted


def project(layer: nn.Linear, x: Float[Tensor, "B T I"], dropout: Dropout | None) -> Float[Tensor, "B T O"]:
    """Apply a layer, with dropout in its branch if it has one."""
    if dropout is None or not isinstance(layer, LoRALinear):
        return layer(x)  # type: ignore[no-any-return]
    return layer(x, dropout)  # type: ignore[no-any-return]


def dropped_product(
    layer: nn.Linear, dropout: Dropout | None, context: int
) -> tuple[Float[Tensor, "O I"], Float[Tensor, "T I"]] | None:
    """Return what dropout changes in a row of ``context`` tokens; None: nothing.

    At position t the layer computes with ``layer.weight + product * change[t]``, where the result is (product, change).
    """
    mask = layer.keep_mask(dropout, context) if isinstance(layer, LoRALinear) else None
    if mask is None:
        return None
    assert isinstance(layer, LoRALinear)
    return layer.product.detach(), mask[0] * keep_scale(layer.dropout) - 1.0


@contextmanager
def adapter_off(model: nn.Module) -> Iterator[None]:
    """Let the network compute as its base in the block: each branch counts 0 times."""
    layers = [layer for layer in model.modules() if isinstance(layer, LoRALinear)]
    scales = [layer.scale for layer in layers]
    for layer in layers:
        layer.scale = 0.0
    try:
        yield
    finally:
        for layer, scale in zip(layers, scales, strict=True):
            layer.scale = scale


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
