"""What a person may have meant by a name that there is not."""

from __future__ import annotations

import difflib
from collections.abc import Sequence


def nearest(name: str, names: Sequence[str]) -> str:
    """The end of a message: the closest of ``names``, or the first where none is close."""
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    return f"did you mean '{close[0]}'?" if close else f"the first is '{names[0]}'"
