"""Context and batch follow from the length of a run and the width of its network."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from etude.train.sizes import SHAPES, SIZES, batch_tokens_for, context_for

LENGTHS = st.integers(10_000, 10**11)
WIDTHS = st.sampled_from([shape.hidden_size for shape in SHAPES])


@given(LENGTHS, LENGTHS, WIDTHS)
def test_longer_runs_have_no_smaller_batches_or_contexts(one: int, other: int, width: int) -> None:
    shorter, longer = sorted((one, other))
    assert context_for(shorter) <= context_for(longer)
    assert batch_tokens_for(shorter, width) <= batch_tokens_for(longer, width)


@given(LENGTHS, WIDTHS)
def test_a_batch_is_a_power_of_two_of_at_least_about_eight_widths(tokens: int, width: int) -> None:
    batch = batch_tokens_for(tokens, width)
    assert batch.bit_count() == 1
    assert batch >= 8 * width / 2**0.5


def test_shapes_grow_in_every_way_and_heads_divide_widths() -> None:
    parameters = [shape.num_hidden_layers * shape.hidden_size**2 for shape in SHAPES]
    assert parameters == sorted(set(parameters))
    assert all(shape.hidden_size % (2 * shape.num_attention_heads) == 0 for shape in SHAPES)
    assert all(size.shape in SHAPES for size in SIZES.values())
