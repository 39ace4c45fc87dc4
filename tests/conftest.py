"""Shared by all tests: one thread each (two run at a time), no network, shapes checked at every call."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

from jaxtyping import install_import_hook

# Public tensor functions state their shapes; in the tests every call is checked against them.
install_import_hook(
    [
        "etude.model",
        "etude.train.loss",
        "etude.train.rules.muon",
        "etude.train.rules.newton_schulz",
        "etude.evaluate.scoring",
        "etude.generate",
    ],
    "beartype.beartype",
)

import torch  # noqa: E402

REPOSITORY = Path(__file__).parent.parent
REAL_TEXT = REPOSITORY.parent / "shared" / "data"


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _private_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prepared text of a test is nobody else's."""
    monkeypatch.setenv("ETUDE_CACHE", str(tmp_path_factory.mktemp("cache")))


SLOW = (
    "tests/browser/",
    "tests/faults/test_faults.py",
    "tests/interop/test_lm_eval.py",
    "tests/evaluate/test_in_parts.py",
    "tests/workflow/test_evaluate.py",
    "tests/workflow/test_studies.py",
    "tests/workflow/test_sweep_killed.py",
)


LONGEST_FIRST = (
    "tests/workflow/test_studies.py",
    "tests/workflow/test_sweep_killed.py",
    "tests/faults/test_faults.py",
    "tests/train/test_compilation.py",
    "tests/e2e/test_elsewhere.py",
    "tests/cli/test_cli.py",
    "tests/workflow/test_several_processes.py",
    "tests/extension/test_update_rule.py",
    "tests/parity/test_compile.py",
    "tests/workflow/test_watching.py",
    "tests/watch/test_replay.py",
    "tests/workflow/test_controlled.py",
    "tests/workflow/test_timed.py",
    "tests/generate/test_decoder.py",
    "tests/workflow/test_pretrain.py",
    "tests/e2e/test_recipe.py",
    "tests/e2e/test_tutorial.py",
    "tests/cli/test_doctor_command.py",
    "tests/watch/test_in_bf16.py",
)
"""Files that take longest start first, so that the workers end together (`pytest --durations=0` lists the times)."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the slow tier, and put the files that take longest first."""
    for item in items:
        if item.nodeid.startswith(SLOW):
            item.add_marker(pytest.mark.slow)
    rank = {file: number for number, file in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: rank.get(item.nodeid.split("::")[0], len(rank)))
