"""A knob changes what it names, in a copy, and nothing else."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from etude.errors import InputError
from etude.model.language_model import LOGITS
from etude.model.taps import Taps
from etude.train.checksum import checksum
from etude.watch.knobs import Knob, compare, parse_knob, turn
from etude.watch.tapped_forward import run_with_taps
from networks import ALPHABET, EVERY, make_config, make_network, make_tokens

NAMES = st.from_regex(r"[a-z_]+(\.[a-z_0-9]+){0,4}", fullmatch=True)


@given(
    NAMES,
    st.sampled_from("=*+"),
    st.floats(-1e6, 1e6).map(lambda value: float(f"{value:g}")),
    st.lists(st.integers(0, 9999), max_size=3).map(tuple),
    st.none() | st.integers(0, 999),
)
def test_a_knob_equals_its_parsed_text(
    name: str, how: str, value: float, index: tuple[int, ...], position: int | None
) -> None:
    knob = Knob(name, how, value, index, position)  # type: ignore[arg-type]
    assert parse_knob(str(knob)) == knob


@pytest.mark.parametrize(
    "text", ["", "x", "x=", "x=nan", "x[1=2", "x[a]=2", "x=1;y=2", "x=1e999", "[3]=1", "x@y=1", "x[1,]*2"]
)
def test_text_that_is_no_knob_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"NAME\[INDEX\]"):
        parse_knob(text)


@pytest.mark.parametrize("name", EVERY)
def test_a_parameter_is_turned_in_a_copy(name: str) -> None:
    model = make_network(make_config(name))
    before = checksum(model)
    weight = next(n for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n)
    bias = [n for n, p in model.named_parameters() if n.endswith(".bias")][:1]
    knobs = [
        Knob(weight, "=", 0.5, (3, 5)),
        Knob(weight, "*", 2, (4,)),
        *(Knob(b, "+", 1, (2,)) for b in bias),
    ]
    turned = turn(model, knobs)
    assert checksum(model) == before
    assert turned.parameters.keys() == {weight, *bias}
    for other, parameter in turned.model.named_parameters():
        expected = model.get_parameter(other).detach().clone()
        if other == weight:
            expected[3, 5] = 0.5
            expected[4] *= 2
        elif other in bias:
            expected[2] += 1
        assert torch.equal(parameter, expected), other
    inputs = make_tokens(1, 9)
    assert not torch.allclose(turned.model(inputs), model(inputs))


def test_an_activation_changes_where_the_knob_points() -> None:
    model = make_network(make_config("llama"))
    inputs = make_tokens(1, 9)
    plain = run_with_taps(model, inputs)
    cases = {
        "model.layers.1.mlp.post[7]*0": ("model.layers.1.mlp.post", (0, slice(None), 7), 0.0, 0),
        "model.layers.1.self_attn.z[2]*0.5": ("model.layers.1.self_attn.z", (0, slice(None), 2), 0.5, 0),
        "model.layers.2.resid_pre[3]@4+1": ("model.layers.2.resid_pre", (0, 4, 3), 1.0, 1),
        "model.layers.0.self_attn.pattern[1]@5*0": ("model.layers.0.self_attn.pattern", (0, 1, 5), 0.0, 0),
        "model.layers.0.mlp_out=0": ("model.layers.0.mlp_out", (0,), 0.0, 0),
    }
    for text, (name, place, factor, shift) in cases.items():
        changes = turn(model, [parse_knob(text)]).changes
        changed = run_with_taps(model, inputs, taps=Taps(changes=changes))[name]
        expected = plain[name].clone()
        expected[place] = expected[place] * factor + shift
        torch.testing.assert_close(changed, expected, msg=text)


@pytest.mark.parametrize("knob", ["scores*0", "scores[1]=2", "pattern+0.25", "scores@3*0"])
def test_no_knob_uncovers_later_positions(knob: str) -> None:
    model = make_network(make_config("llama"))
    short, long = make_tokens(1, 6), make_tokens(1, 9)
    long[:, :6] = short
    changes = turn(model, [parse_knob(f"model.layers.1.self_attn.{knob}")]).changes
    ahead, cut = (run_with_taps(model, ids, taps=Taps(changes=changes))[LOGITS] for ids in (long, short))
    assert ahead.isfinite().all()
    torch.testing.assert_close(ahead[:, :6], cut, rtol=1e-4, atol=1e-5)


def test_a_patch_replaces_an_activation_by_that_of_another_text() -> None:
    model = make_network(make_config("gpt2"))
    text, other = make_tokens(1, 9, seed=1), make_tokens(1, 9, seed=2)
    name = "model.layers.2.resid_post"
    patch = run_with_taps(model, other)[name]
    changes = turn(model, [], {name: patch}).changes
    patched = run_with_taps(model, text, taps=Taps(changes=changes))[LOGITS]
    torch.testing.assert_close(patched, model(other))
    with pytest.raises(InputError, match="the patch"):
        run_with_taps(model, text[:, :4], taps=Taps(changes=changes))


def test_predictions_are_compared() -> None:
    model = make_network(make_config("llama"))
    same = compare(model, ALPHABET, "abcdef", ["model.layers.0.mlp.post[3]*1"])
    torch.testing.assert_close(same.divergence, torch.zeros(7, dtype=torch.float64), rtol=0, atol=1e-12)
    compared = compare(model, ALPHABET, "abcdef", ["lm_head.weight[5]=0", "model.layers.1.attn_out=0"])
    assert (compared.divergence > 0).all()
    before, after = compared.losses
    assert before.shape == after.shape == (6,)
    torch.testing.assert_close(before.float(), compared.prompt.losses, rtol=1e-4, atol=1e-5)
    assert repr(compared).startswith("turned: lm_head.weight[5]=0; model.layers.1.attn_out=0\nloss ")
    assert len(compared.top()) == 5


@pytest.mark.parametrize(
    ("knob", "words"),
    [
        ("lm_hed.weight[0]=1", r"did you mean 'lm_head\.weight'"),
        ("lm_head.weight[99,0]=1", r"shape is \(61, 32\)"),
        ("lm_head.weight[0]@3=1", "a parameter has none"),
        ("model.layers.0.mlp.post[999]*0", "has units 0 to 95"),
        ("model.layers.0.mlp.post[1]@99*0", "beyond the 4 tokens"),
        ("model.layers.0.mlp.post[1,2]*0", "names no unit"),
    ],
)
def test_a_knob_that_names_nothing_is_one_line(knob: str, words: str) -> None:
    model = make_network(make_config("llama"))
    with pytest.raises(InputError, match=words):
        compare(model, ALPHABET, "abc", [knob])
