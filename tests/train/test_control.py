"""Files in the run folder pause, step, save and stop a training."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from etude.errors import InputError
from etude.train.control import PAUSE, Control, ControlledPause
from waiting import PATIENCE, wait_until


def test_without_a_folder_nothing_is_requested(tmp_path: Path) -> None:
    control = Control(tmp_path)
    assert control.requested() == frozenset()
    control.take(PAUSE)
    with pytest.raises(InputError, match="one of pause"):
        control.request("rm -rf")
    control.request("one_step")
    assert control.requested() == {"pause", "one_step"}
    control.request("go_on")
    control.clear()
    assert control.requested() == frozenset()


def test_a_pause_ends_with_its_request_or_with_a_single_step(tmp_path: Path) -> None:
    control = Control(tmp_path)
    received: list[int] = []
    pause = ControlledPause(control, lambda: False, received.append)
    assert not pause.due()
    control.request("pause")
    assert pause.due()
    waiting = threading.Thread(target=pause.wait, args=(7,))
    waiting.start()
    wait_until(lambda: received == [7])
    assert waiting.is_alive()
    control.request("one_step")
    waiting.join(PATIENCE)
    assert not waiting.is_alive()
    assert control.requested() == {"pause"}  # paused again before the next one
    ControlledPause(control, lambda: True, received.append).wait(8)  # a run that has to stop does not wait


def put_folder(file: Path) -> None:
    file.mkdir()


def put_full_folder(file: Path) -> None:
    file.mkdir()
    (file / "notes.txt").write_text("mine")


def put_pipe(file: Path) -> None:
    os.mkfifo(file)


def put_broken_link(file: Path) -> None:
    file.symlink_to("nowhere")


@pytest.mark.parametrize("action", ["pause", "one_step", "save", "stop"])
@pytest.mark.parametrize("put", [put_folder, put_full_folder, put_pipe, put_broken_link])
def test_no_file_with_the_name_of_a_request_blocks_the_loop(
    tmp_path: Path, put: Callable[[Path], None], action: str
) -> None:
    control = Control(tmp_path)
    control.folder.mkdir()
    put(control.folder / action)
    problems = control.clear()
    assert control.requested() == frozenset()
    ControlledPause(control, lambda: False, lambda step: None).wait(3)  # returns at once
    if put is put_full_folder:  # nothing that a user keeps there is deleted
        (problem,) = problems
        assert str(control.folder / action) in problem
        assert (control.folder / action / "notes.txt").read_text() == "mine"
    else:
        assert problems == []
        assert list(control.folder.iterdir()) == []


def test_a_request_that_cannot_be_removed_counts_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder of another user, or a read-only disk: neither an endless pause nor a checkpoint at each step."""

    def refused(path: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    control = Control(tmp_path)
    control.request("pause")
    control.request("save")
    monkeypatch.setattr(Path, "unlink", refused)
    problems = control.clear()
    assert [
        str(control.folder / action) in line for action, line in zip(("pause", "save"), problems, strict=True)
    ]
    assert all("Permission denied" in line for line in problems)
    assert control.requested() == frozenset()
    control.request("save")  # another file of the same name
    assert control.requested() == {"save"}
    assert control.take("save") is not None
    assert control.requested() == frozenset()
