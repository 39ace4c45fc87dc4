"""Saved versions of a model that another program trained open as a read-only history."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file, save_file

from etude.config import load_settings
from etude.data.primer.generator import generate
from etude.data.tokens.vocabulary import train_bpe
from etude.emergence.command import emergence
from etude.emergence.study import Axis, load_study
from etude.emergence.verdict import Word
from etude.errors import InputError
from etude.evaluate.published_steps import evaluate_history
from etude.evaluate.resumable_parts import Workers
from etude.evaluate.together import TogetherRequest
from etude.pretrained.base import open_base
from etude.pretrained.chat_tokens import base_tokenizer
from etude.pretrained.import_model import import_model
from etude.pretrained.load_model import load_trained
from etude.pretrained.resolve_source import model_folder
from etude.run.checkpoints import checkpoint_name
from etude.run.listing import list_histories
from etude.run.published_history import (
    PublishedHistory,
    is_history,
    step_in,
    tokenizer_folder,
)
from etude.run.runs_table import print_runs
from etude.run.weights_hash import sampled_hash, weights_hash
from etude.untrusted import Unreadable
from etude.watch.loss_by_checkpoint import loss_by_checkpoint
from etude.workflow import jobs
from unprivileged import as_ordinary_user

TEXT = "The cat sat on the mat and the dog ran to the river. " * 40
STEPS = (10, 20, 30)


class Trap:
    """Fails the test when it is unpickled."""

    def __reduce__(self) -> Any:
        return pytest.fail, ("a pickle was opened",)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train a tiny Llama with transformers, and save it as its Trainer does: the tokenizer beside the last alone."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("saved") / "story"
    tokenizer = train_bpe([TEXT], 300, "llama3")
    config = LlamaConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=128,
    )
    model = LlamaForCausalLM(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    ids = torch.tensor([tokenizer.encode(TEXT)[:100]])
    for step in range(1, STEPS[-1] + 1):
        model(ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if step in STEPS:
            version = folder / f"checkpoint-{step}"
            model.save_pretrained(version)
            torch.save({"trap": Trap()}, version / "optimizer.pt")
            torch.save({"trap": Trap()}, version / "training_args.bin")
    tokenizer.save(folder / f"checkpoint-{STEPS[-1]}")
    return folder


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ETUDE_CACHE", str(tmp_path / "cache"))


def opened(path: Path) -> PublishedHistory:
    history = PublishedHistory.at(path)
    assert history is not None
    return history


def files_of(folder: Path) -> Iterator[tuple[str, bytes]]:
    for file in sorted(folder.rglob("*")):
        if file.is_file():
            yield str(file.relative_to(folder)), file.read_bytes()


@pytest.mark.parametrize(
    ("name", "step"),
    [
        ("step1000", 1000),
        ("step-00000016", 16),
        ("checkpoint-500", 500),
        ("global_step7", 7),
        ("pythia-70m-step143000", 143_000),
        ("stage1-step150-tokens1B", 150),
        ("steps", None),
        ("checkpoint", None),
        ("footstep", None),
        ("model-v2", None),
        ("misstep4", None),
    ],
)
def test_the_step_is_in_the_name(name: str, step: int | None) -> None:
    assert step_in(name) == step


def test_the_versions_are_listed_by_step(trained: Path) -> None:
    history = opened(trained)
    assert list(history.checkpoints) == list(STEPS)
    assert history.duplicates == {}
    assert len(set(history.hashes.values())) == len(STEPS)
    assert [line.name for line in list_histories(trained.parent)] == ["story"]
    assert model_folder(trained) == trained / "checkpoint-30"
    assert model_folder(f"{trained}@20") == trained / "checkpoint-20"
    with pytest.raises(InputError, match=r"no checkpoint of step 25: choose one of 10, 20, 30"):
        model_folder(f"{trained}@25")


def test_a_text_is_read_at_every_version(trained: Path) -> None:
    """The losses are those of transformers, and fall from version to version; no pickle is opened."""
    from transformers import LlamaForCausalLM

    history = opened(trained)
    tokenizer = load_trained(trained).tokenizer
    text = TEXT[:53]
    answer = loss_by_checkpoint(history, tokenizer, text, None, lambda done, of: None)
    assert answer["steps"] == list(STEPS)
    ids = torch.tensor([[tokenizer.roles.document_id, *tokenizer.encode(text)]])
    means = []
    for step, losses in zip(STEPS, answer["losses"], strict=True):
        model = LlamaForCausalLM.from_pretrained(trained / f"checkpoint-{step}")
        with torch.no_grad():
            logits = model(ids).logits[0, :-1]
        expected = torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="none")
        assert losses == pytest.approx(expected.tolist(), abs=1e-4)
        means.append(sum(expected.tolist()))
    assert means == sorted(means, reverse=True)


def test_the_tokenizer_is_that_of_the_last_version(trained: Path, tmp_path: Path) -> None:
    assert tokenizer_folder(trained / "checkpoint-10") == trained / "checkpoint-30"
    assert load_trained(trained / "checkpoint-10").tokenizer.encode("The cat") == load_trained(
        trained
    ).tokenizer.encode("The cat")
    alone = shutil.copytree(trained / "checkpoint-10", tmp_path / "model")
    with pytest.raises(InputError, match="tokenizer"):
        load_trained(alone)


def test_the_hash_is_of_the_tensors_alone(trained: Path, tmp_path: Path) -> None:
    """The same weights in other files, with other metadata, have the same hash; one changed bit has another."""
    first = trained / "checkpoint-10"
    weights = load_file(first / "model.safetensors")
    names = sorted(weights)
    sharded = tmp_path / "sharded"
    sharded.mkdir()
    files = {"a.safetensors": names[3:], "b.safetensors": names[:3]}
    for file, members in files.items():
        save_file({name: weights[name] for name in members}, sharded / file, metadata={"by": "test"})
    table = {name: file for file, members in files.items() for name in members}
    (sharded / "model.safetensors.index.json").write_text(json.dumps({"weight_map": table}))
    assert weights_hash(sharded) == weights_hash(first)
    weights[names[0]].view(-1).view(torch.int32)[0] ^= 1
    save_file({name: weights[name] for name in names[:3]}, sharded / "b.safetensors")
    assert weights_hash(sharded) != weights_hash(first)


def test_every_version_answers_the_same_items(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A copy of a version is named, and not asked again; nothing is written into the folder."""
    folder = shutil.copytree(trained, tmp_path / "story")
    shutil.copytree(folder / "checkpoint-20", folder / "checkpoint-25")
    before = dict(files_of(folder))
    text = tmp_path / "text.jsonl"
    stories = (tale.text for tale in generate(99, max_bytes=100_000))
    text.write_text("".join(json.dumps({"text": story}) + "\n" for story in stories))
    request = TogetherRequest((folder,), ("text",), 16, (str(text),), Workers(threads=1), as_json=True)
    evaluate_history(request, Console(file=io.StringIO()))
    content = json.loads(capsys.readouterr().out)
    by_step = {entry["step"]: entry for entry in content["steps"]}
    assert [entry["same_as"] for entry in content["steps"]] == [None, None, 20, None]
    assert by_step[25]["weights"] == by_step[20]["weights"] == opened(folder).hashes[20]
    assert by_step[25]["probes"] == by_step[20]["probes"] != by_step[10]["probes"]
    assert any("not recorded by Etude" in note for note in content["notes"])
    assert any(
        f"step 25 has the same weights as step 20 ({by_step[20]['weights']})" in note
        for note in content["notes"]
    )
    assert all(probe["held_out"] == "" and probe["random"] for probe in by_step[10]["probes"])
    assert dict(files_of(folder)) == before
    out = io.StringIO()
    study = emergence([folder], report=tmp_path / "report", console=Console(file=out, width=200))
    assert study.axes() == [Axis.STEPS]
    for ability in study.abilities:
        assert ability.verdict.word == Word.ONE_SEED
        assert [record.where.step for record in ability.series[0]] == [10, 20, 25, 30]
        recorded = {(entry["probe"], entry["condition"]): entry for entry in by_step[25]["probes"]}
        assert ability.series[0][2].model.accuracy.value == recorded[ability.key]["accuracy"]["value"]
    assert (
        "story: not recorded by Etude: its seed and the tokens that it read are not known" in out.getvalue()
    )
    rows = list(csv.DictReader((tmp_path / "report" / "scores.csv").open()))
    assert {(row["step"], row["tokens_seen"], row["flops"]) for row in rows} == {
        (str(step), "", "") for step in (10, 20, 25, 30)
    }
    for axis, words in ((Axis.TOKENS, "tokens"), (Axis.FLOPS, "FLOPs"), (Axis.LOSS, "validation loss")):
        with pytest.raises(InputError, match=f"these records hold no {words}: use --against steps"):
            emergence([folder], axis.value, console=Console(file=out))
    assert dict(files_of(folder)) == before


def test_a_history_without_scores_is_refused_with_the_command_that_measures_it(trained: Path) -> None:
    with pytest.raises(
        InputError, match=r"has no recorded scores: `etude eval .*story --steps all` measures"
    ):
        load_study([trained])


def test_a_version_with_only_a_pickle_is_skipped_with_its_reason(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shutil.copytree(trained, tmp_path / "story")
    for step in (20, 30):
        (folder / f"checkpoint-{step}" / "model.safetensors").rename(
            folder / f"checkpoint-{step}" / "pytorch_model.bin"
        )
    history = opened(folder)
    assert list(history.checkpoints) == [10]
    assert (list(history.skipped), history.last, history.duplicates) == ([20, 30], 10, {})
    reason = (
        f"{folder / 'checkpoint-20' / 'pytorch_model.bin'} is a pickle, which may run code when it is read"
    )
    assert any(line.startswith(f"step 20 is skipped: {reason}") for line in history.notes)
    tokenizer = load_trained(folder).tokenizer  # it lies in a version that is skipped
    answer = loss_by_checkpoint(history, tokenizer, TEXT[:20], None, lambda done, of: None)
    assert answer["steps"] == [10]
    print_runs(tmp_path)
    assert "step 20 is skipped" in " ".join(capsys.readouterr().out.split())
    for open_version in (lambda: load_trained(f"{folder}@20"), lambda: history.folder_of(20)):
        with pytest.raises(InputError, match=re.escape(reason)):
            open_version()
    (folder / "checkpoint-10" / "model.safetensors").unlink()
    (folder / "checkpoint-10" / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(InputError, match=r"no version in .*story can be read: .*checkpoint-30.* is a pickle"):
        PublishedHistory.at(folder)
    assert "no version in" in list_histories(tmp_path)[0].problem


def test_two_models_in_one_folder_are_refused(trained: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(trained, tmp_path / "story")
    config = json.loads((folder / "checkpoint-20" / "config.json").read_text())
    (folder / "checkpoint-20" / "config.json").write_text(json.dumps(config | {"hidden_size": 64}))
    with pytest.raises(
        InputError, match=r"checkpoint-20 is another model .* \(hidden_size 64 instead of 32\)"
    ):
        PublishedHistory.at(folder)
    shutil.copytree(trained / "checkpoint-20", tmp_path / "two" / "checkpoint-20")
    shutil.copytree(trained / "checkpoint-20", tmp_path / "two" / "step20")
    with pytest.raises(InputError, match="two folders of step 20, checkpoint-20 and step20"):
        PublishedHistory.at(tmp_path / "two")


@pytest.mark.parametrize("damage", ["short", "header", "pickle"])
def test_damaged_weights_are_one_line(trained: Path, tmp_path: Path, damage: str) -> None:
    folder = shutil.copytree(trained / "checkpoint-10", tmp_path / "checkpoint-10")
    file = folder / "model.safetensors"
    if damage == "pickle":
        file.rename(folder / "pytorch_model.bin")
    else:
        content = file.read_bytes()
        file.write_bytes(content[:-100] if damage == "short" else b"\xff" * 8 + content[8:])
    words = "is a pickle" if damage == "pickle" else "is damaged"
    with pytest.raises(InputError, match=words):
        weights_hash(folder)


def test_what_is_no_history(trained: Path, tmp_path: Path) -> None:
    assert PublishedHistory.at(trained / "checkpoint-10") is None
    assert PublishedHistory.at(tmp_path) is None
    run = tmp_path / "run"
    shutil.copytree(trained / "checkpoint-10", run / "checkpoints" / "step-00000010")
    (run / "run.toml").write_text("")
    assert PublishedHistory.at(run) is None
    assert PublishedHistory.at(run / "checkpoints") is None
    with pytest.raises(InputError, match="has no steps: --steps all takes a run, or a folder"):
        evaluate_history(TogetherRequest((trained / "checkpoint-10",)), Console(file=io.StringIO()))
    with pytest.raises(InputError, match="is not a run or a model folder"):
        evaluate_history(TogetherRequest((tmp_path,)), Console(file=io.StringIO()))


def test_a_hash_is_kept_until_a_file_changes(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from etude.run import weights_hash as module

    folder = shutil.copytree(trained / "checkpoint-10", tmp_path / "model")
    computed: list[Path] = []

    def counted(path: Path) -> str:
        computed.append(path)
        return weights_hash(path)

    monkeypatch.setattr(module, "weights_hash", counted)
    value = module.known_weights_hash(folder)
    assert value == module.known_weights_hash(folder) == weights_hash(folder)
    assert computed == [folder]
    file = folder / "model.safetensors"
    content, status = bytearray(file.read_bytes()), file.stat()
    content[-1] ^= 1
    file.write_bytes(content)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))  # the same size and time of change
    assert module.known_weights_hash(folder) == weights_hash(folder) != value


def test_versions_that_a_sample_cannot_tell_apart_are_not_duplicates(trained: Path, tmp_path: Path) -> None:
    """One changed bit at the end of a tensor that is longer than a sample."""
    folder = shutil.copytree(trained, tmp_path / "story")
    shutil.copytree(folder / "checkpoint-20", folder / "checkpoint-25")
    shutil.copytree(folder / "checkpoint-20", folder / "checkpoint-26")
    file = folder / "checkpoint-25" / "model.safetensors"
    weights = load_file(file)
    name = max(weights, key=lambda name: weights[name].numel())
    weights[name].view(torch.int32).view(-1)[-1] ^= 1
    save_file(weights, file)
    assert sampled_hash(folder / "checkpoint-25") == sampled_hash(folder / "checkpoint-20")
    assert sampled_hash(folder / "checkpoint-10") != sampled_hash(folder / "checkpoint-20")
    assert opened(folder).duplicates == {26: 20}


def test_the_list_of_runs_names_histories(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shutil.copytree(trained, tmp_path / "story")
    shutil.copytree(folder / "checkpoint-20", folder / "checkpoint-25")
    two = shutil.copytree(trained / "checkpoint-20", tmp_path / "two" / "checkpoint-20")
    shutil.copytree(two, tmp_path / "two" / "step20")
    before = dict(files_of(tmp_path))
    line, damaged = list_histories(tmp_path)
    assert (line.name, line.num_versions, line.first, line.last) == ("story", 4, 10, 30)
    assert line.duplicates == (f"step 25 has the same weights as step 20 ({opened(folder).hashes[20]})",)
    assert "two folders of step 20" in damaged.problem
    print_runs(tmp_path)
    printed = " ".join(capsys.readouterr().out.split())
    assert "not recorded by Etude (read only)" in printed
    assert "story 4 10 to 30" in printed
    assert "no runs in" not in printed
    print_runs(folder)
    assert "story 4 10 to 30" in " ".join(capsys.readouterr().out.split())
    assert {name: content for name, content in files_of(tmp_path) if not name.startswith("cache")} == before


@pytest.mark.parametrize("where", ["beside the last", "above"])
def test_a_version_is_imported_and_trained_with_the_tokenizer_of_another(
    trained: Path, tmp_path: Path, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reading, importing and training use one tokenizer, wherever among the versions it is."""
    folder = shutil.copytree(trained, tmp_path / "story")
    if where == "above":
        for file in folder.glob("checkpoint-30/*token*"):
            file.rename(folder / file.name)
    source, text = f"{folder}@20", TEXT[:53]
    read = load_trained(source)
    console = Console(file=io.StringIO(), width=200)
    imported = import_model(source, str(tmp_path / "copy"), console)
    assert (imported / "tokenizer.json").read_bytes() == next(folder.rglob("tokenizer.json")).read_bytes()
    again = load_trained(imported)
    assert again.tokenizer.encode(text) == read.tokenizer.encode(text)
    assert again.tokenizer.roles == read.tokenizer.roles
    assert all(
        torch.equal(value, again.model.state_dict()[name]) for name, value in read.model.state_dict().items()
    )
    file = tmp_path / "text.txt"
    file.write_text(TEXT)
    values: dict[str, Any] = {
        "data.sources": (str(file),),
        "data.workers": 1,
        "model.base": source,
        "train.steps": 2,
        "train.context": 16,
        "train.batch_rows": 2,
        "train.eval_tokens": 100,
        "train.sample_every": 1000,
        "device.kind": "cpu",
        "device.threads": 1,
        "run.folder": str(tmp_path / "runs"),
    }
    run = jobs.grow(load_settings(values=values), console).run
    assert load_trained(f"{run.path}@1").tokenizer.encode(text) == read.tokenizer.encode(text)
    first = run.checkpoints / checkpoint_name(0)
    stored = load_file(first / "model.safetensors")
    assert all(
        torch.equal(stored[name], value)
        for name, value in load_file(folder / "checkpoint-20" / "model.safetensors").items()
    )
    assert open_base(folder).source == f"{folder}@30"  # a later version changes nothing
    monkeypatch.chdir(folder)
    assert model_folder(open_base(".").source) == folder / "checkpoint-30"


def test_a_tokenizer_beside_another_version_must_be_a_file_of_that_folder(
    trained: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(trained, tmp_path / "story")
    file = folder / "checkpoint-30" / "tokenizer.json"
    file.rename(tmp_path / "tokenizer.json")
    file.symlink_to(tmp_path / "tokenizer.json")
    for opening in (open_base, base_tokenizer):
        with pytest.raises(InputError, match="leads out of"):
            opening(f"{folder}@20")


def test_a_folder_that_may_not_be_read_is_left_out_of_the_list(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained, tmp_path / "story")
    secret = shutil.copytree(trained, tmp_path / "secret")
    secret.chmod(0)
    try:
        with as_ordinary_user():
            assert [line.name for line in list_histories(tmp_path)] == ["story"]
            with pytest.raises(Unreadable):
                is_history(secret)
    finally:
        secret.chmod(0o700)
