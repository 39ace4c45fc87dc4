"""Waiting in a browser under a policy that lets no text become code: the page is asked again and again from outside."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

AXE = Path(__file__).parents[1] / "studio" / "node_modules" / "axe-core" / "axe.min.js"


def until(page: Any, expression: str, seconds: float = 30.0) -> None:
    """Wait until a JavaScript expression is true."""
    begun = time.monotonic()
    while not page.evaluate(expression):
        assert time.monotonic() - begun < seconds, f"never true: {expression}; at {page.url}"
        page.wait_for_timeout(30)


def settled(page: Any) -> None:
    """Wait until every question of the view has its answer."""
    page.wait_for_timeout(60)
    until(page, "document.querySelector('main').getAttribute('aria-busy') === 'false'", 60.0)
    page.wait_for_timeout(60)


def assert_accessible(page: Any) -> None:
    """Zero findings of axe."""
    if not AXE.is_file():
        pytest.skip("axe-core is not installed: npm ci in studio/")
    page.evaluate(AXE.read_text())
    found = page.evaluate("axe.run()")["violations"]
    told = [(one["id"], [node["html"][:200] for node in one["nodes"][:3]]) for one in found]
    assert told == []
