"""The checksum of the parameters depends on every bit, and on nothing but the bits."""

from __future__ import annotations

import copy
import random

import pytest
import torch
from torch import Tensor, nn

from etude.train.checksum import checksum
from networks import EVERY, make_config, make_network


def bits(parameter: Tensor) -> Tensor:
    return parameter.detach().view(torch.int32).view(-1)


def flip(parameter: Tensor, place: int, bit: int) -> None:
    bits(parameter)[place] ^= torch.tensor(1 << bit if bit < 31 else -(1 << 31), dtype=torch.int32)


@pytest.mark.parametrize("name", EVERY)
def test_every_single_bit_counts(name: str) -> None:
    model = make_network(make_config(name))
    before, dice = checksum(model), random.Random(name)
    seen = {before}
    for parameter in model.parameters():
        for flipped in dice.sample(range(32 * parameter.numel()), 6):
            flip(parameter, *divmod(flipped, 32))
            changed = checksum(model)
            assert changed not in seen
            seen.add(changed)
            flip(parameter, *divmod(flipped, 32))
    assert checksum(model) == before


@pytest.mark.parametrize("width", [1, 5, 6])
@pytest.mark.parametrize("bit", range(32))
def test_every_bit_of_a_number_counts(bit: int, width: int) -> None:
    model = nn.Linear(width, 4)
    before = checksum(model)
    for parameter in model.parameters():
        for place in range(parameter.numel()):
            flip(parameter, place, bit)
            assert checksum(model) != before
            flip(parameter, place, bit)
    assert checksum(model) == before


def test_exchanged_numbers_count() -> None:
    model = make_network(make_config("llama"))
    before, dice = checksum(model), random.Random(0)
    for parameter in model.parameters():
        flat = parameter.detach().view(-1)
        for _ in range(8):
            left, right = dice.sample(range(len(flat)), 2)
            places, swapped = torch.tensor([left, right]), torch.tensor([right, left])
            if flat[left] == flat[right]:
                continue
            flat[places] = flat[swapped]
            assert checksum(model) != before
            flat[places] = flat[swapped]
    assert checksum(model) == before


def test_exchanged_rows_columns_and_tensors_count() -> None:
    model = nn.ModuleDict({"a": nn.Linear(6, 6), "b": nn.Linear(6, 6)})
    before = checksum(model)
    a, b = model["a"].weight.detach(), model["b"].weight.detach()
    changed = []
    for swap in ("rows", "columns", "transposed", "tensors"):
        copies = a.clone(), b.clone()
        if swap == "rows":
            a[[0, 1]] = a[[1, 0]]
        elif swap == "columns":
            a[:, [0, 1]] = a[:, [1, 0]]
        elif swap == "transposed":
            a.copy_(copies[0].T)
        else:
            a.copy_(copies[1])
            b.copy_(copies[0])
        changed.append(checksum(model))
        a.copy_(copies[0])
        b.copy_(copies[1])
    assert len({before, *changed}) == 5
    assert checksum(model) == before


def test_the_sign_of_zero_counts() -> None:
    model = nn.Linear(8, 8)
    nn.init.zeros_(model.weight)
    before = checksum(model)
    model.weight.detach()[3, 5] = -0.0
    assert torch.equal(model.weight, torch.zeros(8, 8))
    assert checksum(model) != before


def test_signs_of_whole_columns_count() -> None:
    """Modulo a power of two, the sign bits of two columns would cancel."""
    model = nn.Linear(8, 64)
    before = checksum(model)
    for columns in ([1, 3], [0, 2], [0, 1], [1, 3, 5, 7], list(range(8))):
        model.weight.detach()[:, columns] *= -1
        assert checksum(model) != before
        model.weight.detach()[:, columns] *= -1
    assert checksum(model) == before


def test_a_rectangle_that_preserves_sums_of_rows_and_columns_counts() -> None:
    model = nn.Linear(512, 40)
    before = checksum(model)
    numbers = model.weight.detach().view(torch.int32)
    rows, columns = torch.tensor([[3], [17]]), torch.tensor([[20, 400]])
    numbers[rows, columns] += torch.tensor([[5, -5], [-5, 5]], dtype=torch.int32)
    assert checksum(model) != before


def test_names_and_shapes_count() -> None:
    left = nn.ModuleDict({"a": nn.Linear(4, 2, bias=False)})
    right = nn.ModuleDict({"b": nn.Linear(4, 2, bias=False)})
    third = nn.ModuleDict({"a": nn.Linear(2, 4, bias=False)})
    for model in (left, right, third):
        nn.init.zeros_(next(model.parameters()))
    assert len({checksum(model) for model in (left, right, third)}) == 3


def test_it_is_a_function_of_the_bits_alone() -> None:
    model = nn.Sequential(nn.Linear(700, 600), nn.Linear(600, 5))
    before = checksum(model)
    assert len(before) == 32
    assert int(before, 16) >= 0
    for threads in (2, 3):
        torch.set_num_threads(threads)
        assert checksum(model) == before
    right = copy.deepcopy(model)
    weight = right[0].weight
    weight.data = weight.detach().T.contiguous().T  # laid out the other way round in memory
    assert checksum(right) == before
    storage = torch.empty(weight.numel() + 1)
    storage[1:] = weight.flatten()
    weight.data = storage[1:].view(weight.shape)  # not where a number of eight bytes may begin
    assert checksum(right) == before
    assert checksum(model) == before  # and it changes nothing


def test_other_dtypes_and_no_parameters() -> None:
    model = nn.Linear(3, 3).to(torch.bfloat16)
    before = checksum(model)
    model.weight.detach().view(torch.int16)[1, 1] ^= 1
    assert checksum(model) != before
    assert checksum(nn.ReLU()) == checksum(nn.Tanh())


def test_nan_counts_with_its_bits() -> None:
    model = nn.Linear(4, 4)
    model.weight.detach()[0, 0] = torch.nan
    before = checksum(model)
    flip(model.weight, 0, 3)
    assert model.weight[0, 0].isnan()
    assert checksum(model) != before


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_has_the_same() -> None:
    model = make_network(make_config("llama"))
    assert checksum(copy.deepcopy(model).cuda()) == checksum(model)
