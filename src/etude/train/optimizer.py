"""Which rule updates which parameter, at which rate, and the state that each rule keeps.

==============================  ==============  ===========================  ============
parameters                      rule            learning rate                weight decay
==============================  ==============  ===========================  ============
matrices inside the layers      Muon            muon_lr                      yes
the same, optimizer = adamw     AdamW           lr * 128 / hidden_size       yes
output matrix                   AdamW           lr * 128 / hidden_size       yes
embeddings                      AdamW           lr                           yes
biases, norms                   AdamW           lr                           no
==============================  ==============  ===========================  ============

So both rates, found on a network of width 128, hold at any width: an update of Adam moves each weight alike, and a sum
over more inputs moves more (muP: Yang et al. 2022, "Tensor Programs V", table 3); Muon's factor sees to the same. An
output matrix that is tied to the embedding counts as an output matrix.

The state is named after the parameters (``<parameter>.exp_avg``), so that a checkpoint can be read, and
opened later, without knowing in which order a program listed its parameters.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from etude.config import TrainSettings, resolved
from etude.device import Device
from etude.errors import InputError
from etude.model.config import ModelConfig
from etude.model.language_model import LanguageModel
from etude.train.muon import Muon

BASE_WIDTH = 128
"""The hidden_size at which AdamW's rate of every parameter is ``train.lr`` itself."""
LARGEST_WHOLE = 128
"""Smaller side of the matrices that are orthogonalised whole: larger ones cost more than they gain (notebook)."""
LARGEST_BLOCK, SMALLEST_BLOCK = 64, 32
"""Sides of the blocks of the others."""
STATE_LEAVES = ("exp_avg", "exp_avg_sq", "step", "momentum_buffer")


class UpdateRules:
    """AdamW and Muon side by side over the parameters of one model."""

    def __init__(self, model: LanguageModel, settings: TrainSettings, device: Device) -> None:
        self.names: dict[Tensor, str] = {parameter: name for name, parameter in model.named_parameters()}
        lr = resolved(settings.lr, "train.lr")
        muon_lr = resolved(settings.muon_lr, "train.muon_lr")
        decay = resolved(settings.weight_decay, "train.weight_decay")
        groups = group_parameters(model, use_muon=settings.optimizer == "muon")
        matrix_lr = lr * BASE_WIDTH / model.config.hidden_size
        adamw_groups: list[dict[str, Any]] = [
            {"params": groups["matrices"], "lr": matrix_lr, "weight_decay": decay},
            {"params": groups["embeddings"], "lr": lr, "weight_decay": decay},
            {"params": groups["vectors"], "lr": lr, "weight_decay": 0.0},
        ]
        self.optimizers: list[torch.optim.Optimizer] = [
            torch.optim.AdamW(
                [group for group in adamw_groups if group["params"]],
                betas=settings.betas,
                eps=settings.eps,
                fused=device.kind in ("cpu", "cuda"),
            )
        ]
        muon_groups = blocks_of(groups["muon"], self.names, model.config)
        if muon_groups:
            # bf16 is enough for a direction, but only a device with fast bf16 gains by it.
            dtype = torch.bfloat16 if device.dtype == "bf16" and device.kind == "cuda" else torch.float32
            muon = Muon(muon_groups, muon_lr, settings.momentum, decay, dtype)
            self.optimizers.append(muon)
        self._peak_lrs = [[group["lr"] for group in o.param_groups] for o in self.optimizers]

    def step(self, factor: float, momentum: float) -> None:
        """Update every parameter from its gradient, at ``factor`` times the peak learning rates.

        ``momentum`` is Muon's; AdamW has its betas.
        """
        for optimizer, peaks in zip(self.optimizers, self._peak_lrs, strict=True):
            for group, peak in zip(optimizer.param_groups, peaks, strict=True):
                group["lr"] = peak * factor
                if isinstance(optimizer, Muon):
                    group["momentum"] = momentum
            optimizer.step()

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)

    def named_state(self) -> dict[str, Tensor]:
        """The state tensors by name: ``<parameter>.exp_avg``, ``.exp_avg_sq``, ``.step``, ``.momentum_buffer``."""
        named = {}
        for optimizer in self.optimizers:
            for parameter, state in optimizer.state.items():
                for leaf in STATE_LEAVES:
                    if leaf in state:
                        named[f"{self.names[parameter]}.{leaf}"] = state[leaf]
        return named

    def load_named_state(self, named: Mapping[str, Tensor]) -> None:
        """Go on from ``named``; empty before the first update.

        Raises:
            InputError: a state tensor is missing or has another shape than its parameter.
        """
        for optimizer in self.optimizers:
            optimizer.state.clear()
            leaves = (
                ("momentum_buffer",) if isinstance(optimizer, Muon) else ("exp_avg", "exp_avg_sq", "step")
            )
            for group in optimizer.param_groups:
                for parameter in group["params"] if named else ():
                    for leaf in leaves:
                        value = _matching(named, f"{self.names[parameter]}.{leaf}", parameter, leaf)
                        optimizer.state[parameter][leaf] = value


def group_parameters(model: LanguageModel, *, use_muon: bool) -> dict[str, list[nn.Parameter]]:
    """The parameters of ``model`` by what is done with them.

    Muon takes the matrices between the embedding and the output: these map one activation to another, which is
    what its spectral norm measures; rows of an embedding or of the output matrix belong to single tokens.
    """
    embeddings = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    output = id(model.unembedding()[0])
    groups: dict[str, list[nn.Parameter]] = {
        name: [] for name in ("muon", "matrices", "embeddings", "vectors")
    }
    for parameter in model.parameters():
        if parameter.ndim < 2:
            group = "vectors"
        elif id(parameter) in embeddings - {output}:
            group = "embeddings"
        elif id(parameter) == output or not use_muon:
            group = "matrices"
        else:
            group = "muon"
        groups[group].append(parameter)
    return groups


def blocks_of(
    matrices: Sequence[nn.Parameter], names: Mapping[Tensor, str], config: ModelConfig
) -> list[dict[str, Any]]:
    """Muon's parameter groups: which matrices are orthogonalised in blocks, and in how many.

    Queries, keys and values by head. Of wide networks an MLP's matrices by groups of its nodes, and the output
    projection by groups of its inputs, as few as make a group at most ``LARGEST_BLOCK``.
    """
    groups: dict[tuple[int, int], list[nn.Parameter]] = defaultdict(list)
    for matrix in matrices:
        rows, columns = matrix.shape
        kind = names[matrix].split(".")[-2]
        blocks = (1, 1)
        if kind == "q_proj":
            blocks = (config.num_attention_heads, 1)
        elif kind in ("k_proj", "v_proj"):
            blocks = (config.num_key_value_heads, 1)
        elif kind in ("gate_proj", "up_proj"):
            blocks = (_fewest_blocks(rows, columns), 1)
        elif kind in ("o_proj", "down_proj"):
            blocks = (1, _fewest_blocks(columns, rows))
        groups[blocks].append(matrix)
    return [
        {"params": parameters, "row_blocks": rows, "column_blocks": columns}
        for (rows, columns), parameters in groups.items()
    ]


def _fewest_blocks(divided: int, other: int) -> int:
    """Into how many equal blocks a side of ``divided`` goes, 1 if no number of them makes blocks of a useful size."""
    if min(divided, other) <= LARGEST_WHOLE:
        return 1
    counts = range(-(-divided // LARGEST_BLOCK), divided // SMALLEST_BLOCK + 1)
    return next((count for count in counts if divided % count == 0), 1)


def _matching(named: Mapping[str, Tensor], key: str, parameter: Tensor, leaf: str) -> Tensor:
    value: Any = named.get(key)
    shape, dtype = ((), torch.float32) if leaf == "step" else (parameter.shape, parameter.dtype)
    if value is None or value.shape != shape or value.dtype != dtype:
        found = "is missing" if value is None else f"has shape {tuple(value.shape)} of {value.dtype}"
        raise InputError(
            f"optimizer state '{key}' {found}: this checkpoint cannot be resumed, use an older one"
        )
    # AdamW's fused rule wants its step counter beside the parameter too.
    return value.to(parameter.device, copy=True)  # type: ignore[no-any-return]
