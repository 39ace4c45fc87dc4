"""Small runs, trained once per test session."""

from __future__ import annotations

import pytest

from watched import RUNS, Watched, train_run


@pytest.fixture(scope="session")
def watched_run(tmp_path_factory: pytest.TempPathFactory) -> Watched:
    """A llama, trained by Muon and AdamW."""
    return train_run(tmp_path_factory.mktemp("watched"), "llama", RUNS["llama"])


@pytest.fixture(scope="session")
def watched_gpt2(tmp_path_factory: pytest.TempPathFactory) -> Watched:
    """A gpt2, trained by AdamW alone, with attention within documents."""
    return train_run(tmp_path_factory.mktemp("watched"), "gpt2", RUNS["gpt2"])


@pytest.fixture(scope="session")
def watched_mlp(tmp_path_factory: pytest.TempPathFactory) -> Watched:
    """The feed-forward model."""
    return train_run(tmp_path_factory.mktemp("watched"), "mlp", RUNS["mlp"])


@pytest.fixture(params=list(RUNS))
def any_watched(request: pytest.FixtureRequest) -> Watched:
    """Each of these runs."""
    watched: Watched = request.getfixturevalue(
        "watched_run" if request.param == "llama" else f"watched_{request.param}"
    )
    return watched
