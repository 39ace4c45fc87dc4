"""Runs whose loss counts only answers: replayed, opened, resumed, forked, evaluated and diagnosed like any other."""

from __future__ import annotations

import io
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from test_pretrain import comparable, stop_after

from etude.config import Settings, load_settings, with_values
from etude.data.tokens.coverage import IGNORE_INDEX
from etude.diagnose.run.gather import gather
from etude.errors import EtudeError, InputError
from etude.files import read_object
from etude.run.record import RunRecord
from etude.train.checksum import checksum
from etude.watch.opened_step import open_step
from etude.watch.reconciliation import reconcile
from etude.watch.time_machine import TimeMachine
from etude.watch.values import step_values
from etude.workflow import jobs
from waiting import PATIENCE

STEPS = 24
KINDS: dict[str, dict[str, Any]] = {
    "whole batch": {},
    "accumulated, apart, dropout": {
        "train.micro_batch_rows": 2,
        "data.cross_document_attention": False,
        "train.dropout": 0.2,
    },
    "gpt2": {"train.micro_batch_rows": 4, "model.preset": "gpt2"},
    "mlp, adamw": {"model.preset": "mlp", "train.optimizer": "adamw"},
}


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Write differences modulo 59: a-b=c, one token each."""
    values = {
        "data.sources": ("builtin:modular",),
        "data.deduplicate": "none",
        "data.workers": 1,
        "tokenizer.kind": "char",
        "model.size": "nano",
        "model.hidden_size": 32,
        "train.objective": "answer-only",
        "train.steps": STEPS,
        "train.context": 32,
        "train.batch_rows": 8,
        "train.eval_every": 8,
        "train.sample_every": 50,
        "train.checkpoint_every": 10,
        "train.eval_tokens": 500,
        "train.checksum_every": 1,
        "run.folder": str(tmp_path / "runs"),
        "device.compile": False,
        "device.threads": 1,
    }
    return load_settings(values=values)


def quiet() -> Console:
    return Console(file=io.StringIO(), width=200)


@pytest.mark.parametrize("kind", KINDS)
def test_every_step_is_replayed_and_explains_itself(settings: Settings, kind: str) -> None:
    path = jobs.grow(with_values(settings, KINDS[kind]), quiet()).run.path
    machine = TimeMachine(path)
    decode = machine.data.tokenizer.decode
    for step in range(STEPS, 0, -5):
        machine.go_to(step)
        assert machine.proof.holds, str(machine.proof)
        assert checksum(machine.state.model) == machine.recorded.checksums[step]
    for step in (1, 3, 20):
        opened = open_step(machine, step)
        assert opened.proof.holds
        assert opened.loss == machine.recorded.loss_at(step)
        reconciliation = reconcile(opened)
        assert reconciliation.holds, str(reconciliation)
        assert {check.name: check.difference for check in reconciliation.checks}["update applied again"] == 0
        trained = 0
        total = 0.0
        for number in range(opened.num_rows):
            row = opened.row(number)
            text = decode(row.inputs.tolist(), skip_special_tokens=False)
            assert "=" in text
            real = row.targets != IGNORE_INDEX
            # The answer is predicted at "=", and its end at the answer itself.
            behind = [decode([token]) == "=" for token in row.inputs.tolist()]
            assert real.tolist()[1:] == [a or b for a, b in zip(behind[1:], behind, strict=False)]
            assert not row.losses[~real].any()
            trained, total = trained + int(real.sum()), total + float(row.summed_loss)
        assert trained == opened.num_targets == opened.total_weight
        assert opened.loss == pytest.approx(total / trained, rel=1e-5)
        shown = step_values(opened, opened.row(0), decode)
        assert shown["num_targets"] == trained
        assert sum(token["desired"] is not None for token in shown["tokens"]) < len(shown["tokens"])


COMPILED = """
import io, json, sys
import torch
from rich.console import Console
from etude.config import validated
from etude.watch.opened_step import open_step
from etude.watch.reconciliation import reconcile
from etude.watch.time_machine import TimeMachine
from etude.workflow import jobs

if __name__ == "__main__":
    path = jobs.grow(validated(json.loads(sys.argv[1])), Console(file=io.StringIO())).run.path
    machine = TimeMachine(path)
    opened = open_step(machine, 15)
    assert machine.era.compiled
    assert opened.proof.holds, opened.proof
    reconciliation = reconcile(opened)
    assert reconciliation.holds, reconciliation
    print("proved", opened.num_targets)
"""


def test_a_compiled_run_is_replayed_by_its_graph(settings: Settings, tmp_path: Path) -> None:
    """Use a process of its own, in which the compiler gets the code without the checks of shapes."""
    changes = {"device.compile": True, "train.micro_batch_rows": 4, "train.dropout": 0.1}
    chosen = with_values(settings, changes).model_dump_json()
    script = tmp_path / "compiled.py"
    script.write_text(COMPILED)
    done = subprocess.run(
        [sys.executable, str(script), chosen], capture_output=True, text=True, timeout=PATIENCE
    )
    assert "proved" in done.stdout, done.stderr


@pytest.mark.parametrize("stop", [1, 13])
def test_an_interrupted_run_ends_with_the_same_bits(settings: Settings, stop: int) -> None:
    settings = with_values(settings, {"train.micro_batch_rows": 2, "train.dropout": 0.1})
    whole = jobs.grow(settings, quiet()).run
    with pytest.MonkeyPatch.context() as patch:
        stop_after(patch, stop)
        part = jobs.grow(settings, quiet()).run
    jobs.resume(part.path, quiet())
    assert comparable(part) == comparable(whole)
    for name in ("model.safetensors", "optimizer.safetensors"):
        files = [run.checkpoints / f"step-{STEPS:08d}" / name for run in (whole, part)]
        assert files[0].read_bytes() == files[1].read_bytes()


def test_what_is_reported_is_about_answers(settings: Settings) -> None:
    console = quiet()
    run = jobs.grow(settings, console).run
    assert "count only what follows '='" in console.file.getvalue()  # type: ignore[attr-defined]
    card = (run.checkpoints / f"step-{STEPS:08d}" / "README.md").read_text()
    assert "the loss counts only what follows '='" in card
    history = RunRecord.open(run.path).history
    plain_run = jobs.grow(with_values(settings, {"train.objective": "next-token"}), quiet()).run
    plain = RunRecord.open(plain_run.path).history
    # Four of the six tokens of a-b=c and its end are not counted; the very first token is never predicted.
    for mine, other in zip(history.evals, plain.evals, strict=True):
        assert mine.val_tokens == (other.val_tokens + 1) // 6 * 2 - 1
    assert history.ladder is not None
    assert plain.ladder is not None
    assert history.ladder.validation_bytes * 5 == plain.ladder.validation_bytes
    # After "=" 59 characters are equally likely; in the whole text every other byte is a sign.
    assert history.ladder.rungs[1].bits_per_byte == pytest.approx(math.log2(59), abs=0.3)
    assert plain.ladder.rungs[1].bits_per_byte < history.ladder.rungs[1].bits_per_byte - 1
    evidence = gather(run.path)
    assert evidence.losses.tokens.sum() <= history.evals[-1].val_tokens  # type: ignore[union-attr]
    loss = evidence.losses.loss  # type: ignore[union-attr]
    assert loss == pytest.approx(history.evals[-1].val_loss, rel=1e-5)


def test_a_run_keeps_its_objective_and_a_fork_may_have_another(settings: Settings) -> None:
    plain = with_values(settings, {"train.objective": "next-token"})
    with pytest.MonkeyPatch.context() as patch:
        stop_after(patch, 12)
        run = jobs.grow(plain, quiet()).run
    with pytest.raises(
        InputError, match=r"has train\.objective = 'next-token', which cannot become 'answer-only'.*--fork"
    ):
        jobs.resume(run.path, quiet(), ["train.objective=answer-only"])
    fork = jobs.fork(str(run.path), quiet(), ["train.objective=answer-only"]).run
    same = jobs.fork(str(run.path), quiet()).run
    steps = {
        made.path: [event["step"] for event in made.metrics.read() if event["event"] == "step"]
        for made in (fork, same)
    }
    assert steps[fork.path] == list(range(13, STEPS + 1))  # losses of another kind remain with the parent
    assert steps[same.path] == list(range(1, STEPS + 1))
    parent = read_object(fork.manifest_file)["parent"]
    assert parent["step"] == 12
    machine = TimeMachine(fork.path)
    opened = open_step(machine, 15)
    assert opened.proof.holds
    assert reconcile(opened).holds


def test_the_doctor_and_the_record_read_a_run_without_the_setting(settings: Settings) -> None:
    """Runs of early versions had a single objective, which their run.toml does not name."""
    run = jobs.grow(with_values(settings, {"train.objective": "next-token"}), quiet()).run
    text = run.settings_file.read_text()
    lines = [line for line in text.splitlines() if not line.startswith(("objective =", "answer_separator ="))]
    assert len(lines) == len(text.splitlines()) - 2
    run.settings_file.write_text("\n".join(lines) + "\n")
    from etude.files import hash_file

    manifest = read_object(run.manifest_file)
    manifest["settings_hash"] = hash_file(run.settings_file)
    run.write_manifest(manifest)
    machine = TimeMachine(run.path)
    machine.go_to(STEPS)
    assert machine.proof.holds


LONG = {f"{n:02d}": f"{'prompt ' * 12}{n}=ab" for n in range(40)}


def test_a_row_without_an_answer_has_no_loss_and_a_batch_without_one_stops_the_run(
    settings: Settings, tmp_path: Path
) -> None:
    folder = tmp_path / "text"
    folder.mkdir()
    for name, text in LONG.items():
        (folder / f"{name}.txt").write_text(text)
    changes: dict[str, Any] = {
        "data.sources": (str(folder),),
        "data.validation_fraction": 0.2,
        "train.batch_rows": 12,
    }
    run = jobs.grow(with_values(settings, changes), quiet()).run
    machine = TimeMachine(run.path)
    opened = open_step(machine, 5)
    rows = [opened.row(number, lambda name: False) for number in range(opened.num_rows)]
    empty = next(row for row in rows if not (row.targets != IGNORE_INDEX).any())
    assert not any(gradient.any() for gradient in empty.parameter_gradients.values())
    shown = step_values(opened, opened.row(empty.row), machine.data.tokenizer.decode)
    assert shown["row_loss"] is None
    assert shown["row_loss_after"] is None
    json.dumps(shown, allow_nan=False)
    assert torch.isfinite(torch.tensor(opened.loss))
    with pytest.raises(EtudeError, match=r"the loss counts no token of this batch.*train\.batch_rows"):
        jobs.grow(with_values(settings, changes | {"train.batch_rows": 1, "train.context": 8}), quiet())
