"""What tests in a browser share: waiting under a policy that lets no text become code, axe, numbers in answers."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from waiting import PATIENCE

AXE = Path(__file__).parents[1] / "studio" / "node_modules" / "axe-core" / "axe.min.js"


def until(page: Any, expression: str, seconds: float = PATIENCE) -> None:
    """Wait until a JavaScript expression is true."""
    begun = time.monotonic()
    while not page.evaluate(expression):
        assert time.monotonic() - begun < seconds, f"never true: {expression}; at {page.url}"
        page.wait_for_timeout(30)


def settled(page: Any) -> None:
    """Wait until every question of the view has its answer."""
    page.wait_for_timeout(60)
    until(page, "document.querySelector('main').getAttribute('aria-busy') === 'false'")
    page.wait_for_timeout(60)


def assert_accessible(page: Any) -> None:
    """Zero findings of axe."""
    if not AXE.is_file():
        pytest.skip("axe-core is not installed: npm ci in studio/")
    page.evaluate(AXE.read_text())
    found = page.evaluate("axe.run()")["violations"]
    told = [(one["id"], [node["html"][:200] for node in one["nodes"][:3]]) for one in found]
    assert told == []


def leaves(value: Any) -> Iterator[float]:
    """Every number in plain values."""
    if isinstance(value, dict):
        for one in value.values():
            yield from leaves(one)
    elif isinstance(value, list):
        for one in value:
            yield from leaves(one)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield float(value)
