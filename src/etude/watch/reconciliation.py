"""Does what is shown explain what was applied? Each check with its largest relative difference.

Everything is computed once more in float64, from the weights before the step and the rows of its batch, and held
against what the path that trained gave. A difference of the size of rounding is what remains where all is right. In
bf16 products read factors of 8 bits and give numbers of 8 bits: the sums of nodes are checked from the factors as they
were read, and everything else lies as far from float64 as that rounding takes it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from etude.device import Dtype
from etude.model.language_model import LanguageModel
from etude.model.layers import ACTIVATION_FUNCTIONS
from etude.watch.forward import as_read
from etude.watch.opened_step import OpenedRow, OpenedStep, model_with

TOLERANCES: dict[str, dict[Dtype, float]] = {
    "loss": {"fp32": 1e-5, "bf16": 5e-4},
    "gradients": {"fp32": 1e-4, "bf16": 0.05},
    "gradient norm": {"fp32": 1e-5, "bf16": 5e-3},
    "clipping": {"fp32": 1e-5, "bf16": 5e-3},
    "update applied again": {"fp32": 0.0, "bf16": 0.0},
    "sum of a node": {"fp32": 1e-5, "bf16": 4e-3},
    "chain rule through a node": {"fp32": 1e-5, "bf16": 1e-2},
}
"""By the arithmetic of products. bf16: a few times what rounding made of a run of width 128 (notebook). Update rules
bring theirs: an optimizer is in fp32 whatever the network is."""


@dataclass(frozen=True)
class Check:
    """One thing that has to agree."""

    name: str
    difference: float  # relative, the largest
    where: str = ""
    allowed: float | None = None  # tolerance of a check that is not in TOLERANCES
    dtype: Dtype = "fp32"  # of the step's products

    @property
    def tolerance(self) -> float:
        return TOLERANCES[self.name][self.dtype] if self.allowed is None else self.allowed

    @property
    def holds(self) -> bool:
        return self.difference <= self.tolerance


@dataclass(frozen=True)
class Reconciliation:
    """All checks of a step."""

    step: int
    checks: tuple[Check, ...]

    @property
    def holds(self) -> bool:
        return all(check.holds for check in self.checks)

    @property
    def largest(self) -> float:
        """The largest relative difference."""
        return max((check.difference for check in self.checks), default=0.0)

    def __str__(self) -> str:
        lines = [
            f"{check.name:28}{check.difference:9.1e}  {'ok' if check.holds else 'DIFFERS'}  {check.where}".rstrip()
            for check in self.checks
        ]
        return "\n".join(lines)

    __repr__ = __str__


def reconcile(opened: OpenedStep) -> Reconciliation:
    """Hold an opened step against float64. It takes a forward and backward pass of the batch in float64."""
    if not opened.applied:  # numbers that are not finite explain nothing, and nothing was applied
        return Reconciliation(opened.step, ())
    exact = model_with(opened.before.weights, opened.era, torch.float64)
    total, loss = _gradient_by_rows(opened, exact)
    norm = torch.stack([gradient.square().sum() for gradient in total.values()]).sum().sqrt()
    numbers = sum(gradient.numel() for gradient in total.values())
    clip = min(1.0, opened.settings.train.max_grad_norm / max(float(norm), 1e-300))
    checks = [
        Check("loss", abs(opened.loss - loss) / max(loss, 1e-300)),
        _worst(
            "gradients",
            {
                name: _apart(opened.gradients[name], total[name], _least(total[name], norm, numbers))
                for name in total
            },
        ),
        Check("gradient norm", abs(opened.grad_norm - float(norm)) / max(float(norm), 1e-300)),
        Check("clipping", abs(opened.clip_factor - clip) / clip),
    ]
    checks += [_update_by_the_rule(opened), _update_again(opened)]
    row = opened.row(0)
    checks += [_node_sums(opened, row), _chain_rule(opened, row)]
    dtype = opened.era.plan.device.dtype
    return Reconciliation(opened.step, tuple(replace(check, dtype=dtype) for check in checks))


def _gradient_by_rows(opened: OpenedStep, exact: LanguageModel) -> tuple[dict[str, Tensor], float]:
    """The gradient of the batch in float64 as the sum over its rows, and its mean loss."""
    total = {name: torch.zeros_like(parameter, device="cpu") for name, parameter in exact.named_parameters()}
    loss = 0.0
    for row in range(opened.num_rows):
        found = opened.row(row, lambda name: False, model=exact)
        loss += float(found.summed_loss) / opened.total_weight
        for name, share in found.parameter_gradients.items():
            total[name] += share.cpu()
    return total, loss


def _update_by_the_rule(opened: OpenedStep) -> Check:
    """Return the check of the parameter that is furthest off, or of one that differs by more than it may."""
    checks = [
        Check(
            "update by the rule",
            update.difference,
            update.name,
            update.rule.tolerances.update + update.rounding,
        )
        for update in map(opened.parameter, opened.gradients)
    ]
    return max(checks, key=lambda check: (not check.holds, check.difference))


def _update_again(opened: OpenedStep) -> Check:
    """The optimizer once more, from the opened pieces alone: it has to give the same bits."""
    again = opened.apply_rules(opened.before.weights)
    found = {name: _apart(value.cpu(), opened.after.weights[name]) for name, value in again.weights.items()}
    found |= {
        name: _apart(value.cpu(), opened.after.optimizer[name]) for name, value in again.optimizer.items()
    }
    return _worst("update applied again", found)


def _node_sums(opened: OpenedStep, row: OpenedRow) -> Check:
    """Inputs times weights plus bias, of every node at every position, against its ``pre``."""
    found = {}
    for layer in opened.model.node_layers():
        seen, linear = row.activations[f"{layer.path}.pre"][0], layer.linear(opened.model, layer.gate)
        x, weight = as_read(row.activations[layer.reads][0], by=seen), as_read(linear.weight, by=seen)
        bias = 0.0 if linear.bias is None else as_read(linear.bias, by=seen)
        found[f"{layer.path}.pre"] = _apart(seen.cpu(), (x @ weight.T + bias).detach())
    return _worst("sum of a node", found)


def _chain_rule(opened: OpenedStep, row: OpenedRow) -> Check:
    """The error at a node before its activation function: that behind it, times the function's slope."""
    found = {}
    for path in (layer.path for layer in opened.model.node_layers()):
        before = row.activations[f"{path}.pre"].double().requires_grad_()
        passed = row.activations.get(f"{path}.pre_linear")
        after = activation_of(opened.model)(before) * (1.0 if passed is None else passed.double())
        (slope,) = torch.autograd.grad(after.sum(), before)
        expected = row.gradients[f"{path}.post"].double() * slope
        found[path] = _apart(row.gradients[f"{path}.pre"], expected)
    return _worst("chain rule through a node", found)


def activation_of(model: LanguageModel) -> Callable[[Tensor], Tensor]:
    """The activation function of the network's nodes."""
    return ACTIVATION_FUNCTIONS[model.config.hidden_act]


def _apart(seen: Tensor, expected: Tensor, least: float = 1e-300) -> float:
    """Of two tensors: the norm of their difference, as a share of the norm of the expected one, or of ``least``."""
    expected = expected.double()
    difference = float((seen.double() - expected).norm())
    return 0.0 if difference == 0 else difference / max(float(expected.norm()), least)


def _least(gradient: Tensor, norm: Tensor, numbers: int) -> float:
    """What a gradient is measured against that ought to be zero, such as a key's bias where nothing is rotated: its
    numbers at a tenth of the gradient's usual size (a number's share of the whole norm, were all alike).
    """
    return 0.1 * float(norm) * math.sqrt(gradient.numel()) / math.sqrt(numbers)


def _worst(name: str, found: dict[str, float]) -> Check:
    where = max(found, key=lambda key: found[key])
    return Check(name, found[where], where if found[where] > 0 else "")
