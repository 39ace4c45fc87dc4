"""What a tuning gained and cost in the Growth view: verdict and tables of the record, and nothing for other runs."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from browsing import assert_accessible, settled
from etude.evaluate.tuning.records import read_reports
from reported_tunings import report, write
from watched import Watched


@pytest.fixture(scope="module")
def address(
    studied: Watched, serve: Callable[[Path, Path], str], tmp_path_factory: pytest.TempPathFactory
) -> str:
    """Serve a run with reports on two steps, and one without."""
    folder = tmp_path_factory.mktemp("tunings")
    for name in ("tuned", "plain"):
        shutil.copytree(studied.path, folder / name)
    write(folder / "tuned", report(4, rise=0.1), report(8, probes=True))
    served = serve(folder, studied.cache)
    address_of[served] = folder
    return served


address_of: dict[str, Path] = {}


def show(page: Any, address: str, run: str) -> Any:
    page.goto(f"{address}#/growth?run={run}")
    page.get_by_role("region", name="Abilities", exact=True).wait_for()
    settled(page)
    return page.get_by_role("region", name="What tuning gained and cost", exact=True)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_verdicts_and_figures_of_every_step(page: Any, address: str, theme: str) -> None:
    page.emulate_media(color_scheme=theme, reduced_motion="reduce")
    section = show(page, address, "tuned")
    section.wait_for()
    text = section.inner_text()
    for recorded in read_reports(address_of[address] / "tuned"):
        assert f"Step {recorded.step}: {recorded.sentence}." in text
        assert f"source code, step {recorded.step}" in text
        assert recorded.systems[-1].name in text
    assert text.count("base, 2 examples") == 1
    assert "+0.200" in text
    assert "favours the base. Intervals" in text
    abilities = section.get_by_role("region", name="General abilities").inner_text()
    assert "induction" in abilities
    assert "\u221225 %" in abilities
    assert_accessible(page)


def test_a_run_without_a_report_shows_nothing(page: Any, address: str) -> None:
    assert show(page, address, "plain").count() == 0
