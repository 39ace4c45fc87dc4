"""Runs with made-up scores of known truth: families, verdicts, table, page; and untrusted records."""

from __future__ import annotations

import csv
import html
import io
import json
import math
import re
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from rich.console import Console
from typer.testing import CliRunner

from etude.cli.emergence import emergence as command
from etude.config import to_toml
from etude.data.tokens.vocabulary import train_bpe
from etude.emergence.command import emergence
from etude.emergence.curves import Curve
from etude.emergence.simulated import Truth, study
from etude.emergence.study import Axis, LawOfStudy, law_of, load_study
from etude.emergence.verdict import Word
from etude.errors import InputError
from etude.evaluate.items import Probe, choice
from etude.evaluate.network_answerer import ModelAnswerer
from etude.evaluate.records import FILE, Where, write_records
from etude.evaluate.results import Exact, Measured, ProbeResult, measure
from etude.evaluate.statistics import mean, proportion
from networks import make_config, make_network
from resolved import resolved_settings

HOSTILE = "<script>alert(1)</script> [red]\x1b[31m \"'&"


def probe(name: str, condition: str = "", number: int = 0) -> Probe:
    items = tuple(choice(f"{number} {at} ", "yes", "no") for at in range(4))
    return Probe(name, condition, f"Is it {name}?", items, held_out="None of it was in the training text.")


def level(credits: Sequence[float], margins: Sequence[float]) -> Measured:
    return Measured(proportion(credits), mean(margins), 0.5, None, 0)


AT_CHANCE = level([1.0, 0.0] * 50, [0.1, -0.1] * 50)


def result(of_probe: Probe, curve: Curve, at: int) -> ProbeResult:
    exact = None
    if curve.exact is not None and curve.independence is not None:
        exact = Exact(curve.exact[at], curve.exact[at], curve.independence[at], mean([1.0, 1.1]))
    model = Measured(curve.accuracy[at], curve.margin[at], 0.3, exact, 0)
    return ProbeResult(of_probe, model, AT_CHANCE, AT_CHANCE)


def make_runs(
    folder: Path,
    truths: dict[str, Truth],
    *,
    num_seeds: int = 3,
    hidden_size: int = 64,
    number: int = 0,
    title: str = "run",
) -> list[Path]:
    """Write run folders with run.toml and probes.jsonl, and nothing else."""
    runs = []
    studies = {
        name: study(truth, np.random.default_rng([7, at]), num_seeds=num_seeds)
        for at, (name, truth) in enumerate(truths.items())
    }
    for seed in range(num_seeds):
        run = folder / f"{title}-{hidden_size}-{seed}"
        run.mkdir(parents=True)
        settings = resolved_settings(
            {"run.seed": seed, "run.name": run.name, "model.hidden_size": hidden_size}
        )
        (run / "run.toml").write_text(to_toml(settings))
        parameters = 12 * hidden_size**2 * 4
        for name, curves in studies.items():
            for at, step in enumerate(curves[seed].x):
                loss = (
                    1.3
                    + 4 / parameters**0.15
                    + 3 / (1 + step) ** 0.3
                    + 0.003 * math.sin(7 * seed + parameters)
                )
                where = Where(
                    seed,
                    int(step),
                    int(step) * 2048,
                    step * 2048 * 6 * parameters,
                    parameters,
                    loss,
                    "test 1",
                )
                write_records(run, [result(probe(name, number=number), curves[seed], at)], where)
        runs.append(run)
    return runs


TRUTHS = {
    "tense": Truth.SMOOTH,
    "induction": Truth.SHARP,
    "addition": Truth.THRESHOLD,
    "reversal": Truth.BIMODAL,
    "parity": Truth.NOISE,
}
EXPECTED = {
    "tense": Word.SMOOTH,
    "induction": Word.EMERGED,
    "addition": Word.METRIC,
    "reversal": Word.MIXED,
    "parity": Word.NOT_YET,
}


def judged(runs: Sequence[Path], *arguments: object) -> tuple[str, str]:
    """Return what the command prints on a wide terminal, and its table alone."""
    out = io.StringIO()
    emergence(list(runs), *arguments, console=Console(file=out, width=200))  # type: ignore[arg-type]
    text = out.getvalue()
    return text, text.split("verdict", 1)[1]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return make_runs(tmp_path_factory.mktemp("runs"), TRUTHS)


@pytest.fixture(scope="module")
def sizes(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("sizes")
    return [
        run
        for size in (32, 64, 96, 128)
        for run in make_runs(folder, {"induction": Truth.SHARP}, hidden_size=size)
    ]


@pytest.fixture(scope="module")
def report(runs: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report") / "out"
    judged(runs, "steps", folder)
    return folder


def test_every_truth_has_its_row(runs: list[Path]) -> None:
    _, table = judged(runs)
    for name, word in EXPECTED.items():
        row = next(line for line in table.splitlines() if line.startswith(name))
        assert row.rstrip().endswith(word.value), row
        assert " 0.500 " in row


def test_fewer_seeds_prove_nothing(runs: list[Path]) -> None:
    assert Word.ONE_SEED.value in judged(runs[:1])[1]
    assert Word.TWO_SEEDS.value in judged(runs[:2])[1]
    assert not re.search(r"\bemerged\b", judged(runs[:2])[1])
    assert judged([runs[0], runs[0]])[0] == judged(runs[:1])[0]


def test_one_is_no_plural(runs: list[Path], tmp_path: Path) -> None:
    assert re.match(r"1 run: .* parameters x 1 seed\n", judged(runs[:1], "steps", tmp_path / "out")[0])
    assert re.match(r"3 runs: .* parameters x 3 seeds\n", judged(runs)[0])
    page = (tmp_path / "out" / "index.html").read_text()
    assert re.search(r"<p>1 run: .* parameters, 1 seed\.</p>", page.replace("\n", " "))


@pytest.mark.parametrize("width", [80, 100])
def test_no_name_is_cut_in_a_narrow_terminal(sizes: list[Path], width: int) -> None:
    out = io.StringIO()
    emergence(sizes, console=Console(file=out, width=width))
    assert "…" not in out.getvalue()
    assert out.getvalue().count("\ninduction") >= 4
    assert all(len(line) <= width for line in out.getvalue().split("verdict")[0].splitlines())


def test_seeds_make_a_family_and_other_settings_another(sizes: list[Path], runs: list[Path]) -> None:
    study = load_study(sizes)
    assert [len(family.runs) for family in study.families] == [3, 3, 3, 3]
    assert [family.num_parameters for family in study.families] == [12 * s**2 * 4 for s in (32, 64, 96, 128)]
    assert [run.seed for run in study.families[0].runs] == [0, 1, 2]
    assert {ability.verdict.word for ability in study.abilities} == {Word.EMERGED}
    assert Axis.PARAMETERS in study.axes()
    assert Axis.PARAMETERS not in load_study(runs).axes()


def test_the_same_seed_twice_is_refused(tmp_path: Path) -> None:
    first = make_runs(tmp_path, {"parity": Truth.NOISE}, num_seeds=1)
    again = make_runs(tmp_path, {"parity": Truth.NOISE}, num_seeds=1, title="again")
    with pytest.raises(InputError, match="same seed 0"):
        load_study([*first, *again])


def test_other_items_are_not_compared(tmp_path: Path) -> None:
    first = make_runs(tmp_path, {"parity": Truth.NOISE, "tense": Truth.NOISE}, num_seeds=1)
    for number, name in enumerate(("parity", "tense")):
        made = make_runs(tmp_path / name, {name: Truth.NOISE}, hidden_size=32, number=number, num_seeds=1)
        study = load_study([*first, *made])
        same = number == 0
        assert {a.title for a in study.abilities} == ({"parity", "tense"} if same else {"parity"})
        assert any("answered different items" in note for note in study.notes) is not same
        if not same:
            with pytest.raises(InputError, match="nothing to compare"):
                load_study([*make_runs(tmp_path / "b", {name: Truth.NOISE}, num_seeds=1), *made])


def test_changes_are_shown_on_the_requested_axis(runs: list[Path]) -> None:
    study = load_study(runs)
    ability = next(ability for ability in study.abilities if ability.title == "induction")
    steps, tokens = (ability.changes(axis) for axis in (Axis.STEPS, Axis.TOKENS))
    for step, token, found in zip(steps, tokens, ability.verdict.seeds, strict=True):
        assert step == found.changed_at
        assert step is not None
        assert token == pytest.approx(2048 * step)
    losses = ability.changes(Axis.LOSS)
    for value, records in zip(losses, ability.series, strict=True):
        assert value is not None
        assert records[-1].where.val_loss < value < records[0].where.val_loss
    tense = next(ability for ability in study.abilities if ability.title == "tense")
    assert tense.changes(Axis.STEPS) == [None] * 3
    assert "change at (loss)" in judged(runs, "loss")[0]


def test_the_law_foretells_the_largest(sizes: list[Path]) -> None:
    law = law_of(load_study(sizes))
    assert isinstance(law, LawOfStudy)
    assert law.predicted is not None
    assert law.largest == 12 * 128**2 * 4
    assert np.mean(law.measured) == pytest.approx(law.predicted.value, rel=0.02)
    text, _ = judged(sizes, "parameters")
    assert "loss law: L(N)" in text
    assert "predicted for 786 k" in text


def test_wrong_requests_are_refused(runs: list[Path], tmp_path: Path) -> None:
    for against, match in (("epochs", "steps, tokens"), ("parameters", "several sizes")):
        with pytest.raises(InputError, match=match):
            judged(runs, against)
    with pytest.raises(InputError, match="no runs"):
        load_study([])
    with pytest.raises(InputError, match="not a run folder"):
        load_study([tmp_path])
    with pytest.raises(InputError, match="not a run folder"):
        load_study([Path("a\0b")])
    (tmp_path / "file").write_text("")
    out = io.StringIO()
    with pytest.raises(InputError, match="is a file"):
        emergence(runs, "steps", tmp_path / "file", console=Console(file=out))
    assert not out.getvalue()  # nothing is printed before the check
    (runs[0] / "run.toml").rename(tmp_path / "run.toml")
    try:
        with pytest.raises(InputError, match="etude eval"):
            load_study([tmp_path])
    finally:
        (tmp_path / "run.toml").rename(runs[0] / "run.toml")


class Page(HTMLParser):
    """Collect tags, their nesting, and the addresses they link to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.addresses: list[str] = []
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attributes if name in ("href", "src", "action")]
        assert not any(name.startswith("on") for name, _ in attributes)
        if tag not in {"meta", "input", "br", "line", "circle", "path"}:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in {"line", "circle", "path"} or self.open[-1] == tag:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def test_the_page_is_self_contained(report: Path) -> None:
    page = Page((report / "index.html").read_text())
    assert not page.open
    assert "script" not in page.tags
    assert all(address.startswith("#") or (report / address).is_file() for address in page.addresses)
    assert "http" not in (report / "index.html").read_text().replace("http-equiv", "")
    assert page.tags.count("svg") == len(TRUTHS) * 2 * 4
    text = " ".join(page.texts)
    for name, word in EXPECTED.items():
        assert name in text
        assert word.value in text
    for said in (
        "chance",
        "n-gram 0.50",
        "random 0.50",
        "seed 2",
        "independently",
        "two thirds",
        "BIC for it",
    ):
        assert said in text


def test_the_pictures_show_every_point(report: Path, runs: list[Path]) -> None:
    study = load_study(runs)
    points = sum(len(records) for ability in study.abilities for records in ability.series)
    text = (report / "index.html").read_text()
    assert text.count("<circle") == points * 2 * 4
    assert text.count("change point at") == 4 * sum(a.verdict.num_changed for a in study.abilities)
    heights = [float(y) for y in re.findall(r'cy="([\d.]+)"', text)]
    assert min(heights) >= 0
    assert max(heights) <= 250


def test_tables_for_other_programs(report: Path, runs: list[Path]) -> None:
    study = load_study(runs)
    rows = list(csv.DictReader(io.StringIO((report / "scores.csv").read_text())))
    assert len(rows) == sum(len(records) for ability in study.abilities for records in ability.series)
    first = study.abilities[0].series[0][0]
    assert float(rows[0]["margin"]) == first.model.margin.value
    assert rows[0]["items"] == first.items
    verdicts = json.loads((report / "verdicts.json").read_text())
    assert {one["ability"]: one["verdict"] for one in verdicts["abilities"]} == {
        name: word.value for name, word in EXPECTED.items()
    }


def test_untrusted_words_are_text(tmp_path: Path) -> None:
    made = make_runs(tmp_path, {HOSTILE: Truth.NOISE, "=1+1": Truth.NOISE}, num_seeds=1)
    text, _ = judged(made, "steps", tmp_path / "out")
    assert "\x1b" not in text
    assert "[red]" in text
    content = (tmp_path / "out" / "index.html").read_text()
    assert "\x1b" not in content
    assert "script" not in Page(content).tags
    assert html.escape("<script>alert(1)</script>") in content
    assert "'=1+1" in (tmp_path / "out" / "scores.csv").read_text()


def test_extreme_numbers_make_a_page(tmp_path: Path) -> None:
    run = make_runs(tmp_path, {"parity": Truth.NOISE}, num_seeds=1)[0]
    lines = [json.loads(line) for line in (run / FILE).read_text().splitlines()]
    for at, line in enumerate(lines):
        line["margin"] |= {"value": 1e9 * (-1) ** at, "standard_error": None, "low": None, "high": None}
        line |= {"flops": 1e40 if at else 0, "val_loss": 1e6 if at else 0, "num_parameters": 0}
    lines += [{**lines[0], "step": 2**62 + at} for at in range(1000)]
    (run / FILE).write_text("\n".join(map(json.dumps, lines)))
    judged([run], "loss", tmp_path / "out")
    content = (tmp_path / "out" / "index.html").read_text()
    assert "nan" not in content.lower()
    assert max(len(records) for ability in load_study([run]).abilities for records in ability.series) <= 200


def test_one_point_is_a_page_too(tmp_path: Path) -> None:
    run = make_runs(tmp_path, {"parity": Truth.NOISE}, num_seeds=1)[0]
    (run / FILE).write_text((run / FILE).read_text().splitlines()[0] + "\n{torn")
    text, _ = judged([run], "tokens", tmp_path / "out")
    assert Word.ONE_SEED.value in text
    assert not Page((tmp_path / "out" / "index.html").read_text()).open


def test_a_network_that_was_trained(tmp_path: Path) -> None:
    """The scores of a small network during training, through the command line's own function."""
    texts = ["The sun is warm", "The sky is red"]
    tokenizer = train_bpe(texts * 4, 270, "llama3")
    model = make_network(make_config("llama", vocab_size=tokenizer.vocab_size), 1)
    ids = torch.tensor(
        [[id for text in texts for id in (tokenizer.roles.document_id, *tokenizer.encode(text))]]
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    items = (choice("The sun is ", "warm", "zqxj"), choice("The sky is ", "red", "wvk"))
    of_probe = Probe("words", "", "Which of two is a word?", items, per_token=True)
    run = tmp_path / "learned"
    run.mkdir()
    (run / "run.toml").write_text(to_toml(resolved_settings({"run.name": "learned"})))
    for step in range(33):
        if step & (step - 1) == 0:  # 0 and the powers of two
            found = measure(of_probe, ModelAnswerer(model, tokenizer).answer(items))
            where = Where(1337, step, step * 60, 1e6 * step, 30_000, None, "own 1")
            write_records(run, [ProbeResult(of_probe, found, None, None)], where)
        logits = model(ids[:, :-1]).flatten(0, 1)
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(logits, ids[0, 1:]).backward()
        optimizer.step()
    app = typer.Typer()
    app.command()(command)
    outcome = CliRunner().invoke(app, [str(run), "--report", str(tmp_path / "out")])
    assert outcome.exit_code == 0, outcome.output
    assert "one seed" in outcome.output
    assert "not measured" in outcome.output
    assert (tmp_path / "out" / "index.html").is_file()
    study = load_study([run])
    curve = study.abilities[0].curves[0]
    assert curve.x == (0, 1, 2, 4, 8, 16, 32)
    assert curve.margin[-1].value > max(0.3, curve.margin[0].value)
    assert Axis.LOSS not in study.axes()
    with pytest.raises(InputError, match="no validation loss"):
        judged([run], "loss")
