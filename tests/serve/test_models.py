"""The studio shows models that have no run: a model folder of each kind, a GGUF file, and what they cannot show."""

from __future__ import annotations

import json
import shutil
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from bare_models import VOCAB, make_model
from etude.errors import InputError
from etude.model.folder import save_model_folder
from etude.serve import look_types, run_types
from etude.serve.answers import Answers
from etude.serve.collection import Collection, collection_of
from etude.serve.request import Question
from etude.serve.tensor_files import TensorFiles
from gguf_files import network_tensors, write_gguf
from networks import make_config, make_network
from serving import client_of, require_type

TEXT = "The quick brown fox jumps. The quick"
KINDS = ("llama-plain", "gpt2", "qwen3")
LOOKS: dict[str, dict[str, Any]] = {
    "passages": {},
    "prompt": {"text": TEXT},
    "head": {"text": TEXT, "layer": 0, "head": 1},
    "attribution": {"text": TEXT},
    "neurons": {"text": TEXT, "layer": 0},
    "node_in_text": {"text": TEXT, "layer": 0, "unit": 2},
    "layers": {"text": TEXT},
    "matrix": {"name": "model.embed_tokens.weight", "what": "before"},
    "value": {"name": "model.embed_tokens.weight", "index": [3, 4]},
    "compare": {"text": TEXT, "knobs": ["model.layers.0.mlp_out*0"]},
    "chat": {"text": TEXT, "temperature": 0.0, "count": 3},
}


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model of each kind, and folders that are none."""
    folder = tmp_path_factory.mktemp("shelf")
    for kind in KINDS:
        make_model(folder / kind, kind)
    (folder / "notes").mkdir()
    (folder / "alien").mkdir()
    (folder / "alien" / "config.json").write_text(json.dumps({"model_type": "mamba9"}))
    return folder


@pytest.fixture(scope="module")
def answers(shelf: Path, tmp_path_factory: pytest.TempPathFactory) -> Answers:
    return Answers(Collection(shelf), TensorFiles(tmp_path_factory.mktemp("tensors")))


def ask(answers: Answers, model: str, look: str, **fields: Any) -> Any:
    answer = answers.answer(Question({"run": model, "look": look, **fields}), lambda message: None)
    if not isinstance(answer, Generator):
        return answer
    while True:
        try:
            next(answer)
        except StopIteration as end:
            return end.value


@pytest.mark.parametrize("look", LOOKS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_look_at_a_model_has_its_declared_type(kind: str, look: str, answers: Answers) -> None:
    require_type(look_types.Question, {"run": kind, **LOOKS[look]})
    require_type(look_types.ANSWERS[look], ask(answers, kind, look, **LOOKS[look]))


@pytest.mark.parametrize("look", sorted(look_types.ANSWERS.keys() - LOOKS.keys()))
def test_what_needs_a_history_says_what_to_type(look: str, answers: Answers, shelf: Path) -> None:
    with pytest.raises(InputError, match="without a history") as refused:
        ask(answers, "gpt2", look, text=TEXT, step=0, knobs=[], layer=0, unit=0)
    assert f"etude train TEXT --from {shelf / 'gpt2'}" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_models_are_listed_and_their_facts_are_those_of_the_network(shelf: Path) -> None:
    with client_of(shelf) as client:
        lines = client.get("/api/runs").json()
        assert {line["name"]: line["state"] for line in lines} == dict.fromkeys((*KINDS, "alien"), "model")
        for line in lines:
            require_type(run_types.RunLine, line)
        for kind in KINDS:
            facts = client.get(f"/api/runs/{kind}").json()
            require_type(run_types.RunFacts, facts)
            network = make_network(make_config(kind, vocab_size=VOCAB))
            assert facts["model"]["parameters"] == sum(p.numel() for p in network.parameters())
            assert facts["model"]["family"] == network.config.model_type
            assert facts["checkpoints"] == [0]
            assert client.get(f"/api/runs/{kind}/rows").json()["metrics"] == []
        assert client.get("/api/runs/alien").json()["error"].startswith("alien: ")
        assert client.get("/api/runs/notes").status_code == 404
        assert client.post("/api/runs/gpt2/control", json={"action": "pause"}).status_code == 404


def test_a_model_stays_loaded_until_its_files_change(
    tmp_path: Path, shelf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from etude.watch import loaded_models

    loaded: list[Path] = []
    load = loaded_models.load_trained

    def counted(folder: Path) -> Any:
        loaded.append(folder)
        return load(folder)

    monkeypatch.setattr(loaded_models, "load_trained", counted)
    for kind in KINDS:
        shutil.copytree(shelf / kind, tmp_path / kind)
    answers = Answers(Collection(tmp_path), TensorFiles(tmp_path))
    first = ask(answers, "gpt2", "prompt", text=TEXT)["losses"]
    assert ask(answers, "gpt2", "compare", text=TEXT, knobs=["model.norm.weight*2"])[
        "losses_before"
    ] == pytest.approx(first)
    ask(answers, "qwen3", "layers", text=TEXT)
    ask(answers, "gpt2", "layers", text=TEXT)
    assert [folder.name for folder in loaded] == ["gpt2", "qwen3"]
    ask(answers, "llama-plain", "layers", text=TEXT)  # the third: the one used least recently goes
    ask(answers, "gpt2", "layers", text=TEXT)
    assert [folder.name for folder in loaded] == ["gpt2", "qwen3", "llama-plain"]
    config = make_config("gpt2", vocab_size=VOCAB)
    save_model_folder(tmp_path / "gpt2", make_network(config, seed=1), config, None)
    assert ask(answers, "gpt2", "prompt", text=TEXT)["losses"] != first
    assert [folder.name for folder in loaded][3:] == ["gpt2"]


def test_arguments_of_the_command(tmp_path: Path, shelf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ETUDE_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(shelf)
    assert set(collection_of([]).model_folders()) == {*KINDS, "alien"}
    config = make_config("llama-plain", vocab_size=VOCAB)
    write_gguf(tmp_path / "gpt2.gguf", config, network_tensors(make_network(config), config), kind="Q8_0")
    shown = collection_of([shelf, tmp_path / "gpt2.gguf"])
    assert set(shown.model_folders()) == {*KINDS, "alien", "gpt2-2"}  # the folder has a gpt2 already
    assert shown.path("gpt2") == shelf / "gpt2"
    with client_of(shown) as client:  # type: ignore[arg-type]
        facts = client.get("/api/runs/gpt2-2").json()
        assert client.get("/api/runs").json()[0]["name"] == "gpt2-2"  # what was named comes first
    assert facts["published"]["rounding"] == "Q8_0"
    assert facts["published"]["licence"] == "mit"
    assert Collection.from_argument(shown.to_argument()) == shown
    with pytest.raises(InputError, match="two folders of runs"):
        collection_of([shelf / "notes", tmp_path])
    with pytest.raises(InputError, match="no folder"):
        collection_of([tmp_path / "missing"])
    monkeypatch.chdir(tmp_path / "cache")
    with pytest.raises(InputError, match="etude import"):
        collection_of([])


def test_names_from_the_page_stay_in_the_collection(shelf: Path, tmp_path: Path) -> None:
    make_model(tmp_path / "outside", "gpt2")
    for name in ("../outside", str(tmp_path / "outside"), "..", "", "notes"):
        with pytest.raises(InputError):
            Collection(shelf).path(name)


def test_a_busy_machine_is_reported_to_those_who_wait() -> None:
    from etude.plan.busy_cores import Usage
    from etude.serve.busy_machine import BusyMachine

    def reported(busy: float, after: list[object]) -> list[object]:
        lines: list[object] = []
        readings = iter([Usage(0.0, 0.0, 0.0), Usage(3.0, 3.0 * busy + 1.0, 1.0)])
        waiting = iter([[1, 2], after])

        def report(number: object, line: look_types.Busy) -> None:
            require_type(look_types.Busy, line)
            assert line["busy"] == {"others": busy, "cores": 2}
            lines.append(number)

        BusyMachine(lambda: next(waiting), report, lambda: next(readings), cores=2).look(lambda: None)
        return lines

    assert reported(1.9, [2, 3]) == [2]  # 1 is answered, and 3 came later
    assert reported(0.4, [1, 2]) == []  # the worker's own second is not counted
