"""What etude inspect prints, writes as JSON and draws equals what the time machine computes."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from matplotlib.image import imread
from rich.console import Console
from typer.testing import CliRunner

from etude.cli.main import app
from etude.config import load_settings
from etude.errors import EtudeError, InputError
from etude.watch import api
from etude.workflow import jobs
from watched import Watched, train_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Watched:
    return train_run(tmp_path_factory.mktemp("inspected"), "llama", {})


@pytest.fixture(scope="module")
def window_run(tmp_path_factory: pytest.TempPathFactory) -> Watched:
    return train_run(tmp_path_factory.mktemp("inspected"), "mlp", {"model.preset": "mlp"})


def ask(run: Watched, *words: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("ETUDE_CACHE", str(run.cache))
    monkeypatch.setenv("COLUMNS", "160")
    result = CliRunner().invoke(app, ["inspect", str(run.path), *words])
    if isinstance(result.exception, EtudeError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def ask_json(run: Watched, *words: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(ask(run, *words, "--json", monkeypatch=monkeypatch))
    return answer


def test_a_step_is_shown_with_its_proof(run: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    output = ask(run, "--step", "21", monkeypatch=monkeypatch)
    opened = api.replay(run.path, 21)
    assert f"step 21: loss {opened.loss:.6f} nats per token" in output
    assert "bit for bit" in output
    assert "update applied again" in output
    assert "DIFFERS" not in output
    values = ask_json(run, "--step", "21", monkeypatch=monkeypatch)
    assert values["loss"] == opened.loss == run.machine.recorded.loss_at(21)
    assert values["proof"]["holds"] is True
    assert all(check["holds"] for check in values["reconciled"])
    assert [parameter["name"] for parameter in values["parameters"]] == list(opened.gradients)
    assert len(values["tokens"]) == 32
    last = ask_json(run, monkeypatch=monkeypatch)
    assert last["step"] == run.machine.recorded.last_step


def test_a_prediction_and_the_desired_token(run: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    values = ask_json(run, "--step", "30", "--token", "1:7", monkeypatch=monkeypatch)
    row = api.replay(run.path, 30).row(1)
    desired_id = int(row.targets[7])
    assert values["probability"] == pytest.approx(float(row.probabilities[7, desired_id]))
    assert values["loss"] == pytest.approx(float(row.losses[7]))
    by_token = {guess["token"]: guess for guess in values["guesses"]}
    desired = by_token[values["desired"]]
    assert desired["error"] == pytest.approx(values["probability"] - 1, abs=1e-6)
    assert all(
        guess["error"] == pytest.approx(guess["probability"], abs=1e-6)
        for guess in values["guesses"]
        if not guess["desired"]
    )
    assert f"{values['desired']!r}" in ask(run, "--step", "30", "--token", "1:7", monkeypatch=monkeypatch)


@pytest.mark.parametrize("words", [("--node", "1:5"), ("--node", "model.layers.1.mlp:5")])
def test_a_neuron(run: Watched, words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    values = ask_json(run, "--step", "21", *words, monkeypatch=monkeypatch)
    assert (values["layer"], values["unit"], values["step"]) == ("model.layers.1.mlp", 5, 21)
    gate = values["arithmetic"]["gate"]
    total = sum(term["term"] for term in gate["terms"]) + gate["bias"]
    assert total == pytest.approx(gate["sum"], rel=1e-9)
    assert gate["sum"] == pytest.approx(gate["forward_pass"], rel=1e-5, abs=1e-6)
    assert [moment["step"] for moment in values["history"]] == list(run.machine.recorded.checkpoints)
    assert "where it is most active" in ask(run, "--step", "21", *words, monkeypatch=monkeypatch)


def test_a_weight(run: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    weight = "model.layers.0.self_attn.q_proj.weight[3,5]"
    values = ask_json(run, "--weight", weight, "--step", "20", monkeypatch=monkeypatch)
    assert values["at"]["before"] + values["at"]["update"] == values["at"]["after"]
    assert values["at"]["by_the_rule"] == pytest.approx(values["at"]["after"], rel=1e-5)
    output = ask(run, "--weight", weight, "--step", "20", monkeypatch=monkeypatch)
    assert "new value" in output
    assert "orthogonal" in output


def test_a_prompt_at_any_step_and_of_any_folder(run: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    values = ask_json(run, "--prompt", "One day", "--step", "21", monkeypatch=monkeypatch)
    terms = sum(values["contributions"]["terms"].values())
    assert terms == pytest.approx(values["contributions"]["logit"], abs=1e-4)
    assert len(values["patterns"]) == len(values["lens"]) == 2
    newest = run.path / "checkpoints" / "step-00000040"
    elsewhere = Watched(newest, run.cache, run.machine)
    same = ask_json(elsewhere, "--prompt", "One day", monkeypatch=monkeypatch)
    assert same["guesses"] == ask_json(run, "--prompt", "One day", monkeypatch=monkeypatch)["guesses"]
    assert same["guesses"] != values["guesses"]
    assert "logit lens" in ask(run, "--prompt", "One day", monkeypatch=monkeypatch)
    with pytest.raises(InputError, match="has no steps"):
        ask(elsewhere, "--prompt", "One day", "--step", "3", monkeypatch=monkeypatch)
    with pytest.raises(InputError, match="inspect it with --prompt"):
        ask(elsewhere, monkeypatch=monkeypatch)
    assert "promotes" in ask(elsewhere, "--node", "1:5", monkeypatch=monkeypatch)
    assert "bit for bit" in values["where"]
    assert "step-00000040" in same["where"]


def test_a_neuron_along_any_text_of_any_folder(run: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    newest = Watched(run.path / "checkpoints" / "step-00000040", run.cache, run.machine)
    words = ("--node", "1:5", "--prompt", "One day the fox")
    values = ask_json(newest, *words, monkeypatch=monkeypatch)
    prompt = api.prompt(run.path, "One day the fox")
    expected = prompt.activation("model.layers.1.mlp.post")[0, :, 5]
    assert values["activation"] == expected.tolist()
    place = int(expected.abs().argmax())
    assert values["position"] == place
    assert values["arithmetic"]["activation"] == pytest.approx(float(expected[place]), rel=1e-5)
    assert "promotes" in ask(newest, *words, monkeypatch=monkeypatch)


def test_knobs_are_compared_and_forked(run: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    knob = "model.layers.0.mlp.gate_proj.bias[3]+2"
    values = ask_json(run, "--prompt", "One day", "--knob", knob, "--step", "21", monkeypatch=monkeypatch)
    assert values["losses_before"] != values["losses_after"]
    output = ask(run, "--step", "21", "--knob", knob, "--fork", "turned", monkeypatch=monkeypatch)
    forked = run.path.parent / "turned"
    assert f"etude train --resume {forked}" in output.replace("\n", " ")
    manifest = json.loads((forked / "manifest.json").read_text())
    assert manifest["parent"]["step"] == 21
    assert manifest["parent"]["turned"] == [knob]
    with pytest.raises(InputError, match="has no step after its first checkpoint yet"):
        ask(Watched(forked, run.cache, run.machine), monkeypatch=monkeypatch)
    outcome = jobs.resume(forked, Console(file=io.StringIO()))
    assert (outcome.reason, outcome.step) == ("finished", 40)
    machine = api.machine(forked)
    machine.go_to(30)
    assert machine.proof.holds
    assert machine.proof.compared
    with pytest.raises(InputError, match="choose one from 22 to 40"):
        machine.go_to(20)
    before = run.machine.go_to(21).model.get_parameter("model.layers.0.mlp.gate_proj.bias")[3].item()
    after = machine.go_to(21).model.get_parameter("model.layers.0.mlp.gate_proj.bias")[3].item()
    assert after == pytest.approx(before + 2, abs=1e-6)
    with pytest.raises(InputError, match="is an activation"):
        ask(run, "--knob", "model.layers.0.mlp.post[3]*0", "--fork", "other", monkeypatch=monkeypatch)
    assert 21 in machine.recorded.checkpoints, "the checkpoint that its first steps need is never pruned"
    shutil.rmtree(forked)


@pytest.mark.parametrize(
    "words",
    [
        ("--step", "9"),
        ("--step", "9", "--node", "0:3"),
        ("--step", "9", "--weight", "lm_head.weight[3,5]"),
        ("--step", "9", "--weight", "model.layers.0.mlp.gate_proj.bias[7]"),
        ("--prompt", "One $day\nand"),
    ],
)
def test_pictures(
    run: Watched, words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "picture.png"
    for more in ((), ("--dark",)):
        ask(run, *words, "--png", str(file), *more, monkeypatch=monkeypatch)
        pixels = imread(file)
        assert min(pixels.shape[:2]) > 200
        dark = pixels[0, 0, :3].max() < 0.3
        assert dark == bool(more)
        assert pixels[..., :3].std() > 0.02


def test_the_mlp_family_can_be_inspected(
    window_run: Watched, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for words in (("--step", "9"), ("--node", "model:3"), ("--token", "0:3"), ("--prompt", "One day")):
        assert ask_json(window_run, *words, monkeypatch=monkeypatch)
        ask(window_run, *words, monkeypatch=monkeypatch)
    ask(window_run, "--prompt", "One day", "--png", str(tmp_path / "x.png"), monkeypatch=monkeypatch)


def test_a_fork_has_the_settings_of_its_step(run: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ETUDE_CACHE", str(run.cache))
    path = run.path.parent / "changed"
    shutil.copytree(run.path, path)
    shutil.rmtree(path / "checkpoints" / "step-00000040")
    jobs.resume(path, Console(file=io.StringIO()), overrides=["train.lr=0.0007"])
    before, after = (api.fork(path, step, ["model.norm.weight[0]*1.5"], f"at-{step}") for step in (20, 35))
    assert load_settings(before.settings_file).train.lr == run.machine.recorded.settings.train.lr
    assert load_settings(after.settings_file).train.lr == 0.0007


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--step", "99"), "choose one from 1 to 40"),
        (("--step", "0"), "choose one from 1 to 40"),
        (("--node", "1"), "LAYER:UNIT"),
        (("--node", "9:1"), "layers"),
        (("--node", "1:9999"), "0 to 95"),
        (("--weight", "lm_head.weight"), "NAME"),
        (("--weight", "lm_hed.weight[1,2]"), "did you mean 'lm_head.weight'"),
        (("--weight", "lm_head.weight[1]"), "has shape"),
        (("--token", "1"), "ROW:POSITION"),
        (("--token", "99:1"), "rows 0 to 5"),
        (("--token", "1:99"), "positions 0 to 31"),
        (("--token", "1:1", "--weight", "lm_head.weight[1,1]"), "not both"),
        (("--knob", "lm_head.weight[1,2]=0"), "--prompt"),
        (("--prompt", "x", "--knob", "nothing=0"), "no parameter or activation is called"),
        (("--prompt", "x" * 400), "shorten it"),
        (("--prompt", "x", "--png", "x.jpg"), "look.png"),
        (("--token", "1:1", "--png", "x.png"), "--png"),
        (("--png", "."), "look.png"),
        (("--dark",), "give --png FILE"),
        (("--png", "no-such-folder/x.png"), "look.png"),
        (("--prompt", "x", "--knob", "lm_head.weight*1e39"), "turn it less"),
        (("--fork", "y", "--knob", "lm_head.weight*1e308"), "turn it less"),
        (("--fork", "y", "--knob", "lm_head.weight*1", "--prompt", "x"), "--prompt"),
        (("--fork", "", "--knob", "lm_head.weight*1"), "cannot name a run"),
    ],
)
def test_a_mistake_prints_one_line(
    run: Watched, words: tuple[str, ...], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError) as error:
        ask(run, *words, monkeypatch=monkeypatch)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
