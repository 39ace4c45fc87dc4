"""The self-test: a sound device passes, and a small fault in its arithmetic is found and named."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from etude.device import Device
from etude.diagnose.machine import known_faults, self_test
from etude.diagnose.machine.self_test import AGAIN, CONFIG, TOLERANCES, SelfTest, require_sound
from etude.errors import EtudeError
from etude.model import layers
from etude.model.build import build_model
from etude.model.language_model import LanguageModel
from etude.model.layers import RotaryPositions
from etude.train import step
from etude.train.optimizer import UpdateRules
from etude.train.rules import muon, newton_schulz
from waiting import PATIENCE

CPU = Device("cpu", "fp32", 1)
PARAMETERS = [name for name, _ in build_model(CONFIG).named_parameters()]
Patch = pytest.MonkeyPatch


def the_test(device: Device = CPU) -> SelfTest:
    return self_test.self_test(device)


def problem() -> str:
    line = the_test().problem
    assert line is not None, "the fault was not found"
    assert line.endswith("this device (cpu) computes wrongly")
    assert len(line.splitlines()) == 1
    return line


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_this_processor_is_sound(dtype: Any) -> None:
    device = Device("cpu", dtype, 1)
    result = require_sound(device)
    assert result.passed
    assert set(TOLERANCES) | {AGAIN} < set(result.errors)
    # Real arithmetic rounds: an error of zero would mean that something was compared with itself.
    for quantity in ("logits", "gradients", "update by AdamW", "update by Muon"):
        assert result.errors[quantity] > 1e-8
    assert result.errors[AGAIN] == 0


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_tolerances_are_a_few_times_the_rounding(monkeypatch: Patch, seed: int, dtype: Any) -> None:
    monkeypatch.setattr(self_test, "SEED", seed)
    for check in the_test(Device("cpu", dtype, 1)).checks:
        assert check.error <= check.tolerance / 2.5, check


def test_the_iteration_of_muon_in_bf16_is_within_its_tolerance(monkeypatch: Patch) -> None:
    """As on a GPU, which iterates in bf16 and not on Gram matrices."""

    class AsOnAGPU(UpdateRules):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            assert isinstance(self.optimizers[1], muon.Muon)
            self.optimizers[1].dtype = torch.bfloat16

    monkeypatch.setattr(self_test, "UpdateRules", AsOnAGPU)
    result = the_test(Device("cpu", "bf16", 1))
    assert result.passed
    for check in result.checks:
        if check.name.endswith("Muon"):
            assert check.tolerance / 50 < check.error < check.tolerance / 2.5


def test_the_definitions_equal_the_training_code_in_float64(monkeypatch: Patch) -> None:
    """In float64 the two differ only by the loss, which a step adds up in fp32."""

    def in_float64(*arguments: Any, **keywords: Any) -> LanguageModel:
        model = build_model(*arguments, **keywords).double()
        for module in model.modules():
            if isinstance(module, RotaryPositions):
                exponent = torch.arange(0, module.width, 2, dtype=torch.float64) / module.width
                angles = torch.outer(torch.arange(len(module.cos)).double(), module.theta**-exponent)
                module.cos = torch.cat((angles.cos(), angles.cos()), dim=-1)
                module.sin = torch.cat((-angles.sin(), angles.sin()), dim=-1)
        return model

    step_on = self_test._step_on
    monkeypatch.setattr(
        self_test,
        "_step_on",
        lambda device, start, state, settings: step_on(
            device, start, {name: v.double() if v.ndim else v for name, v in state.items()}, settings
        ),
    )
    monkeypatch.setattr(self_test, "build_model", in_float64)
    errors = the_test().errors
    assert errors["loss"] < 1e-6
    for quantity in ("gradients", "gradient norm", "update by AdamW", "update by Muon"):
        assert errors[quantity] < 1e-9, quantity


GLOBAL_STATE = """
import random
import numpy, torch
from etude.device import Device
from etude.diagnose.machine.self_test import require_sound

def state():
    return (
        torch.get_rng_state().tolist(), random.getstate(), str(numpy.random.get_state()), torch.get_num_threads(),
        torch.get_default_dtype(), torch.get_float32_matmul_precision(), torch.are_deterministic_algorithms_enabled(),
        torch.is_grad_enabled(), torch.is_autocast_enabled("cpu"), torch.backends.mkldnn.enabled,
    )

for threads, deterministic in ((1, False), (2, True)):
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(deterministic)
    before = state()
    for dtype in ("fp32", "bf16"):
        require_sound(Device("cpu", dtype, threads))
        assert state() == before
"""


def test_no_global_state_changes() -> None:
    """In a separate process: this one draws random numbers in shape checks."""
    result = subprocess.run(
        [sys.executable, "-c", GLOBAL_STATE], capture_output=True, text=True, timeout=PATIENCE
    )
    assert result.returncode == 0, result.stderr


def test_the_self_test_is_deterministic() -> None:
    torch.manual_seed(1)
    first = the_test().errors
    torch.manual_seed(2)
    assert the_test().errors == first


def with_gradient(patch: Patch, name: str, change: Callable[[Tensor], Tensor]) -> None:
    """Make the backward pass return another gradient for one parameter."""

    def hooked(*arguments: Any, **keywords: Any) -> LanguageModel:
        model = build_model(*arguments, **keywords)
        model.get_parameter(name).register_hook(change)
        return model

    patch.setattr(self_test, "build_model", hooked)


@pytest.mark.parametrize("name", PARAMETERS)
def test_a_gradient_that_is_a_little_too_large_is_named(monkeypatch: Patch, name: str) -> None:
    with_gradient(monkeypatch, name, lambda gradient: 1.001 * gradient)
    assert f"the gradient of {name} is off by" in problem()


@pytest.mark.parametrize("name", PARAMETERS[::3])
def test_a_gradient_off_by_a_few_percent_is_named_in_bf16(monkeypatch: Patch, name: str) -> None:
    with_gradient(monkeypatch, name, lambda gradient: 1.05 * gradient)
    line = str(the_test(Device("cpu", "bf16", 1)).problem)
    assert re.match(f"the (scale of the )?gradient of {name} is off by", line), line


@pytest.mark.parametrize("name", PARAMETERS[::4])
def test_a_single_wrong_number_of_a_gradient_is_found(monkeypatch: Patch, name: str) -> None:
    def one_smaller(gradient: Tensor) -> Tensor:
        gradient = gradient.clone()
        gradient.view(-1)[gradient.abs().argmax()] *= 0.99
        return gradient

    with_gradient(monkeypatch, name, one_smaller)
    assert f"the gradient of {name} is off by" in problem()


def wrong_activation(patch: Patch) -> None:
    patch.setitem(layers.ACTIVATION_FUNCTIONS, "silu", lambda x: x * torch.sigmoid(1.003 * x))


def activation_that_overflows(patch: Patch) -> None:
    patch.setitem(layers.ACTIVATION_FUNCTIONS, "silu", lambda x: torch.where(x > 2.5, torch.nan, F.silu(x)))


class _WrongBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return F.silu(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        s = torch.sigmoid(x)
        return gradient * s * (1 + 0.98 * x * (1 - s))


def wrong_derivative(patch: Patch) -> None:
    patch.setitem(layers.ACTIVATION_FUNCTIONS, "silu", _WrongBackward.apply)


def attention_that_sees_the_next_token(patch: Patch) -> None:
    def leaking(q: Tensor, k: Tensor, v: Tensor, *_: Any, enable_gqa: bool = False, **__: Any) -> Tensor:
        count, seen = q.shape[-2], k.shape[-2]
        visible = torch.ones(count, seen, dtype=torch.bool).tril(seen - count + 1)
        if enable_gqa:
            k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], 1) for x in (k, v))
        scores = (q @ k.mT / q.shape[-1] ** 0.5).masked_fill(~visible, -torch.inf)
        return scores.softmax(-1) @ v

    patch.setattr(F, "scaled_dot_product_attention", leaking)


def loss_that_counts_the_ignored(patch: Patch) -> None:
    from etude.train.loss import summed_loss

    patch.setattr(self_test, "summed_loss", lambda h, t, *head: summed_loss(h, t.clamp(min=0), *head))


def angles_in_half_precision(patch: Patch) -> None:
    def rotate(x: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
        cos, sin = (table.bfloat16().float() for table in rotation)
        first, second = x.chunk(2, dim=-1)
        return x * cos + torch.cat((second, first), dim=-1) * sin

    patch.setattr("etude.model.attention.rotate", rotate)


def bias_gradient_of_one_row_only(patch: Patch) -> None:
    linear = F.linear

    class Linear(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
            ctx.save_for_backward(x, weight)
            return linear(x, weight, bias)

        @staticmethod
        def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            x, weight = ctx.saved_tensors
            rows = gradient.flatten(0, -2)
            return gradient @ weight, rows.T @ x.flatten(0, -2), rows[:-1].sum(0)

    def forward(self: nn.Linear, x: Tensor) -> Tensor:
        return linear(x, self.weight) if self.bias is None else Linear.apply(x, self.weight, self.bias)

    patch.setattr(nn.Linear, "forward", forward)


def norm_that_skips_tensors(patch: Patch) -> None:
    def clip(parameters: list[nn.Parameter], limit: float) -> Tensor:
        gradients = [p.grad for p in parameters if p.grad is not None]
        norm = torch.stack([g.norm() for g in gradients if g.ndim > 1]).norm()
        torch._foreach_mul_(gradients, min(1.0, limit / (float(norm) + 1e-6)))
        return norm

    patch.setattr(step, "clip_gradients", clip)


def one_iteration_less(patch: Patch) -> None:
    right = newton_schulz.orthogonalizing_factors
    patch.setattr(muon, "orthogonalizing_factors", lambda grams: right(grams, steps=4))


def momentum_without_nesterov(patch: Patch) -> None:
    def plain(self: muon.Muon, parameters: list[Tensor], momentum: float) -> list[Tensor]:
        buffers = [self._momentum_buffer(p) for p in parameters]
        torch._foreach_lerp_(buffers, [p.grad for p in parameters], 1 - momentum)
        return buffers

    patch.setattr(muon.Muon, "_directions", plain)


def rules_changed(change: Callable[[torch.optim.Optimizer], None]) -> Callable[[Patch], None]:
    """Return a fault in AdamW's arithmetic: its constants differ from the configured ones."""

    def fault(patch: Patch) -> None:
        class Wrong(UpdateRules):
            def __init__(self, *arguments: Any) -> None:
                super().__init__(*arguments)
                change(self.optimizers[0])

        patch.setattr(self_test, "UpdateRules", Wrong)

    return fault


def set_all(key: str, value: Any) -> Callable[[torch.optim.Optimizer], None]:
    return lambda optimizer: [group.update({key: value}) for group in optimizer.param_groups]  # type: ignore[func-returns-value,return-value]


def frozen_when_transposed(patch: Patch) -> None:
    """Reproduce pytorch/pytorch 118115."""
    right = torch.Tensor.addcdiv_
    patch.setattr(
        torch.Tensor,
        "addcdiv_",
        lambda self, *a, **k: right(self, *a, **k) if self.is_contiguous() else self,
    )


def repeated_indices_overwrite(patch: Patch) -> None:
    patch.setattr(
        torch.Tensor, "index_add_", lambda self, dim, index, rows: self.index_copy_(dim, index, rows)
    )


def argmax_in_fp32(patch: Patch) -> None:
    right = torch.Tensor.argmax
    patch.setattr(torch.Tensor, "argmax", lambda self: right(self.float()))


def other_numbers_each_time(patch: Patch) -> None:
    calls = [0.0]

    def drifting(x: Tensor) -> Tensor:
        calls[0] += 1e-7
        return F.silu(x) * (1 + calls[0])

    patch.setitem(layers.ACTIVATION_FUNCTIONS, "silu", drifting)


MLP = r"model\.layers\.\d\.mlp\.(gate|up|down)_proj\."
FAULTS: list[tuple[Callable[[Patch], None], str]] = [
    (wrong_activation, r"^the logits are off by"),
    (activation_that_overflows, r"^the logits are not finite"),
    (attention_that_sees_the_next_token, r"^the logits are off by"),
    (angles_in_half_precision, r"^the logits are off by"),
    (loss_that_counts_the_ignored, r"^the loss is off by"),
    (
        wrong_derivative,
        r"^the gradient of .* is off by .*; so are .* others, of which " + MLP + r".* is nearest to the loss",
    ),
    (bias_gradient_of_one_row_only, r"^the gradient of model\.layers\.\d\..*\.bias is off by"),
    (norm_that_skips_tensors, r"^the gradient norm is off by"),
    (one_iteration_less, r"^Muon's update of model\.layers\.\d\..*_proj\.weight is off by"),
    (momentum_without_nesterov, r"^Muon's update of model\.layers\.\d\..*_proj\.weight is off by"),
    (rules_changed(set_all("betas", (0.8, 0.94))), r"^AdamW's update of .* is off by"),
    (rules_changed(set_all("betas", (0.79, 0.95))), r"^AdamW's update of .* is off by"),
    (rules_changed(set_all("weight_decay", 0.0)), r"^AdamW's update of .*(embed|lm_head).* is off by"),
    (frozen_when_transposed, r"^transposed addcdiv_ is off by"),
    (repeated_indices_overwrite, r"^sum over repeated indices is off by"),
    (argmax_in_fp32, r"^argmax of large integers is off by .*, and should be exact"),
    (other_numbers_each_time, r"^the same step gives different numbers when repeated \("),
]


@pytest.mark.parametrize(("fault", "words"), FAULTS, ids=lambda value: getattr(value, "__name__", ""))
def test_a_fault_is_found_and_named(monkeypatch: Patch, fault: Callable[[Patch], None], words: str) -> None:
    fault(monkeypatch)
    line = problem()
    assert re.search(words, line), line
    with pytest.raises(EtudeError, match="another version of PyTorch") as raised:
        require_sound(CPU)
    assert raised.value.exit_code == 1
    assert len(str(raised.value).splitlines()) == 1


@pytest.mark.parametrize("factor", [0.8, 1.25])
def test_a_fault_is_found_in_bf16_too(monkeypatch: Patch, factor: float) -> None:
    monkeypatch.setitem(layers.ACTIVATION_FUNCTIONS, "silu", lambda x: x * torch.sigmoid(factor * x))
    assert "the logits are off by" in str(the_test(Device("cpu", "bf16", 1)).problem)


def test_a_device_that_cannot_make_a_step_is_one_line(monkeypatch: Patch) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise RuntimeError("no kernel image is available\nfor execution on the device")

    monkeypatch.setattr(F, "rms_norm", fails)
    with pytest.raises(
        EtudeError, match="cannot do a training step: RuntimeError: no kernel image"
    ) as raised:
        require_sound(CPU)
    assert len(str(raised.value).splitlines()) == 1


def test_advice_differs_for_accelerator_and_processor() -> None:
    assert "--set device.kind=cpu" in self_test.remedy(Device("mps", "fp32", 1))
    assert "--set device.kind=cpu" not in self_test.remedy(CPU)


def test_an_operation_that_a_device_lacks_is_skipped(monkeypatch: Patch) -> None:
    def absent(device: Device) -> Tensor:
        raise NotImplementedError("aten::argmax on this device")

    monkeypatch.setattr(known_faults, "_argmax", absent)
    result = the_test()
    assert result.passed
    assert "argmax of large integers" not in result.errors
