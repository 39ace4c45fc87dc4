"""A finished run, and a studio for its folder."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from starlette.testclient import TestClient

from serving import client_of
from watched import Watched, train_run


@pytest.fixture(scope="session")
def studied(tmp_path_factory: pytest.TempPathFactory) -> Watched:
    return train_run(tmp_path_factory.mktemp("studied"), "llama", {"train.dropout": 0.1})


@pytest.fixture(scope="module")
def client(studied: Watched) -> Iterator[TestClient]:
    """One client for all tests of a file: its worker takes seconds to start."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ETUDE_CACHE", str(studied.cache))
        with client_of(studied.path.parent) as started:
            yield started
