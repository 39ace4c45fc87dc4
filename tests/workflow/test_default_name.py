"""The name of a run that the user did not name."""

from __future__ import annotations

import pytest

from etude.config import load_settings
from etude.workflow.prepare import default_name


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("builtin:primer", "primer"),
        ("hf:owner/name", "name"),
        ("hf:owner/name:split", "name"),
        ("hf:name:train", "name"),
        ("notes/", "notes"),
        ("/text/my diary.txt.gz", "my-diary"),
        ("-", "stdin"),
        ("/", "run"),
    ],
)
def test_a_run_is_called_after_its_first_source(source: str, name: str) -> None:
    settings = load_settings(values={"data.sources": (source, "other.txt")})
    assert default_name(settings) == name
