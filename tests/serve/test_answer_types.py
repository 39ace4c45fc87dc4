"""Answers have the types that they declare, and the page is checked against the same types."""

from __future__ import annotations

import copy
import dataclasses
import json
import shutil
from collections.abc import Generator, Iterator, Mapping
from pathlib import Path
from typing import Any, get_type_hints

import pytest
from pydantic import ValidationError

from etude.diagnose.run.verdict import Rule
from etude.errors import InputError
from etude.run import events
from etude.serve import look_types, run_types
from etude.serve.answers import Answers
from etude.serve.facts import facts_of, run_lines
from etude.serve.request import Question
from etude.serve.source_code import source_code_of
from etude.serve.tensor_files import TensorFiles
from etude.serve.typescript import FILE as TYPESCRIPT
from etude.serve.typescript import Generator as TypeScript
from etude.serve.typescript import typescript
from etude.serve.verdicts import verdict_values
from serving import client_of, require_type
from watched import RUNS, Watched, train_run

REPOSITORY = Path(__file__).parents[2]
STEP = 32  # has a checkpoint
TEXT = "The fox and the old"
QUESTIONS: dict[str, dict[str, Any]] = {
    "step": {"step": STEP, "row": 1},
    "token": {"step": STEP, "row": 1, "position": 3},
    "unit": {"step": STEP, "row": 1, "position": 3, "layer": 0, "unit": 2, "input": 4},
    "weight": {"step": STEP, "name": "lm_head.weight", "index": [1, 2]},
    "matrix": {"step": STEP, "name": "lm_head.weight", "what": "since_start", "rows": [0, 4]},
    "rules": {},
    "passages": {},
    "prompt": {"step": STEP, "text": TEXT},
    "head": {"step": STEP, "text": TEXT, "layer": 0, "head": 1},
    "attribution": {"step": STEP, "text": TEXT},
    "story": {"text": TEXT, "steps": [0, STEP]},
    "neurons": {"step": STEP, "text": TEXT, "layer": 0},
    "node": {"step": STEP, "layer": 0, "unit": 2},
    "compare": {"step": STEP, "text": TEXT, "knobs": ["lm_head.weight*2"]},
    "fork": {"step": STEP, "knobs": ["lm_head.weight*2"]},
    "chat": {
        "step": STEP,
        "text": TEXT,
        "temperature": 0.5,
        "top_p": 0.9,
        "seed": 1,
        "count": 3,
        "taken": [5],
    },
}
OF_MODELS = {"layers", "value", "node_in_text", "versions"}
"""Looks at a model without a run: `test_models.py`."""


@pytest.fixture(scope="module", params=["llama", "gpt2", "mlp"])
def run(
    request: pytest.FixtureRequest, studied: Watched, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Watched]:
    name = request.param
    found = studied if name == "llama" else train_run(tmp_path_factory.mktemp(name), name, RUNS[name])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ETUDE_CACHE", str(found.cache))
        yield found


@pytest.fixture(scope="module")
def answers(run: Watched, tmp_path_factory: pytest.TempPathFactory) -> Answers:
    return Answers(run.path.parent, TensorFiles(tmp_path_factory.mktemp("tensors")))


def test_the_page_has_the_types_of_this_package() -> None:
    assert TYPESCRIPT == REPOSITORY / "studio" / "src" / "lib" / "generated.ts"
    assert TYPESCRIPT.read_text(encoding="utf-8") == typescript(), "run `python -m etude.serve.typescript`"


def test_every_look_has_a_question_in_this_file() -> None:
    assert QUESTIONS.keys() | OF_MODELS == look_types.ANSWERS.keys()


@pytest.mark.parametrize("look", QUESTIONS)
def test_an_answer_has_its_declared_type(
    look: str, answers: Answers, run: Watched, tmp_path_factory: pytest.TempPathFactory
) -> None:
    question = {"run": run.path.name, **QUESTIONS[look]}
    if look == "head" and run.path.name == "mlp":
        with pytest.raises(InputError, match="no attention"):
            answers.answer(Question({**question, "look": look}), lambda message: None)
        return
    if look == "weight" and run.path.name == "gpt2":  # whose head is the embedding
        question["name"] = "model.embed_tokens.weight"
    if look in ("matrix", "compare", "fork") and run.path.name == "gpt2":
        question = json.loads(json.dumps(question).replace("lm_head", "model.embed_tokens"))
    if look == "fork":
        question["name"] = f"{run.path.name}-fork"
    require_type(look_types.Question, question)
    lines: list[Mapping[str, object]] = []
    answer = answers.answer(Question({**question, "look": look}), lines.append)
    if isinstance(answer, Generator):
        answer = returned_by(answer)
    require_type(look_types.ANSWERS[look], answer)
    if look == "fork":  # other tests list the runs of this folder
        shutil.rmtree(run.path.parent / question["name"])
    for line in lines:
        require_type(look_types.Progress if "progress" in line else look_types.TokenLine, line)
    assert look != "chat" or sum("token" in line for line in lines) == 3


def returned_by(generator: Generator[None, None, Mapping[str, object]]) -> Mapping[str, object]:
    while True:
        try:
            next(generator)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]


def test_what_is_shown_before_any_question_has_its_declared_type(run: Watched) -> None:
    facts = facts_of(run.path, True)
    require_type(run_types.RunFacts, facts)
    assert facts["model"] is not None
    for line in run_lines(run.path.parent):
        require_type(run_types.RunLine, line)
    require_type(run_types.Source, source_code_of("train/step.py:update_step"))
    rule = Rule("a rule", "It says so.")
    for verdict in (rule.problem("a", "b"), rule.notice("a", "b"), rule.fine("a"), rule.not_judged("a")):
        require_type(run_types.Verdict, verdict_values(verdict))
    with client_of(run.path.parent) as client:
        rows = client.get(f"/api/runs/{run.path.name}/rows").json()
    assert len(rows["metrics"]) > 40
    require_type(run_types.Rows, rows, more=True)
    assert {"loss", "tensors"} <= {key for row in rows["metrics"] for key in row}


def test_the_facts_name_the_layers_of_neurons_of_the_network(run: Watched) -> None:
    model = run.machine.empty_model()
    facts = facts_of(run.path, True)["model"]
    assert facts is not None
    assert facts["attention"] is model.has_attention
    assert facts["window"] == model.tokens_per_position
    layers = model.node_layers()
    assert [layer["path"] for layer in facts["node_layers"]] == [layer.path for layer in layers]
    parameters = {name: tuple(value.shape) for name, value in model.named_parameters()}
    for layer in facts["node_layers"]:
        assert parameters[f"{layer['gate']}.weight"] == (layer["units"], layer["inputs"])
        if layer["up"] is not None:
            assert parameters[f"{layer['up']}.weight"] == (layer["units"], layer["inputs"])
        assert parameters[f"{layer['out']}.weight"][1] >= layer["units"]
        assert facts["biases"] is (f"{layer['gate']}.bias" in parameters)


def test_a_field_of_a_log_line_is_one_of_an_event() -> None:
    known = {
        field.name
        for kind in vars(events).values()
        if isinstance(kind, type) and issubclass(kind, events.Event)
        for field in dataclasses.fields(kind)
    }
    assert get_type_hints(run_types.MetricRow).keys() - {"event"} <= known
    sample = {field.name for field in dataclasses.fields(events.SampleEvent)}
    assert get_type_hints(run_types.SampleRow).keys() - {"event"} <= sample


@pytest.mark.parametrize("fault", ["more", "less", "text", "inside"])
def test_an_answer_of_another_type_is_seen(fault: str, studied: Watched) -> None:
    wrong: Any = copy.deepcopy(facts_of(studied.path, True))
    if fault == "more":
        wrong["model"]["colour"] = "blue"
    elif fault == "less":
        del wrong["first_step"]
    elif fault == "text":
        wrong["step"] = "40"
    else:
        wrong["model"]["node_layers"][0]["up"] = 3
    with pytest.raises(ValidationError):
        require_type(run_types.RunFacts, wrong)


@pytest.mark.parametrize("kind", [bytes, set[int], dict[int, str], Any, object])
def test_what_json_lacks_has_no_typescript(kind: Any) -> None:
    with pytest.raises(TypeError, match="there is no TypeScript"):
        TypeScript().of(kind)
