"""Context and batch follow from the length of a run and the width of its network."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from etude.plan.sizes import SHAPES, SIZES, batch_tokens_for, context_for, dropout_for, weight_decay_for

LENGTHS = st.integers(10_000, 10**11)


@given(LENGTHS, LENGTHS)
def test_longer_runs_have_no_smaller_batches_or_contexts(left: int, right: int) -> None:
    shorter, longer = sorted((left, right))
    assert context_for(shorter) <= context_for(longer)
    assert batch_tokens_for(shorter) <= batch_tokens_for(longer)


@given(LENGTHS)
def test_a_batch_is_a_power_of_two_and_not_too_small(tokens: int) -> None:
    batch = batch_tokens_for(tokens)
    assert batch.bit_count() == 1
    assert batch >= 512


@given(st.floats(0.01, 100), st.floats(0.01, 100), st.floats(0.001, 100))
def test_dropout_grows_with_repetition_and_with_parameters_per_token(
    left: float, right: float, parameters_per_token: float
) -> None:
    fewer, more = sorted((left, right))
    assert dropout_for(fewer, parameters_per_token) <= dropout_for(more, parameters_per_token) <= 0.2
    assert dropout_for(more, 0.5 * parameters_per_token) <= dropout_for(more, parameters_per_token)


def test_no_dropout_without_repetition_or_with_few_parameters() -> None:
    assert dropout_for(3.0, 100) == dropout_for(0.3, 100) == 0.0
    assert dropout_for(10, 0.25) == 0.0
    assert dropout_for(8, 2) == 0.14


def test_dropout_comes_with_more_weight_decay() -> None:
    assert weight_decay_for(0.0) == 0.1
    assert weight_decay_for(0.03) == weight_decay_for(0.3) == 0.3


def test_shapes_grow_in_every_way_and_heads_divide_widths() -> None:
    parameters = [shape.num_hidden_layers * shape.hidden_size**2 for shape in SHAPES]
    assert parameters == sorted(set(parameters))
    assert all(shape.hidden_size % (2 * shape.num_attention_heads) == 0 for shape in SHAPES)
    assert all(size.shape in SHAPES for size in SIZES.values())
