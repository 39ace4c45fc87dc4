"""Hypothesis strategies for values of every kind, and the outcome that they may have."""

from __future__ import annotations

import contextlib
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from etude.errors import EtudeError

ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(10**300, 10**310)
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["../x", "/etc/passwd", "\ud800", "a\nb", "x" * 3000]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
many = settings(
    max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@contextlib.contextmanager
def refusal() -> Any:
    """Allow no error in the block but an EtudeError with one clear line."""
    try:
        yield
    except EtudeError as error:
        message = str(error)
        if len(message.splitlines()) != 1 or len(message) > 700:
            raise AssertionError(f"not one clear line: {message[:2000]!r}") from error
