"""Which rule updates which parameter, and the state that each rule keeps.

=====================================  =======================  ==============
parameters                             rule                     weight decay
=====================================  =======================  ==============
matrices inside the layers             Muon (or AdamW)          yes
embeddings, output matrix              AdamW                    yes
biases, norms                          AdamW                    no
=====================================  =======================  ==============

The state is named after the parameters (``<parameter>.exp_avg``), so that a checkpoint can be read, and
opened later, without knowing in which order a program listed its parameters.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from etude.config import TrainSettings, resolved
from etude.device import Device
from etude.errors import InputError
from etude.train.muon import Muon

STATE_LEAVES = ("exp_avg", "exp_avg_sq", "step", "momentum_buffer")


class UpdateRules:
    """AdamW and Muon side by side over the parameters of one model."""

    def __init__(self, model: nn.Module, settings: TrainSettings, device: Device) -> None:
        self.names: dict[Tensor, str] = {parameter: name for name, parameter in model.named_parameters()}
        lr = resolved(settings.lr, "train.lr")
        muon_lr = resolved(settings.muon_lr, "train.muon_lr")
        groups = group_parameters(model, use_muon=settings.optimizer == "muon")
        adamw_groups = [
            {"params": groups["decayed"], "weight_decay": settings.weight_decay},
            {"params": groups["not_decayed"], "weight_decay": 0.0},
        ]
        self.optimizers: list[torch.optim.Optimizer] = [
            torch.optim.AdamW(
                [group for group in adamw_groups if group["params"]],
                lr=lr,
                betas=settings.betas,
                eps=settings.eps,
                fused=device.kind in ("cpu", "cuda"),
            )
        ]
        if groups["muon"]:
            # bf16 is enough for a direction, but only a device with fast bf16 gains by it.
            dtype = torch.bfloat16 if device.dtype == "bf16" and device.kind == "cuda" else torch.float32
            muon = Muon(groups["muon"], muon_lr, settings.momentum, settings.weight_decay, dtype)
            self.optimizers.append(muon)
        self._peak_lrs = [[group["lr"] for group in o.param_groups] for o in self.optimizers]

    def step(self, factor: float) -> None:
        """Update every parameter from its gradient, at ``factor`` times the peak learning rates."""
        for optimizer, peaks in zip(self.optimizers, self._peak_lrs, strict=True):
            for group, peak in zip(optimizer.param_groups, peaks, strict=True):
                group["lr"] = peak * factor
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
            leaves = (
                ("momentum_buffer",) if isinstance(optimizer, Muon) else ("exp_avg", "exp_avg_sq", "step")
            )
            for group in optimizer.param_groups:
                for parameter in group["params"] if named else ():
                    for leaf in leaves:
                        value = _matching(named, f"{self.names[parameter]}.{leaf}", parameter, leaf)
                        optimizer.state[parameter][leaf] = value


def group_parameters(model: nn.Module, *, use_muon: bool) -> dict[str, list[nn.Parameter]]:
    """The parameters of ``model`` by the rule that updates them: ``muon``, ``decayed`` and ``not_decayed``.

    Muon takes the matrices between the embedding and the output: these map one activation to another, which is
    what its spectral norm measures; rows of an embedding or of the output matrix belong to single tokens.
    """
    tables = {
        id(module.weight)
        for name, module in model.named_modules()
        if isinstance(module, nn.Embedding) or name.endswith("lm_head")
    }
    groups: dict[str, list[nn.Parameter]] = {"muon": [], "decayed": [], "not_decayed": []}
    for parameter in model.parameters():
        if parameter.ndim < 2:
            groups["not_decayed"].append(parameter)
        elif use_muon and parameter.ndim == 2 and id(parameter) not in tables:
            groups["muon"].append(parameter)
        else:
            groups["decayed"].append(parameter)
    return groups


def _matching(named: Mapping[str, Tensor], key: str, parameter: Tensor, leaf: str) -> Tensor:
    value: Any = named.get(key)
    if value is None or value.shape != (() if leaf == "step" else parameter.shape):
        found = "is missing" if value is None else f"has shape {tuple(value.shape)}"
        raise InputError(
            f"optimizer state '{key}' {found}: this checkpoint cannot be resumed, use an older one"
        )
    # AdamW's fused rule wants its step counter beside the parameter too.
    return value.to(parameter.device, copy=True)  # type: ignore[no-any-return]
