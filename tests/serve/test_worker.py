"""The worker answers what etude inspect answers, one question after another, and outlives bad ones."""

from __future__ import annotations

import json
import random
import struct
from typing import Any

import numpy as np
import pytest
import torch
from starlette.testclient import TestClient
from typer.testing import CliRunner

from etude.cli.main import app
from etude.files import json_safe
from etude.serve.tensor_files import SIDE, binned
from etude.watch.opened_step import open_step
from watched import Watched


def ask(client: TestClient, **question: Any) -> dict[str, Any]:
    """The last line of an answer."""
    response = client.post("/api/ask", json={"run": "llama", **question})
    assert response.status_code == 200, response.text
    said = [json.loads(line) for line in response.text.splitlines()]
    found: dict[str, Any] = said[-1]
    return found


def answer(client: TestClient, **question: Any) -> dict[str, Any]:
    found = ask(client, **question)
    assert "answer" in found, found
    given: dict[str, Any] = found["answer"]
    return given


def inspected(run: Watched, *words: str) -> dict[str, Any]:
    result = CliRunner().invoke(app, ["inspect", str(run.path), *words, "--json"])
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.output)
    return found


def without(found: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in found.items() if name not in names}


def read_tensor(client: TestClient, key: str, name: str) -> np.ndarray[Any, Any]:
    def part(begin: int, end: int) -> bytes:
        response = client.get(f"/api/tensors/{key}", headers={"Range": f"bytes={begin}-{end - 1}"})
        assert response.status_code == 206
        content: bytes = response.content
        return content

    (length,) = struct.unpack("<Q", part(0, 8))
    entry = json.loads(part(8, 8 + length))[name]
    begin, end = entry["data_offsets"]
    return np.frombuffer(part(8 + length + begin, 8 + length + end), "<f4").reshape(entry["shape"])


def test_its_answers_are_those_of_inspect(client: TestClient, studied: Watched) -> None:
    """At random places: a step, tokens, nodes, weights, a node at a token of a batch, a prompt."""
    dice = random.Random(5)
    for _ in range(4):
        step, row, position = dice.randint(1, 40), dice.randint(0, 5), dice.randint(0, 31)
        layer, unit, number = dice.randint(0, 1), dice.randint(0, 95), dice.randint(0, 31)
        at = ("--step", str(step))
        told = answer(client, look="token", step=step, row=row, position=position)
        assert without(told, "proof") == without(
            inspected(studied, *at, "--token", f"{row}:{position}"), "proof"
        )
        name, index = f"model.layers.{layer}.mlp.gate_proj.weight", [unit, number]
        told = answer(client, look="weight", step=step, name=name, index=index)["at"]
        found = inspected(studied, *at, "--weight", f"{name}[{unit},{number}]")["at"]
        assert without(told, "proof") == without(found, "proof")
        place = {"layer": layer, "unit": unit, "row": row, "position": position}
        told = answer(client, look="unit", step=step, **place)
        found = inspected(studied, *at, "--node", f"{layer}:{unit}", "--token", f"{row}:{position}")
        assert without(told["weight"], "step") == without(found["weight"], "step")
        assert told["arithmetic"] == found["arithmetic"]
        assert told["error"] == found["error"]
    told = answer(client, look="step", step=17)
    assert without(told, "proof") == without(inspected(studied, "--step", "17"), "proof", "reconciled")
    told = answer(client, look="node", step=17, layer=1, unit=3)
    assert without(told, "proof") == without(inspected(studied, "--step", "17", "--node", "1:3"), "proof")
    told = answer(client, look="prompt", step=17, text="The fox")
    found = inspected(studied, "--step", "17", "--prompt", "The fox")
    shown = without(found, "where", "attribution")
    assert {name: told[name] for name in shown} == shown
    assert answer(client, look="attribution", step=17, text="The fox") == found["attribution"]
    knobs = ["model.layers.0.mlp.post[5]*0"]
    told = answer(client, look="compare", step=17, text="The fox", knobs=knobs)
    found = inspected(studied, "--step", "17", "--prompt", "The fox", "--knob", knobs[0])
    assert without(told, "where") == without(found, "where")


def test_a_step_is_proved_and_helped(client: TestClient) -> None:
    told = answer(client, look="step", step=25, row=2)
    assert told["proof"]["holds"]
    assert told["row"] == 2
    assert told["num_rows"] == 6
    real = [token for token in told["tokens"] if token["desired"] is not None]
    mean = sum(token["loss_after"] for token in real) / len(real)
    assert told["row_loss_after"] == pytest.approx(mean, rel=1e-6)
    assert told["row_loss_after"] != told["row_loss"]
    assert {len(one["norm"]) for one in told["stream"]} == {len(told["tokens"])}


def test_matrices_come_as_tensors(client: TestClient, studied: Watched) -> None:
    name = "model.layers.0.mlp.up_proj.weight"
    moved = open_step(studied.machine, 21).parameter(name)
    for what, expected in (("before", moved.before), ("after", moved.after), ("gradient", moved.gradient)):
        told = answer(client, look="matrix", step=21, name=name, what=what)
        assert told["bin"] == [1, 1]
        np.testing.assert_array_equal(read_tensor(client, told["tensors"], "values"), expected.numpy())
    told = answer(client, look="matrix", step=21, name=name, what="update", rows=[3, 9])
    found = read_tensor(client, told["tensors"], "values")
    np.testing.assert_allclose(found, moved.update[3:9].numpy(), rtol=1e-6)
    begun = open_step(studied.machine, 1).parameter(name).before
    told = answer(client, look="matrix", step=21, name=name, what="since_start")
    np.testing.assert_array_equal(
        read_tensor(client, told["tensors"], "values"), (moved.after - begun).numpy()
    )


@pytest.mark.parametrize("shape", [(SIDE, 5), (3 * SIDE + 7, 2 * SIDE + 1), (1, 4 * SIDE)])
def test_large_matrices_are_binned_to_their_means(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    matrix = torch.randn(shape)
    tensors, by = binned(matrix)
    values = tensors["values"]
    assert max(values.shape) <= SIDE
    row, column = values.shape[0] - 1, values.shape[1] // 2
    block = matrix[row * by[0] : (row + 1) * by[0], column * by[1] : (column + 1) * by[1]]
    torch.testing.assert_close(values[row, column], block.mean())
    if by != (1, 1):
        torch.testing.assert_close(tensors["spread"][row, column], block.std(correction=0))


def test_nodes_along_a_text(client: TestClient) -> None:
    told = answer(client, look="neurons", step=30, layer=1, text="The fox ran home.")
    post = read_tensor(client, told["tensors"], "post")
    assert post.shape == (len(told["tokens"]), 96)
    assert len(told["incoming"]) == len(told["outgoing"]) == len(told["change"]) == 96
    assert min(told["change"]) > 0


def test_passages_can_be_read(client: TestClient) -> None:
    passages = answer(client, look="passages")["passages"]
    assert len(passages) == 4
    for passage in passages:
        assert len(answer(client, look="prompt", text=passage["text"])["tokens"]) <= 32


def test_the_story_of_a_text(client: TestClient, studied: Watched) -> None:
    told = answer(client, look="story", text="Once there was a fox.")
    assert told["steps"] == sorted(studied.machine.recorded.checkpoints)
    for step, losses in list(zip(told["steps"], told["losses"], strict=True))[:3]:
        at_step = answer(client, look="prompt", text="Once there was a fox.", step=step)["losses"]
        assert losses == pytest.approx(at_step, rel=1e-5)


def test_it_continues_a_text_with_its_odds(client: TestClient) -> None:
    response = client.post(
        "/api/ask",
        json={"run": "llama", "look": "chat", "text": "The", "count": 6, "temperature": 0, "seed": 2},
    )
    said = [json.loads(line) for line in response.text.splitlines()]
    tokens = [one["token"] for one in said if "token" in one]
    assert len(tokens) == 6
    for token in tokens:  # at temperature 0 it is always the likeliest
        assert token["id"] == token["others"][0]["id"]
        assert token["probability"] == token["others"][0]["probability"]
    assert said[-1]["answer"]["text"] == "".join(token["text"] for token in tokens)
    ids = [token["id"] for token in tokens]
    assert (
        answer(client, look="chat", text="The", count=3, temperature=0, taken=ids[:3])["text"]
        == said[-1]["answer"]["text"]
    )
    prompt = answer(client, look="prompt", text="The")
    assert tokens[0]["probability"] == pytest.approx(prompt["guesses"][0]["probability"], rel=1e-4)


def test_heads_have_kinds(client: TestClient) -> None:
    told = answer(client, look="prompt", step=30, text="The fox ran home.")
    patterns = np.array(told["patterns"])
    for head in told["heads"]:
        pattern = patterns[head["layer"], head["head"]]
        assert head["first"] == pytest.approx(pattern[1:, 0].mean(), rel=1e-5)
        assert head["previous"] == pytest.approx(np.diagonal(pattern, -1).mean(), rel=1e-5)
    assert len(told["guesses_along"]) == len(told["tokens"])


@pytest.mark.parametrize(
    ("question", "told"),
    [
        ({"look": "nothing"}, "'look' is one of"),
        ({"look": "step", "step": 41}, "choose one from 1 to 40"),
        ({"look": "step", "step": -1}, "whole number"),
        ({"look": "step", "step": "5"}, "whole number"),
        ({"look": "step", "step": True}, "whole number"),
        ({"look": "step", "row": 6}, "rows 0 to 5"),
        ({"look": "token", "position": 32}, "positions 0 to 31"),
        ({"look": "unit", "layer": 7}, "layer"),
        ({"look": "unit", "unit": 96}, "neurons 0 to 95"),
        ({"look": "unit", "input": 32}, "inputs 0 to 31"),
        ({"look": "weight", "name": "nothing", "index": [0]}, "no parameter"),
        ({"look": "matrix", "name": "lm_head.weight", "what": "all"}, "'what' is one of"),
        ({"look": "matrix", "name": "lm_head.weight", "what": "after", "rows": [5, 999]}, "rows 0 to 299"),
        ({"look": "prompt", "text": "x" * 5000}, "shorten it"),
        ({"look": "prompt"}, "'text' is a text"),
        ({"look": "story", "text": "a", "steps": [3]}, "no checkpoint of step 3"),
        ({"look": "compare", "text": "a", "knobs": ["x"]}, "turns nothing"),
        ({"look": "chat", "text": "a", "temperature": -1}, "temperature"),
        ({"look": "chat", "text": "a", "taken": [999]}, "token ids"),
    ],
)
def test_a_bad_question_is_one_line(client: TestClient, question: dict[str, Any], told: str) -> None:
    error = ask(client, **question)["error"]
    assert told in error
    assert "\n" not in error


def test_it_outlives_its_own_end(client: TestClient) -> None:
    """A worker that the system ended (for want of memory, say) is begun again."""
    import os
    import signal
    import subprocess

    assert answer(client, look="passages")["passages"]
    found = subprocess.run(
        ["pgrep", "-P", str(os.getpid()), "-f", "etude.serve.worker"], capture_output=True, text=True
    )
    for number in found.stdout.split():
        os.kill(int(number), signal.SIGKILL)
    assert found.stdout.split()
    last = ask(client, look="passages")
    assert "answer" in last or "ask again" in last["error"]
    assert answer(client, look="passages")["passages"]


def test_numbers_that_json_has_not_are_null() -> None:
    assert json_safe({"a": [float("nan"), (1.5, float("inf"))], "b": 2}) == {"a": [None, [1.5, None]], "b": 2}
