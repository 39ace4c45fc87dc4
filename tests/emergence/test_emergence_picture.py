"""Ability curves as SVG: positions, ticks, and the description for screen readers."""

from __future__ import annotations

import pytest

from etude.emergence.picture import Line, Panel, Point, Scale


def test_scales_and_their_ticks() -> None:
    steps = Scale.of_x([0, 1, 10, 1000], logarithmic=True, falling=False)
    places = [steps.at(value) for value in (0, 1, 10, 100, 1000)]
    assert places == sorted(places)
    assert places[3] - places[2] == pytest.approx(places[2] - places[1])
    assert [name for _, name in steps.ticks()] == ["0", "1", "10", "100", "1 k"]
    loss = Scale.of_x([5.0, 2.0], logarithmic=False, falling=True)
    assert loss.at(5.0) < loss.at(3.0) < loss.at(2.0)
    shares = Scale(0, 1, 200, 0)
    assert [name for _, name in shares.ticks()] == ["0", "0.2", "0.4", "0.6", "0.8", "1.0"]
    for low, high in ((0, 1e-3), (-0.11, 0.63), (1.98, 2.02), (0, 7e5)):
        ticks = Scale(low, high, 200, 0).ticks()
        assert 3 <= len(ticks) <= 8
        assert len({name for _, name in ticks}) == len(ticks)
        if high < 1e4:
            assert all(float(name) == pytest.approx(value, abs=1e-9) for value, name in ticks)


def test_a_picture_says_in_words_what_it_shows() -> None:
    line = Line((Point(1, 0.5, 0.4, 0.6), Point(8, 0.75, 0.7, 0.8)), 0)
    picture = Panel("margin <b>", "steps", (line,)).svg()
    assert "margin &lt;b&gt; against steps; ends at 0.75 to 0.75" in picture
    assert "<b>" not in picture
