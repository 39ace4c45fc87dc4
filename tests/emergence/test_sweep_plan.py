"""The plan of a sweep, its order, and who may claim which member, without any training."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from etude.emergence.sweep_plan import FILE, Member, SweepPlan
from etude.errors import InputError
from etude.files import file_lock
from etude.workflow.sweep import _evaluation, _to_do
from resolved import resolved_settings


def plan_in(folder: Path) -> SweepPlan:
    members = tuple(
        Member(f"{width}x2-seed{seed}", 1000 * width, width, 2, seed, 10.0)
        for width in (64, 96)
        for seed in (1, 2)
    )
    return SweepPlan(folder, 300_000, ("world",), 32, "abcd", members)


def written(folder: Path) -> SweepPlan:
    plan = plan_in(folder)
    plan.write({member.name: resolved_settings() for member in plan.members})
    return plan


def finish(plan: SweepPlan, member: Member) -> None:
    run = plan.folder / member.name
    run.mkdir()
    (run / "run.toml").write_text(plan.settings_file(member).read_text())
    (run / "status.json").write_text(json.dumps({"state": "finished", "step": 3}))


def test_a_plan_comes_back(tmp_path: Path) -> None:
    plan = written(tmp_path / "sweep")
    assert SweepPlan.load(tmp_path / "sweep") == plan
    assert plan.sizes == [64_000, 96_000]
    assert [member.name for member in plan.largest] == ["96x2-seed1", "96x2-seed2"]
    with pytest.raises(InputError, match="--resume"):
        written(tmp_path / "sweep")


@pytest.mark.parametrize(
    "change",
    [
        {"members": []},
        {"members": [{"name": "../../etc"}]},
        {"schema": 99},
        {"tokens": "many"},
        {"members": None},
    ],
)
def test_a_damaged_plan_is_refused(tmp_path: Path, change: dict[str, object]) -> None:
    written(tmp_path / "sweep")
    file = tmp_path / "sweep" / FILE
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    with pytest.raises(InputError, match=r"damaged|schema"):
        SweepPlan.load(tmp_path / "sweep")
    with pytest.raises(InputError, match="is not a sweep"):
        SweepPlan.load(tmp_path)


def test_the_largest_waits_for_all_others(tmp_path: Path) -> None:
    plan = written(tmp_path / "sweep")
    names = lambda: [member.name for member in _to_do(plan, {})]  # noqa: E731
    assert names() == ["64x2-seed1", "64x2-seed2"]
    finish(plan, plan.members[0])
    assert names() == ["64x2-seed1", "64x2-seed2"]  # trained, but not evaluated
    (plan.progress / "64x2-seed1.examined").touch()
    assert names() == ["64x2-seed2"]
    finish(plan, plan.members[1])
    assert names() == ["64x2-seed2", "96x2-seed1", "96x2-seed2"]


def test_what_failed_is_not_tried_again(tmp_path: Path) -> None:
    plan = written(tmp_path / "sweep")
    assert [member.name for member in _to_do(plan, {"64x2-seed1": "no memory"})] == ["64x2-seed2"]


def test_an_examination_has_the_threads_of_the_training(tmp_path: Path) -> None:
    plan = plan_in(tmp_path / "sweep")
    plan.write({member.name: resolved_settings({"device.threads": 3}) for member in plan.members})
    words = _evaluation(plan, plan.members[0])
    assert words[:2] == ["eval", str(tmp_path / "sweep" / "64x2-seed1")]
    assert words[words.index("--threads") + 1] == "3"


def test_two_processes_do_not_take_the_same_member(tmp_path: Path) -> None:
    plan = written(tmp_path / "sweep")
    lock = plan.progress / "64x2-seed1.lock"
    program = (
        "import sys, pathlib; from etude.files import file_lock\n"
        "with file_lock(pathlib.Path(sys.argv[1]), wait=False) as lock:\n"
        "    print(lock is not None, flush=True); sys.stdin.readline()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", program, str(lock)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert other.stdout is not None
    assert other.stdout.readline() == "True\n"
    assert [member.name for member in _to_do(plan, {})] == ["64x2-seed2"]
    other.kill()  # a lock ends with its process
    other.wait()
    with file_lock(lock, wait=False) as ours:
        assert ours
