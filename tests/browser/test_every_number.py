"""Every number that a view prints comes from ``etude inspect --json`` for the same selection.

The page formats numbers with four methods of JavaScript. Wrapped before the page loads, they record which double was
printed as which text. At random selections of five views, the server's answer equals that of ``etude inspect`` bit for
bit, and every decimal number in the view is one of these doubles or follows from them.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator
from contextlib import suppress
from decimal import Decimal
from typing import Any

import numpy as np
import pytest

from browsing import leaves, settled
from etude.files import json_safe
from etude.watch import api
from etude.watch.inspect import Question, look_at
from etude.watch.layer_in_step import LayerInStep
from etude.watch.opened_step import open_step
from etude.watch.values import step_values, unit_values
from following import FOLLOWS, from_record
from watched import Watched

LISTEN = """
window.printed = {};
for (const name of ['toFixed', 'toPrecision', 'toExponential', 'toLocaleString']) {
  const unheard = Number.prototype[name];
  Number.prototype[name] = function (...how) {
    const text = unheard.apply(this, how), plain = String(Math.abs(Number(text.replace(/,/g, ''))));
    (window.printed[plain] ??= []).push(Number(this));
    return text;
  };
}
"""
NUMBER = re.compile(r"\d[\d,]*\.\d+(?:e\u2212?\d+)?")
WORDS = re.compile(r"=0\.1 sets, \*0 switches off, \+0\.5 shifts|(?<=head \d:\n)\d\.\d\n")
"""Numbers that are not values: the syntax of knobs, and the names of heads."""
SCENES = ("Forward", "Predicted", "Loss", "Backward", "Update", "Did it help")
SELECTIONS = {"step": 14, "layers": 9, "neurons": 9, "predictions": 9, "attention": 9}
ALIKE = 1e-9  # relative, of what follows from the values: the page and Python both compute it in doubles


def proved(answer: dict[str, Any]) -> dict[str, Any]:
    """Return the answer with its proof reduced to whether it holds: replays may start at different checkpoints."""
    return {**answer, "proof": answer["proof"]["holds"]} if answer.get("proof") else answer


class Selection:
    """A random place, what the page prints there, and what etude inspect returns for it."""

    def __init__(
        self, page: Any, address: str, studied: Watched, view: str, generator: random.Random
    ) -> None:
        self.studied, self.view = studied, view
        self.at = {
            "s": generator.randint(1, 40),
            "r": generator.randint(0, 5),
            "p": generator.randint(0, 30),
            "l": generator.randint(0, 1),
            "n": generator.randint(0, 95),
            "i": generator.randint(0, 31),
            "h": generator.randint(0, 1),
        }
        answers: dict[str, Any] = {}

        def record_answer(route: Any) -> None:
            response = route.fetch()
            last = json.loads(response.text().splitlines()[-1])
            if "answer" in last:
                answers[route.request.post_data] = last["answer"]
            with suppress(Exception):  # the page no longer waits for it
                route.fulfill(response=response)

        page.route("**/api/ask", record_answer)
        page.goto("about:blank")
        query = "&".join(f"{key}={value}" for key, value in self.at.items())
        page.goto(f"{address}#/{view}?run=llama&{query}")
        page.locator("main h2").first.wait_for()
        settled(page)
        self.text = all_of(page)
        for name in SCENES if view == "step" else ():
            page.get_by_role("tab", name=re.compile(name)).click()
            settled(page)
            self.text += all_of(page)
        self.printed: dict[str, list[float]] = page.evaluate("window.printed")
        self.answers = [(json.loads(question), answer) for question, answer in answers.items()]
        page.unroute("**/api/ask")

    def inspected(self, **fields: Any) -> dict[str, Any]:
        """Return the values of etude inspect --json."""
        question = Question(self.studied.path, **fields)
        values: dict[str, Any] = json.loads(json.dumps(json_safe(look_at(question).values)))
        return values

    def compare_with_inspect(self, question: dict[str, Any], answer: dict[str, Any]) -> None:
        look, step = question["look"], question.get("step")
        layer, unit = f"model.layers.{question.get('layer', 0)}.mlp", question.get("unit", 0)
        place = f"{question.get('row', 0)}:{question.get('position', 0)}"
        decode = self.studied.machine.data.tokenizer.decode
        if look == "token":
            assert proved(answer) == proved(self.inspected(step=step, token=place))
        elif look == "node":
            assert proved(answer) == proved(self.inspected(step=step, node=f"{layer}:{unit}"))
        elif look == "weight":
            index = ",".join(map(str, question["index"]))
            assert answer["at"] == self.inspected(step=step, weight=f"{question['name']}[{index}]")["at"]
        elif look == "prompt":
            expected = self.inspected(step=step, prompt=question["text"])
            # The worker may reach the step by replay and inspect by its checkpoint, so the proofs differ.
            (at, proof), (expected_at, expected_proof) = (
                answer["where"].split(", ", 1),
                expected.pop("where").split(", ", 1),
            )
            assert (at, bool(proof)) == (expected_at, bool(expected_proof))
            expected.pop("attribution")
            patterns = expected.pop("patterns")
            assert {key: answer[key] for key in expected} == expected
            for drawn in answer.get("drawn", ()):  # rounded for the page
                pattern = np.array(patterns[drawn["layer"]][drawn["head"]])
                assert np.abs(np.array(drawn["pattern"], float) - pattern).max() < 1e-6
        elif look == "attribution":
            assert answer == self.inspected(step=step, prompt=question["text"])["attribution"]
        elif look == "step":
            opened = open_step(self.studied.machine, step)
            expected = json_safe(step_values(opened, opened.row(question.get("row", 0)), decode))
            assert proved(answer) == proved(json.loads(json.dumps(expected)))
            inspected = self.inspected(step=step)
            assert answer["parameters"] == inspected["parameters"]
            assert answer["row"] or answer["tokens"] == inspected["tokens"]
        elif look == "unit" and "input" not in question:
            assert proved(answer) == proved(self.inspected(step=step, node=f"{layer}:{unit}", token=place))
        elif look == "unit":
            row, position = map(int, place.split(":"))
            layer_in_step = LayerInStep(open_step(self.studied.machine, step), layer)
            expected = json_safe(unit_values(layer_in_step, unit, row, position, question["input"], decode))
            assert proved(answer) == proved(json.loads(json.dumps(expected)))
        elif look == "story":
            for at in answer["steps"][::3]:
                expected = self.inspected(step=at, prompt=question["text"])
                assert answer["losses"][answer["steps"].index(at)] == expected["losses"]
        elif look == "neurons":
            text = next(q["text"] for q, _ in self.answers if q["look"] == "neurons")
            expected = self.inspected(step=step, prompt=text, node=f"{layer}:{self.at['n']}")
            assert answer["tokens"] == expected["tokens"]
            self.answers.append(({"look": "activations"}, expected["activation"]))
            prompt = api.prompt(self.studied.path, text, step)
            for leaf in ("pre", "post"):
                self.answers.append((question, prompt.activation(f"{layer}.{leaf}").tolist()))
        elif look == "matrix":
            parameters = {
                parameter["name"]: parameter for parameter in self.inspected(step=step)["parameters"]
            }
            name = {"before": "weight_norm", "gradient": "grad_norm", "update": "update_norm"}.get(
                answer["what"]
            )
            if name is not None:
                assert answer["norm"] == pytest.approx(parameters[answer["name"]][name], rel=1e-6)
                moved = open_step(self.studied.machine, step).parameter(answer["name"])
                self.answers.append((question, getattr(moved, answer["what"]).float().tolist()))
        else:
            assert look in ("passages", "compare", "rules"), look

    def unexplained(self) -> list[tuple[str, list[float]]]:
        """Return the numbers on the page that no known double explains."""
        recorded = [json.loads(line) for line in (self.studied.path / "metrics.jsonl").open()]
        known = {abs(value) for value in leaves([recorded, *(answer for _, answer in self.answers)])}
        shares = {100 * value for value in known}
        follows = np.sort(np.abs([*self.following(), *from_record(recorded)]))
        unexplained = []
        text = WORDS.sub("", self.text)
        for match in NUMBER.finditer(text):
            printed = float(match[0].replace(",", "").replace("\u2212", "-"))
            doubles = [printed, *(abs(value) for value in self.printed.get(shortest(printed), []))]
            if not any(double in known or double in shares or near(double, follows) for double in doubles):
                around = text[max(0, match.start() - 40) : match.end() + 10]
                unexplained.append((around, doubles[:3]))
        return unexplained

    def following(self) -> Iterator[float]:
        """Yield what the page may compute from the answers."""
        for question, answer in self.answers:
            if isinstance(answer, dict):
                yield from FOLLOWS.get(question["look"], lambda answer: iter(()))(answer)


def all_of(page: Any) -> str:
    """Return the text of the view, folded parts included."""
    page.evaluate("for (const one of document.querySelectorAll('main details')) one.open = true")
    settled(page)
    text: str = page.locator("main").inner_text()
    return text + "\n"


def shortest(value: float) -> str:
    """Format a double below 1e21 as JavaScript does."""
    if value and value < 1e-6:
        mantissa, exponent = repr(value).split("e") if "e" in repr(value) else f"{value:e}".split("e")
        return f"{mantissa.removesuffix('.0')}e{int(exponent)}"
    plain = format(Decimal(repr(value)), "f")
    return plain.rstrip("0").rstrip(".") if "." in plain else plain


def near(value: float, ordered: np.ndarray) -> bool:
    at = int(np.searchsorted(ordered, value))
    return any(abs(value - candidate) <= ALIKE * abs(value) for candidate in ordered[max(0, at - 1) : at + 1])


@pytest.mark.parametrize("view", SELECTIONS)
def test_every_number_is_the_runs(
    page: Any, address: str, studied: Watched, view: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ETUDE_CACHE", str(studied.cache))
    generator = random.Random(f"every number of {view}")
    page.add_init_script(LISTEN)
    counted, unexplained = 0, []
    for _ in range(SELECTIONS[view]):
        selection = Selection(page, address, studied, view, generator)
        for question, answer in list(selection.answers):
            selection.compare_with_inspect(question, answer)
        unexplained += [(selection.at, *number) for number in selection.unexplained()]
        counted += len(NUMBER.findall(selection.text))
    assert unexplained == []
    assert counted > 20 * SELECTIONS[view]
