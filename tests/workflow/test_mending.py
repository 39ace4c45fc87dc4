"""Damage to a run is detected before it resumes: restored from a good copy, set aside, or refused with one line."""

from __future__ import annotations

import io
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from test_pretrain import comparable, files_of, stop_after
from typer.testing import CliRunner

from etude.cli.main import app
from etude.config import load_settings
from etude.data.primer.generator import documents
from etude.errors import EtudeError, InputError
from etude.evaluate.run_ladder import mend_ladder
from etude.files import hash_file, json_digest
from etude.plan.plan import initial_state
from etude.pretrained.load_model import load_trained
from etude.run import JsonLines, Prefix, RunFolder
from etude.run.checkpoints import (
    list_checkpoints,
    newest_good_checkpoint,
    prune_checkpoints,
    verify_checkpoint,
)
from etude.run.file_checks import verify
from etude.watch import forking
from etude.watch.time_machine import TimeMachine
from etude.workflow import fit, jobs
from etude.workflow.fit import restore
from etude.workflow.start import reopen

LAST = "step-00000006"
"""The newest checkpoint of the stopped run; the one before it is of step 5."""


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunFolder, RunFolder, Path]:
    """Make a run of eight steps, the same run stopped at its sixth, and their cache."""
    folder = tmp_path_factory.mktemp("mending")
    text = folder / "text"
    text.mkdir()
    for number, document in enumerate(documents(7, 30_000)):
        (text / f"{number:03d}.txt").write_text(document.text)
    values = {
        "data.sources": (str(text),),
        "data.workers": 1,
        "tokenizer.vocab_size": 290,
        "model.size": "nano",
        "model.hidden_size": 16,
        "train.steps": 8,
        "train.context": 16,
        "train.batch_rows": 2,
        "train.log_every": 1,
        "train.eval_every": 4,
        "train.sample_every": 3,
        "train.checkpoint_every": 5,
        "train.eval_tokens": 200,
        "ladder.max_order": 2,
        "run.folder": str(folder / "runs"),
        "device.compile": False,
        "device.threads": 1,
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ETUDE_CACHE", str(folder / "cache"))
        whole = jobs.grow(load_settings(values={**values, "run.name": "whole"}), quiet()).run
        stop_after(patch, 6)
        stopped = jobs.grow(load_settings(values={**values, "run.name": "stopped"}), quiet()).run
    return whole, stopped, folder / "cache"


@pytest.fixture
def run(
    both: tuple[RunFolder, RunFolder, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> RunFolder:
    """Copy the stopped run."""
    monkeypatch.setenv("ETUDE_CACHE", str(both[2]))
    return RunFolder(Path(shutil.copytree(both[1].path, tmp_path / "runs" / "stopped")))


@pytest.fixture
def whole(both: tuple[RunFolder, RunFolder, Path]) -> RunFolder:
    return both[0]


def quiet() -> Console:
    return Console(file=io.StringIO(), width=2000)


def resumed(run: RunFolder, **options: Any) -> str:
    """Resume to the end, and return what it prints."""
    console = quiet()
    assert jobs.resume(run.path, console, **options).reason == "finished"
    return console.file.getvalue()  # type: ignore[attr-defined,no-any-return]


def restored(run: RunFolder, **options: Any) -> str:
    """Return what a resume prints before its first step, without making that step."""
    console = quiet()
    plan, _ = reopen(run.path, (), console, **options)
    with run.locked():
        restore(run, initial_state(plan), console)
        mend_ladder(plan, run, run.read_manifest(), console)
    return console.file.getvalue()  # type: ignore[attr-defined,no-any-return]


def same_end(run: RunFolder, whole: RunFolder) -> bool:
    ours, theirs = files_of(run, 8), files_of(whole, 8)
    names = ("model.safetensors", "optimizer.safetensors", "tokenizer.json", "tokenizer_config.json")
    return all(ours[name] == theirs[name] for name in names)


def edit(file: Path, change: Callable[[Any], Any], *, reseal: bool = False) -> None:
    value = json.loads(file.read_text())
    change(value)
    if reseal:
        value["digest"] = json_digest(value)
    file.write_text(json.dumps(value))


def flip(file: Path, at: int = -40) -> None:
    content = bytearray(file.read_bytes())
    content[at] ^= 1
    file.write_bytes(content)


def outcome_of(*arguments: str) -> tuple[int, str]:
    """Run the real command; return its exit code and last line."""
    result = CliRunner().invoke(app, arguments)
    if isinstance(result.exception, EtudeError):
        return result.exception.exit_code, str(result.exception)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


# The commit marker.


@pytest.mark.parametrize(
    ("key", "value"), [("step", 7), ("step", 10**18), ("tokens_seen", 5), ("left_out", 1)]
)
def test_an_edited_marker_is_set_aside_and_the_checkpoint_before_it_used(
    run: RunFolder, whole: RunFolder, key: str, value: int
) -> None:
    edit(run.checkpoints / LAST / "train_state.json", lambda marker: marker.update({key: value}))
    before = (run.checkpoints / LAST / "model.safetensors").read_bytes()
    output = resumed(run) if value == 7 else restored(run)
    assert "train_state.json is damaged or was edited" in output
    assert "continues from step 5" in output
    assert str(run.set_aside_folder / LAST) in output
    assert (run.set_aside_folder / LAST / "model.safetensors").read_bytes() == before
    if value == 7:
        assert same_end(run, whole)
        assert comparable(run) == comparable(whole)


@pytest.mark.parametrize(
    ("change", "output"),
    [
        ({"step": 7, "tokens_seen": 7 * 32}, "it holds step 7, and its folder is named for step"),
        ({"tokens_seen": 6 * 32 + 1}, "do not match 32 tokens per step"),
    ],
)
def test_a_marker_agrees_with_its_folder_and_the_settings(run: RunFolder, change: Any, output: str) -> None:
    """This holds also for a marker whose digest was computed again."""
    edit(run.checkpoints / LAST / "train_state.json", lambda marker: marker.update(change), reseal=True)
    assert output in restored(run)
    assert (run.set_aside_folder / LAST).is_dir()


def test_a_marker_written_otherwise_is_the_same(run: RunFolder) -> None:
    """The digest covers the content, but neither spaces nor the order of keys."""
    file = run.checkpoints / LAST / "train_state.json"
    file.write_text(json.dumps(dict(reversed(json.loads(file.read_text()).items())), indent=7))
    assert verify_checkpoint(file.parent).step == 6


def test_a_marker_of_a_later_edition_is_named(run: RunFolder) -> None:
    file = run.checkpoints / LAST / "train_state.json"
    edit(file, lambda marker: marker.update(schema=3), reseal=True)
    with pytest.raises(InputError, match="schema 3; this etude reads up to 2: update it"):
        verify_checkpoint(file.parent)


def as_first_edition(run: RunFolder) -> None:
    """Write markers as version 1 did: no digests, no hashes of run and log, a checksum of the card."""

    def strip(value: Any) -> None:
        for key in ("digest", "run", "logs", "files"):
            value.pop(key, None)
        value["schema"] = 1
        if "sessions" in value:
            value["sittings"] = value.pop("sessions")

    edit(run.manifest_file, strip)
    for folder in list_checkpoints(run.checkpoints):
        edit(folder / "train_state.json", strip)
        card = hash_file(folder / "README.md")
        edit(folder / "train_state.json", lambda marker: marker["checksums"].update({"README.md": card}))  # noqa: B023


def test_a_run_of_the_first_edition_resumes_and_is_sealed(run: RunFolder, whole: RunFolder) -> None:
    as_first_edition(run)
    (run.checkpoints / LAST / "README.md").write_text("my notes")
    assert "continues from step 6" in resumed(run)
    assert same_end(run, whole)
    assert comparable(run) == comparable(whole)
    assert all(check.ok for check in verify(run))
    assert verify_checkpoint(run.checkpoints / "step-00000008").provenance.run


def test_the_record_of_a_first_edition_tells_of_its_checkpoint(run: RunFolder) -> None:
    as_first_edition(run)
    run.metrics.path.write_text("")
    with pytest.raises(InputError, match=r"metrics.jsonl has no line of the checkpoint of step 6"):
        jobs.resume(run.path, quiet())


# The model card, and checkpoints that do not verify.


def test_a_model_card_may_be_edited(run: RunFolder) -> None:
    for folder in list_checkpoints(run.checkpoints):
        with (folder / "README.md").open("a") as card:
            card.write("\nTried on Sunday, works well.\n")
    assert load_trained(run.path).folder.name == LAST
    assert "continues from step 6" in restored(run)
    assert not run.set_aside_folder.exists()
    assert (run.checkpoints / LAST / "README.md").read_text().endswith("works well.\n")


def test_a_missing_card_is_no_damage(run: RunFolder) -> None:
    (run.checkpoints / LAST / "README.md").unlink()
    assert verify_checkpoint(run.checkpoints / LAST).step == 6


def test_what_is_set_aside_twice_stays_both_times(run: RunFolder) -> None:
    whole = shutil.copytree(run.checkpoints / LAST, run.path.parent / "copy")
    for number in (1, 2):
        (run.checkpoints / LAST / "model.safetensors").write_bytes(bytes([number]))
        restored(run)
        shutil.copytree(whole, run.checkpoints / LAST)
    set_aside = [run.set_aside_folder / name / "model.safetensors" for name in (LAST, f"{LAST}-2")]
    assert [file.read_bytes() for file in set_aside] == [b"\1", b"\2"]


def test_pruning_sets_aside_what_does_not_verify(run: RunFolder) -> None:
    for step in (3, 7, 9, 10):
        shutil.copytree(run.checkpoints / LAST, run.checkpoints / f"step-{step:08d}")
        edit(
            run.checkpoints / f"step-{step:08d}" / "train_state.json",
            lambda marker: marker.update(step=step),  # noqa: B023
            reseal=True,
        )
    flip(run.checkpoints / "step-00000007" / "model.safetensors")
    lines = prune_checkpoints(run.checkpoints, keep=2)
    assert [folder.name for folder in list_checkpoints(run.checkpoints)][-2:] == [
        "step-00000009",
        "step-00000010",
    ]
    assert not (run.checkpoints / "step-00000003").exists()
    assert len(lines) == 1
    assert "model.safetensors is damaged" in lines[0]
    assert (run.set_aside_folder / "step-00000007" / "model.safetensors").exists()


def test_an_unreadable_file_is_not_set_aside(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file may be intact: the error shows how to make it readable."""
    forbidden = run.checkpoints / LAST / "optimizer.safetensors"

    def refused(path: Path) -> str:
        if path == forbidden:
            raise PermissionError(13, "Permission denied", str(path))
        return hash_file(path)

    monkeypatch.setattr("etude.run.checkpoints.hash_file", refused)
    with pytest.raises(
        InputError, match=r"optimizer.safetensors cannot be read \(Permission denied\): type  chmod"
    ):
        newest_good_checkpoint(run.checkpoints)


def test_a_run_whose_checkpoints_are_gone_keeps_its_record(run: RunFolder) -> None:
    before = run.metrics.path.read_bytes()
    shutil.rmtree(run.checkpoints)
    with pytest.raises(InputError, match=r"checkpoints has no checkpoints, and .*metrics.jsonl lists some"):
        jobs.resume(run.path, quiet())
    assert run.metrics.path.read_bytes() == before


def test_a_checkpoint_that_was_moved_aside_when_its_process_died_comes_back(run: RunFolder) -> None:
    """The process was killed between the two renames that exchange a folder: only the folder to remove is left."""
    (run.checkpoints / LAST).rename(run.checkpoints / f".staging-{LAST}-x_1y2z3a-replaced")
    assert newest_good_checkpoint(run.checkpoints)[0].step == 5
    run.remove_leftovers()
    assert newest_good_checkpoint(run.checkpoints)[0].step == 6


# The record and the rest of the run.

LOG_DAMAGES: dict[str, Callable[[Path], object]] = {
    "removed": Path.unlink,
    "emptied": lambda file: file.write_bytes(b""),
    "flipped": lambda file: flip(file, 30),
    "cut off": lambda file: os.truncate(file, file.stat().st_size // 2),
    "a line lost": lambda file: file.write_bytes(b"".join(file.read_bytes().splitlines(keepends=True)[1:])),
}


@pytest.mark.parametrize("damage", LOG_DAMAGES)
@pytest.mark.parametrize("name", ["metrics.jsonl", "samples.jsonl"])
def test_a_damaged_record_is_refused_in_one_line(run: RunFolder, name: str, damage: str) -> None:
    LOG_DAMAGES[damage](run.path / name)
    before = {file: file.read_bytes() for file in run.path.rglob("*") if file.is_file()}
    code, output = outcome_of("train", "--resume", str(run.path), "--no-studio")
    assert code == 2
    assert len(output.splitlines()) == 1
    assert f"{name} " in output
    assert "--accept-damaged-record" in output
    assert before == {file: file.read_bytes() for file in run.path.rglob("*") if file.is_file()}


def test_a_damaged_record_may_be_accepted(run: RunFolder, whole: RunFolder) -> None:
    damaged = bytearray(run.metrics.path.read_bytes())
    damaged[2] = 0
    run.metrics.path.write_bytes(damaged)
    with pytest.MonkeyPatch.context() as patch:
        stop_after(patch, 7)
        jobs.resume(run.path, quiet(), accept_record=True)
    assert (run.set_aside_folder / "metrics.jsonl").read_bytes() == damaged
    (accepted,) = run.read_manifest()["accepted_records"]
    assert (accepted["file"], accepted["step"]) == ("metrics.jsonl", 6)
    assert "accepted" not in resumed(run)  # once is enough
    assert same_end(run, whole)
    assert len(run.metrics.read()) >= len(whole.metrics.read()) - 1
    assert all(check.ok for check in verify(run))


def test_steps_after_the_checkpoint_are_forgotten_as_before(run: RunFolder, whole: RunFolder) -> None:
    """A kill leaves lines of steps that no checkpoint covers, the last one torn."""
    with run.metrics.path.open("ab") as file:
        file.write(b'{"schema": 1, "event": "step", "step": 7, "loss": 1.0}\n{"schema": 1, "event": "st')
    resumed(run)
    assert comparable(run) == comparable(whole)
    assert all(check.ok for check in verify(run))


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"])
@pytest.mark.parametrize("damage", [flip, Path.unlink], ids=["flipped", "removed"])
def test_a_tokenizer_is_restored_from_a_checkpoint(
    run: RunFolder, whole: RunFolder, name: str, damage: Callable[[Path], object]
) -> None:
    before = (run.tokenizer / name).read_bytes()
    damage(run.tokenizer / name)
    assert f"{name} is" in restored(run)
    assert (run.tokenizer / name).read_bytes() == before
    assert (run.set_aside_folder / name).exists() == (damage is flip)


def test_a_tokenizer_without_a_good_copy_is_refused(run: RunFolder) -> None:
    flip(run.tokenizer / "tokenizer_config.json")
    for folder in list_checkpoints(run.checkpoints)[:-1]:
        shutil.rmtree(folder)
    # A checkpoint that verifies holds a good copy, unless it was begun with another tokenizer.
    edit(
        run.checkpoints / LAST / "train_state.json",
        lambda marker: marker["checksums"].pop("tokenizer_config.json"),
        reseal=True,
    )
    (run.checkpoints / LAST / "tokenizer_config.json").unlink()
    with pytest.raises(
        InputError, match=r"tokenizer_config.json is damaged .*no checkpoint .* has a good copy"
    ):
        jobs.resume(run.path, quiet())


@pytest.mark.parametrize("damage", [lambda file: flip(file, -30), Path.unlink], ids=["flipped", "removed"])
def test_a_ladder_is_counted_again(
    run: RunFolder, whole: RunFolder, damage: Callable[[Path], object]
) -> None:
    damage(run.ladder_file)
    assert "ladder.json is" in restored(run)
    assert run.ladder_file.read_bytes() == whole.ladder_file.read_bytes()


def test_a_manifest_of_another_run_is_refused(run: RunFolder, whole: RunFolder) -> None:
    """The settings of another run's manifest agree with run.toml if both files come from that run."""
    edit(run.manifest_file, lambda manifest: manifest.update(seed=99), reseal=True)
    with pytest.raises(
        InputError, match=rf"manifest.json is not the one that .*{LAST} was saved with: restore that one"
    ):
        jobs.resume(run.path, quiet())
    edit(run.manifest_file, lambda manifest: manifest.update(seed=98))
    with pytest.raises(InputError, match=r"manifest.json is damaged or was edited"):
        jobs.resume(run.path, quiet())


def test_a_tokenizer_that_changes_while_the_run_trains_is_not_copied(
    run: RunFolder, whole: RunFolder
) -> None:
    original = (run.tokenizer / "tokenizer_config.json").read_bytes()
    with pytest.MonkeyPatch.context() as patch:
        stop_after(patch, 7)
        patch.setattr(
            "etude.workflow.fit.begin_session",
            _then(lambda: flip(run.tokenizer / "tokenizer_config.json")),
        )
        with pytest.raises(
            EtudeError, match=r"tokenizer_config.json was changed or damaged while the run trained"
        ):
            jobs.resume(run.path, quiet())
    assert not (run.checkpoints / "step-00000007").exists()
    restored(run)
    assert (run.tokenizer / "tokenizer_config.json").read_bytes() == original


def _then(do: Callable[[], object]) -> Callable[..., None]:

    begin = fit.begin_session

    def begin_and_do(*arguments: Any) -> None:
        begin(*arguments)
        do()

    return begin_and_do


def test_a_fork_vouches_for_itself(run: RunFolder) -> None:
    forked = jobs.fork(f"{run.path}@5", quiet(), values={"train.steps": 7}).run
    assert all(check.ok for check in verify(forked))
    assert (
        verify_checkpoint(forked.checkpoints / "step-00000005").provenance.logs["metrics.jsonl"].num_bytes > 0
    )
    flip(run.metrics.path, 30)
    with pytest.raises(InputError, match=r"metrics.jsonl was changed .* fork with what is left of it"):
        jobs.fork(f"{run.path}@5", quiet())


def test_a_turned_fork_copies_no_damaged_record(run: RunFolder) -> None:
    machine = TimeMachine(run.path)
    weights = {name: value + 1 for name, value in list(machine.go_to(3).model.named_parameters())[:1]}
    assert forking.fork_with(machine, 3, weights, name="turned").metrics.read()
    flip(run.metrics.path, 30)
    with pytest.raises(InputError, match=r"metrics.jsonl was changed .* Restore it"):
        forking.fork_with(machine, 3, weights, name="turned-again")
    assert not (run.path.parent / "turned-again").exists()


def test_a_checkpoint_of_another_run_is_set_aside(run: RunFolder, whole: RunFolder) -> None:
    other = jobs.fork(f"{whole.path}@1", quiet(), values={"train.steps": 6, "run.seed": 7}).run
    shutil.rmtree(run.checkpoints / LAST)
    shutil.copytree(other.checkpoints / LAST, run.checkpoints / LAST)
    output = resumed(run)
    assert "set-aside" in output
    assert "continues from step 5" in output


# The running hash.


def test_a_log_is_read_once_however_often_its_hash_is_wanted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = JsonLines(tmp_path / "metrics.jsonl")
    log.append({"step": 1, "text": "ü"})
    first, opened = log.prefix(), []
    original = JsonLines._hashing
    monkeypatch.setattr(JsonLines, "_hashing", lambda *arguments: opened.append(1) or original(*arguments))
    prefixes = [first]
    for step in range(2, 9):
        log.append({"step": step})
        prefixes.append(log.prefix())
    assert opened == []
    content = log.path.read_bytes()
    assert prefixes[-1] == Prefix(len(content), hash_file(log.path))
    for prefix in prefixes:
        (tmp_path / "part").write_bytes(content[: prefix.num_bytes])
        assert prefix.hash == hash_file(tmp_path / "part")
        assert log.starts_with(prefix)
    assert log.prefixes([len(content) + 1]) == {len(content) + 1: None}
    log.truncate_to(prefixes[2])
    assert log.prefix() == prefixes[2]
    assert not log.starts_with(prefixes[3])


# The command that checks all files.


def differing(run: RunFolder) -> set[str]:
    return {check.thing for check in verify(run) if not check.ok}


@pytest.mark.parametrize(
    ("file", "thing"),
    [
        ("metrics.jsonl", "metrics.jsonl"),
        ("samples.jsonl", "samples.jsonl"),
        ("ladder.json", "ladder.json"),
        ("tokenizer/tokenizer_config.json", "tokenizer/tokenizer_config.json"),
        (f"checkpoints/{LAST}/train_state.json", f"checkpoints/{LAST}"),
        (f"checkpoints/{LAST}/tokenizer_config.json", f"checkpoints/{LAST}"),
        ("checkpoints/step-00000001/optimizer.safetensors", "checkpoints/step-00000001"),
        ("manifest.json", "run.toml and manifest.json"),
        ("run.toml", "run.toml and manifest.json"),
    ],
)
def test_the_doctor_names_what_differs(run: RunFolder, file: str, thing: str) -> None:
    assert differing(run) == set()
    flip(run.path / file, 40)
    assert differing(run) == {thing}
    code, output = outcome_of("doctor", str(run.path), "--verify")
    assert code == 1
    assert f"DIFFERS  {thing}: " in output
    assert sum(line.startswith("DIFFERS") for line in output.splitlines()) == 1
    code, output = outcome_of("doctor", str(run.path), "--verify", "--json")
    assert code == 1
    assert [value["thing"] for value in map(json.loads, output.splitlines()) if not value["ok"]] == [thing]


def test_the_doctor_finds_nothing_in_an_intact_run(whole: RunFolder) -> None:
    before = {file: file.read_bytes() for file in whole.path.rglob("*") if file.is_file()}
    code, output = outcome_of("doctor", str(whole.path), "--verify")
    assert code == 0
    assert {line.split()[0] for line in output.splitlines()} == {"ok"}
    assert before == {file: file.read_bytes() for file in whole.path.rglob("*") if file.is_file()}
    assert outcome_of("doctor", "--verify")[0] == 2
