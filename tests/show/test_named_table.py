"""Tables of long names: names are complete at every width, and figures are in their own row."""

from __future__ import annotations

import io

import pytest
from rich.console import Console
from rich.text import Text

from etude.show.named_table import Column, NamedTable

NAMES = (
    "blimp_determiner_noun_agreement_with_adj_irregular_1",
    "agreement, a noun and a place between",
    "induction",
    "far context",
)
TABLE = NamedTable(
    "ability",
    [Column("right (95 %)", right=True), Column("change at (steps)", wraps=True), Column("so", wraps=True)],
    [
        (Text(name), [Text(f"0.{at}0 (0.16-0.76)"), Text("1.2 k"), Text("counting does it too")])
        for at, name in enumerate(NAMES)
    ],
)
WORDS = NamedTable(TABLE.heading, TABLE.columns, TABLE.rows[1:])


def shown(table: NamedTable, width: int) -> str:
    out = io.StringIO()
    Console(file=out, width=width).print(table)
    return out.getvalue()


@pytest.mark.parametrize("width", [40, 60, 80, 100, 160])
def test_nothing_is_cut(width: int) -> None:
    text = shown(TABLE, width)
    assert "…" not in text
    assert all(len(line) <= width for line in text.splitlines())
    squeezed = "".join(text.split())
    for at, name in enumerate(NAMES):
        assert f"0.{at}0(0.16-0.76)" in squeezed
        if width < 100:  # in a line of its own
            assert name.replace(" ", "") in squeezed


def test_names_stand_beside_their_figures_where_there_is_room() -> None:
    for name, line in zip(("ability", *NAMES), shown(TABLE, 160).splitlines(), strict=True):
        assert line.startswith(f"{name} ")


def test_names_wrap_at_words_before_they_get_a_line_of_their_own() -> None:
    lines = [line.rstrip() for line in shown(WORDS, 85).splitlines()]
    assert any(line.startswith("agreement, a noun and a  ") or line == "place between" for line in lines)
    assert all(
        set(line.split("  ")[0].split()) <= set(" ".join(("ability", *NAMES)).split()) for line in lines[1:]
    )


def test_a_narrow_terminal_has_the_name_above_its_figures() -> None:
    lines = [line.rstrip() for line in shown(TABLE, 60).splitlines()]
    for at, name in enumerate(NAMES):
        place = lines.index(name)
        assert lines[place + 1].startswith(f"  0.{at}0 (0.16-0.76)")
