"""The page's own arithmetic matches the run, prints the numbers of etude inspect, and detects a changed number."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from browsing import leaves, settled
from etude.watch.layer_in_step import LayerInStep
from etude.watch.opened_step import open_step
from etude.watch.values import token_values, unit_values
from watched import Watched, train_run

SCENES = ("Forward", "Predicted", "Loss", "Backward", "Update", "Did it help")
SELECTIONS = 50


def scene(page: Any, name: str) -> str:
    """Return the text of one scene of the One step view, once it is loaded."""
    page.get_by_role("tab", name=re.compile(name)).click()
    settled(page)
    text: str = page.locator("main").inner_text()
    return text


def show(page: Any, address: str, **selected: int) -> None:
    query = "&".join(f"{key}={value}" for key, value in selected.items())
    page.goto(f"{address}#/step?run=llama&{query}")
    page.get_by_role("tab", name=re.compile("Forward")).wait_for()
    settled(page)
    page.locator("[data-check]").first.wait_for()


def checks(page: Any) -> list[str]:
    states: list[str] = page.locator("[data-check]").evaluate_all("all => all.map(one => one.dataset.check)")
    return states


def differing(page: Any) -> list[str]:
    """Return the text of the checks that do not hold."""
    script = "all => all.map(one => one.title + ' | ' + one.parentElement.textContent)"
    texts: list[str] = page.locator("[data-check=differs]").evaluate_all(script)
    return texts


def numbers_in(text: str) -> Iterator[tuple[float, float]]:
    """Yield every decimal number in a text, with half of its last digit."""
    for match in re.finditer(r"[+\u2212]?\d[\d,]*\.\d+(?:e\u2212?\d+)?", text):
        plain = match[0].replace("\u2212", "-").replace(",", "")
        mantissa, _, exponent = plain.partition("e")
        digits = len(mantissa.split(".")[1]) - int(exponent or 0)
        yield float(plain), 0.5000001 * 10.0**-digits


def test_printed_numbers_are_those_of_inspect(page: Any, address: str, studied: Watched) -> None:
    """At random steps, rows, tokens, neurons and weights: each printed number of the neuron and of the prediction is a
    value of ``etude inspect --json``, or follows from such values by the arithmetic on the page."""
    generator = random.Random(11)
    decode = studied.machine.data.tokenizer.decode
    for _ in range(SELECTIONS):
        step, row, position = generator.randint(1, 40), generator.randint(0, 5), generator.randint(0, 30)
        layer, unit, number = generator.randint(0, 1), generator.randint(0, 95), generator.randint(0, 31)
        show(page, address, s=step, r=row, p=position, l=layer, n=unit, i=number)
        opened = open_step(studied.machine, step)
        found = unit_values(
            LayerInStep(opened, f"model.layers.{layer}.mlp"), unit, row, position, number, decode
        )
        token = token_values(opened, opened.row(row), position, decode)
        told = {f"{abs(value):.12g}" for value in leaves([found, token])}
        known = sorted(float(value) for value in told)
        for key in ("sum", "forward_pass"):
            assert any(abs(value - abs(found["arithmetic"]["gate"][key])) < 1e-9 for value in known)
        forward = scene(page, "Forward")
        assert differing(page) == [], (step, row, position, layer, unit, number)
        printed = dict(numbers_in(forward))
        for expected in (found["arithmetic"]["gate"]["sum"], found["arithmetic"]["activation"]):
            assert any(abs(value - expected) <= half for value, half in printed.items()), (expected, forward)
        for name, wanted in (
            ("Predicted", [token["probability"] * 100]),
            ("Loss", [token["loss"]]),
            ("Backward", [found["error"]["at_activation"], found["error"]["at_sum"]]),
            ("Update", [found["weight"]["step"]["before"], found["weight"]["step"]["after"]]),
        ):
            text = scene(page, name)
            assert differing(page) == [], (name, step, row, position, layer, unit, number)
            printed = dict(numbers_in(text))
            for expected in wanted:
                close = [abs(value - expected) <= half for value, half in printed.items()]
                assert any(close), (name, expected, sorted(printed))


def gate(answer: dict[str, Any]) -> dict[str, Any]:
    values: dict[str, Any] = answer["arithmetic"]["gate"]
    return values


def turn(place: Callable[[dict[str, Any]], dict[str, Any]], name: str, by: Callable[[float], float]) -> Any:
    def turned(answer: dict[str, Any]) -> None:
        at = place(answer)
        at[name] = by(at[name])

    return turned


def step_of(answer: dict[str, Any]) -> dict[str, Any]:
    values: dict[str, Any] = answer["weight"]["step"]
    return values


def error_of(answer: dict[str, Any]) -> dict[str, Any]:
    values: dict[str, Any] = answer["error"]
    return values


def largest_term(answer: dict[str, Any]) -> dict[str, Any]:
    values: dict[str, Any] = gate(answer)["terms"][0]
    return values


def a_thousandth(value: float) -> float:
    return value * 1.001


MUTATIONS: dict[str, tuple[str, Any]] = {
    "a weight after its update": ("Update", turn(step_of, "after", lambda value: value + 2e-7)),
    "a learning rate": ("Update", turn(step_of, "lr", lambda value: value * 1.01)),
    "a gradient": ("Backward", turn(lambda a: a["weight"]["pushes"], "gradient", a_thousandth)),
    "an error after the neuron": ("Backward", turn(error_of, "at_activation", a_thousandth)),
    "an error at the sum": ("Backward", turn(error_of, "at_sum", a_thousandth)),
    "a neuron's sum": ("Forward", turn(gate, "forward_pass", lambda value: value + 1e-4)),
    "a bias": ("Forward", turn(gate, "bias", a_thousandth)),
    "a weight of the largest term": ("Forward", turn(largest_term, "weight", a_thousandth)),
    "an input of the largest term": ("Forward", turn(largest_term, "value", a_thousandth)),
    "an activation": ("Forward", turn(lambda a: a["arithmetic"], "activation", a_thousandth)),
}


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_changed_number_is_detected(page: Any, address: str, name: str) -> None:
    where, change = MUTATIONS[name]

    def changed(route: Any) -> None:
        response = route.fetch()
        lines = [json.loads(line) for line in response.text().splitlines()]
        answer = lines[-1].get("answer")
        if answer is not None and "arithmetic" in answer and "weight" in answer:
            change(answer)
        route.fulfill(response=response, body="".join(json.dumps(line) + "\n" for line in lines))

    page.route("**/api/ask", changed)
    show(page, address, s=20, r=1, p=9, l=1, n=7, i=3)
    scene(page, where)
    assert "differs" in checks(page)


@pytest.mark.parametrize("preset", ["llama", "gpt2", "mlp"])
def test_a_run_in_bf16_matches_up_to_rounding(
    page: Any,
    serve: Callable[[Path, Path], str],
    tmp_path_factory: pytest.TempPathFactory,
    preset: str,
) -> None:
    values = {"model.preset": preset, "device.dtype": "bf16", "train.dropout": 0.1}
    run = train_run(tmp_path_factory.mktemp("bf16"), "llama", values)
    address, generator, seen = serve(run.path.parent, run.cache), random.Random(5), 0
    for step in (1, 17, 40):
        show(
            page,
            address,
            s=step,
            r=generator.randint(0, 5),
            p=generator.randint(0, 30),
            n=generator.randint(0, 31),
        )
        for name in SCENES:
            text = scene(page, name)
            assert differing(page) == [], (step, name)
            seen += len(checks(page))
        assert "multiplies in bf16" in text
    assert seen > 60


def test_unchanged_numbers_match_everywhere(page: Any, address: str) -> None:
    show(page, address, s=20, r=1, p=9, l=1, n=7, i=3)
    for name in SCENES:
        scene(page, name)
        assert "differs" not in checks(page)
