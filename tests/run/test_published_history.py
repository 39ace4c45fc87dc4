"""Saved versions of a model that another program trained open as a read-only history."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file, save_file

from etude.data.primer.generator import generate
from etude.data.tokens.vocabulary import train_bpe
from etude.errors import InputError
from etude.evaluate.published_steps import evaluate_history
from etude.evaluate.resumable_parts import Workers
from etude.evaluate.together import TogetherRequest
from etude.pretrained.load_model import load_trained
from etude.pretrained.resolve_source import model_folder
from etude.run.published_history import (
    PublishedHistory,
    histories_in,
    step_in,
    tokenizer_folder,
    weights_hash,
)
from etude.watch.loss_by_checkpoint import loss_by_checkpoint

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
    assert [found.path for found in histories_in(trained.parent)] == [trained]
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
