"""Two ranks make the same steps as one process up to rounding, and agree with each other to the bit."""

from __future__ import annotations

import os
from typing import Any

import pytest
import torch

import several_ranks
from etude.device import place_in_run, place_on_machine
from etude.errors import EtudeError, InputError
from etude.train.parallel import ALONE, Ranks, join_ranks, require_even_rows
from several_ranks import CASES, STEPS, STOP_AT
from started_ranks import results_of_ranks

COMPARED = [*CASES, "few targets"]


@pytest.fixture(scope="module")
def single() -> dict[str, Any]:
    return several_ranks.every_case()


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Results of both ranks."""
    folder = tmp_path_factory.mktemp("ranks")
    results = results_of_ranks(several_ranks, 2, folder)
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
def test_two_ranks_make_the_steps_of_one(
    single: dict[str, Any], two: list[dict[str, Any]], case: str
) -> None:
    alone, together = single[case], two[0][case]
    assert together["losses"] == pytest.approx(alone["losses"], rel=1e-5)
    assert together["norms"] == pytest.approx(alone["norms"], rel=1e-4)
    assert together["tokens_seen"] == alone["tokens_seen"]
    for name, value in alone["parameters"].items():
        torch.testing.assert_close(together["parameters"][name], value, rtol=1e-4, atol=5e-5)


def test_dropout_differs_between_the_ranks_as_between_micro_batches(single: dict[str, Any]) -> None:
    """Without dropout the comparison above would hold trivially."""
    plain = several_ranks.train(ALONE, **(CASES["dropout"] | {"dropout": 0.0}))
    assert plain["losses"] != single["dropout"]["losses"]


def test_a_stop_request_on_one_rank_stops_all(two: list[dict[str, Any]]) -> None:
    for results in two:
        assert results["stopped"]["reason"] == "stopped"
        assert len(results["stopped"]["losses"]) == STOP_AT
        assert len(results["few targets"]["losses"]) == STEPS


def test_a_loss_that_is_not_finite_on_one_rank_stops_all(two: list[dict[str, Any]]) -> None:
    assert all("in 3 steps in a row, up to step 3" in results["poisoned"]["error"] for results in two)


def test_a_batch_without_a_trained_token_stops_all_ranks_with_one_line(two: list[dict[str, Any]]) -> None:
    assert all("counts no token of this batch" in results["nothing"]["error"] for results in two)


def test_a_scope_changes_the_loss(single: dict[str, Any]) -> None:
    """If a scope had no effect, the comparisons of one and two ranks would hold trivially."""
    for case in ("some tokens", "weighted"):
        whole = several_ranks.train(ALONE, **{key: v for key, v in CASES[case].items() if key != "scope"})
        assert whole["losses"] != single[case]["losses"]


def test_no_thread_outlives_the_group(two: list[dict[str, Any]]) -> None:
    """Such a thread sometimes aborted the process when it freed its last tensor after Python had finished."""
    for results in two:
        assert "gloo" not in results["threads"]


def test_rows_must_divide_evenly_among_ranks() -> None:
    shares = [Ranks(rank, 4).rows(12) for rank in range(4)]
    assert [row for share in shares for row in share] == list(range(12))
    with pytest.raises(InputError, match=r"--nproc-per-node=4, or .* train\.batch_rows=15"):
        require_even_rows(12, 5)


@pytest.mark.parametrize("local_processes", [1, 2])
def test_processes_on_several_machines_are_one_run(
    monkeypatch: pytest.MonkeyPatch, local_processes: int
) -> None:
    """The environment of `torchrun --nnodes=2` on the second machine, also with one process on each."""
    values = {"LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": str(local_processes), "RANK": str(local_processes)}
    for name, value in (
        values | {"WORLD_SIZE": str(2 * local_processes), "TORCHELASTIC_RUN_ID": "x"}
    ).items():
        monkeypatch.setenv(name, value)
    assert place_in_run() == (local_processes, 2 * local_processes)
    assert place_on_machine() == (0, local_processes)


def test_one_of_several_pods_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some clusters set WORLD_SIZE without torchrun: each pod would train a separate run."""
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(InputError, match=r"WORLD_SIZE is 4 where 1 process.*unset WORLD_SIZE"), join_ranks():
        pass


def test_a_rank_that_is_not_a_number_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_other_errors_pass_unchanged() -> None:
    """A tensor on another device cannot be concatenated: that is not a lost connection."""
    with pytest.raises(RuntimeError, match="meta"):
        Ranks(0, 2).add_up([torch.zeros(2), torch.zeros(2, device="meta")])


def test_a_process_detects_that_its_launcher_has_ended() -> None:
    assert not ALONE.orphaned()
    assert not Ranks(0, 2, os.getppid()).orphaned()
    assert Ranks(0, 2, os.getpid()).orphaned()  # some process that is not its parent any more


def test_without_torchrun_there_is_one_rank() -> None:
    with join_ranks() as ranks:
        assert ranks is ALONE
        assert (ranks.total(7), ranks.any(True), ranks.any(False)) == (7, True, False)
        assert ranks.leads
