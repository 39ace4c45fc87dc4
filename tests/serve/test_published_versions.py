"""The studio opens several saved versions of a model as a history that Etude did not record, and only reads it."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from test_models import LOOKS, TEXT

from bare_models import make_model, make_versions
from etude.errors import InputError
from etude.evaluate.published_scores import read_scores, scores_folder
from etude.evaluate.published_steps import evaluate_history
from etude.evaluate.resumable_parts import Workers
from etude.evaluate.together import TogetherRequest
from etude.files import json_safe
from etude.pretrained.load_model import load_trained
from etude.run.published_history import PublishedHistory
from etude.serve import look_types, run_types
from etude.serve.abilities import abilities_of_published
from etude.serve.answers import Answers
from etude.serve.collection import Collection, collection_of
from etude.serve.model_answers import OF_VERSIONS
from etude.serve.request import Question
from etude.serve.tensor_files import TensorFiles
from etude.watch.prompts import look as read_text
from serving import client_of, require_type

STEPS = {10: 0, 20: 1, 25: 1}
"""The seeds of the versions: the last two have the same weights."""
OF_RECORD = sorted(look_types.ANSWERS.keys() - LOOKS.keys() - OF_VERSIONS.keys())


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shelf")
    make_versions(folder / "story", "llama-plain", STEPS)
    make_model(folder / "single", "gpt2")
    return folder


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ETUDE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def answers(shelf: Path, tmp_path_factory: pytest.TempPathFactory) -> Answers:
    return Answers(Collection(shelf), TensorFiles(tmp_path_factory.mktemp("tensors")))


def ask(
    answers: Answers, look: str, messages: list[Mapping[str, object]] | None = None, **fields: Any
) -> Any:
    lines: list[Mapping[str, object]] = [] if messages is None else messages
    answer = answers.answer(Question({"run": "story", "look": look, **fields}), lines.append)
    if not isinstance(answer, Generator):
        return answer
    while True:
        try:
            next(answer)
        except StopIteration as end:
            return end.value


def title_of(probe: dict[str, Any]) -> str:
    return f"{probe['probe']}, {probe['condition']}" if probe["condition"] else str(probe["probe"])


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}


def scored(folder: Path, console: Console | None = None, text: tuple[str, ...] = ()) -> None:
    request = TogetherRequest((folder,), ("world",), 16, text, Workers(threads=1), as_json=console is None)
    evaluate_history(request, console or Console(file=io.StringIO()))


@pytest.mark.parametrize("look", LOOKS)
def test_every_look_at_a_version_is_that_of_its_folder(look: str, answers: Answers, shelf: Path) -> None:
    """The answer about step 10 is that about its folder alone, and has the declared type."""
    answer = ask(answers, look, step=10, **LOOKS[look])
    require_type(look_types.ANSWERS[look], answer)
    if look in ("prompt", "head", "layers", "value", "compare"):
        model = shutil.copytree(shelf / "story" / "checkpoint-10", shelf.parent / f"{look}-alone" / "m")
        for name in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copyfile(shelf / "story" / "checkpoint-25" / name, model / name)
        alone = Answers(Collection(model.parent), answers.files)
        question = Question({"run": "m", "look": look, **LOOKS[look]})
        expected: Any = alone.answer(question, lambda message: None)
        for one in (answer, expected):
            one.pop("where", None)
        assert json_safe(answer) == json_safe(expected)


def test_versions_differ_and_the_last_is_the_usual_one(answers: Answers, shelf: Path) -> None:
    by_step = {step: ask(answers, "prompt", step=step, text=TEXT) for step in STEPS}
    assert by_step[10]["losses"] != by_step[20]["losses"] == by_step[25]["losses"]
    assert by_step[20]["where"] == "read by story, step 20"
    assert by_step[20]["proof"] is None
    assert ask(answers, "prompt", text=TEXT) == by_step[25]
    trained = load_trained(shelf / "story" / "checkpoint-20")
    with torch.no_grad():
        losses = read_text(trained.model, trained.tokenizer, TEXT).losses.tolist()
    assert by_step[20]["losses"] == losses
    with pytest.raises(InputError, match="story has no version of step 12: the nearest is step 10"):
        ask(answers, "prompt", step=12, text=TEXT)


def test_the_loss_over_the_versions_is_that_of_each(answers: Answers) -> None:
    messages: list[Mapping[str, object]] = []
    answer = ask(answers, "story", messages, text=TEXT)
    require_type(look_types.ANSWERS["story"], answer)
    assert answer["steps"] == list(STEPS)
    for step, losses in zip(answer["steps"], answer["losses"], strict=True):
        assert losses == ask(answers, "prompt", step=step, text=TEXT)["losses"]
    assert [message["progress"]["done"] for message in messages] == [0, 1, 2]  # type: ignore[index]
    assert not answers.is_quick(Question({"run": "story", "look": "story", "text": TEXT}))
    assert answers.is_quick(Question({"run": "story", "look": "prompt", "text": TEXT}))


def test_duplicates_are_named_by_their_hash(answers: Answers, shelf: Path) -> None:
    answer = ask(answers, "versions")
    require_type(look_types.ANSWERS["versions"], answer)
    history = PublishedHistory.at(shelf / "story")
    assert history is not None
    assert [version["same_as"] for version in answer["versions"]] == [None, None, 20]
    assert [version["weights"] for version in answer["versions"]] == [None, None, history.hashes[20]]
    assert history.hashes[20] == history.hashes[25] != history.hashes[10]


@pytest.mark.parametrize("look", OF_RECORD)
def test_what_needs_a_record_says_so_in_one_sentence(look: str, answers: Answers, shelf: Path) -> None:
    with pytest.raises(InputError, match="story was not recorded by Etude: its steps cannot be") as refused:
        ask(answers, look, text=TEXT, step=10, knobs=[], layer=0, unit=0)
    assert f"etude train TEXT --from {shelf / 'story'}@25 begins a recorded run" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_it_is_listed_and_its_facts_name_the_versions(shelf: Path) -> None:
    before = files_of(shelf)
    with client_of(shelf) as client:
        lines = {line["name"]: line for line in client.get("/api/runs").json()}
        assert {name: line["state"] for name, line in lines.items()} == {
            "story": "history",
            "single": "model",
        }
        assert lines["story"]["step"] == 25
        for line in lines.values():
            require_type(run_types.RunLine, line)
        facts = client.get("/api/runs/story").json()
        require_type(run_types.RunFacts, facts)
        assert facts["checkpoints"] == list(STEPS)
        assert facts["history"]["note"].startswith("not recorded by Etude")
        assert facts["history"]["evaluate"] == f"etude eval {shelf / 'story'} --steps all"
        assert client.get("/api/runs/single").json()["history"] is None
        assert client.get("/api/runs/story/rows").json()["metrics"] == []
        assert client.get("/api/runs/story/abilities").json() == []
        assert client.get("/api/runs/single/abilities").status_code == 404
        refused = client.post("/api/runs/story/control", json={"action": "pause"})
        assert (refused.status_code, "not recorded by Etude" in refused.json()["error"]) == (404, True)
        rules = {verdict["rule"] for verdict in client.post("/api/runs/story/doctor", json={}).json()}
        assert "tied embeddings" in rules
    assert files_of(shelf) == before


def test_a_folder_with_two_models_is_listed_and_says_what_is_wrong(shelf: Path, tmp_path: Path) -> None:
    make_model(shutil.copytree(shelf / "story", tmp_path / "both" / "story") / "step7", "gpt2")
    with client_of(tmp_path / "both") as client:
        assert [line["state"] for line in client.get("/api/runs").json()] == ["history"]
        assert "is another model than" in client.get("/api/runs/story").json()["error"]


def test_the_command_takes_a_history(shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shown = collection_of([shelf / "story"])
    assert shown.path("story") == shelf / "story"
    assert Collection.from_argument(shown.to_argument()) == shown
    monkeypatch.chdir(shelf)
    assert set(collection_of([]).model_folders()) == {"story", "single"}
    monkeypatch.chdir(shelf / "story")
    assert set(collection_of([]).model_folders()) == {"story"}
    assert collection_of([Path("checkpoint-10")]).path("checkpoint-10") == Path("checkpoint-10")


def test_scores_are_kept_by_content_and_drawn(
    shelf: Path, tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The curve of the page has the printed scores; a copy of the folder has them too, a changed one does not."""
    folder = shutil.copytree(shelf / "story", tmp_path / "story")
    before = files_of(folder)
    scored(folder)
    printed = json.loads(capsys.readouterr().out)
    assert files_of(folder) == before
    assert sorted(path.name for path in (cache / "scores").iterdir()) == sorted(
        {scores_folder(folder / f"checkpoint-{step}").name for step in STEPS}
    )  # two: the last two versions are the same model
    with client_of(tmp_path) as client:
        drawn = client.get("/api/runs/story/abilities").json()
    by_title = {ability["title"]: ability for ability in drawn}
    for ability in drawn:
        require_type(run_types.Ability, ability)
    for number, entry in enumerate(printed["steps"]):
        for probe in entry["probes"]:
            ability = by_title[title_of(probe)]
            assert ability["steps"] == list(STEPS)
            assert ability["right"][number] == probe["accuracy"]["value"]
    (tmp_path / "elsewhere").mkdir()
    folder.rename(tmp_path / "elsewhere" / "story")
    copy = PublishedHistory.at(tmp_path / "elsewhere" / "story")
    assert copy is not None
    assert abilities_of_published(copy) == drawn
    file = copy.folder_of(10) / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"rms_norm_eps": 1e-4}))
    assert {record.where.step for record in read_scores(copy)} == {20, 25}


def test_later_scores_count_and_the_terminal_says_where_they_are(
    shelf: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    history = PublishedHistory.at(shelf / "story")
    assert history is not None
    output = io.StringIO()
    scored(shelf / "story", Console(file=output, width=300))
    assert f"recorded in {cache / 'scores'}; etude studio {shelf / 'story'} draws them" in output.getvalue()
    first = read_scores(history)
    scored(shelf / "story", Console(file=io.StringIO()))
    assert read_scores(history) == first  # each once


def test_weights_are_read_only_where_scores_of_them_may_be_known(
    shelf: Path, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A history of gigabytes is not hashed because another model was scored; damage of a record hides no other."""
    from etude.run import weights_hash as module

    history = PublishedHistory.at(shelf / "story")
    assert history is not None
    other = make_versions(tmp_path / "other", "llama-plain", {1: 5})
    scored(other)
    whole: list[Path] = []
    original = module.weights_hash
    monkeypatch.setattr(module, "weights_hash", lambda folder: (whole.append(folder), original(folder))[1])
    assert read_scores(history) == []
    assert whole == []
    (cache / "scores" / "damaged").mkdir()
    (cache / "scores" / "damaged" / "model.json").write_text("{")
    found = PublishedHistory.at(other)
    assert found is not None
    assert {record.where.step for record in read_scores(found)} == {1}
