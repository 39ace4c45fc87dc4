"""The worker's answers equal those of etude inspect, and it survives bad questions."""

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
    """Return the last message on a question."""
    response = client.post("/api/ask", json={"run": "llama", **question})
    assert response.status_code == 200, response.text
    messages = [json.loads(line) for line in response.text.splitlines()]
    last: dict[str, Any] = messages[-1]
    return last


def answer(client: TestClient, **question: Any) -> dict[str, Any]:
    message = ask(client, **question)
    assert "answer" in message, message
    content: dict[str, Any] = message["answer"]
    return content


def inspected(run: Watched, *words: str) -> dict[str, Any]:
    result = CliRunner().invoke(app, ["inspect", str(run.path), *words, "--json"])
    assert result.exit_code == 0, result.output
    values: dict[str, Any] = json.loads(result.output)
    return values


def without(values: dict[str, Any], *names: str) -> dict[str, Any]:
    return {key: item for key, item in values.items() if key not in names}


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


def test_its_answers_equal_those_of_inspect(client: TestClient, studied: Watched) -> None:
    """At random places: a step, tokens, neurons, weights, a neuron at a token of a batch, a prompt."""
    generator = random.Random(5)
    for _ in range(4):
        step, row, position = generator.randint(1, 40), generator.randint(0, 5), generator.randint(0, 31)
        layer, unit, number = generator.randint(0, 1), generator.randint(0, 95), generator.randint(0, 31)
        at = ("--step", str(step))
        answered = answer(client, look="token", step=step, row=row, position=position)
        assert without(answered, "proof") == without(
            inspected(studied, *at, "--token", f"{row}:{position}"), "proof"
        )
        name, index = f"model.layers.{layer}.mlp.gate_proj.weight", [unit, number]
        answered = answer(client, look="weight", step=step, name=name, index=index)["at"]
        expected = inspected(studied, *at, "--weight", f"{name}[{unit},{number}]")["at"]
        assert without(answered, "proof") == without(expected, "proof")
        place = {"layer": layer, "unit": unit, "row": row, "position": position}
        answered = answer(client, look="unit", step=step, **place)
        expected = inspected(studied, *at, "--node", f"{layer}:{unit}", "--token", f"{row}:{position}")
        assert without(answered["weight"], "step") == without(expected["weight"], "step")
        assert answered["arithmetic"] == expected["arithmetic"]
        assert answered["error"] == expected["error"]
    answered = answer(client, look="step", step=17)
    assert without(answered, "proof") == without(inspected(studied, "--step", "17"), "proof", "reconciled")
    answered = answer(client, look="node", step=17, layer=1, unit=3)
    assert without(answered, "proof") == without(inspected(studied, "--step", "17", "--node", "1:3"), "proof")
    answered = answer(client, look="prompt", step=17, text="The fox")
    expected = inspected(studied, "--step", "17", "--prompt", "The fox")
    shown = without(expected, "where", "attribution", "patterns")
    assert {name: answered[name] for name in shown} == shown
    patterns = np.array([[layer[head] for head in range(len(layer))] for layer in expected["patterns"]])
    assert len(answered["drawn"]) == patterns.shape[0] * patterns.shape[1]
    for drawn in answered["drawn"]:
        assert np.array(drawn["pattern"]) == pytest.approx(patterns[drawn["layer"], drawn["head"]], abs=1e-6)
    assert answer(client, look="attribution", step=17, text="The fox") == expected["attribution"]
    knobs = ["model.layers.0.mlp.post[5]*0"]
    answered = answer(client, look="compare", step=17, text="The fox", knobs=knobs)
    expected = inspected(studied, "--step", "17", "--prompt", "The fox", "--knob", knobs[0])
    assert without(answered, "where") == without(expected, "where")


def test_a_step_has_its_proof_and_the_losses_after_it(client: TestClient) -> None:
    answered = answer(client, look="step", step=25, row=2)
    assert answered["proof"]["holds"]
    assert answered["row"] == 2
    assert answered["num_rows"] == 6
    real = [token for token in answered["tokens"] if token["desired"] is not None]
    mean = sum(token["loss_after"] for token in real) / len(real)
    assert answered["row_loss_after"] == pytest.approx(mean, rel=1e-6)
    assert answered["row_loss_after"] != answered["row_loss"]
    assert {len(activation["norm"]) for activation in answered["stream"]} == {len(answered["tokens"])}


def test_matrices_come_as_tensors(client: TestClient, studied: Watched) -> None:
    name = "model.layers.0.mlp.up_proj.weight"
    moved = open_step(studied.machine, 21).parameter(name)
    for what, expected in (("before", moved.before), ("after", moved.after), ("gradient", moved.gradient)):
        answered = answer(client, look="matrix", step=21, name=name, what=what)
        assert answered["bin"] == [1, 1]
        np.testing.assert_array_equal(read_tensor(client, answered["tensors"], "values"), expected.numpy())
    answered = answer(client, look="matrix", step=21, name=name, what="update", rows=[3, 9])
    values = read_tensor(client, answered["tensors"], "values")
    np.testing.assert_allclose(values, moved.update[3:9].numpy(), rtol=1e-6)
    begun = open_step(studied.machine, 1).parameter(name).before
    answered = answer(client, look="matrix", step=21, name=name, what="since_start")
    np.testing.assert_array_equal(
        read_tensor(client, answered["tensors"], "values"), (moved.after - begun).numpy()
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


def test_neurons_along_a_text(client: TestClient) -> None:
    answered = answer(client, look="neurons", step=30, layer=1, text="The fox ran home.")
    post = read_tensor(client, answered["tensors"], "post")
    assert post.shape == (len(answered["tokens"]), 96)
    assert len(answered["incoming"]) == len(answered["outgoing"]) == len(answered["change"]) == 96
    assert min(answered["change"]) > 0


def test_passages_fit_the_context(client: TestClient) -> None:
    passages = answer(client, look="passages")["passages"]
    assert len(passages) == 4
    for passage in passages:
        assert len(answer(client, look="prompt", text=passage["text"])["tokens"]) <= 32


def test_the_losses_of_a_text_by_checkpoint(client: TestClient, studied: Watched) -> None:
    answered = answer(client, look="story", text="Once there was a fox.")
    assert answered["steps"] == sorted(studied.machine.recorded.checkpoints)
    for step, losses in list(zip(answered["steps"], answered["losses"], strict=True))[:3]:
        at_step = answer(client, look="prompt", text="Once there was a fox.", step=step)["losses"]
        assert losses == pytest.approx(at_step, rel=1e-5)


def test_it_continues_a_text_with_probabilities(client: TestClient) -> None:
    response = client.post(
        "/api/ask",
        json={"run": "llama", "look": "chat", "text": "The", "count": 6, "temperature": 0, "seed": 2},
    )
    messages = [json.loads(line) for line in response.text.splitlines()]
    tokens = [message["token"] for message in messages if "token" in message]
    assert len(tokens) == 6
    for token in tokens:  # at temperature 0 each is the most likely one
        assert token["id"] == token["others"][0]["id"]
        assert token["probability"] == token["others"][0]["probability"]
    assert messages[-1]["answer"]["text"] == "".join(token["text"] for token in tokens)
    ids = [token["id"] for token in tokens]
    assert (
        answer(client, look="chat", text="The", count=3, temperature=0, taken=ids[:3])["text"]
        == messages[-1]["answer"]["text"]
    )
    prompt = answer(client, look="prompt", text="The")
    assert tokens[0]["probability"] == pytest.approx(prompt["guesses"][0]["probability"], rel=1e-4)


def test_heads_have_kinds(client: TestClient) -> None:
    answered = answer(client, look="prompt", step=30, text="The fox ran home.")
    patterns = {(one["layer"], one["head"]): np.array(one["pattern"]) for one in answered["drawn"]}
    for head in answered["heads"]:
        pattern = patterns[head["layer"], head["head"]]
        assert head["first"] == pytest.approx(pattern[1:, 0].mean(), abs=2e-6)
        assert head["previous"] == pytest.approx(np.diagonal(pattern, -1).mean(), abs=2e-6)
    assert len(answered["guesses_along"]) == len(answered["tokens"])


@pytest.mark.parametrize(
    ("question", "message"),
    [
        ({"look": "nothing"}, "'look' must be one of"),
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
        ({"look": "matrix", "name": "lm_head.weight", "what": "all"}, "'what' must be one of"),
        ({"look": "matrix", "name": "lm_head.weight", "what": "after", "rows": [5, 999]}, "rows 0 to 299"),
        ({"look": "prompt", "text": "x" * 5000}, "shorten it"),
        ({"look": "prompt"}, "'text' must be a text"),
        ({"look": "story", "text": "a", "steps": [3]}, "no checkpoint of step 3"),
        ({"look": "compare", "text": "a", "knobs": ["x"]}, "is no knob"),
        ({"look": "chat", "text": "a", "temperature": -1}, "temperature"),
        ({"look": "chat", "text": "a", "taken": [999]}, "token ids"),
    ],
)
def test_a_bad_question_is_one_line(client: TestClient, question: dict[str, Any], message: str) -> None:
    error = ask(client, **question)["error"]
    assert message in error
    assert "\n" not in error


def test_a_killed_worker_is_restarted(client: TestClient) -> None:
    """Also after the system killed it, for example for lack of memory."""
    import os
    import signal
    import subprocess

    assert answer(client, look="passages")["passages"]
    workers = subprocess.run(
        ["pgrep", "-P", str(os.getpid()), "-f", "etude.serve.worker"], capture_output=True, text=True
    )
    for number in workers.stdout.split():
        os.kill(int(number), signal.SIGKILL)
    assert workers.stdout.split()
    last = ask(client, look="passages")
    assert "answer" in last or "ask again" in last["error"]
    assert answer(client, look="passages")["passages"]


def test_numbers_that_are_not_finite_are_null() -> None:
    assert json_safe({"a": [float("nan"), (1.5, float("inf"))], "b": 2}) == {"a": [None, [1.5, None]], "b": 2}
