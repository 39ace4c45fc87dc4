"""The fast decoding step equals the network, for every family and kind of product."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from etude.model import matmul
from etude.model.cache import KVCache
from etude.model.decoding import Decoding
from etude.model.matmul import (
    HalfProduct,
    PackedProduct,
    PackedRoundedProduct,
    Product,
    RoundedProduct,
    SummedProduct,
    make_product,
)
from etude.model.transformer import Transformer
from networks import TRANSFORMERS, make_config, make_network, make_tokens

CLOSE = {"atol": 2e-5, "rtol": 0.0}
can_pack = matmul._can_pack(torch.zeros(2, 2))
can_halve = matmul._can_halve(torch.zeros(2, 2))


def filled(model: Transformer, lengths: list[int], capacity: int = 30) -> KVCache:
    """A cache whose rows have read these numbers of tokens of `make_tokens(rows, 24)`."""
    cache = model.new_cache(len(lengths), capacity)
    model(make_tokens(len(lengths), 24)[:, : max(lengths)], cache=cache)
    cache.rewind(lengths)
    return cache


def next_tokens(lengths: list[int], ahead: int) -> Tensor:
    tokens = make_tokens(len(lengths), 24)
    return torch.stack([tokens[row, length + ahead] for row, length in enumerate(lengths)])


@torch.no_grad()
@pytest.mark.parametrize("name", TRANSFORMERS)
@pytest.mark.parametrize("lengths", [[9], [5, 5, 5], [9, 1, 14]], ids=str)
@pytest.mark.parametrize("smallest_packed", [0, 2**40], ids=["packed", "plain"])
def test_a_step_equals_the_network(
    name: str, lengths: list[int], smallest_packed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(matmul, "_SMALLEST_PACKED", smallest_packed)
    model = make_network(make_config(name), 4)
    assert isinstance(model, Transformer)
    decoding = Decoding(model)
    assert isinstance(decoding.head, PackedProduct) == (smallest_packed == 0 and can_pack)
    expected_cache, cache = filled(model, lengths), filled(model, lengths)
    for ahead in range(4):
        tokens = next_tokens(lengths, ahead)
        expected = model(tokens[:, None], cache=expected_cache)[:, 0]
        torch.testing.assert_close(decoding.step(tokens, cache), expected, **CLOSE)
    assert cache.lengths == [length + 4 for length in lengths]
    assert_same_cache(cache, expected_cache)


@torch.no_grad()
@pytest.mark.parametrize("name", TRANSFORMERS)
@pytest.mark.parametrize("lengths", [[9], [9, 1, 14]], ids=str)
@pytest.mark.parametrize("reach", [15, 30])
def test_the_step_to_compile_masks_what_no_row_has_read(name: str, lengths: list[int], reach: int) -> None:
    """Uncompiled: it reads up to the whole capacity, most of which must be masked."""
    model = make_network(make_config(name), 4)
    assert isinstance(model, Transformer)
    decoding = Decoding(model, compiled=True)
    assert isinstance(decoding.head, SummedProduct)
    expected_cache, cache = filled(model, lengths), filled(model, lengths)
    for buffer in (*cache.keys, *cache.values):
        buffer[:, :, max(lengths) :] = 1e4
    tokens = next_tokens(lengths, 0)
    expected = model(tokens[:, None], cache=expected_cache)[:, 0]
    actual = decoding.traced_step(tokens, torch.tensor(lengths), torch.arange(reach), cache)
    torch.testing.assert_close(actual, expected, **CLOSE)
    cache.advance(1)
    assert_same_cache(cache, expected_cache)


def assert_same_cache(actual: KVCache, expected: KVCache) -> None:
    assert actual.lengths == expected.lengths
    for own, other in zip(actual.keys + actual.values, expected.keys + expected.values, strict=True):
        for row, length in enumerate(actual.lengths):
            torch.testing.assert_close(own[row, :, :length], other[row, :, :length], **CLOSE)


def test_a_full_cache_and_other_rows_are_refused() -> None:
    model = make_network(make_config("llama"), 4)
    assert isinstance(model, Transformer)
    decoding = Decoding(model)
    with pytest.raises(ValueError, match="9 \\+ 1 tokens are more than the cache holds"):
        decoding.step(torch.tensor([1]), filled(model, [9], capacity=9))
    with pytest.raises(ValueError, match="1 rows, the inputs 2"):
        decoding.step(torch.tensor([1, 2]), filled(model, [9]))


@pytest.mark.parametrize("kind", [Product, PackedProduct, SummedProduct])
@pytest.mark.parametrize("rows", [1, 5])
@pytest.mark.parametrize("biased", [True, False])
def test_products(kind: type[Product], rows: int, biased: bool) -> None:
    if kind is PackedProduct and not can_pack:
        pytest.skip("this build of PyTorch has no oneDNN")
    generator = torch.Generator().manual_seed(rows)
    weight = torch.randn(37, 70, generator=generator)
    bias = torch.randn(37, generator=generator) if biased else None
    x = torch.randn(rows, 70, generator=generator)
    residual = torch.randn(rows, 37, generator=generator)
    expected = x.double() @ weight.double().T + (0 if bias is None else bias.double())
    product = kind(weight, bias)
    torch.testing.assert_close(product(x).double(), expected, atol=1e-4, rtol=0)
    before = residual.clone()
    torch.testing.assert_close(product.plus(x, residual).double(), expected + residual, atol=1e-4, rtol=0)
    assert torch.equal(residual, before)


@pytest.mark.parametrize("kind", ["compiled", "halved", "rounded"])
@pytest.mark.parametrize("rows", [1, 5])
@pytest.mark.parametrize("biased", [True, False])
def test_rounded_products(kind: str, rows: int, biased: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without FBGEMM the sum is rounded as well."""
    monkeypatch.setattr(matmul, "_SMALLEST_PACKED", 0)
    if kind == "halved" and not can_halve:
        pytest.skip("this build of PyTorch has no FBGEMM")
    if kind == "rounded":
        monkeypatch.setattr(matmul, "_can_halve", lambda weight: False)
    compiled = kind == "compiled"
    generator = torch.Generator().manual_seed(rows)
    weight = torch.randn(37, 70, generator=generator)
    bias = torch.randn(37, generator=generator) if biased else None
    x = torch.randn(rows, 70, generator=generator)
    residual = torch.randn(rows, 37, generator=generator)
    product = make_product(weight, bias, compiled=compiled, rounded=True)
    added = 0 if bias is None else bias.double()
    if kind == "halved" or (compiled and rows == 1):  # only the weight is rounded
        expected, close = x.double() @ weight.bfloat16().double().T, {"atol": 1e-4, "rtol": 0.0}
    else:  # x is too, and so is the sum
        assert compiled or type(product) is (
            PackedRoundedProduct if matmul._can_pack(weight.bfloat16()) else RoundedProduct
        )
        expected = x.bfloat16().double() @ weight.bfloat16().double().T
        close = {"atol": 1e-4, "rtol": 2**-8}
    for actual, total in ((product(x), expected), (product.plus(x, residual) - residual, expected)):
        torch.testing.assert_close(actual.double() - added, total, **close)


@torch.no_grad()
@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("name", TRANSFORMERS)
def test_a_row_rounds_only_the_matrices(name: str, compiled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not compiled and not can_halve:
        pytest.skip("this build of PyTorch has no FBGEMM")
    lengths = [9]
    monkeypatch.setattr(matmul, "_SMALLEST_PACKED", 0)
    model = make_network(make_config(name), 4)
    assert isinstance(model, Transformer)
    decoding = Decoding(model, compiled=compiled, rounded=True)
    cache = filled(model, lengths)
    tokens = next_tokens(lengths, 0)
    exact = model(tokens[:, None], cache=filled(model, lengths))[:, 0]
    if compiled:
        actual = decoding.traced_step(tokens, torch.tensor(lengths), torch.arange(15), cache)
    else:
        actual = decoding.step(tokens, cache)
    expected_cache = filled(model, lengths)
    embedding = model.model.embed_tokens.weight.clone()
    for parameter in [p for n, p in model.named_parameters() if p.dim() == 2 and "embed" not in n]:
        parameter.copy_(parameter.bfloat16())
    if model.lm_head is None:  # one matrix for both: read as it is on the way in, and rounded on the way out
        hidden = model.hidden(tokens[:, None], cache=expected_cache)[:, 0]
        expected = hidden @ embedding.bfloat16().float().T
    else:
        expected = model(tokens[:, None], cache=expected_cache)[:, 0]
    torch.testing.assert_close(actual, expected, **CLOSE)
    assert (actual - exact).abs().max() > 20 * CLOSE["atol"]


def test_only_large_float32_weights_are_packed() -> None:
    small, large = torch.zeros(8, 8), torch.zeros(1024, 1024)
    assert type(make_product(small, None, compiled=False)) is Product
    assert type(make_product(large.bfloat16(), None, compiled=False)) is Product
    assert type(make_product(large, None, compiled=False)) is (PackedProduct if can_pack else Product)
    assert type(make_product(large, None, compiled=True)) is SummedProduct


def test_only_large_weights_are_rounded() -> None:
    small, large = torch.zeros(8, 8), torch.zeros(1024, 1024)
    assert make_product(small, None, compiled=True, rounded=True).weight.dtype == torch.float32
    assert make_product(large, None, compiled=True, rounded=True).weight.dtype == torch.bfloat16
    expected = HalfProduct if can_halve else RoundedProduct
    assert isinstance(make_product(large, None, compiled=False, rounded=True), expected)
    assert type(make_product(small, None, compiled=False, rounded=True)) is Product
