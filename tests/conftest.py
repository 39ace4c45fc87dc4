"""Shared by all tests: one thread each (two run at a time), no network, shapes checked at every call."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
if hasattr(os, "sched_setaffinity") and "PYTEST_XDIST_WORKER" in os.environ:
    # Each process of the tests has its own cores, and so have the programs that it starts. Two programs that both use
    # all cores with several threads wait for each other's threads, and take ten times as long.
    _cores, _count = sorted(os.sched_getaffinity(0)), int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    _own = _cores[int(os.environ["PYTEST_XDIST_WORKER"].removeprefix("gw")) % len(_cores) :: _count]
    os.sched_setaffinity(0, _own)

from jaxtyping import install_import_hook

# Public tensor functions state their shapes; in the tests every call is checked against them.
install_import_hook(
    [
        "etude.model",
        "etude.train.loss",
        "etude.train.rules.muon",
        "etude.train.rules.newton_schulz",
        *(f"etude.generate.{name}" for name in ("decoder", "engine", "sampling", "scoring", "stop", "text")),
    ],
    "beartype.beartype",
)

import torch  # noqa: E402
from rich.console import Console  # noqa: E402

from etude.config import Settings, load_settings  # noqa: E402
from etude.data.primer.generator import documents  # noqa: E402

# No test depends on how fast a machine is, or on what else runs there.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

REPOSITORY = Path(__file__).parent.parent
REAL_TEXT = REPOSITORY.parent / "shared" / "data"


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _private_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give each test its own cache of prepared text."""
    monkeypatch.setenv("ETUDE_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def text_folder(tmp_path: Path) -> Path:
    """Write sixty small documents of real prose."""
    folder = tmp_path / "text"
    folder.mkdir()
    for number, document in enumerate(documents(3, 60_000)):
        (folder / f"{number:03d}.txt").write_text(document.text)
    return folder


@pytest.fixture
def small_settings(text_folder: Path, tmp_path: Path) -> Settings:
    """Return settings of a whole run in about a second: a tiny network, a dozen steps, not compiled."""
    values = {
        "data.sources": (str(text_folder),),
        "data.workers": 1,
        "tokenizer.vocab_size": 300,
        "model.size": "nano",
        "model.hidden_size": 32,
        "train.steps": 12,
        "train.context": 32,
        "train.batch_rows": 4,
        "train.log_every": 3,
        "train.eval_every": 4,
        "train.sample_every": 6,
        "train.checkpoint_every": 5,
        "train.eval_tokens": 500,
        "run.folder": str(tmp_path / "runs"),
        "device.compile": False,
        "device.threads": 1,
    }
    return load_settings(values=values)


@pytest.fixture
def console() -> Console:
    return Console(file=io.StringIO(), width=120)


SLOW = (
    "tests/browser/",
    "tests/faults/test_faults.py",
    "tests/interop/test_lm_eval.py",
    "tests/evaluate/test_resumable_evaluation.py",
    "tests/evaluate/test_evaluate.py",
    "tests/workflow/test_studies.py",
    "tests/workflow/test_sweep_killed.py",
    "tests/workflow/test_several_processes.py",
    "tests/model/test_taps.py::test_the_graph_of_training_is_that_of_a_network_without_taps",
    "tests/model/test_taps.py::test_a_tap_that_did_something_would_be_seen",
    "tests/train/test_compilation.py::test_compiled_steps_give_the_same_bits_on_several_threads",
    "tests/diagnose/test_self_test.py::test_no_global_state_changes",
    # One of its six kinds stays in the fast tier.
    "tests/e2e/test_elsewhere.py::test_transformers_gives_the_same_ids_and_logits[char",
    "tests/e2e/test_elsewhere.py::test_transformers_gives_the_same_ids_and_logits[bpe-gpt2",
    "tests/e2e/test_elsewhere.py::test_transformers_gives_the_same_ids_and_logits[bpe-qwen3",
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
    "tests/model/test_taps.py",
    "tests/workflow/test_watching.py",
    "tests/watch/test_replay.py",
    "tests/workflow/test_controlled.py",
    "tests/plan/test_time_budget.py",
    "tests/generate/test_decoder.py",
    "tests/workflow/test_pretrain.py",
    "tests/e2e/test_recipe.py",
    "tests/e2e/test_tutorial.py",
    "tests/cli/test_doctor_command.py",
    "tests/watch/test_in_bf16.py",
    "tests/workflow/test_base.py",
    "tests/workflow/test_adapter_runs.py",
    "tests/workflow/test_tuned_runs.py",
    "tests/cli/test_chat_terminal.py",
    "tests/pretrained/test_store.py",
    "tests/evaluate/tuning/test_tuning_command.py",
    "tests/workflow/test_pair_runs.py",
)
"""Files that take longest start first, so that the workers end together (`pytest --durations=0` lists the times)."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the slow tier, and put the files that take longest first."""
    for item in items:
        if item.nodeid.startswith(SLOW):
            item.add_marker(pytest.mark.slow)
    rank = {file: number for number, file in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: rank.get(item.nodeid.split("::")[0], len(rank)))
