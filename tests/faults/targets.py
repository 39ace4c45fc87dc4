"""The targets of the attacks: an intact run with its cache, a model folder, settings; and all readers of them."""

from __future__ import annotations

import io
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

SECRET = "correct horse battery staple"
"""The content of a file outside of the run; no error may show it."""


@dataclass(frozen=True)
class Reader:
    """A function that reads a folder, with the files to damage and a function that corrects their checksums."""

    folder: str
    files: tuple[str, ...]  # patterns below the folder
    read: Callable[[Path], object]
    reseal: Callable[[Path], None] | None = None
    names_file: bool = True


class World:
    """An intact run with its cache, a model folder and settings, and a folder outside. It can be restored."""

    def __init__(self, root: Path) -> None:
        self.case, self.outside = root / "case", root / "outside"
        self.outside.mkdir()
        (self.outside / "secret.txt").write_text(SECRET)
        os.environ["ETUDE_CACHE"] = str(self.case / "cache")
        _make_everything(root, self.case)
        self.intact = {path.relative_to(self.case): path.read_bytes() for path in _files(self.case)}

    def restore(self) -> None:
        """Restore all files, whatever a reader or a damage has done."""
        existing = {path.relative_to(self.case) for path in _files(self.case, links=True)}
        for name in existing - set(self.intact):
            path = self.case / name
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        for name, content in self.intact.items():
            path = self.case / name
            plain = path.is_file() and not path.is_symlink()
            if plain and path.read_bytes() == content:
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            path.unlink(missing_ok=True)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)

    def outside_is_as_it_was(self) -> bool:
        return [path.name for path in self.outside.iterdir()] == ["secret.txt"] and (
            self.outside / "secret.txt"
        ).read_text() == SECRET


def _files(folder: Path, links: bool = False) -> Iterator[Path]:
    for where, folders, files in os.walk(folder):
        yield from (Path(where, name) for name in files)
        if links:
            yield from (Path(where, name) for name in folders if Path(where, name).is_symlink())


def _make_everything(root: Path, case: Path) -> None:
    from rich.console import Console

    from etude.config import Settings, load_settings, to_toml
    from etude.data.primer.generator import documents
    from etude.workflow.jobs import grow

    text = root / "text"
    text.mkdir()
    for number, document in enumerate(documents(3, 30_000)):
        (text / f"{number:03d}.txt").write_text(document.text)
    values = {
        "run.folder": str(case / "runs"),
        "run.name": "a",
        "data.sources": (str(text),),
        "data.workers": 1,
        "tokenizer.vocab_size": 300,
        "model.size": "nano",
        "model.hidden_size": 32,
        "train.steps": 2,
        "train.context": 32,
        "train.batch_rows": 2,
        "train.eval_tokens": 200,
        "ladder.max_order": 3,
        "device.compile": False,
        "device.threads": 1,
    }
    outcome = grow(load_settings(values=values), Console(file=io.StringIO()))
    shutil.rmtree(outcome.run.checkpoints / "step-00000000")
    run, model = outcome.run.path, case / "model"
    shutil.copytree(run / "checkpoints" / "step-00000002", model)
    for name in ("train_state.json", "optimizer.safetensors"):
        (model / name).unlink()
    sharded = shutil.copytree(model, case / "sharded")
    (sharded / "model.safetensors").rename(sharded / "one.safetensors")
    from safetensors import safe_open

    with safe_open(sharded / "one.safetensors", framework="pt") as file:
        table = dict.fromkeys(file.keys(), "one.safetensors")
    (sharded / "model.safetensors.index.json").write_text(json.dumps({"weight_map": table}))
    (case / "gguf").mkdir()
    _write_gguf(case / "gguf" / "tiny.gguf")
    (case / "settings").mkdir()
    (case / "settings" / "mine.toml").write_text(to_toml(Settings()))
    (case / "settings" / "overrides.txt").write_text("train.lr=3e-4\ndata.sources=['a', 'b']\nrun.seed=7\n")


def _write_gguf(path: Path) -> None:
    sys.path.append(str(Path(__file__).parent.parent))
    from etude.model.build import build_model
    from etude.model.config import preset
    from gguf_files import network_tensors, write_gguf

    config = preset("llama", vocab_size=300, hidden_size=32, num_hidden_layers=1, num_key_value_heads=1)
    write_gguf(path, config, network_tensors(build_model(config), config), kind="Q4_1")


def readers() -> dict[str, Reader]:
    """Return all readers by name."""
    run = ("run.toml", "manifest.json", "ladder.json", "status.json", "metrics.jsonl", "samples.jsonl")
    checkpoint = ("config.json", "model.safetensors", "optimizer.safetensors", "train_state.json")
    tokenizer = ("tokenizer.json", "etude_tokenizer.json", "tokenizer_config.json")
    whole = (*run, *(f"checkpoints/*/{name}" for name in checkpoint), "tokenizer/*.json")
    return {
        "settings": Reader("settings", ("*.toml",), _read_settings),
        "overrides": Reader("settings", ("overrides.txt",), _read_overrides, names_file=False),
        "history": Reader("runs/a", run, _read_history),
        "list of runs": Reader("runs/a", run, _read_list),
        "resume": Reader("runs/a", whole, _read_resume, _reseal_run),
        "replay": Reader("runs/a", whole, _read_replay, _reseal_run),
        "checkpoint": Reader(
            "runs/a/checkpoints/step-00000002", checkpoint, _read_checkpoint, _reseal_checkpoint
        ),
        "model folder": Reader("model", ("config.json", "model.safetensors"), _read_model),
        "sharded model": Reader("sharded", ("*.index.json", "one.safetensors"), _read_model),
        "gguf file": Reader("gguf", ("*.gguf",), _read_gguf),
        "tokenizer": Reader("runs/a/tokenizer", tokenizer, _read_tokenizer, _reseal_tokenizer),
        "token shards": Reader(
            "cache", ("tokens/*/*.*", "tokens/*/tokenizer/*"), _read_tokens, _reseal_cache
        ),
        "document store": Reader("cache", ("corpus/*/*.*",), _read_store, _reseal_cache),
    }


def _read_settings(folder: Path) -> None:
    from etude.config import load_settings, to_toml

    to_toml(load_settings(folder / "mine.toml", ["train.steps=5"]))


def _read_overrides(folder: Path) -> None:
    from etude.config import load_settings

    lines = (folder / "overrides.txt").read_bytes().decode("utf-8", "surrogateescape").split("\n")
    load_settings(None, [line for line in lines if line])


def _read_history(folder: Path) -> None:
    from etude.run.record import RunRecord

    history = RunRecord.open(folder).history
    _ = history.passed_at, history.num_steps, history.bits_per_byte_per_nat


def _read_list(folder: Path) -> None:
    from etude.run.runs_table import print_runs

    print_runs(folder.parent)


def _read_replay(folder: Path) -> None:
    from etude.watch.time_machine import TimeMachine

    TimeMachine(folder).go_to(2)


def _read_resume(folder: Path) -> None:
    from etude.files import read_object
    from etude.plan.plan import initial_state
    from etude.run.record import RunRecord
    from etude.workflow.fit import restore
    from etude.workflow.start import reopen

    console = _silence()
    plan, run = reopen(folder, (), console)
    with run.locked():
        restore(run, initial_state(plan), console)
        _ = RunRecord.open(run.path).history
        read_object(run.manifest_file)
        run.write_status("stopped", 2)


def _read_checkpoint(folder: Path) -> None:
    from etude.plan.plan import initial_state
    from etude.run.checkpoints import verify_checkpoint
    from etude.train.checkpoint import load_state

    load_state(verify_checkpoint(folder), initial_state(_plan_of(folder.parent.parent)))


def _read_model(folder: Path) -> None:
    from etude.model.folder import load_model_folder

    load_model_folder(folder)


def _read_gguf(folder: Path) -> None:
    from etude.pretrained.gguf_model import folder_from_gguf

    with tempfile.TemporaryDirectory() as scratch:
        folder_from_gguf(folder / "tiny.gguf", Path(scratch) / "model")


def _read_tokenizer(folder: Path) -> None:
    from etude.data.tokens.published import existing_tokenizer
    from etude.data.tokens.tokenizer import EtudeTokenizer

    theirs = existing_tokenizer(folder)
    _ = theirs.vocab_size, theirs.hash
    mine = EtudeTokenizer.load(folder)
    _ = mine.vocab_size, mine.places


def _read_tokens(folder: Path) -> None:
    from etude.data.prepared_data import open_prepared
    from etude.errors import InputError

    (key,) = [path.name for path in (folder / "tokens").iterdir()]
    data = open_prepared(folder, key)
    if data is None:
        raise InputError(f"{folder / 'tokens' / key} is prepared again")
    for part in (data.train, data.validation):
        part.window(part.num_tokens - 1, 64)
        part.document_of(part.num_tokens - 1)
    list(data.documents("train"))


def _read_store(folder: Path) -> None:
    from etude.data.corpus.corpus import Corpus

    (path,) = (folder / "corpus").iterdir()
    corpus = Corpus(path)
    for part in ("train", "validation"):
        list(corpus.documents(part))
        corpus.name(part, len(corpus.ranges[part]) - 1)
    corpus.store.close()
    _read_tokens(folder)


_PLANS: dict[str, Any] = {}


def _plan_of(run: Path) -> Any:
    """Return the plan of the intact run."""
    if "plan" not in _PLANS:
        from etude.workflow.start import reopen

        _PLANS["plan"] = reopen(run, (), _silence())[0]
    return _PLANS["plan"]


def _silence() -> Any:
    from rich.console import Console

    return Console(file=io.StringIO())


def _write(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value))


def _write_sealed(path: Path, value: Any) -> None:
    from etude.files import json_digest

    _write(path, {**value, "digest": json_digest(value)})


def _reseal_checkpoint(folder: Path) -> None:
    from etude.files import hash_file

    marker = json.loads((folder / "train_state.json").read_text())
    for name in marker["checksums"]:
        if (folder / name).is_file():  # a trap may have become a name, such as that of a device
            marker["checksums"][name] = hash_file(folder / name)
    _write_sealed(folder / "train_state.json", marker)


def _reseal_tokenizer(folder: Path) -> None:
    from etude.files import hash_file

    record = json.loads((folder / "etude_tokenizer.json").read_text())
    _write(folder / "etude_tokenizer.json", {**record, "hash": hash_file(folder / "tokenizer.json")})


def _reseal_run(folder: Path) -> None:
    from etude.files import hash_file
    from etude.run import RunFolder
    from etude.run.provenance import file_hashes, run_hashes

    run = RunFolder(folder)
    manifest = json.loads(run.manifest_file.read_text()) | {
        "settings_hash": hash_file(run.settings_file),
        "files": file_hashes(run),
    }
    _write_sealed(run.manifest_file, manifest)
    for checkpoint in run.checkpoints.iterdir():
        marker = json.loads((checkpoint / "train_state.json").read_text())
        marker["run"] = run_hashes(manifest)
        marker["logs"] = {name: asdict(log.prefix()) for name, log in run.logs.items()}
        _write(checkpoint / "train_state.json", marker)
        _reseal_checkpoint(checkpoint)


def _reseal_cache(folder: Path) -> None:
    from etude.data.files import describe_files

    for index in [*folder.glob("corpus/*/corpus.json"), *folder.glob("tokens/*/manifest.json")]:
        value = json.loads(index.read_text())
        files = {name: facts for name, facts in describe_files(index.parent).items() if name != index.name}
        _write(index, {**value, "files": files})
