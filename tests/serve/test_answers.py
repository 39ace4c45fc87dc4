"""What the worker keeps between questions belongs to the state that is shown, and a question may hold anything."""

from __future__ import annotations

import json
import shutil
from collections.abc import Generator, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch

from etude.errors import EtudeError
from etude.run import RunFolder
from etude.serve.answers import Answers
from etude.serve.request import Question
from etude.serve.tensor_files import TensorFiles
from etude.watch.time_machine import STOPS, TimeMachine
from watched import Watched


@pytest.fixture(scope="module", autouse=True)
def its_text(studied: Watched) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ETUDE_CACHE", str(studied.cache))
        yield


def test_an_interrupted_replay_is_resumed(studied: Watched) -> None:
    machine, target = TimeMachine(studied.path), 31
    saved = max(step for step in machine.recorded.checkpoints if step < target)
    assert target - saved > STOPS  # not every state on the way is kept
    way: list[int] = []

    class Stop(Exception):
        pass

    def on_progress(done: int, of: int) -> None:
        way.append(target - (of - done))
        if len(way) == 4:
            raise Stop

    machine.on_progress = on_progress
    with pytest.raises(Stop):
        machine.go_to(target)
    machine.go_to(saved)  # another question moves the time machine
    machine.go_to(target)
    assert way == [*range(saved, saved + 4), *range(saved + 3, target)]
    assert machine.proof.holds
    assert len(machine.proof.compared) == target - saved


def test_quick_questions_are_known_without_opening_the_run(studied: Watched, tmp_path: Path) -> None:
    answers = Answers(studied.path.parent, TensorFiles(tmp_path))
    saved = max(studied.machine.recorded.checkpoints)
    between = next(step for step in range(1, 40) if step not in studied.machine.recorded.checkpoints)

    def is_quick(**question: Any) -> bool:
        return answers.is_quick(Question({"run": "llama", **question}))

    assert is_quick(look="passages")
    for look in ("prompt", "attribution", "neurons", "compare", "chat"):
        assert is_quick(look=look, step=saved)
        assert not is_quick(look=look, step=between)
    for look in ("step", "story", "node", "fork"):
        assert not is_quick(look=look, step=saved)
    answers.answer(Question({"run": "llama", "look": "step", "step": between}), lambda message: None)
    assert is_quick(look="token", step=between)
    assert not is_quick(look="token", step=between + 1)


def proof_of(answers: Answers, **question: Any) -> dict[str, Any]:
    answer = answers.answer(Question({"run": "llama", **question}), lambda message: None)
    assert isinstance(answer, dict)
    proof: dict[str, Any] = answer["proof"]
    return proof


@pytest.mark.parametrize("look", [{"look": "prompt"}, {"look": "neurons", "layer": 1}])
def test_a_proof_is_of_the_state_that_is_shown(
    look: dict[str, Any], studied: Watched, tmp_path: Path
) -> None:
    """And not of the state to which the time machine has moved since."""
    answers = Answers(studied.path.parent, TensorFiles(tmp_path))
    shown: dict[str, Any] = {**look, "text": "The fox", "step": 17}
    first = proof_of(answers, **shown)
    assert first["steps_compared"] == 17 - first["from_step"] > 0
    other = proof_of(answers, look="step", step=31)
    assert other != first
    assert proof_of(answers, **shown) == first


@pytest.mark.parametrize("shown", [{"look": "step"}, {"look": "prompt", "text": "The fox"}])
def test_a_proof_is_of_the_current_record(shown: dict[str, Any], studied: Watched, tmp_path: Path) -> None:
    """A run that was resumed from an earlier step has another history; values of the old one are not shown."""
    shutil.copytree(studied.path, tmp_path / "llama")
    run = RunFolder(tmp_path / "llama")
    answers = Answers(tmp_path, TensorFiles(tmp_path))
    assert proof_of(answers, step=17, **shown)["holds"]
    lines = [json.loads(line) for line in run.metrics.path.read_text().splitlines()]
    for line in lines:
        if line["event"] == "step" and line["step"] == 17:
            line["loss"] += 1
    run.metrics.path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert not proof_of(answers, step=17, **shown)["holds"]


def test_tensors_are_found_by_what_they_hold(tmp_path: Path) -> None:
    """The step cannot be the key: another history has another state at the same step."""
    files = TensorFiles(tmp_path)
    key = files.save({"values": torch.zeros(2, 3)})
    assert files.save({"values": torch.zeros(2, 3)}) == key
    others = [{"values": torch.ones(2, 3)}, {"values": torch.zeros(3, 2)}, {"pre": torch.zeros(2, 3)}]
    assert len({key, *(files.save(other) for other in others)}) == 4


@pytest.mark.parametrize("name", ["-rf", ".hidden", "two\nlines", "\x1b[31mred", ""])
def test_a_fork_has_a_plain_name(name: str, shared: Answers, studied: Watched) -> None:
    before = sorted(studied.path.parent.iterdir())
    question = {"run": "llama", "look": "fork", "step": 32, "knobs": ["lm_head.weight*1"], "name": name}
    with pytest.raises(EtudeError, match="cannot name a run"):
        shared.answer(Question(question), lambda message: None)
    assert sorted(studied.path.parent.iterdir()) == before


BAD: list[Any] = [5, "x", [5], [1, 2, 3], [[1]], {}, [], True, ["x"], [None], [2**52]]
LISTS: dict[str, tuple[str, dict[str, Any]]] = {
    "index": ("weight", {"step": 32, "name": "lm_head.weight"}),
    "rows": ("matrix", {"step": 32, "name": "lm_head.weight", "what": "after"}),
    "steps": ("story", {"text": "a"}),
    "knobs": ("compare", {"step": 32, "text": "a"}),
    "taken": ("chat", {"step": 32, "text": "a", "count": 1}),
}


@pytest.mark.parametrize("field", LISTS)
def test_no_list_makes_a_traceback(field: str, studied: Watched, shared: Answers) -> None:
    """Whatever it contains, the result is an answer or one line."""
    look, fields = LISTS[field]
    for bad in BAD:
        with suppress(EtudeError):
            answer = shared.answer(
                Question({"run": "llama", "look": look, **fields, field: bad}), lambda message: None
            )
            if isinstance(answer, Generator):
                list(answer)


@pytest.fixture(scope="module")
def shared(studied: Watched, tmp_path_factory: pytest.TempPathFactory) -> Answers:
    return Answers(studied.path.parent, TensorFiles(tmp_path_factory.mktemp("tensors")))
