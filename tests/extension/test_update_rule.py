"""An update rule from outside src: trained with, resumed, replayed with proof, opened, and shown, as a built-in one.

Lion is defined in lion.py beside this file, and nowhere else.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lion import RULE
from rich.console import Console
from safetensors.torch import load_file
from typer.testing import CliRunner

from etude.cli.main import app
from etude.config import Settings, load_settings, with_values
from etude.device import Device
from etude.diagnose.machine.self_test import require_sound
from etude.diagnose.run.advice import lowered, sane
from etude.model.build import build_model
from etude.model.config import preset
from etude.train.loop import Loop
from etude.train.optimizer import UpdateRules, state_bytes
from etude.watch.one_weight import look_at_weight
from etude.watch.opened_step import open_step
from etude.watch.reconciliation import reconcile
from etude.watch.time_machine import TimeMachine
from etude.workflow import jobs
from serving import client_of
from waiting import PATIENCE
from watched import STEPS, Watched, train_run

FILE = Path(__file__).parent / "lion.py"
MATRIX = "model.layers.1.mlp.up_proj.weight"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """A llama, trained by Lion; the processes that tests start find it by ETUDE_PLUGINS."""
    run = train_run(tmp_path_factory.mktemp("lion"), "lion", {"train.optimizer": "lion"})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ETUDE_PLUGINS", str(FILE))
        yield run


@pytest.fixture(autouse=True)
def its_text(trained: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ETUDE_CACHE", str(trained.cache))


def settings_of(run: Watched) -> Settings:
    return load_settings(run.path / "run.toml")


def state_of(run: Path, step: int) -> dict[str, torch.Tensor]:
    return load_file(run / "checkpoints" / f"step-{step:08d}" / "optimizer.safetensors")


def test_it_is_lion_as_published() -> None:
    """Chen et al. 2023, algorithm 2, in float64."""
    config = preset("gpt2", vocab_size=19, hidden_size=16, max_position_embeddings=8,
                    num_hidden_layers=1, num_attention_heads=2)  # fmt: skip
    model = build_model(config)
    settings = with_values(
        Settings(), {"train.lr": 1e-3, "train.weight_decay": 0.1, "train.optimizer": "lion"}
    )
    rules = UpdateRules(model, settings.train, Device("cpu", "fp32", 1))
    assert [rule.name for rule in rules.rules] == ["lion"]
    generator = torch.Generator().manual_seed(3)
    w = {n: p.detach().double().numpy().copy() for n, p in model.named_parameters()}
    m = {n: np.zeros_like(value) for n, value in w.items()}
    for step in range(1, 6):
        for name, parameter in model.named_parameters():
            parameter.grad = torch.randn(parameter.shape, generator=generator)
            g, matrix = parameter.grad.double().numpy(), "embed_positions" not in name and parameter.ndim == 2
            lr = 1e-3 / step * (128 / 16 if matrix else 1)
            direction = np.sign(0.9 * m[name] + 0.1 * g) + (0.1 if parameter.ndim == 2 else 0) * w[name]
            w[name] -= lr * direction
            m[name] = 0.99 * m[name] + 0.01 * g
        rules.step(1 / step, momentum=0.9)
    for name, parameter in model.named_parameters():
        np.testing.assert_allclose(parameter.detach().numpy(), w[name], rtol=1e-5, atol=1e-7)


def test_it_trains_with_the_rate_that_it_gives_the_dial(trained: Watched) -> None:
    settings = settings_of(trained)
    assert (settings.train.optimizer, settings.train.lr) == ("lion", 0.002)
    assert settings.train.muon_lr == "auto"  # nothing in the run uses it
    losses = [trained.machine.recorded.loss_at(step) for step in (1, *range(31, 41))]
    assert np.mean(losses[1:]) < 0.9 * losses[0]


def test_its_checkpoint_holds_its_state_and_the_plan_counts_it(trained: Watched) -> None:
    state = state_of(trained.path, STEPS)
    model = trained.machine.empty_model()
    assert set(state) == {f"{name}.exp_avg" for name, _ in model.named_parameters()}
    assert sum(leaf.nbytes for leaf in state.values()) == state_bytes(model.config, "lion")


@pytest.mark.parametrize("stop", [1, 22])
def test_a_stopped_run_resumes_to_the_bit(trained: Watched, tmp_path: Path, stop: int) -> None:
    console = Console(file=io.StringIO(), width=120)
    settings = with_values(settings_of(trained), {"run.folder": str(tmp_path)})
    original = Loop.__init__

    def stopping(loop: Loop, *args: Any, **kwargs: Any) -> None:
        original(loop, *args, **kwargs)
        loop.should_stop = lambda: loop.state.step >= stop

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Loop, "__init__", stopping)
        part = jobs.grow(settings, console)
    assert (part.reason, part.step) == ("stopped", stop)
    rest = jobs.resume(part.run.path, console)
    assert (rest.reason, rest.step) == ("finished", STEPS)
    for name in ("model.safetensors", "optimizer.safetensors"):
        files = [path / "checkpoints" / f"step-{STEPS:08d}" / name for path in (part.run.path, trained.path)]
        assert files[0].read_bytes() == files[1].read_bytes(), name


@pytest.mark.parametrize("step", [1, 2, 23, STEPS])
def test_a_step_is_replayed_with_proof_and_explains_what_was_applied(trained: Watched, step: int) -> None:
    opened = open_step(trained.machine, step)
    assert opened.proof.holds
    reconciliation = reconcile(opened)
    assert reconciliation.holds, reconciliation
    (check,) = (check for check in reconciliation.checks if check.name == "update by the rule")
    assert check.tolerance < 0.01  # one weight of ten thousand that moved the other way is seen
    for name in (MATRIX, "model.layers.0.input_layernorm.weight", "model.embed_tokens.weight"):
        update = opened.parameter(name)
        assert update.rule is RULE
        assert bool(update.state_before) == (step > 1)


def test_a_number_of_it_is_written_out(trained: Watched) -> None:
    update = look_at_weight(trained.machine, MATRIX, (3, 7), [23]).steps[0]
    assert [term.symbol for term in update.terms] == ["ahead", "m", "direction"]
    assert abs(update.direction) == 1
    assert abs(update.difference) <= 2 * update.spacing
    text = repr(update)
    assert "by Lion" in text
    assert "direction   sign(" in text
    assert f"m           0.99 * {update.state_before['exp_avg']:+.9g} + 0.01 * " in text


def test_inspect_shows_it(trained: Watched) -> None:
    words = ["inspect", str(trained.path), "--step", "23", "--weight", f"{MATRIX}[3,7]", "--json"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    at = json.loads(result.output)["at"]
    assert (at["rule"], at["rule_title"], at["scale"], at["orthogonal"]) == ("lion", "Lion", 1.0, None)
    assert at["terms"][-1]["formula"] == ["sign", "ahead"]
    leaf = next(term for term in at["terms"] if term["leaf"] == "exp_avg")
    assert leaf["value"] == pytest.approx(at["state_after"]["exp_avg"], rel=1e-5)
    assert at["before"] + at["decay"] - at["lr"] * at["direction"] == pytest.approx(at["by_the_rule"])


def test_the_page_gets_its_terms_and_its_words(trained: Watched) -> None:
    """From the worker, a process that finds the rule by itself."""

    def answer(**question: Any) -> dict[str, Any]:
        response = client.post("/api/ask", json={"run": "lion", **question})
        answer: dict[str, Any] = json.loads(response.text.splitlines()[-1])
        assert "answer" in answer, answer
        return answer["answer"]  # type: ignore[no-any-return]

    with client_of(trained.path.parent) as client:
        assert client.get("/api/runs/lion").json()["optimizer"] == "lion"
        (rule,) = answer(look="rules")["rules"]
        assert (rule["name"], rule["title"]) == ("lion", "Lion")
        assert rule["code"][0]["text"].lstrip().startswith("@torch.no_grad()\n    def step(")
        assert rule["code"][0]["file"] == "lion.py"
        weight = answer(look="weight", step=23, name=MATRIX, index=[3, 7])["at"]
        assert [term["words"] for term in weight["terms"]] == [
            "a step ahead",
            "m, the mean of gradients",
            "direction, its sign",
        ]
        assert "sign of its direction" in weight["rule_summary"]
        unit = answer(look="unit", step=23, layer=1, unit=3, input=7)
        assert unit["bias"]["step"]["rule_title"] == "Lion"
        step = answer(look="step", step=23)
        assert {parameter["rule_title"] for parameter in step["parameters"]} == {"Lion"}


def test_the_doctor_knows_it(trained: Watched) -> None:
    settings = settings_of(trained)
    assert sane("train.lr", settings) == (0.002 / 1000, 0.002 * 8)
    assert lowered(settings, 4) == {"train.lr": 0.0005}
    for dtype in ("fp32", "bf16"):
        errors = require_sound(Device("cpu", dtype, 1), "lion").errors  # type: ignore[arg-type]
        assert 0 < errors["scale of update by Lion"] < 0.1
        assert not any(name.endswith(("AdamW", "Muon")) for name in errors)
    result = CliRunner().invoke(app, ["doctor", str(trained.path), "--json"])
    verdicts = {verdict["rule"]: verdict for verdict in map(json.loads, result.output.splitlines())}
    assert verdicts["learning rate too low"]["severity"] == "fine"
    assert "the dial's" not in verdicts["learning rate too high"]["finding"]  # which was not swept with it


def etude(*words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    plain = {name: value for name, value in os.environ.items() if name != "ETUDE_PLUGINS"}
    return subprocess.run(
        [sys.executable, "-m", "etude", *words],
        env=plain | variables,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )


def test_the_command_line_trains_with_it_in_two_processes_that_were_given_the_file(
    trained: Watched, tmp_path: Path
) -> None:
    """Once by its path, once as an entry point of an installed package."""
    more = ["--set", f"run.folder={tmp_path}", "--set", "train.steps=3", "--no-studio"]
    first = etude("train", "--config", str(trained.path / "run.toml"), *more, ETUDE_PLUGINS=str(FILE))
    assert first.returncode == 0, first.stderr
    packages = tmp_path / "packages"
    (packages / "lion_rule-1.0.dist-info").mkdir(parents=True)
    (packages / "lion.py").write_text(FILE.read_text())
    (packages / "lion_rule-1.0.dist-info" / "METADATA").write_text("Name: lion-rule\nVersion: 1.0\n")
    (packages / "lion_rule-1.0.dist-info" / "entry_points.txt").write_text("[etude.plugins]\nlion = lion\n")
    run = str(tmp_path / "lion")
    more = ["--set", "train.steps=5", "--no-studio"]
    second = etude("train", "--resume", run, *more, PYTHONPATH=str(packages))
    assert second.returncode == 0, second.stderr
    assert set(state_of(tmp_path / "lion", 5)) == set(state_of(trained.path, STEPS))
    machine = TimeMachine(Path(run))
    assert open_step(machine, 5).proof.holds


def test_without_the_file_one_line_says_what_is_missing(trained: Watched) -> None:
    done = etude("inspect", str(trained.path))
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "there is no update rule 'lion': choose muon or adamw, or name the module" in done.stderr
    assert "ETUDE_PLUGINS" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("raise ValueError('two\\nlines')", "cannot be imported (ValueError: two lines)"),
        (
            "from etude.train.rules import register\nregister(3)",
            "is refused: the update rule 'int' cannot be",
        ),
        ("import no_such_module", "cannot be imported (ModuleNotFoundError"),
    ],
)
def test_a_plugin_that_fails_is_one_line(tmp_path: Path, content: str, words: str) -> None:
    (tmp_path / "bad.py").write_text(content)
    done = etude(
        "train", "--dry-run", "--set", "train.optimizer=lion", ETUDE_PLUGINS=str(tmp_path / "bad.py")
    )
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert f"{tmp_path / 'bad.py'}' of ETUDE_PLUGINS {words}" in done.stderr, done.stderr


def test_a_plugin_is_not_imported_for_what_is_built_in(tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text("raise ValueError")
    done = etude("settings", ETUDE_PLUGINS=str(tmp_path / "bad.py"))
    assert done.returncode == 0
    code = "from etude.config import load_settings; load_settings(overrides=['train.optimizer=adamw'])"
    environment = {**os.environ, "ETUDE_PLUGINS": str(tmp_path / "bad.py")}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, timeout=PATIENCE)
