"""A probe in one file outside ``src`` is run by ``etude eval``, compared with its nulls, stored, and shown.

It is defined in sentence_starts.py beside this file. A fixture imports it, and unregisters it after each test: a probe
that stays registered would run in the tests of the suite.
"""

from __future__ import annotations

import io
import json
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from etude.data.primer.generator import generate
from etude.errors import InputError
from etude.evaluate.answerers import ItemScore
from etude.evaluate.command import EvaluationRequest, evaluate
from etude.evaluate.examined_run import ExaminedRun
from etude.evaluate.items import Item, Probe, choice
from etude.evaluate.questions import questions_for
from etude.evaluate.records import read_records
from etude.evaluate.results import measure
from etude.evaluate.task_probes import task_probes
from etude.evaluate.text_probes.passages import Material
from etude.evaluate.text_probes.proposal import Draft, Proposal, ready
from etude.evaluate.text_probes.suite import text_probes
from etude.evaluate.text_probes.training import stretches
from etude.registry import TASK_PROBES, TEXT_PROBES
from etude.run.checkpoints import list_checkpoints, step_of
from serving import client_of
from waiting import PATIENCE
from watched import Watched, train_run

FILE = Path(__file__).parent / "sentence_starts.py"
TITLE = "sentence starts"
ITEMS = 16


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Watched:
    return train_run(tmp_path_factory.mktemp("probed"), "probed", {})


@pytest.fixture(autouse=True)
def _its_text(run: Watched, _private_cache: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ETUDE_CACHE", str(run.cache))


@pytest.fixture(autouse=True)
def _registries(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test registers is forgotten after it."""
    for registry in (TEXT_PROBES, TASK_PROBES):
        monkeypatch.setattr(registry, "_known", dict(registry._known))


@pytest.fixture
def plugin(
    _registries: None, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[Material], list[Proposal]]]:
    monkeypatch.syspath_prepend(FILE.parent)
    import sentence_starts

    yield sentence_starts.sentence_starts
    del sys.modules["sentence_starts"]


def etude(*words: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "etude", *map(str, words)],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        env=os.environ | environment,
    )


def eval_json(run: Path, **environment: str) -> dict[str, Any]:
    done = etude("eval", run, "--suite", "text", "--items", ITEMS, "--json", **environment)
    assert done.returncode == 0, done.stderr
    values: dict[str, Any] = json.loads(done.stdout)
    return values


def test_eval_asks_it_beside_the_others_whose_items_stay_the_same(run: Watched) -> None:
    with_it = eval_json(run.path, ETUDE_PLUGINS=str(FILE))
    (probe,) = (probe for probe in with_it["probes"] if probe["probe"] == TITLE)
    assert probe["chance"] == 0.5
    assert ITEMS // 2 < probe["num_items"] <= ITEMS
    assert probe["label"]
    for null in ("counting", "random"):
        assert 0 <= probe[null]["accuracy"]["value"] <= 1
    assert (run.path / "probes.jsonl").read_text().count(f'"{TITLE}"') == 1

    without = eval_json(run.path)
    assert TITLE not in {probe["probe"] for probe in without["probes"]}
    others = {(probe["probe"], probe["condition"]): probe["items"] for probe in without["probes"]}
    assert (
        others.items()
        <= {(probe["probe"], probe["condition"]): probe["items"] for probe in with_it["probes"]}.items()
    )
    assert without["questions"] != with_it["questions"]


def test_every_checkpoint_is_asked_once_and_the_page_shows_the_curve(
    run: Watched, plugin: Callable[[Material], list[Proposal]]
) -> None:
    request = EvaluationRequest(run.path, ("text",), every_checkpoint=True, num_items=ITEMS)
    out = io.StringIO()
    evaluate(request, Console(file=out, width=160))
    assert TITLE in out.getvalue()
    steps = [step_of(checkpoint) for checkpoint in list_checkpoints(run.path / "checkpoints")]
    records = [record for record in read_records(run.path).records if record.title == TITLE]
    assert sorted({record.where.step for record in records}) == steps
    assert {record.where.suite for record in records} == {"text"}
    with client_of(run.path.parent) as client:
        abilities = {
            ability["title"]: ability for ability in client.get(f"/api/runs/{run.path.name}/abilities").json()
        }
    ability = abilities[TITLE]
    assert ability["steps"] == steps
    assert ability["asks"] == "A capital or a small letter: which of these continues the text?"
    assert (ability["chance"], ability["num_items"]) == (0.5, records[-1].num_items)


def probe_of(train: list[str], held_out: list[str]) -> Probe:
    suite = text_probes(lambda: train, held_out, max_items=64, context_chars=120)
    (probe,) = (probe for probe in suite.probes if probe.name == TITLE)
    return probe


@pytest.fixture
def texts() -> list[str]:
    return [tale.text for tale in generate(5, max_bytes=200_000)]


def test_its_items_are_of_the_text_and_no_preference_is_worth_anything(
    plugin: Callable[[Material], list[Proposal]], texts: list[str]
) -> None:
    probe = probe_of(texts[:100], texts[100:])
    whole = "\0".join(texts[100:])
    assert len(probe.items) == 64
    for item in probe.items:
        assert item.answer.given + item.answer.said in whole
        assert len(item.answer.given + item.answer.said) <= 120
        assert len({candidate.said.casefold() for candidate in item.candidates}) == 1
    for preference in (str.istitle, str.islower):
        scores = [
            ItemScore(
                np.array(
                    [0.0 if preference(candidate.said.strip()) else -1.0 for candidate in item.candidates]
                ),
                np.array([1] * 2),
                np.zeros(1),
                np.empty(0),
            )
            for item in probe.items
        ]
        assert measure(probe, scores).accuracy.value == 0.5


def test_what_training_contains_is_dropped(
    plugin: Callable[[Material], list[Proposal]], texts: list[str]
) -> None:
    clean = probe_of(texts[:100], texts[100:])
    given = clean.items[0].answer.given
    tainted = probe_of([*texts[:100], f"Long ago. {given}, they say."], texts[100:])
    assert tainted.dropped > clean.dropped
    assert all(item.answer.given != given for item in tainted.items)


def test_a_title_that_another_has_is_refused(run: Watched) -> None:
    examined = ExaminedRun.of(run.path)
    assert examined is not None
    TEXT_PROBES._known["again"] = TEXT_PROBES.get("word-order")
    with pytest.raises(
        InputError, match="two probes are called 'word order, far': rename the one that a plugin"
    ):
        questions_for(examined.data, ("text",), ITEMS, 32)


def proposal(*drafts: Draft, known_by: frozenset[str] | None = None) -> Proposal:
    make, known = ready(drafts)
    return Proposal("x", "", "?", "", make, "no", known_by=known if known_by is None else known_by)


def draft(given: str = "A text that is long enough to be searched for", **changes: Any) -> Draft:
    items: tuple[Item, ...] = (choice(given, " yes", " no"),)
    return replace(Draft(items, stretches(given)), **changes)


def fails(*arguments: Any) -> Any:
    raise ValueError("several\nlines")


def by_chance(material: Material) -> list[Proposal]:
    return [proposal(draft(f"A text that is long enough, number {random.random()}"))]


INCOMPLETE: dict[str, tuple[Any, str]] = {
    "no function": (3, "a probe from text is a function from a Material to proposals, not 3"),
    "a failure": (fails, r"the probe fails fails \(ValueError: several lines\)"),
    "no list": (lambda material: proposal(draft()), "must return a list of"),
    "nothing at all": (lambda material: [], "must return a list of"),
    "chance": (by_chance, "it makes other items from the same text and seed: draw by `Material.rng`"),
    "too long": (
        lambda material: [proposal(draft("word " * 60))],
        "has 304 characters, and `context_chars` is 96",
    ),
    "not searched for": (lambda material: [proposal(draft(known_by=()))], "has no `known_by`"),
    "not announced": (
        lambda material: [proposal(draft(), known_by=frozenset())],
        "`known_by` of 'x' lacks 'A text",
    ),
    "too short": (lambda material: [proposal(draft(known_by=("short",)))], "shorter than 16 characters"),
    "drafts that fail": (lambda material: [replace(proposal(), drafts=fails)], "`drafts` of 'x' fails"),
}


@pytest.mark.parametrize("case", INCOMPLETE)
def test_an_incomplete_probe_is_refused_with_what_is_wrong(case: str) -> None:
    make, words = INCOMPLETE[case]
    with pytest.raises(InputError, match=words) as raised:
        TEXT_PROBES.register("incomplete", make)
    assert len(str(raised.value).splitlines()) == 1
    assert "incomplete" not in TEXT_PROBES.names()


def test_a_probe_that_fails_is_one_line_of_the_command_line(run: Watched, tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text(
        "from etude.registry import TEXT_PROBES\nTEXT_PROBES.register('bad', 3)\n"
    )
    refused = etude("eval", run.path, "--suite", "text", ETUDE_PLUGINS=str(tmp_path / "bad.py"))
    assert refused.returncode == 2
    assert len(refused.stderr.splitlines()) == 1
    assert (
        f"{tmp_path / 'bad.py'}' of ETUDE_PLUGINS is refused: a probe from text is a function"
        in refused.stderr
    )


def items(count: int, *, by: Callable[[], object] = lambda: "") -> tuple[Item, ...]:
    return tuple(choice(f"{number}{by()}", "a", "b") for number in range(count))


def test_probes_of_tasks_can_be_added_too() -> None:
    before = task_probes(0, 32)
    TASK_PROBES.register("more", lambda seed, most: [Probe("more", f"seed {seed}", "?", items(most))])
    after = task_probes(0, 32)
    assert [probe.hash for probe in after[:-1]] == [probe.hash for probe in before]
    assert after[-1].title == "more, seed 0"


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (None, "a probe of tasks is a function from a seed and a number of items"),
        (lambda seed, most: [], "must return a list of"),
        (lambda seed, most: [Probe("x", "", "?", items(most + 1))], "makes 33 items of 'x' where 16 to 32"),
        (lambda seed, most: [Probe("x", "", "?", items(2))], "makes 2 items of 'x'"),
        (
            lambda seed, most: [Probe("x", "", "?", items(most, by=random.random))],
            "other items from the same seed",
        ),
        (fails, r"the probe fails fails \(ValueError"),
    ],
    ids=["no function", "nothing", "too many", "too few", "chance", "a failure"],
)
def test_an_incomplete_probe_of_tasks_is_refused(make: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        TASK_PROBES.register("incomplete", make)


@pytest.mark.parametrize("registry", [TEXT_PROBES, TASK_PROBES], ids=["text", "tasks"])
def test_the_built_in_probes_are_complete(registry: Any) -> None:
    from etude.evaluate.task_probes import trial as of_tasks
    from etude.evaluate.text_probes import trial as from_text

    require = (from_text if registry is TEXT_PROBES else of_tasks).require_complete
    for name in registry._builtin:
        require(registry.get(name))
