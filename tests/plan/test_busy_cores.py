"""Measuring busy cores, from simulated readings and one of this machine."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from etude.plan.busy_cores import BusyWatch, Usage, busy_ticks, others, read_usage, threads_beside
from etude.run.events import EvalEvent, StepEvent

STAT = """cpu  900 90 90 9000 9 9 9 9 0 0
cpu0 100 10 20 1000 7 1 2 3 50 0
cpu1 200 0 0 2000 0 0 0 0 0 0
cpu10 400 0 0 4000 0 0 0 0 0 0
intr 123 45
"""


def test_ticks_are_of_the_cores_that_the_process_may_use() -> None:
    """Counts user, nice, system, irq, softirq and steal; guest time is part of user, and iowait is idle."""
    assert busy_ticks(STAT.splitlines(), {0}) == 100 + 10 + 20 + 1 + 2 + 3
    assert busy_ticks(STAT.splitlines(), {1, 10}) == 600


def test_others_exclude_this_process() -> None:
    before = Usage(wall=10.0, busy=100.0, own=5.0)
    assert others(before, Usage(wall=12.0, busy=104.0, own=6.0)) == pytest.approx(1.5)
    assert others(before, Usage(wall=12.0, busy=104.0, own=9.5)) == 0.0
    assert others(before, before) == others(None, before) == others(before, None) == 0.0


@pytest.mark.parametrize(
    ("busy", "cores", "threads"),
    [(0.0, 2, 2), (0.3, 2, 2), (1.0, 2, 1), (2.0, 2, 1), (5.6, 8, 2), (9.0, 8, 1)],
)
def test_threads_avoid_the_busy_cores(busy: float, cores: int, threads: int) -> None:
    assert threads_beside(busy, cores) == threads


def test_a_reading_of_this_machine_never_goes_back() -> None:
    first, second = read_usage(), read_usage()
    if first is None or second is None:
        pytest.skip("this system does not say")
    assert second.wall >= first.wall
    assert second.busy >= first.busy
    assert second.own >= first.own


def watch_on(busy: list[float], threads: int, own: float = 1.0) -> list[str]:
    """Return the warnings of a run on two cores, with so many busy cores in each five seconds."""

    def readings() -> Iterator[Usage]:
        wall = used = mine = 0.0
        yield Usage(wall, used, mine)
        yield Usage(wall, used, mine)
        for cores in busy:
            wall, used, mine = wall + 5, used + 5 * (cores + own), mine + 5 * own
            yield Usage(wall, used, mine)

    lines: list[str] = []
    made = readings()
    watch = BusyWatch(lines.append, read=lambda: next(made), cores=2)
    watch.begin(threads, "etude train --resume runs/x")
    for step in range(len(busy)):
        watch(StepEvent(step, 0, 0.0, 1.0, 1.0, 0.1, 10.0))
        watch(EvalEvent(step, 0, 0.0, 1.0, 1.0, 10))  # no reading at these
    return lines


def test_a_run_warns_once_that_it_is_slow_and_how_to_help() -> None:
    lines = watch_on([1.0, 1.1, 1.0, 1.0], threads=2)
    assert lines == [
        "other programs keep about 1.1 of the 2 cores busy: this run takes longer, and many times as long with 2 "
        "threads, which wait for each other. Wait, or press Ctrl-C and continue with  etude train --resume runs/x "
        "--set device.threads=1"
    ]


@pytest.mark.parametrize("busy", [[0.1, 0.2, 0.1], [1.0, 0.1, 1.0, 0.2], [0.4, 0.5, 0.5]])
def test_short_or_small_loads_are_not_reported(busy: list[float]) -> None:
    assert watch_on(busy, threads=2) == []


def test_one_thread_beside_one_busy_core_has_its_own_core() -> None:
    assert watch_on([1.0, 1.0, 1.0], threads=1) == []
    assert watch_on([2.0, 2.0, 2.0], threads=1) == [
        "other programs keep about 2.0 of the 2 cores busy: this run takes longer"
    ]


def test_at_the_start_the_warning_names_the_command_to_begin_again() -> None:
    made = iter([Usage(0, 0, 0), Usage(3.0, 6.0, 3.0), Usage(3.0, 6.0, 3.0)])
    lines: list[str] = []
    watch = BusyWatch(lines.append, read=lambda: next(made), cores=2)
    watch.look(threads=2)
    assert len(lines) == 1
    assert lines[0].endswith("press Ctrl-C and begin again with --set device.threads=1")
    watch.look(threads=2)
    assert len(lines) == 1


def test_without_measurements_nothing_is_reported() -> None:
    lines: list[str] = []
    watch = BusyWatch(lines.append, read=lambda: None, cores=2)
    watch.look(2)
    watch.begin(2, "")
    watch(StepEvent(1, 0, 0.0, 1.0, 1.0, 0.1, 10.0))
    assert lines == []
