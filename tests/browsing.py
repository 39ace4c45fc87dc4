"""Shared by tests in a browser: waiting without eval (the policy forbids it), axe, numbers in answers."""

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
    started = time.monotonic()
    while not page.evaluate(expression):
        assert time.monotonic() - started < seconds, f"never true: {expression}; at {page.url}"
        page.wait_for_timeout(30)


def settled(page: Any) -> None:
    """Wait until every question of the view has its answer."""
    page.wait_for_timeout(60)
    until(page, "document.querySelector('main').getAttribute('aria-busy') === 'false'")
    page.wait_for_timeout(60)


def assert_accessible(page: Any) -> None:
    """Require that axe reports no violation."""
    if not AXE.is_file():
        pytest.skip("axe-core is not installed: npm ci in studio/")
    page.evaluate(AXE.read_text())
    violations = page.evaluate("axe.run()")["violations"]
    summary = [
        (violation["id"], [node["html"][:200] for node in violation["nodes"][:3]]) for violation in violations
    ]
    assert summary == []


def leaves(value: Any) -> Iterator[float]:
    """Yield every number in plain values."""
    if isinstance(value, dict):
        for item in value.values():
            yield from leaves(item)
    elif isinstance(value, list):
        for item in value:
            yield from leaves(item)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield float(value)
