"""Any step of a run is replayed bit for bit, and the opened step explains the applied update."""

from __future__ import annotations

import io
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from etude.config import load_settings
from etude.data.primer.generator import documents
from etude.errors import InputError
from etude.files import read_object
from etude.model.build import build_model
from etude.model.language_model import LOGITS
from etude.run.checkpoints import list_checkpoints, step_of
from etude.train.checksum import checksum
from etude.train.loop import TrainState
from etude.watch.opened_step import open_step
from etude.watch.proof import machine_differences
from etude.watch.reconciliation import reconcile
from etude.watch.time_machine import TimeMachine
from etude.workflow import jobs

STEPS = 56
KINDS: dict[str, dict[str, Any]] = {
    "muon": {},
    "adamw, accumulated": {"train.optimizer": "adamw", "train.micro_batch_rows": 2},
    "dropout, documents apart": {"train.dropout": 0.2, "data.cross_document_attention": False},
    "qwen3, accumulated": {"model.preset": "qwen3", "train.micro_batch_rows": 3},
    "gpt2, adamw": {"model.preset": "gpt2", "train.optimizer": "adamw"},
    "mlp": {"model.preset": "mlp"},
    "muon, bf16": {"device.dtype": "bf16", "train.dropout": 0.1},
    "gpt2, bf16": {"model.preset": "gpt2", "device.dtype": "bf16"},
    "mlp, bf16": {"model.preset": "mlp", "device.dtype": "bf16"},
}
Train = Callable[..., Path]


@pytest.fixture(scope="module")
def train(tmp_path_factory: pytest.TempPathFactory) -> Train:
    """Train a tiny run, once for each kind."""
    folder = tmp_path_factory.mktemp("replayed")
    texts = folder / "text"
    texts.mkdir()
    for number, document in enumerate(documents(3, 60_000)):
        (texts / f"{number:03d}.txt").write_text(document.text)
    runs: dict[str, Path] = {}

    def trained(name: str, **changes: Any) -> Path:
        if name not in runs:
            values = {
                "data.sources": (str(texts),),
                "data.workers": 1,
                "tokenizer.vocab_size": 300,
                "model.size": "nano",
                "model.hidden_size": 32,
                "train.steps": STEPS,
                "train.context": 32,
                "train.batch_rows": 6,
                "train.eval_every": 50,
                "train.sample_every": 50,
                "train.checkpoint_every": 24,
                "train.eval_tokens": 500,
                "train.checksum_every": 1,
                "run.folder": str(folder / "runs"),
                "run.name": f"run-{len(runs)}",
                "device.compile": False,
                "device.threads": 1,
            }
            settings = load_settings(values=values | changes)
            runs[name] = jobs.grow(settings, Console(file=io.StringIO())).run.path
        return runs[name]

    return trained


@pytest.mark.parametrize(
    ("kind", "count"), [(kind, 50 if kind in ("muon", "adamw, accumulated") else 10) for kind in KINDS]
)
def test_steps_in_any_order_give_the_same_bits(train: Train, kind: str, count: int) -> None:
    machine = TimeMachine(train(kind, **KINDS[kind]), cache_bytes=20_000_000)
    generator = random.Random(kind)
    for step in generator.sample(range(1, STEPS + 1), count):
        state = machine.go_to(step)
        assert checksum(state.model) == machine.recorded.checksums[step]
        assert machine.proof.holds, str(machine.proof)
        if machine.proof.compared:
            assert machine.proof.compared[-1].step == step
            assert "bit for bit" in str(machine.proof)
    assert machine.states.num_bytes <= 20_000_000


def test_a_compiled_run_is_replayed_by_its_compiled_graph(train: Train) -> None:
    compiled = {"device.compile": "auto", "train.micro_batch_rows": 3, "train.dropout": 0.1}
    path = train("compiled", **compiled)
    machine = TimeMachine(path)
    for step in (50, 7, 8, 30, 56):
        machine.go_to(step)
        assert machine.proof.holds, str(machine.proof)
    assert machine.era.compiled == read_object(path / "manifest.json")["sessions"][0]["compiled"]
    reconciliation = reconcile(open_step(machine, 20))
    assert reconciliation.holds, str(reconciliation)


@pytest.mark.parametrize("kind", KINDS)
def test_an_opened_step_explains_what_was_applied(train: Train, kind: str) -> None:
    machine = TimeMachine(train(kind, **KINDS[kind]))
    for step in (1, 2, 40):
        opened = open_step(machine, step)
        assert opened.proof.holds
        assert opened.loss == machine.recorded.loss_at(step)
        reconciliation = reconcile(opened)
        assert reconciliation.holds, str(reconciliation)
        assert {check.name: check.difference for check in reconciliation.checks}["update applied again"] == 0
        for name in opened.gradients:
            update = opened.parameter(name)
            assert torch.equal((update.before.double() + update.update).float(), update.after)


def test_gradients_are_those_of_float64(train: Train) -> None:
    """Within 1e-5 of a second network in float64, with PyTorch's own loss and all rows in one pass."""
    machine = TimeMachine(train("muon"))
    opened = open_step(machine, 33)
    model = build_model(machine.era.plan.model).double()
    model.load_state_dict({name: weight.double() for name, weight in opened.before.weights.items()})
    inputs = torch.cat([part.inputs for part in opened.batch])
    targets = torch.cat([part.targets for part in opened.batch])
    loss = torch.nn.functional.cross_entropy(model(inputs).flatten(0, 1), targets.flatten())
    loss.backward()
    assert opened.loss == pytest.approx(loss.item(), rel=1e-6)
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None
        difference = (opened.gradients[name] - parameter.grad).norm()
        assert difference <= 1e-5 * parameter.grad.norm(), name


def test_a_row_has_its_predictions_activations_and_gradients(train: Train) -> None:
    machine = TimeMachine(train("muon"))
    opened = open_step(machine, 21)
    rows = [opened.row(row) for row in range(opened.num_rows)]
    total = sum(float(row.losses.sum()) for row in rows) / opened.num_targets
    assert total == pytest.approx(opened.loss, rel=1e-5)
    for row in rows:
        torch.testing.assert_close(row.probabilities.sum(-1), torch.ones(32))
        chosen = row.probabilities.gather(-1, row.targets[:, None])[:, 0]
        torch.testing.assert_close(-chosen.log(), row.losses, rtol=1e-4, atol=1e-5)
        # The gradient at the logits is predicted minus desired, divided by the number of targets in the batch.
        desired = torch.nn.functional.one_hot(row.targets, row.probabilities.shape[-1])
        expected = (row.probabilities - desired) / opened.num_targets
        torch.testing.assert_close(row.gradients[LOGITS][0], expected, rtol=1e-4, atol=1e-8)
    only = opened.row(2, lambda name: name.endswith("pattern"))
    assert set(only.activations) - {LOGITS} == {
        f"model.layers.{layer}.self_attn.pattern" for layer in range(machine.era.plan.model.num_hidden_layers)
    }
    with pytest.raises(InputError, match="rows 0 to 5"):
        opened.row(6)
    with pytest.raises(InputError, match=r"did you mean 'model\.layers\.0\.mlp\.down_proj\.weight'"):
        opened.parameter("model.layers.0.mlp.down_proj.weigt")


def test_a_replay_crosses_a_change_of_settings(train: Train, tmp_path: Path) -> None:
    import shutil

    path = tmp_path / "changed"
    shutil.copytree(train("muon"), path)
    for folder in list_checkpoints(path / "checkpoints"):
        if step_of(folder) > 24:
            shutil.rmtree(folder)
    console = Console(file=io.StringIO())
    jobs.resume(path, console, overrides=["train.lr=0.0007", "train.max_grad_norm=0.1"])
    machine = TimeMachine(path)
    for step in (50, 10, 25, 24):
        machine.go_to(step)
        assert machine.proof.holds, str(machine.proof)
    assert open_step(machine, 30).settings.train.lr == 0.0007
    assert open_step(machine, 20).settings.train.lr != 0.0007


def test_other_bits_are_reported_and_measured(train: Train, tmp_path: Path) -> None:
    import shutil

    path = tmp_path / "other"
    shutil.copytree(train("muon"), path)
    lines = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    for event in lines:
        if event["event"] == "step" and event["step"] == 12:
            event["loss"] *= 1 + 1e-6
    (path / "metrics.jsonl").write_text("".join(json.dumps(event) + "\n" for event in lines))
    machine = TimeMachine(path)
    machine.go_to(11)
    assert machine.proof.holds
    machine.go_to(13)
    assert not machine.proof.holds
    assert machine.proof.largest_loss_difference == pytest.approx(1e-6, rel=1e-3)
    assert "from step 12 on they differ" in str(machine.proof)
    session = read_object(path / "manifest.json")["sessions"][0]
    now = dict(session["machine"], threads=7, versions=session["machine"]["versions"] | {"torch": "9.9"})
    differences = machine_differences(session, now, compiled=True)
    assert differences == (
        "threads 1, now 7",
        f"torch {torch.__version__}, now 9.9",
        "not compiled in training",
    )


def test_an_unreachable_step_is_reported(train: Train, tmp_path: Path) -> None:
    machine = TimeMachine(train("muon"))
    with pytest.raises(InputError, match=f"choose one from 1 to {STEPS}"):
        machine.go_to(STEPS + 1)
    with pytest.raises(InputError, match="no step 0"):
        open_step(machine, 0)
    with pytest.raises(InputError, match="not a run folder"):
        TimeMachine(tmp_path)


def test_looking_does_not_change_the_run(train: Train) -> None:
    """The files of a run are the same after a replay."""
    path = train("muon")
    before = {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}
    machine = TimeMachine(path)
    reconcile(open_step(machine, 9))
    assert {file: file.read_bytes() for file in path.rglob("*") if file.is_file()} == before
    assert isinstance(machine.state, TrainState)


def test_an_absurd_record_is_bounded_and_skipped(train: Train, tmp_path: Path) -> None:
    import shutil

    path = tmp_path / "absurd"
    shutil.copytree(train("muon"), path)
    lines = [
        '{"event":"step","step":99999999999,"loss":NaN,"grad_norm":1e999}',
        '{"event":"step","step":99999999999,"loss":1.0,"grad_norm":1.0}',
        '{"event":"step","step":5,"loss":1' + 400 * "0" + ',"grad_norm":1}',
        '{"event":"micro_batch","step":3,"micro_batch_rows":1e999}',
        '{"event":"micro_batch","step":3,"micro_batch_rows":-3}',
        '{"event":"length","step":30,"num_steps":-5}',
        '{"event":"length","step":30,"num_steps":true}',
        '{"event":"step","step":-4,"loss":1.0,"grad_norm":1.0}',
    ]
    with (path / "metrics.jsonl").open("a") as file:
        file.write("".join(line + "\n" for line in lines))
    machine = TimeMachine(path)
    assert machine.recorded.last_step <= STEPS + 1
    machine.go_to(40)
    assert machine.proof.holds, str(machine.proof)


def test_differing_values_are_named(train: Train, tmp_path: Path) -> None:
    import shutil

    path = tmp_path / "named"
    shutil.copytree(train("muon"), path)
    record = (path / "metrics.jsonl").read_text().splitlines()
    events = [json.loads(line) for line in record]
    for event in events:
        if event["event"] == "checksum" and event["step"] == 12:
            event["parameters"] = "0" * 32
    kept = [
        event for event in events if not (event["event"] in ("step", "checksum") and 18 <= event["step"] < 20)
    ]
    (path / "metrics.jsonl").write_text("".join(json.dumps(event) + "\n" for event in kept))
    machine = TimeMachine(path)
    machine.go_to(13)
    assert "from step 12 on they differ, first in checksum of all parameters" in str(machine.proof)
    machine.go_to(21)
    assert machine.proof.holds
    assert "2 of them not in the record" in str(machine.proof)


def test_a_skipped_step_is_skipped_again(train: Train) -> None:
    path = train("skipped", **{"train.lr": 1e30, "train.on_nonfinite": "skip", "train.muon_lr": 1e30})
    machine = TimeMachine(path)
    assert machine.recorded.skipped
    first = min(machine.recorded.skipped)
    opened = open_step(machine, first)
    assert not opened.applied
    assert opened.proof.holds
    assert "skipped in training as not finite, and skipped again" in str(opened.proof)
    assert reconcile(opened).checks == ()
    for name in opened.gradients:  # weights may already be NaN after the step before
        before, after = opened.before.weights[name], opened.after.weights[name]
        torch.testing.assert_close(after, before, rtol=0, atol=0, equal_nan=True)


def test_a_damaged_checkpoint_is_replayed_from_the_one_before(train: Train, tmp_path: Path) -> None:
    import shutil

    path = tmp_path / "damaged"
    shutil.copytree(train("muon"), path)
    victim = path / "checkpoints" / "step-00000032" / "optimizer.safetensors"
    victim.write_bytes(victim.read_bytes()[:-1] + b"x")
    machine = TimeMachine(path)
    machine.go_to(34)
    assert machine.proof.from_step < 32
    assert machine.proof.holds
