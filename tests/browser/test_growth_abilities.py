"""Abilities in the Growth view: those of the record, over steps and sizes, and a hint without any."""

from __future__ import annotations

import io
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from browsing import assert_accessible, settled
from etude.evaluate.command import EvaluationRequest, evaluate
from etude.evaluate.records import read_records
from watched import Watched


@pytest.fixture(scope="module")
def address(
    studied: Watched, serve: Callable[[Path, Path], str], tmp_path_factory: pytest.TempPathFactory
) -> str:
    """Serve a run whose checkpoints were all probed, one probed at its end, and one never probed."""
    folder = tmp_path_factory.mktemp("abilities")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ETUDE_CACHE", str(studied.cache))
        for name in ("asked", "once", "never"):
            shutil.copytree(studied.path, folder / name)
            if name != "never":
                asked = EvaluationRequest(
                    folder / name, ("world",), every_checkpoint=name == "asked", num_items=16
                )
                evaluate(asked, Console(file=io.StringIO()))
    served = serve(folder, studied.cache)
    address_of[served] = folder
    return served


address_of: dict[str, Path] = {}


def show(page: Any, address: str, query: str) -> Any:
    page.goto(f"{address}#/growth?{query}")
    section = page.get_by_role("region", name="Abilities", exact=True)
    section.wait_for()
    settled(page)
    return section


def percent(share: float) -> str:
    """Round as the browser does: halves up, where Python rounds to even."""
    return f"{math.floor(100 * share + 0.5)} %"


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_each_ability_has_its_numbers(page: Any, address: str, theme: str) -> None:
    page.emulate_media(color_scheme=theme, reduced_motion="reduce")
    section = show(page, address, "run=asked")
    section.get_by_role("heading", name="who told whom").wait_for()
    records = read_records(address_of[address] / "asked").records
    last = {record.title: record for record in records}
    for title, record in last.items():
        card = section.get_by_role("article").filter(has=page.get_by_role("heading", name=title, exact=True))
        text = card.inner_text()
        assert f"{percent(record.model.accuracy.value)} right" in text
        assert f"chance {percent(record.chance)}" in text
        assert f"{record.num_items} items" in text
        assert record.label in text
    page.wait_for_timeout(300)
    assert_accessible(page)


def test_sizes_are_side_by_side(page: Any, address: str) -> None:
    section = show(page, address, "run=asked&with=once")
    table = (
        section.get_by_role("table")
        .filter(has_text="never")
        .or_(section.get_by_role("table").filter(has_text="once"))
    )
    table.first.wait_for()
    assert "who told whom" in table.first.inner_text()


def test_a_run_without_probes_names_the_command(page: Any, address: str) -> None:
    section = show(page, address, "run=never")
    section.get_by_text("etude eval runs/never --steps all").wait_for()


def test_nothing_is_wider_than_a_telephone(page: Any, address: str) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    section = show(page, address, "run=asked&with=once")
    section.get_by_role("heading", name="who told whom").wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
