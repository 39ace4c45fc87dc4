"""Runs that begin with the weights of a published model: step 0 is the model, and everything else holds as usual."""

from __future__ import annotations

import json
import math
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from test_pretrain import comparable, stop_after
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from etude.config import Settings, load_settings, with_values
from etude.data.primer.generator import documents
from etude.data.tokens.tokenizer import EtudeTokenizer
from etude.diagnose.run.verdicts import diagnose
from etude.errors import InputError
from etude.model.folder import load_model_folder
from etude.plan import plan as plans
from etude.plan.base_values import MIN_EVAL_TOKENS, dial_rates
from etude.plan.cadence import EARLY_EVALUATIONS, SCORING, evaluation_due
from etude.plan.disk_use import disk_use
from etude.run import RunFolder
from etude.run.checkpoints import (
    CARD,
    OPTIMIZER_FILE,
    checkpoint_name,
    list_checkpoints,
    step_of,
    verify_checkpoint,
)
from etude.run.record import RunRecord
from etude.run.settings import verified_settings
from etude.watch.opened_step import open_step
from etude.watch.reconciliation import reconcile
from etude.watch.time_machine import TimeMachine
from etude.workflow import jobs, sweep
from etude.workflow.prepare import make_plan

transformers = pytest.importorskip("transformers")
TEMPLATE = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a model folder of transformers: a small Llama in bfloat16, with a chat template and three roles."""
    folder = tmp_path_factory.mktemp("published") / "small-chat"
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator((document.text for document in documents(3, 30_000)), trainer)
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|im_end|>", chat_template=TEMPLATE
    )
    config = transformers.LlamaConfig(
        vocab_size=304,  # rows beyond the tokens, as published models have
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        rms_norm_eps=1e-5,
        rope_theta=50_000.0,
        tie_word_embeddings=True,
        eos_token_id=2,
    )
    torch.manual_seed(5)
    network = transformers.LlamaForCausalLM(config).to(torch.bfloat16)
    network.generation_config = transformers.GenerationConfig(
        eos_token_id=[2, 0], temperature=0.3, do_sample=True
    )
    network.save_pretrained(folder)
    fast.save_pretrained(folder)
    (folder / CARD).write_text("---\nlicense: mit\n---\n# Their card\n")
    return folder


@pytest.fixture
def settings(published: Path, text_folder: Path, tmp_path: Path) -> Settings:
    """Return settings of twelve steps from that model."""
    return load_settings(
        values={
            "data.sources": (str(text_folder),),
            "data.workers": 1,
            "model.base": str(published),
            "train.steps": 12,
            "train.context": 32,
            "train.batch_rows": 4,
            "train.lr": 1e-3,
            "train.log_every": 3,
            "train.eval_every": 4,
            "train.sample_every": 6,
            "train.checkpoint_every": 5,
            "train.eval_tokens": 500,
            "device.kind": "cpu",
            "device.dtype": "fp32",
            "device.threads": 1,
            "run.folder": str(tmp_path / "runs"),
        }
    )


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    return load_model_folder(folder)[0].state_dict()


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def at(run: RunFolder, step: int) -> Path:
    return run.checkpoints / checkpoint_name(step)


def test_step_0_is_the_published_model(settings: Settings, published: Path, console: Console) -> None:
    run = jobs.grow(settings, console).run
    first, last = at(run, 0), at(run, 12)
    for file in published.iterdir():
        if file.name != CARD:
            assert (first / file.name).read_bytes() == file.read_bytes(), file.name
    assert same(weights_of(first), weights_of(published))
    assert not same(weights_of(last), weights_of(published))
    # Roles, template and generation settings travel into every checkpoint, unchanged.
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json", "chat_template.jinja"):
        assert (last / name).read_bytes() == (published / name).read_bytes(), name
    config = json.loads((last / "config.json").read_text())
    assert (config["max_position_embeddings"], config["rms_norm_eps"], config["vocab_size"]) == (
        128,
        1e-5,
        304,
    )
    card = (last / CARD).read_text()
    assert "license: mit" in card
    assert "small-chat" in card


def test_other_programs_read_what_was_trained(settings: Settings, published: Path, console: Console) -> None:
    last = at(jobs.grow(settings, console).run, 12)
    network = transformers.AutoModelForCausalLM.from_pretrained(last, dtype=torch.float32)
    tokenizer = transformers.AutoTokenizer.from_pretrained(last)
    theirs = transformers.AutoTokenizer.from_pretrained(published)
    turns = [{"role": "user", "content": "One day"}]
    assert tokenizer.apply_chat_template(turns, tokenize=False) == theirs.apply_chat_template(
        turns, tokenize=False
    )
    ids = torch.tensor([tokenizer("One day the cat", add_special_tokens=False).input_ids])
    expected = network(ids).logits
    actual = load_model_folder(last)[0](ids)
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-5)


def test_the_files_of_a_base_are_stored_once(settings: Settings, tmp_path: Path, console: Console) -> None:
    one, two = jobs.grow(settings, console).run, jobs.grow(settings, console).run
    files = [at(run, 0) / "model.safetensors" for run in (one, two)]
    assert files[0].stat().st_ino == files[1].stat().st_ino
    assert len(list(at(one, 0).parent.glob("step-00000000"))) == 1


def test_an_interruption_changes_nothing(
    settings: Settings, published: Path, tmp_path: Path, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = jobs.grow(settings, console).run
    moved = tmp_path / "moved"
    shutil.copytree(published, moved)
    values = settings.model_dump()
    values["model"]["base"] = str(moved)
    with monkeypatch.context() as patch:
        stop_after(patch, 6)
        run = jobs.grow(Settings.model_validate(values), console).run
    shutil.rmtree(moved)  # the run does not need it any more
    assert jobs.resume(run.path, console).reason == "finished"
    assert comparable(run) == comparable(whole)
    assert same(weights_of(at(run, 12)), weights_of(at(whole, 12)))


def test_a_run_stopped_at_once_begins_again_with_the_model(
    settings: Settings, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = jobs.grow(settings, console).run
    with monkeypatch.context() as patch:
        stop_after(patch, 0)
        run = jobs.grow(settings, console).run
    jobs.resume(run.path, console)
    assert comparable(run) == comparable(whole)


@pytest.mark.parametrize("only", ["", "layers.1"])
def test_any_step_is_replayed_with_proof(settings: Settings, console: Console, only: str) -> None:
    values = settings.model_dump()
    values["train"]["only"] = only
    run = jobs.grow(Settings.model_validate(values), console).run
    machine = TimeMachine(run.path)
    for step in (1, 7, 12):
        machine.go_to(step)
        assert machine.proof.holds, machine.proof


def test_only_the_chosen_parameters_are_trained(
    settings: Settings, published: Path, console: Console
) -> None:
    values = settings.model_dump()
    values["train"]["only"] = "layers.1.mlp"
    run = jobs.grow(Settings.model_validate(values), console).run
    before, after = weights_of(published), weights_of(at(run, 12))
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {name for name in before if "layers.1.mlp" in name}
    state = (at(run, 12) / "optimizer.safetensors").stat().st_size
    numbers = sum(before[name].numel() for name in changed)
    assert 8 * numbers < state < 8 * numbers + 4096


def test_a_pattern_without_a_parameter_is_refused(settings: Settings, console: Console) -> None:
    values = settings.model_dump()
    values["train"]["only"] = "layers.9"
    with pytest.raises(InputError, match=r"no parameter has 'layers\.9' in its name"):
        jobs.grow(Settings.model_validate(values), console)


def test_a_fork_keeps_its_base(settings: Settings, text_folder: Path, console: Console) -> None:
    run = jobs.grow(settings, console).run
    fork = jobs.fork(f"{run.path}@4", console, ["train.steps=8"]).run
    other = jobs.fork(f"{run.path}@0", console, ["data.min_chars=20", "train.steps=3"]).run
    assert fork.read_manifest()["base"] == run.read_manifest()["base"] == other.read_manifest()["base"]
    assert same(weights_of(at(other, 0)), weights_of(at(run, 0)))
    assert list_checkpoints(fork.checkpoints)[-1].name == checkpoint_name(8)


@pytest.mark.parametrize("source", ["run", "run@5", "checkpoint"])
def test_a_run_of_ours_is_a_base_as_well(
    small_settings: Settings, settings: Settings, console: Console, source: str
) -> None:
    parent = jobs.grow(small_settings, console).run
    names = {"run": parent.path, "run@5": f"{parent.path}@5", "checkpoint": at(parent, 5)}
    values = settings.model_dump()
    values["model"]["base"] = str(names[source])
    run = jobs.grow(Settings.model_validate(values), console).run
    assert same(weights_of(at(run, 0)), weights_of(at(parent, 12 if source == "run" else 5)))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model.hidden_size", 64),
        ("model.size", "nano"),
        ("model.preset", "qwen3"),
        ("tokenizer.kind", "char"),
        ("tokenizer.vocab_size", 400),
    ],
)
def test_what_the_base_model_determines_cannot_be_chosen(
    settings: Settings, console: Console, key: str, value: Any
) -> None:
    section, name = key.split(".")
    values = settings.model_dump()
    values[section][name] = value
    with pytest.raises(InputError, match="base model's"):
        jobs.grow(Settings.model_validate(values), console)


@pytest.mark.parametrize("missing", ["config.json", "tokenizer.json", "model.safetensors"])
def test_an_incomplete_model_is_refused_before_anything_is_written(
    settings: Settings, published: Path, tmp_path: Path, console: Console, missing: str
) -> None:
    incomplete = tmp_path / "incomplete"
    shutil.copytree(published, incomplete)
    (incomplete / missing).unlink()
    values = settings.model_dump()
    values["model"]["base"] = str(incomplete)
    with pytest.raises(InputError, match="incomplete"):
        jobs.grow(Settings.model_validate(values), console)
    assert not (tmp_path / "runs").exists()


def test_old_checkpoints_keep_their_weights_and_a_few_their_optimizer_state(
    settings: Settings, console: Console
) -> None:
    values = settings.model_dump()
    values["train"] |= {"steps": 20, "state_every": 8, "keep_checkpoints": 1}
    chosen = Settings.model_validate(values)
    use = disk_use(make_plan(chosen, console)[0])
    run = jobs.grow(chosen, console).run
    folders = {step_of(folder): folder for folder in list_checkpoints(run.checkpoints)}
    assert {0, 1, 2, 4, 8, 16, 20} <= set(folders)
    states = {step for step, folder in folders.items() if (folder / OPTIMIZER_FILE).exists()}
    assert states == {0, 8, 16, 20}
    for folder in folders.values():
        assert verify_checkpoint(folder).has_optimizer_state == (folder / OPTIMIZER_FILE).exists()
    new = [file for folder in folders.values() for file in folder.iterdir()]
    assert sum(file.stat().st_size for file in new) == pytest.approx(use.final, rel=0.05)
    assert use.kept == len(folders)
    machine = TimeMachine(run.path)
    machine.go_to(6)  # from step 0, for those of steps 1, 2 and 4 have no state
    assert machine.proof.holds
    assert machine.proof.from_step == 0
    with pytest.raises(InputError, match="without the optimizer's state"):
        jobs.fork(f"{run.path}@4", console)
    assert jobs.fork(f"{run.path}@8", console, ["train.steps=9"]).step == 9


def test_a_resume_needs_the_optimizer_state(settings: Settings, console: Console) -> None:
    """The newest always has one. If it is damaged, the next older one that has one counts."""
    values = settings.model_dump()
    values["train"] |= {"steps": 20, "state_every": 8, "keep_checkpoints": 1}
    run = jobs.grow(Settings.model_validate(values), console).run
    whole = comparable(run)
    (at(run, 20) / "model.safetensors").write_bytes(b"damaged")
    run.write_status("stopped", 20)
    jobs.resume(run.path, console)
    assert comparable(run) == whole


def test_a_step_of_chosen_parameters_opens_with_the_gradients_of_all(
    settings: Settings, console: Console
) -> None:
    values = settings.model_dump()
    values["train"]["only"] = "layers.1.mlp"
    run = jobs.grow(Settings.model_validate(values), console).run
    opened = open_step(TimeMachine(run.path), 7)
    assert opened.proof.holds
    assert reconcile(opened).holds
    names = dict(opened.model.named_parameters()).keys()
    assert opened.gradients.keys() == names
    assert opened.used.keys() == {name for name in names if "layers.1.mlp" in name}
    assert opened.gradients["model.embed_tokens.weight"].norm() > 0  # it would have been applied
    frozen = opened.parameter("model.embed_tokens.weight")
    assert frozen.rule.name == "frozen"
    assert not frozen.update.any()
    assert frozen.difference == 0
    machine = TimeMachine(run.path)
    open_step(machine, 8)
    machine.go_to(12)  # no gradient of an opened step is left behind
    assert machine.proof.holds


def test_the_doctor_judges_such_a_run_by_its_own_rates(settings: Settings, console: Console) -> None:
    run = jobs.grow(settings, console).run
    assert dial_rates(verified_settings(run)[0])["train.lr"].value < 1e-3
    text = "\n".join(map(str, diagnose(run.path)))
    assert "another vocabulary" not in text
    assert "parameters outside the embeddings are to learn" not in text
    assert "train.lr=0.02" not in text


def test_the_command_of_the_report_is_complete(settings: Settings, console: Console) -> None:
    jobs.grow(settings, console)
    output = console.file.getvalue()  # type: ignore[attr-defined]
    line = next(line for line in output.replace("\n", " ").split("All of it: ")[1:])
    assert "--set tokenizer.kind=base" in line
    assert "--set model.base=" in line


def test_a_damaged_checkpoint_is_no_base(
    small_settings: Settings, settings: Settings, console: Console
) -> None:
    parent = jobs.grow(small_settings, console).run
    file = at(parent, 12) / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-4] + b"abcd")
    values = settings.model_dump()
    values["model"]["base"] = str(parent.path)
    with pytest.raises(InputError, match=r"model\.safetensors is damaged"):
        jobs.grow(Settings.model_validate(values), console)


def test_a_run_that_has_lost_its_model_is_refused(
    settings: Settings, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        stop_after(patch, 0)
        run = jobs.grow(settings, console).run
    shutil.rmtree(at(run, 0))
    with pytest.raises(InputError, match="begins with the one of step 0"):
        jobs.resume(run.path, console)


def test_a_fork_stands_alone(
    settings: Settings, console: Console, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its first checkpoint keeps the optimizer's state, and its tokenizer is read from there."""
    values = settings.model_dump()
    values["train"] |= {"state_every": 8, "keep_checkpoints": 1}
    run = jobs.grow(Settings.model_validate(values), console).run
    fork = jobs.fork(f"{run.path}@12", console, ["train.steps=20"]).run
    assert (at(fork, 12) / OPTIMIZER_FILE).exists()
    monkeypatch.setenv("ETUDE_CACHE", str(tmp_path / "empty"))
    machine = TimeMachine(fork.path)
    machine.go_to(14)
    assert machine.proof.holds


def test_models_with_one_tokenizer_keep_their_own_templates(
    settings: Settings, published: Path, tmp_path: Path, console: Console
) -> None:
    jobs.grow(settings, console)
    other = tmp_path / "other"
    shutil.copytree(published, other)
    (other / "chat_template.jinja").write_text("{{ messages[0].content }}<|im_end|>")
    values = settings.model_dump()
    values["model"]["base"] = str(other)
    run = jobs.grow(Settings.model_validate(values), console).run
    assert (at(run, 12) / "chat_template.jinja").read_bytes() == (other / "chat_template.jinja").read_bytes()


def test_a_fork_has_no_other_base(settings: Settings, console: Console) -> None:
    run = jobs.grow(settings, console).run
    with pytest.raises(InputError, match="keeps its parent's weights"):
        jobs.fork(f"{run.path}@4", console, ["train.steps=14", "model.base=none"])


def test_weights_with_a_name_of_a_checkpoint_are_refused(
    settings: Settings, published: Path, tmp_path: Path, console: Console
) -> None:
    odd = tmp_path / "odd"
    shutil.copytree(published, odd)
    (odd / "model.safetensors").rename(odd / OPTIMIZER_FILE)
    names = dict.fromkeys(weights_of(published), OPTIMIZER_FILE)
    (odd / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    values = settings.model_dump()
    values["model"]["base"] = str(odd)
    with pytest.raises(InputError, match="a name that checkpoints use"):
        jobs.grow(Settings.model_validate(values), console)
    assert not (tmp_path / "runs").exists()


def test_a_base_run_measures_the_reference_text_from_step_0(
    settings: Settings, tmp_path: Path, console: Console
) -> None:
    run = jobs.grow(settings, console).run
    history = RunRecord.open(run.path).history
    assert (
        [event.step for event in history.references]
        == [event.step for event in history.evals]
        == [0, 4, 8, 12]
    )
    # An independent value: nats of every token after the first, by transformers, in the windows of training.
    manifest = json.loads(run.manifest_file.read_text())
    documents = manifest["reference"]["documents"]
    tokenizer = EtudeTokenizer.load(run.tokenizer)
    ids = [token for text in documents for token in (tokenizer.roles.document_id, *tokenizer.encode(text))]
    for step, event in ((0, history.references[0]), (12, history.references[-1])):
        network = transformers.LlamaForCausalLM.from_pretrained(at(run, step), dtype=torch.float32)
        nats = []
        for first in range(0, len(ids) - 1, 32):
            window = torch.tensor([ids[first : first + 33]])
            with torch.no_grad():
                logits = network(window[:, :-1]).logits[0].double()
            nats += torch.nn.functional.cross_entropy(logits, window[0, 1:], reduction="none").tolist()
        text_nats = [
            value for value, token in zip(nats, ids[1:], strict=True) if token != tokenizer.roles.document_id
        ]
        num_bytes = sum(len(text.encode()) for text in documents)
        assert event.loss == pytest.approx(sum(nats) / len(nats), rel=1e-5)
        assert event.bits_per_byte == pytest.approx(sum(text_nats) / math.log(2) / num_bytes, rel=1e-5)
    # A fork keeps it, also where the file has changed; a fork with another one has the other.
    mine = tmp_path / "mine.txt"
    mine.write_text("Something else. " * 20)
    own = jobs.fork(f"{run.path}@8", console, ["train.steps=9", f"train.reference={mine}"]).run
    mine.write_text("Now it is different. " * 20)
    for parent, expected in ((run, documents), (own, ["Something else. " * 19 + "Something else."])):
        fork = jobs.fork(f"{parent.path}@8", console, ["train.steps=10"]).run
        assert fork.read_manifest()["reference"]["documents"] == expected
        references = RunRecord.open(fork.path).history.references
        assert references[-1].step == 10
        assert (references[0].step == 0) == (parent is run)  # results on the parent's other text are skipped


def test_evaluations_of_a_base_run_cost_less_than_its_training(settings: Settings, console: Console) -> None:
    free = with_values(
        settings, {f"train.{name}": "auto" for name in ("eval_every", "eval_tokens", "sample_every", "steps")}
    )
    train = make_plan(free, console)[0].settings.train
    due = [step for step in range(1, train.steps + 1) if evaluation_due(train)(step)]
    scored = (1 + len(due)) * train.eval_tokens * SCORING
    assert (
        train.eval_tokens == MIN_EVAL_TOKENS
        or scored <= 0.11 * train.steps * train.batch_rows * train.context
    )
    assert not set(due) & EARLY_EVALUATIONS - {train.eval_every}


def test_a_sweep_has_no_base(settings: Settings, tmp_path: Path, console: Console) -> None:
    request = sweep.SweepRequest(2, 3, 60.0, (), 16, "sweep")
    with pytest.raises(InputError, match=r"leave out model\.base"):
        sweep.begin(settings, request, console)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_run_from_a_base_ends_in_the_time_that_it_is_given(
    settings: Settings, text_folder: Path, console: Console, optimizer: str
) -> None:
    values = settings.model_dump()
    values["train"] = load_settings().model_dump()["train"] | {"seconds": 20.0, "optimizer": optimizer}
    began = time.monotonic()
    outcome = jobs.grow(Settings.model_validate(values), console)
    output = console.file.getvalue()  # type: ignore[attr-defined]
    assert outcome.reason == "finished"
    assert outcome.step > 1
    assert time.monotonic() - began < 40  # of a machine on which other programs run
    assert "No loss is forecast for a base model" in output
    assert "expected bits per byte" not in output  # the table of sizes
    machine = TimeMachine(outcome.run.path)
    machine.go_to(1)
    assert machine.proof.holds


def test_a_run_that_does_not_fit_the_free_memory_is_refused_before_it_starts(
    settings: Settings, tmp_path: Path, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = make_plan(settings, console)[0].memory
    needed = memory.total - memory.process
    monkeypatch.setattr(plans, "free_memory_bytes", lambda kind: needed - 1)
    with pytest.raises(InputError, match=r"GiB are free.*--train 'layers\.1'"):
        jobs.grow(settings, console)
    assert not list((tmp_path / "runs").glob("*"))
    monkeypatch.setattr(plans, "free_memory_bytes", lambda kind: needed)
    assert jobs.grow(settings, console).reason == "finished"


def test_a_context_beyond_the_positions_of_the_base_is_refused(
    settings: Settings, tmp_path: Path, console: Console
) -> None:
    with pytest.raises(InputError, match="more than the 128 positions of the base model"):
        jobs.grow(with_values(settings, {"train.context": 129}), console)
    assert not list((tmp_path / "runs").glob("*"))
