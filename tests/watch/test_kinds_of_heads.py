"""The kinds of heads follow their definitions, and a picture shows the strongest of each kind."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from etude.watch.inspect_pictures import Picture, draw
from etude.watch.kinds_of_heads import (
    FIRST,
    INDUCTION,
    KINDS,
    PREVIOUS,
    KindOfHead,
    chosen_heads,
    kinds_of_heads,
    sinks_line,
)
from etude.watch.prompts import Prompt
from networks import make_config, make_network, make_tokens


def test_shares_are_those_of_a_plain_loop() -> None:
    model = make_network(make_config("llama-plain"))
    ids = make_tokens(1, 14)[0] % 4  # many repetitions
    prompt = Prompt(model, ids, tuple("abcdefghijklmn"), str)
    for head in kinds_of_heads(prompt):
        pattern = prompt.pattern(head.layer).tensor[head.head].tolist()
        shares = []
        for query in range(14):
            after = [key for key in range(2, query + 1) if ids[key - 1] == ids[query]]
            if after:
                shares.append(sum(pattern[query][key] for key in after))
        assert head.induction == pytest.approx(sum(shares) / len(shares), rel=1e-5)
        assert head.first == pytest.approx(sum(row[0] for row in pattern[1:]) / 13, rel=1e-5)


def test_a_text_without_repetitions_has_no_induction_of_its_own() -> None:
    model = make_network(make_config("llama-plain"))
    ids = make_tokens(1, 40)[0].unique()[:6]
    heads = kinds_of_heads(Prompt(model, ids, tuple("abcdef"), str))
    assert {head.induction for head in heads} == {None}
    assert heads[0].kind(induction=0.9) == INDUCTION  # measured on repeated random tokens instead


def head(number: int, previous: float, first: float, induction: float = 0.0) -> KindOfHead:
    return KindOfHead(number, 0, previous, first, 0.0, 1.0, induction)


def test_every_kind_is_shown_before_a_second_of_the_commonest() -> None:
    heads = [head(number, 0.0, 0.8 + number / 1000) for number in range(100)]
    heads += [head(100, 0.9, 0.1), head(101, 0.8, 0.1), head(102, 0.1, 0.6, induction=0.35)]
    chosen = chosen_heads(heads, 6)
    assert chosen.places == ((102, 0), (100, 0), (101, 0), (99, 0), (98, 0), (97, 0))
    assert [chosen.kinds[place] for place in chosen.places] == [INDUCTION, PREVIOUS, PREVIOUS, *[FIRST] * 3]
    assert str(chosen).startswith(
        "6 of 103 heads, the strongest of each kind on this text: 1 of 1 induction, 2 of 2"
    )
    assert len(chosen_heads(heads, 200).places) == 103
    assert chosen_heads(heads, 0).places == ()
    assert set(chosen.kinds.values()) <= set(KINDS)


def test_sinks_are_explained_only_where_they_are() -> None:
    line = sinks_line([head(0, 0.1, 0.8), head(1, 0.9, 0.1)])
    assert line.startswith("1 of 2 heads put 40% or more")
    assert "arXiv 2309.17453" in line
    assert sinks_line([head(1, 0.9, 0.1)]) == ""


@pytest.mark.parametrize("count", [1, 5, 24, 48, 60])
def test_a_picture_of_many_heads_has_sane_dimensions(tmp_path: Path, count: int) -> None:
    values = make_tokens(6, 6).double()
    draw(
        [Picture("head", values, "key", "query", False, about="some of many")] * count,
        tmp_path / "a.png",
        "light",
    )
    width, height = Image.open(tmp_path / "a.png").size
    assert 300 < height < 2000
    assert 300 < width < 2500
