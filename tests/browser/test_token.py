"""The page and its token: what it shows without a token, and that the token leaves the address."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from browsing import assert_accessible
from watched import Watched


def test_without_the_token_the_page_explains_where_to_find_it(
    page: Any, serve: Callable[[Path, Path], str], studied: Watched, tmp_path: Path
) -> None:
    shutil.copytree(studied.path, tmp_path / "mine")
    address = serve(tmp_path, studied.cache)
    plain, _, token = address.partition("?token=")
    for wrong in (plain, f"{plain}?token=of-an-earlier-start"):
        page.goto(f"{wrong}#/growth?run=mine")
        page.get_by_role("heading", name="This page needs its whole address").wait_for()
        assert page.url == f"{plain}#/growth?run=mine"
        assert page.locator("main").inner_text().count("?token=…") == 2
        assert "mine" not in page.locator("header").inner_text()
    for dark in (False, True):
        page.emulate_media(color_scheme="dark" if dark else "light")
        assert_accessible(page)
    other = page.context.new_page()  # another tab of the same browser
    other.goto(f"{address}#/live?run=mine")
    other.get_by_text("Validation loss").first.wait_for()
    assert other.url == f"{plain}#/live?run=mine"
    assert token not in other.evaluate(
        "document.cookie + JSON.stringify({...localStorage, ...sessionStorage})"
    )
    page.locator("[data-state=finished]").wait_for()  # the first tab now gets in as well
    page.trouble.clear()  # the browser logs the refused requests


def test_a_guest_is_offered_nothing_that_writes(page: Any, address: str) -> None:
    """A server for other machines reports this in its facts, and the page offers no fork."""

    def as_guest(route: Any) -> None:
        answer = route.fetch()
        route.fulfill(response=answer, json=answer.json() | {"fork": False, "control": False})

    page.route("**/api/runs/llama", as_guest)
    page.goto(f"{address}#/predictions?run=llama&s=16&knob=lm_head.weight*1.5")
    page.get_by_text("lm_head.weight*1.5").first.wait_for()
    assert page.get_by_text("Train from here").count() == 0
