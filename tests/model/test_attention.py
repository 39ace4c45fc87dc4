"""Attention in blocks, which bf16 on a CPU takes: the definition but for rounding, and nobody sees what comes later."""

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
    """Queries, keys and values (as a network gives them under autocast), and the gradient of what is made of them."""
    draw = torch.Generator().manual_seed(count)
    shapes = [(2, heads, count, HEAD_DIM) for heads in (HEADS, kv_heads, kv_heads, HEADS)]
    found = [torch.randn(shape, generator=draw).bfloat16() for shape in shapes]
    return found[0].float(), found[1].float(), found[2], found[3]


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
    ours = [one.clone().requires_grad_() for one in inputs]
    exact = [one.double().requires_grad_() for one in inputs]
    assert is_in_blocks(*ours)
    found, wanted = attend(*ours, visibility), by_definition(*exact, visibility)
    assert found.dtype == torch.bfloat16
    pairs = [(found, wanted)]
    got = torch.autograd.grad(found, ours, gradient)
    pairs += zip(got, torch.autograd.grad(wanted, exact, gradient.double()), strict=True)
    for one, other in pairs:
        assert float((one.double() - other).detach().norm()) <= 0.01 * float(other.detach().norm())


@pytest.mark.parametrize("count", COUNTS[1:])
def test_nobody_sees_what_comes_later(count: int) -> None:
    queries, keys, values, _ = operands(count)
    before = attend(queries, keys, values, CAUSAL)
    place = count // 2
    for changed in (queries, keys, values):
        changed[:, :, place:] = 9.0
    after = attend(queries, keys, values, CAUSAL)
    assert torch.equal(after[:, :, :place], before[:, :, :place])
    assert not torch.equal(after[:, :, place:], before[:, :, place:])


def test_other_tensors_go_to_the_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    queries, keys, values, _ = operands(8)
    assert is_in_blocks(queries, keys, values)
    assert not is_in_blocks(queries, keys, values.float())
    assert not is_in_blocks(queries[:, :, :1], keys, values)  # one token after a cache
    monkeypatch.setattr(attention, "LONGEST_IN_BLOCKS", 7)
    assert not is_in_blocks(queries, keys, values)
    wide = values.float()
    expected = F.scaled_dot_product_attention(queries, keys, wide, is_causal=True)
    assert torch.equal(attend(queries, keys, wide, CAUSAL), expected)
