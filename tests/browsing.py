"""Waiting in a browser under a policy that lets no text become code: the page is asked again and again from outside."""

from __future__ import annotations

import time
from typing import Any


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
