"""Two processes make the steps of one: the same numbers up to rounding, and the same bits as each other."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import several_ranks
from etude.errors import EtudeError, InputError
from etude.train.parallel import ALONE, Ranks, join_ranks, require_even_rows
from several_ranks import CASES, STEPS, STOP_AT
from waiting import PATIENCE

COMPARED = [*CASES, "few targets"]


@pytest.fixture(scope="module")
def one() -> dict[str, Any]:
    return several_ranks.every_case()


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The results of both ranks."""
    folder = tmp_path_factory.mktemp("ranks")
    tests = Path(several_ranks.__file__)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    path = os.pathsep.join([str(tests.parent), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [*command, str(tests), str(folder)],
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    results = [torch.load(folder / f"{rank}.pt") for rank in (0, 1)]
    for rank in (0, 1):
        results[rank]["threads"] = (folder / f"{rank}.threads").read_text()
    return results


@pytest.mark.parametrize("case", COMPARED)
def test_ranks_hold_the_same_bits(two: list[dict[str, Any]], case: str) -> None:
    first, second = (results[case] for results in two)
    assert first["losses"] == second["losses"]
    assert first["norms"] == second["norms"]
    for name, value in first["parameters"].items():
        assert torch.equal(value, second["parameters"][name]), name


@pytest.mark.parametrize("case", COMPARED)
def test_two_ranks_make_the_steps_of_one(one: dict[str, Any], two: list[dict[str, Any]], case: str) -> None:
    alone, together = one[case], two[0][case]
    assert together["losses"] == pytest.approx(alone["losses"], rel=1e-5)
    assert together["norms"] == pytest.approx(alone["norms"], rel=1e-4)
    assert together["tokens_seen"] == alone["tokens_seen"]
    for name, value in alone["parameters"].items():
        torch.testing.assert_close(together["parameters"][name], value, rtol=1e-4, atol=5e-5)


def test_dropout_differs_between_the_ranks_as_between_micro_batches(one: dict[str, Any]) -> None:
    """The comparison above would also hold if nothing was left out."""
    plain = several_ranks.train(ALONE, **(CASES["dropout"] | {"dropout": 0.0}))
    assert plain["losses"] != one["dropout"]["losses"]


def test_all_ranks_stop_where_one_is_asked_to(two: list[dict[str, Any]]) -> None:
    for results in two:
        assert results["stopped"]["reason"] == "stopped"
        assert len(results["stopped"]["losses"]) == STOP_AT
        assert len(results["few targets"]["losses"]) == STEPS


def test_a_loss_that_is_no_number_on_one_rank_stops_all(two: list[dict[str, Any]]) -> None:
    assert all("in 3 steps in a row, up to step 3" in results["poisoned"]["error"] for results in two)


def test_a_batch_without_a_trained_token_stops_all_ranks_with_one_line(two: list[dict[str, Any]]) -> None:
    assert all("counts no token of this batch" in results["nothing"]["error"] for results in two)


def test_what_the_loss_counts_makes_a_difference(one: dict[str, Any]) -> None:
    """The comparisons of two ranks with one would also hold if a scope did nothing."""
    for case in ("some tokens", "weighted"):
        whole = several_ranks.train(ALONE, **{key: v for key, v in CASES[case].items() if key != "scope"})
        assert whole["losses"] != one[case]["losses"]


def test_no_thread_outlives_the_group(two: list[dict[str, Any]]) -> None:
    """One that did aborted the process, now and then, when it let go of its last tensor after Python had ended."""
    for results in two:
        assert "gloo" not in results["threads"]


def test_rows_are_shared_out_evenly_or_not_at_all() -> None:
    shares = [Ranks(rank, 4).rows(12) for rank in range(4)]
    assert [row for share in shares for row in share] == list(range(12))
    with pytest.raises(InputError, match=r"--nproc-per-node=4, or .* train\.batch_rows=15"):
        require_even_rows(12, 5)


@pytest.mark.parametrize("here", [1, 2])
def test_several_machines_are_refused(monkeypatch: pytest.MonkeyPatch, here: int) -> None:
    """As `torchrun --nnodes=2` sets it, with one process on each machine too."""
    for name, value in {
        "LOCAL_RANK": "0",
        "LOCAL_WORLD_SIZE": str(here),
        "WORLD_SIZE": str(2 * here),
    }.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match=r"one machine.*without --nnodes"), join_ranks():
        pass


def test_one_of_several_pods_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some clusters set WORLD_SIZE without torchrun: each of the pods would train a run of its own."""
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(InputError, match=r"WORLD_SIZE is 4 where 1 process.*unset WORLD_SIZE"), join_ranks():
        pass


def test_a_place_that_is_no_number_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "first")
    with pytest.raises(InputError, match="LOCAL_RANK is 'first'"), join_ranks():
        pass


GLOO = "[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:537] Read error [127.0.0.1]:1: Connection reset by peer"


@pytest.mark.parametrize(
    "error", [RuntimeError(GLOO), torch.distributed.DistNetworkError("no route")], ids=repr
)
def test_a_lost_connection_is_one_line(monkeypatch: pytest.MonkeyPatch, error: RuntimeError) -> None:
    def all_reduce(*args: object, **kwargs: object) -> None:
        raise error

    monkeypatch.setattr(torch.distributed, "all_reduce", all_reduce)
    with pytest.raises(EtudeError, match="another process of this run has ended"):
        Ranks(0, 2).total(1)


def test_any_other_error_stays_what_it_is() -> None:
    """A tensor on another device cannot be joined with the rest: nothing of that is another process's doing."""
    with pytest.raises(RuntimeError, match="meta"):
        Ranks(0, 2).add_up([torch.zeros(2), torch.zeros(2, device="meta")])


def test_a_process_knows_that_its_launcher_has_ended() -> None:
    assert not ALONE.orphaned()
    assert not Ranks(0, 2, os.getppid()).orphaned()
    assert Ranks(0, 2, os.getpid()).orphaned()  # some process that is not its parent any more


def test_without_torchrun_there_is_one_rank() -> None:
    with join_ranks() as ranks:
        assert ranks is ALONE
        assert (ranks.total(7), ranks.any(True), ranks.any(False)) == (7, True, False)
        assert ranks.leads
