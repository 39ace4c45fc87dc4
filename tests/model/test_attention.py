"""Attention in blocks, used for bf16 on a CPU: equal to the definition up to rounding, and causal."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from etude.model import attention
from etude.model.attention import CAUSAL, Visibility, attend, document_mask, is_in_blocks

HEADS, HEAD_DIM = 4, 16
COUNTS = [1, 5, 130, 256, 300]


def operands(count: int, kv_heads: int = HEADS) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return queries, keys and values with the dtypes of autocast, and a gradient of the output."""
    draw = torch.Generator().manual_seed(count)
    shapes = [(2, heads, count, HEAD_DIM) for heads in (HEADS, kv_heads, kv_heads, HEADS)]
    actual = [torch.randn(shape, generator=draw).bfloat16() for shape in shapes]
    return actual[0].float(), actual[1].float(), actual[2], actual[3]


def visibility_of(count: int, kind: str) -> Visibility:
    if kind == "causal":
        return CAUSAL
    ids = torch.stack([torch.arange(count) // 7, torch.arange(count) // 150])
    return Visibility(causal=False, mask=document_mask(ids))


def by_definition(queries: Tensor, keys: Tensor, values: Tensor, visibility: Visibility) -> Tensor:
    count = queries.shape[2]
    mask = visibility.mask
    visible = torch.ones(count, count, dtype=torch.bool).tril() if mask is None else mask
    served = queries.shape[1] // keys.shape[1]
    keys, values = keys.repeat_interleave(served, 1), values.repeat_interleave(served, 1)
    scores = (queries @ keys.mT / HEAD_DIM**0.5).masked_fill(~visible, -torch.inf)
    return scores.softmax(-1) @ values


@pytest.mark.parametrize("kv_heads", [HEADS, 1])
@pytest.mark.parametrize("kind", ["causal", "documents"])
@pytest.mark.parametrize("count", COUNTS)
def test_output_and_gradients_are_those_of_the_definition(count: int, kind: str, kv_heads: int) -> None:
    *inputs, gradient = operands(count, kv_heads)
    visibility = visibility_of(count, kind)
    ours = [left.clone().requires_grad_() for left in inputs]
    exact = [left.double().requires_grad_() for left in inputs]
    assert is_in_blocks(*ours)
    actual, wanted = attend(*ours, visibility), by_definition(*exact, visibility)
    assert actual.dtype == torch.bfloat16
    pairs = [(actual, wanted)]
    got = torch.autograd.grad(actual, ours, gradient)
    pairs += zip(got, torch.autograd.grad(wanted, exact, gradient.double()), strict=True)
    for left, right in pairs:
        assert float((left.double() - right).detach().norm()) <= 0.01 * float(right.detach().norm())


@pytest.mark.parametrize("count", COUNTS[1:])
def test_it_is_causal(count: int) -> None:
    queries, keys, values, _ = operands(count)
    before = attend(queries, keys, values, CAUSAL)
    place = count // 2
    for changed in (queries, keys, values):
        changed[:, :, place:] = 9.0
    after = attend(queries, keys, values, CAUSAL)
    assert torch.equal(after[:, :, :place], before[:, :, :place])
    assert not torch.equal(after[:, :, place:], before[:, :, place:])


def test_other_tensors_use_the_fused_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    queries, keys, values, _ = operands(8)
    assert is_in_blocks(queries, keys, values)
    assert not is_in_blocks(queries, keys, values.float())
    assert not is_in_blocks(queries[:, :, :1], keys, values)  # one token after a cache
    monkeypatch.setattr(attention, "LONGEST_IN_BLOCKS", 7)
    assert not is_in_blocks(queries, keys, values)
    wide = values.float()
    expected = F.scaled_dot_product_attention(queries, keys, wide, is_causal=True)
    assert torch.equal(attend(queries, keys, wide, CAUSAL), expected)
