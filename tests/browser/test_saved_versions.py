"""Saved versions of a published model in the browser, and a run beside the model that it began with."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from bare_models import make_versions
from browsing import assert_accessible, settled
from etude.config import load_settings
from etude.data.primer.generator import documents
from etude.evaluate.published_steps import evaluate_history
from etude.evaluate.resumable_parts import Workers
from etude.evaluate.together import TogetherRequest
from etude.pretrained.load_model import load_trained
from etude.run.published_history import PublishedHistory
from etude.run.record import RunRecord
from etude.watch.loss_by_checkpoint import loss_by_checkpoint
from etude.workflow import jobs

pytestmark = pytest.mark.slow
TEXT = "The quick brown fox jumps. The quick"
STEPS = {10: 0, 20: 1, 25: 1}
"""The seeds of the versions: the last two have the same weights."""


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the versions and a run on the last of them; its cache is beside it, with scores."""
    folder = tmp_path_factory.mktemp("shelf") / "runs"
    story = make_versions(folder / "story", "llama-plain", STEPS)
    text = folder.parent / "text.txt"
    text.write_text("\n\n".join(document.text for document in documents(3, 30_000)))
    values: dict[str, Any] = {
        "data.sources": (str(text),),
        "data.workers": 1,
        "model.base": f"{story}@25",
        "train.steps": 4,
        "train.context": 16,
        "train.batch_rows": 2,
        "train.eval_tokens": 200,
        "device.kind": "cpu",
        "device.threads": 1,
        "run.folder": str(folder),
        "run.name": "child",
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ETUDE_CACHE", str(folder.parent / "cache"))
        console = Console(file=io.StringIO())
        jobs.grow(load_settings(values=values), console)
        evaluate_history(TogetherRequest((story,), ("world",), 16, (), Workers(threads=1)), console)
    return folder


@pytest.fixture(scope="module")
def served_shelf(shelf: Path, serve: Callable[[Path, Path], str]) -> str:
    return serve(shelf, shelf.parent / "cache")


def go(page: Any, address: str, view: str, run: str = "story", step: str = "") -> None:
    page.goto("about:blank")
    page.goto(f"{address}#/{view}?run={run}{step}&text={TEXT.replace(' ', '%20')}")
    page.locator("main h2").first.wait_for()
    settled(page)


def chooser_of(page: Any) -> Any:
    return page.get_by_role("group", name="The version that is shown")


def test_growth_shows_the_loss_at_each_version_and_the_recorded_scores(
    shelf: Path, served_shelf: str, page: Any
) -> None:
    history = PublishedHistory.at(shelf / "story")
    assert history is not None
    tokenizer = load_trained(shelf / "story").tokenizer
    losses = loss_by_checkpoint(history, tokenizer, TEXT, None, lambda done, of: None)["losses"]
    go(page, served_shelf, "growth")
    rows = page.get_by_role("region", name="Loss of the text at each version").locator("tbody tr")
    shown = [row.locator("td").all_inner_texts()[:2] for row in rows.all()]
    means = [sum(filter(None, version)) / len(version) for version in losses]
    assert shown == [[f"step {step}", f"{mean:.3f}"] for step, mean in zip(STEPS, means, strict=True)]
    versions = page.get_by_label("The saved versions").inner_text()
    assert "Not recorded by Etude: what happened between these steps" in versions
    assert f"Step 25 has the same weights as step 20 ({history.hashes[25]})." in versions
    page.get_by_role("heading", name="who has what, 1 move", exact=True).wait_for()
    assert_accessible(page)


def test_each_view_shows_the_chosen_version(served_shelf: str, page: Any) -> None:
    for view, shows in (
        ("predictions", "When it learned that"),
        ("layers", "The signal, layer by layer"),
        ("neurons", "What it promotes and suppresses"),
        ("attention", "All heads"),
    ):
        go(page, served_shelf, view)
        page.get_by_role("heading", name=shows, exact=True).wait_for()
        chooser = chooser_of(page)
        assert "Not recorded by Etude. Step 25 has the same weights as step 20" in chooser.inner_text()
        options = chooser.locator("option").all_inner_texts()
        assert options == ["step 10", "step 20", "step 25 (the same as step 20)"]
        assert page.get_by_text("This cannot be shown").count() == 0
        assert page.locator("footer").count() == 0
        assert_accessible(page)
    go(page, served_shelf, "predictions")
    last = page.get_by_role("region", name="The passage").inner_text()
    assert "Step 25:" in last
    chooser_of(page).locator("select").select_option("10")
    page.get_by_text("Step 10:").wait_for()
    settled(page)
    assert page.get_by_role("region", name="The passage").inner_text() != last
    go(page, served_shelf, "attention", step="&s=14")  # no such version: the one before it
    assert chooser_of(page).locator("select").input_value() == "10"


def test_what_needs_a_record_says_so(served_shelf: str, page: Any) -> None:
    for view in ("step", "live"):
        go(page, served_shelf, view)
        assert page.get_by_text(
            "its steps cannot be opened or replayed, and its updates are not known"
        ).count()
        assert page.locator("code").filter(has_text="@25").count() == 1
        assert_accessible(page)
    go(page, served_shelf, "chat")
    page.locator("form select").first.select_option("10")
    page.get_by_role("button", name="Continue the text").click()
    page.get_by_role("heading", name="Step 10").wait_for()
    page.get_by_text("choose a token to see its probability").wait_for()


def test_a_run_is_shown_beside_its_base(shelf: Path, served_shelf: str, page: Any) -> None:
    evals = RunRecord.open(shelf / "child").evals
    for view in ("live", "growth"):
        go(page, served_shelf, view, "child")
        beside = page.get_by_label("Beside its base")
        beside.wait_for()
        cells = beside.locator("tbody tr").first.locator("td").all_inner_texts()
        assert cells[:2] == [f"{evals[0].val_loss:.3f}", f"{evals[-1].val_loss:.3f}"]
        assert "story@25, is step 0 of this run" in beside.inner_text()
        assert "reference text" in beside.inner_text()
        assert_accessible(page)
