"""A training is held and let go by files."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from etude.errors import InputError
from etude.train.control import PAUSE, Control, Held


def wait_until(ready: object, seconds: float = 30.0) -> None:
    begun = time.monotonic()
    while not ready():  # type: ignore[operator]
        assert time.monotonic() - begun < seconds, "it took too long"
        time.sleep(0.02)


def test_nothing_is_asked_where_there_is_no_folder(tmp_path: Path) -> None:
    control = Control(tmp_path)
    assert control.asked() == frozenset()
    control.take(PAUSE)
    with pytest.raises(InputError, match="one of pause"):
        control.ask("rm -rf")
    control.ask("one_step")
    assert control.asked() == {"pause", "one_step"}
    control.ask("go_on")
    control.clear()
    assert control.asked() == frozenset()


def test_it_is_held_until_it_may_go_on(tmp_path: Path) -> None:
    control = Control(tmp_path)
    told: list[int] = []
    held = Held(control, lambda: False, told.append)
    assert not held.due()
    control.ask("pause")
    assert held.due()
    waiting = threading.Thread(target=held.wait, args=(7,))
    waiting.start()
    wait_until(lambda: told == [7])
    assert waiting.is_alive()
    control.ask("one_step")
    waiting.join(10)
    assert not waiting.is_alive()
    assert control.asked() == {"pause"}  # held again before the next one
    Held(control, lambda: True, told.append).wait(8)  # who is to stop does not wait
