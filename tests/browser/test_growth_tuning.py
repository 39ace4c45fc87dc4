"""What a tuning gained and cost in the Growth view: verdict and tables of the record, and nothing for other runs."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from browsing import assert_accessible, settled
from etude.evaluate.tuning.classification import NAIVE_BAYES
from etude.evaluate.tuning.records import read_reports
from etude.run.events import ReferenceEvent
from etude.run.gain_and_cost import balances_of, least
from etude.run.record import RunRecord
from reported_tunings import report, write
from watched import STEPS, Watched


@pytest.fixture(scope="module")
def address(
    studied: Watched, serve: Callable[[Path, Path], str], tmp_path_factory: pytest.TempPathFactory
) -> str:
    """Serve a run with reports on two steps, and one without."""
    folder = tmp_path_factory.mktemp("tunings")
    for name in ("tuned", "plain"):
        shutil.copytree(studied.path, folder / name)
    score_reference(folder / "tuned" / "metrics.jsonl")
    write(folder / "tuned", report(4, rise=0.1), report(8, probes=True, labels=True))
    served = serve(folder, studied.cache)
    address_of[served] = folder
    return served


def score_reference(log: Path) -> None:
    """Add scores of a reference text before the evaluations in a log: it is forgotten ever faster."""
    lines: list[str] = []
    for line in log.read_text().splitlines():
        event = json.loads(line)
        if event["event"] == "eval":
            bits = 1 + 4 * (event["step"] / STEPS) ** 3
            where = (event["step"], event["tokens_seen"], event["wall_time"])
            lines.append(json.dumps(ReferenceEvent(*where, bits, bits, 100, "a text").record()))
        lines.append(line)
    log.write_text("".join(f"{line}\n" for line in lines))


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
    asked = section.get_by_role("region", name="Held-out questions").inner_text()
    assert asked.count("base, 2 examples") == 1
    assert "+0.200" in text
    assert "favours the base. Intervals" in text
    abilities = section.get_by_role("region", name="General abilities").inner_text()
    assert "induction" in abilities
    assert "\u221225 %" in abilities
    kinds = section.get_by_role("region", name="Right answers by kind").inner_text()
    assert kinds.split("\n")[0].split("\t") == [
        "right answers, step 8",
        "questions",
        "base",
        "base, 2 examples",
        "tuned",
    ]
    assert "retell\t4" in kinds
    rules = section.get_by_role("row").filter(has_text=NAIVE_BAYES).inner_text()
    assert "75 %" in rules
    assert_accessible(page)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_sum_of_gain_and_cost_and_its_best_step(page: Any, address: str, theme: str) -> None:
    page.emulate_media(color_scheme=theme, reduced_motion="reduce")
    show(page, address, "tuned")
    section = page.get_by_role("region", name="Gain and cost by step", exact=True)
    history = RunRecord.open(address_of[address] / "tuned").history
    balances = balances_of(history.evals, history.references)
    best = least(balances)
    assert best is not None
    assert 0 < best.step < STEPS
    text = section.inner_text().replace("\u2212", "-")
    assert f"The best step is {best.step}: {best.total:+.3f} bits per byte since step 0" in text
    assert f"{best.held_out:+.3f} on held-out text and {best.reference:+.3f} on the reference text" in text
    section.get_by_role("button", name="table").click()
    rows = [row.split("\t") for row in section.get_by_role("table").inner_text().split("\n")]
    assert rows[0][1:] == ["held-out text: gain", "reference text: cost", "sum", "best step"]
    assert [int(row[0]) for row in rows[1:]] == [balance.step for balance in balances]
    sums = [float(row[3].replace("\u2212", "-")) for row in rows[1:]]
    assert sums == pytest.approx([balance.total for balance in balances], abs=6e-4)
    assert_accessible(page)


def test_a_run_without_a_report_shows_nothing(page: Any, address: str) -> None:
    assert show(page, address, "plain").count() == 0
    assert page.get_by_role("region", name="Gain and cost by step", exact=True).count() == 0
