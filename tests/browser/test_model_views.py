"""A model without a run in the browser: each view works on it, or says in a sentence what to type."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bare_models import make_model
from browsing import assert_accessible, settled

pytestmark = pytest.mark.slow
TEXT = "The quick brown fox jumps. The quick"


@pytest.fixture(scope="module")
def served_model(tmp_path_factory: pytest.TempPathFactory, serve: Callable[[Path, Path], str]) -> str:
    shelf = tmp_path_factory.mktemp("shelf")
    make_model(shelf / "tiny", "llama-plain")
    return serve(shelf, tmp_path_factory.mktemp("cache"))


def go(page: Any, address: str, view: str) -> None:
    page.goto("about:blank")
    page.goto(f"{address}#/{view}?run=tiny&text={TEXT.replace(' ', '%20')}")
    page.locator("main h2").first.wait_for()
    settled(page)


def test_every_view_of_a_model_works_or_says_what_to_type(served_model: str, page: Any) -> None:
    for view in ("live", "step", "growth"):
        go(page, served_model, view)
        assert page.locator("code").filter(has_text="etude train TEXT --from").count() == 1
        assert page.locator("footer").count() == 0
    for view, shows in (
        ("predictions", "Predicted and desired"),
        ("layers", "The signal, layer by layer"),
        ("neurons", "What it promotes and suppresses"),
        ("attention", "All heads"),
    ):
        go(page, served_model, view)
        page.get_by_role("heading", name=shows, exact=True).wait_for()
        assert page.get_by_text("This cannot be shown").count() == 0
        assert page.get_by_text("Step 0").count() == 0
        assert_accessible(page)
    go(page, served_model, "chat")
    page.get_by_role("button", name="Continue the text").click()
    page.get_by_role("button", name="Continue the text").wait_for()
    assert page.get_by_text("choose a token to see its probability").count() == 1
    assert_accessible(page)


def test_the_facts_and_the_doctor_of_a_model(served_model: str, page: Any) -> None:
    go(page, served_model, "live")
    assert "not stated" in page.locator("dl").inner_text()
    page.get_by_role("button", name="Examine this model").click()
    page.get_by_text("The doctor found nothing wrong").wait_for()
    assert_accessible(page)
