"""Does a device compute correctly? One real update of a small network on it, compared with float64 on the CPU.

A broken device, or a broken library, seldom raises an error: the loss falls all the same, only less far. So every run
starts with this test, which takes a fraction of a second.

The network is a Llama with biases and grouped heads; the update is the project's own (``update_step``, the run's update
rules, two micro-batches, clipping). It starts from a state in mid-training: AdamW's first update is the sign of the
gradient, whatever its size and the betas, and would hide faults in both. The expected numbers follow from definitions
(step_by_definition.py, and those of the rules).

An error is the largest difference of a tensor from its float64 values, over their root mean square: a single wrong
number counts in full, and numbers near zero count by the size of their neighbours. The error of a scale is the distance
from 1 of the slope of the numbers over their float64 values, in which rounding averages out.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from etude.config import ResolvedTrain
from etude.data.tokens.coverage import IGNORE_INDEX
from etude.device import Device
from etude.diagnose.machine.known_faults import operations
from etude.diagnose.machine.step_by_definition import Named, Prediction, predict, updates
from etude.errors import EtudeError
from etude.model.build import build_model
from etude.model.config import preset
from etude.model.language_model import LanguageModel
from etude.train.batch import MicroBatch
from etude.train.loss import summed_loss
from etude.train.optimizer import UpdateRules, hyperparameters
from etude.train.rules import UpdateRule, rule_named, rules_in_use
from etude.train.step import update_step

ROWS, CONTEXT = 4, 37  # not multiples of a tile: kernels err at the edges of tiles
CONFIG = preset(
    "llama",
    vocab_size=61,
    hidden_size=64,
    intermediate_size=160,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=CONTEXT,
)
SETTINGS = ResolvedTrain(optimizer="muon", lr=1e-2, muon_lr=2e-2, weight_decay=0.1, steps=1)
MOMENTUM, LR_FACTOR = 0.9, 0.5
UPDATES_BEFORE = 8
"""Updates that the optimizer state before the step remembers."""
MAX_GRAD_NORM = 0.5  # below the gradient norm, so that clipping acts
SEED = 20

TOLERANCES: dict[str, dict[str, float]] = {
    "weights": {"fp32": 0.0, "bf16": 0.0},
    "logits": {"fp32": 5e-5, "bf16": 0.15},
    "loss": {"fp32": 2e-6, "bf16": 2e-3},
    "gradients": {"fp32": 1e-4, "bf16": 0.3},
    "scale of gradients": {"fp32": 2e-5, "bf16": 0.03},
    "gradient norm": {"fp32": 2e-6, "bf16": 5e-3},
}
"""By the dtype of the device; each is a few times what rounding cost on a CPU over 8 seeds (tests; lab notebook).
Update rules supply those of their updates.

fp32 (24 bits, 6e-8 per rounding): thousands of roundings add up to 3e-6 of a logit and 8e-6 of a gradient. A weight may
move by a thousandth of itself, so its own rounding is 1e-4 of its update. TF32 and half precision are off by 1e-3 and
more.

bf16 (8 bits, 4e-3 per rounding): single numbers mean little. The worst, a gradient that is a small difference of large
sums (the bias of the keys), is off by 0.12. But roundings cancel: scales stay within 1e-2, the norm within 1e-3.
"""
UPDATE = "update by "
"""Prefix of the name of a check of one rule's updates; the rule's title follows."""
AGAIN = "the same step repeated"


@dataclass(frozen=True)
class Check:
    """One quantity: its error, and the tolerance."""

    name: str
    error: float  # infinite if a number is not finite
    tolerance: float
    where: str = ""  # the parameter with the largest error
    failed: tuple[str, ...] = ()  # parameters beyond the tolerance, from the loss backwards

    @property
    def passed(self) -> bool:
        return self.error <= self.tolerance


@dataclass(frozen=True)
class SelfTest:
    """The results of a self-test."""

    device: Device
    checks: tuple[Check, ...]
    seconds: float
    crash: str | None = None  # the device's error, if it could not make the step at all

    @property
    def passed(self) -> bool:
        return self.problem is None

    @property
    def problem(self) -> str | None:
        """One line on the first failed check, in the order of the computation; None if all passed."""
        if self.crash is not None:
            return f"this device ({self.device.kind}) cannot do a training step: {self.crash}"
        wrong = next((check for check in self.checks if not check.passed), None)
        if wrong is None:
            return None
        return f"{_sentence(wrong)}: this device ({self.device.kind}) computes wrongly"

    @property
    def errors(self) -> dict[str, float]:
        """The error of every quantity."""
        return {check.name: check.error for check in self.checks}


@dataclass(frozen=True)
class _Start:
    """The start of the step, equal on every device."""

    weights: dict[str, Tensor]
    inputs: Tensor
    targets: Tensor


@dataclass(frozen=True)
class _Result:
    """The results of the step, on the CPU; gradients before clipping."""

    weights: dict[str, Tensor]  # before the update, copied back from the device
    logits: Tensor
    loss: Tensor
    gradients: dict[str, Tensor]
    grad_norm: Tensor
    updates: dict[str, Tensor]


def require_sound(device: Device, optimizer: str = SETTINGS.optimizer) -> SelfTest:
    """Return the self-test of a device that passes it, with the update rule of this name.

    Raises:
        EtudeError: the device computes wrongly; the message names what, and what to do.
    """
    result = self_test(device, optimizer)
    if result.problem is None:
        return result
    raise EtudeError(f"{result.problem}; {remedy(device)}")


def remedy(device: Device) -> str:
    """Return what to do about a device that fails."""
    if device.kind == "cpu":
        return "try another version of PyTorch or another machine; `etude doctor` shows all numbers"
    return "use --set device.kind=cpu, or another version of PyTorch; `etude doctor` shows all numbers"


def self_test(device: Device, optimizer: str = SETTINGS.optimizer) -> SelfTest:
    """Compare a step on ``device``, and the operations of known_faults.py, with float64.

    ``optimizer`` names the update rule. On a CPU the step is made twice and must give the same bits. No global state
    changes: neither the random generators nor PyTorch's settings.
    """
    began = time.perf_counter()
    try:
        settings = SETTINGS.model_copy(update={"optimizer": optimizer})
        checks = (*_step_checks(device, settings), *_operation_checks(device))
    except RuntimeError as error:  # no kernel, too little memory, an old driver
        lines = str(error).strip().splitlines()
        crash = f"{type(error).__name__}: {lines[0][:120] if lines else 'no message'}"
        return SelfTest(device, (), time.perf_counter() - began, crash)
    return SelfTest(device, checks, time.perf_counter() - began)


_OF_A_PARAMETER = {"gradients": "the gradient of {}", "weights": "the copy of {}"}


def _sentence(check: Check) -> str:
    subject = f"the {check.name}" if check.name in TOLERANCES else check.name
    _, by_rule, title = check.name.partition(UPDATE)
    named = {f"{UPDATE}{title}": f"{title}'s update of {{}}"} if by_rule else _OF_A_PARAMETER
    for quantity, template in named.items():
        if check.name.endswith(quantity):
            subject = check.name.replace(quantity, template.format(check.where))
            subject = f"the {subject}" if subject.startswith("scale") else subject
    if check.name == AGAIN:
        return f"the same step gives different numbers when repeated ({check.where})"
    limit = f"more than {_percent(check.tolerance)}" if check.tolerance else "and should be exact"
    size = f"off by {_percent(check.error)}" if math.isfinite(check.error) else "not finite"
    others = ""
    if len(check.failed) > 1:
        others = f"; so are {len(check.failed) - 1} others, of which {check.failed[0]} is nearest to the loss"
    verb = "are" if check.name == "logits" else "is"
    return f"{subject} {verb} {size}, {limit}{others}"


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %"


def _step_checks(device: Device, settings: ResolvedTrain) -> list[Check]:
    start = _start()
    exact = {name: weight.double() for name, weight in start.weights.items()}
    expected = predict(CONFIG, exact, start.inputs, start.targets)
    state = _mid_training(expected, settings)
    clip = _clip_factor(float(expected.grad_norm))
    clipped = {name: clip * gradient for name, gradient in expected.gradients.items()}
    expected_updates = updates(
        CONFIG,
        settings,
        exact,
        clipped,
        {name: value.double() for name, value in state.items()},
        lr_factor=LR_FACTOR,
        momentum=MOMENTUM,
    )
    result = _step_on(device, start, state, settings)
    checks = [
        _largest(device, "weights", result.weights, exact),
        _single(device, "logits", result.logits, expected.logits),
        _single(device, "loss", result.loss, expected.loss),
        _largest(device, "gradients", result.gradients, expected.gradients),
        _largest(device, "scale of gradients", result.gradients, expected.gradients),
        _single(device, "gradient norm", result.grad_norm, expected.grad_norm),
    ]
    rules = {name: used.rule for name, used in hyperparameters(CONFIG, settings, LR_FACTOR, MOMENTUM).items()}
    for rule in rules_in_use(rule_named(settings.optimizer)):
        updates_of_rule = {
            name: expected_updates[name] for name in expected_updates if rules[name] == rule.name
        }
        checks += _update_checks(device, rule, result.updates, updates_of_rule)
    if device.kind == "cpu":  # not on a GPU, which adds in the order in which its threads finish
        checks.append(_repeated(result, _step_on(device, start, state, settings)))
    return checks


def _update_checks(device: Device, rule: UpdateRule, actual: Named, expected: Named) -> list[Check]:
    name, tolerances = f"{UPDATE}{rule.title}", rule.tolerances
    return [
        _worst(name, _error, actual, expected, tolerances.device[device.dtype]),
        _worst(f"scale of {name}", _scale_error, actual, expected, tolerances.device_scale[device.dtype]),
    ]


def _operation_checks(device: Device) -> list[Check]:
    checks = []
    for operation in operations(device):
        try:
            actual = operation.run(device).cpu()
        except NotImplementedError:  # a device that raises does not fail silently
            continue
        checks.append(Check(operation.name, _error(actual, operation.expected()), operation.tolerance))
    return checks


def _start() -> _Start:
    """Return weights moved off the zeros at which many gradients vanish, and tokens, of which some are not targets."""
    generator = torch.Generator().manual_seed(SEED)
    weights = {}
    for name, weight in build_model(CONFIG, seed=SEED).named_parameters():
        weights[name] = weight.detach() + 0.1 * torch.randn(weight.shape, generator=generator)
    tokens = torch.randint(0, CONFIG.vocab_size, (ROWS, CONTEXT + 1), generator=generator)
    inputs, targets = tokens[:, :-1], tokens[:, 1:].clone()
    targets[0, :9] = IGNORE_INDEX
    return _Start(weights, inputs.contiguous(), targets)


def _mid_training(expected: Prediction, settings: ResolvedTrain) -> dict[str, Tensor]:
    """Return the state that a few updates with gradients of this size leave, by the definitions of the rules.

    Each gradient has a constant and a changing part, and none is nearly zero: otherwise a tiny mean of squares would
    make the direction a matter of rounding.
    """
    generator = torch.Generator().manual_seed(SEED + 1)
    clip, state = _clip_factor(float(expected.grad_norm)), dict[str, Tensor]()
    for name, used in hyperparameters(CONFIG, settings, LR_FACTOR, MOMENTUM).items():
        rule, gradient = rule_named(used.rule), expected.gradients[name]
        size = clip * gradient.square().mean().sqrt()
        leaves: Named = {
            leaf: torch.zeros(shape, dtype=torch.float64)
            for leaf, shape in rule.state_shapes(gradient.shape).items()
        }
        lasting, *changing = torch.randn((1 + UPDATES_BEFORE, *gradient.shape), generator=generator).double()
        for change in changing:
            earlier = size * (lasting.sign() + change.clamp(-1, 1) / 4)
            leaves = rule.definition(earlier, leaves, used).state
        state |= {f"{name}.{leaf}": value.float() for leaf, value in leaves.items()}
    return state


def _step_on(device: Device, start: _Start, state: Named, settings: ResolvedTrain) -> _Result:
    """Make the step with the code that trains."""
    model = build_model(CONFIG, seed=SEED, device=device.torch)
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(start.weights[name])
    before = _on_cpu(parameters)
    rules = UpdateRules(model, settings, device)
    rules.load_named_state(state)
    batch = [_micro_batch(device, start, rows) for rows in (slice(0, 3), slice(3, ROWS))]
    with torch.no_grad(), device.autocast():
        logits = model(start.inputs.to(device.torch)).float().cpu()
    result = update_step(
        list(parameters.values()),
        lambda part: _summed_loss(model, part),
        batch,
        rules,
        lr_factor=LR_FACTOR,
        momentum=MOMENTUM,
        max_grad_norm=MAX_GRAD_NORM,
        device=device,
    )
    # Divide by the clip factor of the device's own norm, so that a wrong norm does not look like wrong gradients.
    clip = _clip_factor(float(result.grad_norm))
    gradients = {name: p.grad.cpu() / clip for name, p in parameters.items() if p.grad is not None}
    after = _on_cpu(parameters)
    moved = {name: after[name].double() - before[name] for name in after}
    return _Result(before, logits, result.loss.cpu(), gradients, result.grad_norm.cpu(), moved)


def _clip_factor(grad_norm: float) -> float:
    """Return what clip_grad_norm_ multiplies gradients by."""
    return min(1.0, MAX_GRAD_NORM / (grad_norm + 1e-6))


def _micro_batch(device: Device, start: _Start, rows: slice) -> MicroBatch:
    inputs, targets = start.inputs[rows].to(device.torch), start.targets[rows].to(device.torch)
    return MicroBatch(inputs, targets, int((start.targets[rows] != IGNORE_INDEX).sum()))


def _summed_loss(model: LanguageModel, part: MicroBatch) -> Tensor:
    return summed_loss(model.hidden(part.inputs), part.targets, *model.unembedding())


def _on_cpu(parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: parameter.detach().to("cpu", copy=True) for name, parameter in parameters.items()}


def _single(device: Device, quantity: str, actual: Tensor, expected: Tensor) -> Check:
    return Check(quantity, _error(actual, expected), TOLERANCES[quantity][device.dtype])


def _largest(device: Device, quantity: str, actual: Named, expected: Named) -> Check:
    measure = _scale_error if quantity.startswith("scale") else _error
    return _worst(quantity, measure, actual, expected, TOLERANCES[quantity][device.dtype])


def _worst(
    quantity: str,
    measure: Callable[[Tensor, Tensor], float],
    actual: Named,
    expected: Named,
    tolerance: float,
) -> Check:
    """Return the check of the parameter with the largest error."""
    errors = {
        name: measure(actual[name], value) if name in actual else math.inf for name, value in expected.items()
    }
    worst = max(errors, key=lambda name: errors[name])
    failed = tuple(name for name in reversed(errors) if errors[name] > tolerance)
    return Check(quantity, errors[worst], tolerance, worst, failed)


def _repeated(first: _Result, second: _Result) -> Check:
    pairs = {"loss": (first.loss, second.loss), "logits": (first.logits, second.logits)}
    pairs |= {name: (value, second.gradients[name]) for name, value in first.gradients.items()}
    pairs |= {name: (value, second.updates[name]) for name, value in first.updates.items()}
    errors = {name: _error(again, value) for name, (value, again) in pairs.items()}
    worst = max(errors, key=lambda name: errors[name])
    return Check(AGAIN, errors[worst], 0.0, worst)


def _error(actual: Tensor, expected: Tensor) -> float:
    """Return the largest difference over the root mean square of ``expected``."""
    if actual.shape != expected.shape:
        return math.inf
    difference = float((actual.double() - expected).abs().max())
    if not math.isfinite(difference):
        return math.inf
    size = float(expected.double().square().mean().sqrt())
    return difference / size if difference else 0.0


def _scale_error(actual: Tensor, expected: Tensor) -> float:
    """Return the distance from 1 of the least squares factor between the two."""
    if actual.shape != expected.shape:
        return math.inf
    slope = float((actual.double() * expected).sum() / expected.square().sum())
    return abs(slope - 1) if math.isfinite(slope) else math.inf
