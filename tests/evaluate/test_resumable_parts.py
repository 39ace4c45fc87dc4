"""An evaluation in parts that is killed, restarted or shared by processes gives the result of one process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from etude.evaluate.resumable_parts import Parts, Work, done_in_parts, identity_of, slices
from waiting import wait_until

COUNT = 6


def start(log: Path, pause: float = 0.0) -> Work:
    """Work that records in a file which process did which part."""

    def work(number: int) -> dict[str, float]:
        with log.open("a") as file:
            file.write(f"{number} {os.getpid()}\n")
        time.sleep(pause)
        return {"third": number / 3}

    return work


def done(log: Path) -> list[int]:
    return [int(line.split()[0]) for line in log.read_text().splitlines()] if log.exists() else []


EXPECTED = [{"third": number / 3} for number in range(COUNT)]


def test_finished_parts_are_not_computed_again(tmp_path: Path) -> None:
    parts, log = Parts(tmp_path / "parts", "a", COUNT), tmp_path / "log"
    reports: list[tuple[int, int]] = []
    assert done_in_parts(parts, partial(start, log), report=lambda *now: reports.append(now)) == EXPECTED
    assert reports == [(number, COUNT) for number in range(COUNT + 1)]
    assert done_in_parts(parts, partial(start, log)) == EXPECTED
    assert done(log) == list(range(COUNT))


def test_only_its_own_and_sound_files_are_taken(tmp_path: Path) -> None:
    log, parts = tmp_path / "log", Parts(tmp_path, "a", COUNT)
    done_in_parts(parts, partial(start, log))
    other = Parts(tmp_path, "b", COUNT)
    other.folder.mkdir()
    for number in range(COUNT):  # as if the folder had been renamed
        other.file(number).write_bytes(parts.file(number).read_bytes())
    assert other.missing() == list(range(COUNT))
    parts.file(2).write_text(parts.file(2).read_text()[:-9])
    parts.file(4).write_bytes(parts.file(3).read_bytes())
    assert parts.missing() == [2, 4]
    assert done_in_parts(parts, partial(start, log)) == EXPECTED
    assert done(log) == [*range(COUNT), 2, 4]


def test_the_model_is_loaded_only_for_work(tmp_path: Path) -> None:
    parts = Parts(tmp_path, "a", 2)
    done_in_parts(parts, partial(start, tmp_path / "log"))

    def never() -> Work:
        raise AssertionError

    assert done_in_parts(parts, never) == EXPECTED[:2]


def script(tmp_path: Path, parts: Parts, pause: float) -> subprocess.Popen[bytes]:
    """Run the same evaluation in another process."""
    code = (
        "import sys; from functools import partial; from pathlib import Path\n"
        f"sys.path[:0] = {[str(folder) for folder in Path(__file__).parents[:2]]!r}\n"
        "from test_resumable_parts import Parts, done_in_parts, start\n"
        f"parts = Parts(Path({str(parts.within)!r}), {parts.identity!r}, {parts.count})\n"
        f"done_in_parts(parts, partial(start, Path({str(tmp_path / 'log')!r}), {pause}))\n"
    )
    return subprocess.Popen([sys.executable, "-c", code])


def wait_for(log: Path, count: int) -> None:
    wait_until(lambda: len(done(log)) >= count)


def test_killed_and_started_again(tmp_path: Path) -> None:
    parts, log = Parts(tmp_path / "parts", "a", COUNT), tmp_path / "log"
    process = script(tmp_path, parts, 0.25)
    wait_for(log, 3)  # in the middle of the third
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert parts.missing() == [2, 3, 4, 5]
    assert done_in_parts(parts, partial(start, log)) == EXPECTED
    assert sorted(done(log)) == [0, 1, 2, 2, 3, 4, 5]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such locks: the work is done twice there")
def test_two_processes_do_nothing_twice_and_one_outlives_the_other(tmp_path: Path) -> None:
    parts, log = Parts(tmp_path / "parts", "a", COUNT), tmp_path / "log"
    other = script(tmp_path, parts, 0.4)
    wait_for(log, 1)
    assert done_in_parts(parts, partial(start, log, 0.02)) == EXPECTED
    other.wait()
    assert sorted(done(log)) == list(range(COUNT))
    assert len({line.split()[1] for line in log.read_text().splitlines()}) == 2


def test_helpers_share_the_work(tmp_path: Path) -> None:
    parts, log = Parts(tmp_path / "parts", "a", COUNT), tmp_path / "log"
    found = done_in_parts(parts, partial(start, log, 0.5), processes=2)
    assert found == EXPECTED
    assert sorted(done(log)) == list(range(COUNT))


def test_a_helper_that_dies_costs_only_time(tmp_path: Path) -> None:
    parts = Parts(tmp_path / "parts", "a", 3)
    assert done_in_parts(parts, Breaks(), processes=2) == [0, 1, 2]


class Breaks:
    """Works in the main process; in a helper, it dies with its part half done."""

    def __init__(self) -> None:
        self.own = os.getpid()

    def __call__(self) -> Work:
        def work(number: int) -> int:
            if os.getpid() != self.own:
                os._exit(7)
            time.sleep(1.5)  # long enough for the helper to start
            return number

        return work


def test_the_identity_depends_on_the_model_and_the_request(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"a": 1}))
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    (tmp_path / "README.md").write_text("card")
    one = identity_of(tmp_path, ["items", 1])
    (tmp_path / "README.md").write_text("another card")
    assert identity_of(tmp_path, ["items", 1]) == one
    assert identity_of(tmp_path, ["items", 2]) != one
    (tmp_path / "model.safetensors").write_bytes(b"weightS")
    assert identity_of(tmp_path, ["items", 1]) != one


def test_the_identity_depends_on_weights_of_any_name(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"a": 1}))
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"w": "a.safetensors"}}))
    (tmp_path / "a.safetensors").write_bytes(b"weights")
    one = identity_of(tmp_path, [])
    (tmp_path / "a.safetensors").write_bytes(b"weightS")
    assert identity_of(tmp_path, []) != one


def test_slices() -> None:
    assert slices(7, 3) == [range(0, 3), range(3, 6), range(6, 7)]
    assert slices(0, 3) == []
