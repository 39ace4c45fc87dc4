"""Knobs: a knob turned on the page changes the predictions as ``etude inspect`` does; the run does not change."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from browsing import settled, until
from etude.watch import api
from watched import Watched


@pytest.fixture
def own(studied: Watched, serve: Callable[[Path, Path], str], tmp_path: Path) -> tuple[str, Path]:
    """A copy of the run that may be forked, and the address of its studio."""
    run = tmp_path / "runs" / "llama"
    shutil.copytree(studied.path, run)
    return serve(run.parent, studied.cache), run


def files_of(run: Path) -> dict[str, bytes]:
    return {str(file.relative_to(run)): file.read_bytes() for file in run.rglob("*") if file.is_file()}


def test_a_weight_is_turned_shared_undone_and_forked(
    page: Any, own: tuple[str, Path], studied: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ETUDE_CACHE", str(studied.cache))
    address, run = own
    before = files_of(run)
    page.goto(f"{address}#/step?run=llama&s=24&l=1&n=5&i=2")
    page.get_by_role("tab", name=re.compile("Update")).click()
    settled(page)
    page.get_by_label("Value in a copy").first.fill("3")
    page.keyboard.press("Enter")
    until(page, "location.hash.includes('knob=')")
    page.get_by_role("link", name="See the predictions change").first.click()
    settled(page)
    knob = "model.layers.1.mlp.gate_proj.weight[5,2]=3"
    panel = page.locator("main")
    panel.get_by_text(knob).first.wait_for()
    # The page's losses of the text equal those of inspect.
    line = page.get_by_text("Loss of the text").inner_text()
    numbers = [float(number) for number in re.findall(r"\d+\.\d+", line)][:2]
    text = page.evaluate(
        "fetch('./api/ask', {method: 'POST', headers: {'Content-Type': 'application/json'},"
        " body: JSON.stringify({run: 'llama', look: 'passages'})}).then(r => r.text())"
    )
    passage = json.loads(text.splitlines()[-1])["answer"]["passages"][0]["text"]
    compared = api.compare(run, passage, [knob], 24)
    expected = [float(values.mean()) for values in compared.losses]
    assert numbers == pytest.approx(expected, abs=6e-5)
    # The address alone shows the same in another tab.
    link = page.url
    page.goto("about:blank")
    page.goto(link)
    settled(page)
    panel.get_by_text(knob).first.wait_for()
    # It can be forked into a new run.
    page.get_by_text("Train from here").click()
    page.get_by_label("Name of the new run").fill("turned")
    page.get_by_role("button", name=re.compile("Fork at step 24")).click()
    page.get_by_text("etude train --resume").first.wait_for()
    assert (run.parent / "turned" / "run.toml").is_file()
    page.get_by_role("button", name=f"Undo {knob}").click()
    until(page, "!location.hash.includes('knob=')")
    assert files_of(run) == before


def test_a_node_is_switched_off_and_on_again(page: Any, own: tuple[str, Path]) -> None:
    address, _ = own
    page.goto(f"{address}#/neurons?run=llama&s=24&l=1&n=5")
    settled(page)
    page.get_by_role("button", name="Switch it off").click()
    settled(page)
    page.get_by_text("Loss of the text").wait_for()
    assert "mlp.post%5B5%5D*0" in page.url or "mlp.post[5]*0" in page.url
    page.get_by_role("button", name="Switch it on").click()
    until(page, "!location.hash.includes('knob=')")


def test_a_thermostat_moves_a_bias(page: Any, own: tuple[str, Path]) -> None:
    address, _ = own
    page.goto(f"{address}#/neurons?run=llama&s=24&l=0&n=3")
    settled(page)
    page.get_by_role("slider", name="change").focus()
    for _ in range(4):
        page.keyboard.press("ArrowRight")
    settled(page)
    assert "gate_proj.bias" in page.url
    page.get_by_text("Loss of the text").wait_for()
