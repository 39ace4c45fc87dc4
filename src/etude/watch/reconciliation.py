"""Does what is shown explain the applied update? A list of checks, each with its largest relative difference.

Everything is recomputed in float64 from the weights before the step and the rows of its batch, and compared with the
training path. If all is right, differences have the size of rounding. In bf16, products read and return numbers of 8
bits: the sums of neurons are checked from the rounded factors, and everything else differs from float64 by what that
rounding costs.
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
from etude.model.lora import dropped_product
from etude.watch.opened_step import OpenedRow, OpenedStep, model_with
from etude.watch.tapped_forward import as_read

TOLERANCES: dict[str, dict[Dtype, float]] = {
    "loss": {"fp32": 1e-5, "bf16": 5e-4},
    "gradients": {"fp32": 1e-4, "bf16": 0.05},
    "gradient norm": {"fp32": 1e-5, "bf16": 5e-3},
    "clipping": {"fp32": 1e-5, "bf16": 5e-3},
    "update applied again": {"fp32": 0.0, "bf16": 0.0},
    "sum of a neuron": {"fp32": 1e-5, "bf16": 4e-3},
    "chain rule through a neuron": {"fp32": 1e-5, "bf16": 1e-2},
}
"""By the dtype of products. bf16: a few times what rounding cost in a run of width 128 (lab notebook). Update rules
supply their own tolerances: an optimizer computes in fp32 whatever the network does."""


@dataclass(frozen=True)
class Check:
    """One quantity that has to agree."""

    name: str
    difference: float  # largest relative one
    where: str = ""
    allowed: float | None = None  # tolerance, if the check is not in TOLERANCES
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
    """Compare an opened step with float64, at the cost of a forward and backward pass of the batch in float64."""
    if not opened.applied:  # a skipped step has no update to explain
        return Reconciliation(opened.step, ())
    exact = model_with(opened.before.weights, opened.era, torch.float64)
    total, loss, size = _gradient_by_rows(opened, exact)
    trained = [gradient for name, gradient in total.items() if name in opened.used]
    norm = torch.stack([gradient.square().sum() for gradient in trained]).sum().sqrt()
    numbers = sum(gradient.numel() for gradient in trained)
    clip = min(1.0, opened.settings.train.max_grad_norm / max(float(norm), 1e-300))
    checks = [
        Check("loss", abs(opened.loss - loss) / max(size, 1e-300)),
        _worst(
            "gradients",
            {
                name: _difference(
                    opened.gradients[name], total[name], _least_norm(total[name], norm, numbers)
                )
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


def _gradient_by_rows(opened: OpenedStep, exact: LanguageModel) -> tuple[dict[str, Tensor], float, float]:
    """Return the gradient of the batch in float64, as the sum over its rows, its mean loss, and that loss's size.

    The size is the mean loss without the signs of rows: the losses of sampled answers cancel each other.
    """
    total = {name: torch.zeros_like(parameter, device="cpu") for name, parameter in exact.named_parameters()}
    loss = size = 0.0
    for row in range(opened.num_rows):
        opened_row = opened.row(row, lambda name: False, model=exact)
        own = float(opened_row.summed_loss) / opened.total_weight
        loss, size = loss + own, size + abs(own)
        for name, share in opened_row.parameter_gradients.items():
            total[name] += share.cpu()
    return total, loss, size


def _update_by_the_rule(opened: OpenedStep) -> Check:
    """Return the check of the parameter that differs most, preferring one beyond its tolerance."""
    checks = [
        Check(
            "update by the rule",
            update.difference,
            update.name,
            update.rule.tolerances.update + update.rounding,
        )
        for update in map(opened.parameter, opened.used)
    ]
    return max(checks, key=lambda check: (not check.holds, check.difference))


def _update_again(opened: OpenedStep) -> Check:
    """Check that the optimizer, applied again to the opened gradients and state, gives the same bits."""
    again = opened.apply_rules(opened.before.weights)
    differences = {
        name: _difference(value.cpu(), opened.after.weights[name]) for name, value in again.weights.items()
    }
    differences |= {
        name: _difference(value.cpu(), opened.after.optimizer[name])
        for name, value in again.optimizer.items()
    }
    return _worst("update applied again", differences)


def _node_sums(opened: OpenedStep, row: OpenedRow) -> Check:
    """Check inputs times weights plus bias of every neuron at every position against its ``pre``."""
    differences = {}
    for layer in opened.model.node_layers():
        seen, linear = row.activations[f"{layer.path}.pre"][0], layer.linear(opened.model, layer.gate)
        x, weight = as_read(row.activations[layer.reads][0], by=seen), as_read(linear.weight, by=seen)
        bias = 0.0 if linear.bias is None else as_read(linear.bias, by=seen)
        expected = (x @ weight.T + bias).detach()
        dropped = dropped_product(linear, opened.read(row.row).dropout, len(row.inputs))
        if dropped is not None:
            product, change = dropped
            expected += (x * change.cpu().double()) @ product.cpu().double().T
        differences[f"{layer.path}.pre"] = _difference(seen.cpu(), expected)
    return _worst("sum of a neuron", differences)


def _chain_rule(opened: OpenedStep, row: OpenedRow) -> Check:
    """Check the gradient before the activation function: that after it, times the function's slope."""
    differences = {}
    for path in (layer.path for layer in opened.model.node_layers()):
        before = row.activations[f"{path}.pre"].double().requires_grad_()
        gated_by = row.activations.get(f"{path}.pre_linear")
        after = activation_of(opened.model)(before) * (1.0 if gated_by is None else gated_by.double())
        (slope,) = torch.autograd.grad(after.sum(), before)
        expected = row.gradients[f"{path}.post"].double() * slope
        differences[path] = _difference(row.gradients[f"{path}.pre"], expected)
    return _worst("chain rule through a neuron", differences)


def activation_of(model: LanguageModel) -> Callable[[Tensor], Tensor]:
    """Return the activation function of the network's neurons."""
    return ACTIVATION_FUNCTIONS[model.config.hidden_act]


def _difference(seen: Tensor, expected: Tensor, least: float = 1e-300) -> float:
    """Return the norm of the difference over the norm of ``expected``, or over ``least`` if that is larger."""
    expected = expected.double()
    difference = float((seen.double() - expected).norm())
    return 0.0 if difference == 0 else difference / max(float(expected.norm()), least)


def _least_norm(gradient: Tensor, norm: Tensor, numbers: int) -> float:
    """Return what to measure a gradient against that should be zero, such as a key's bias without rotation.

    It is a tenth of the parameter's share of the whole gradient norm, if all numbers had the same size.
    """
    return 0.1 * float(norm) * math.sqrt(gradient.numel()) / math.sqrt(numbers)


def _worst(name: str, differences: dict[str, float]) -> Check:
    where = max(differences, key=lambda key: differences[key])
    return Check(name, differences[where], where if differences[where] > 0 else "")
