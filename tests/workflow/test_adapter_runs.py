"""Runs that train a low-rank adapter of a model: exact as any run, small on disk, and PEFT reads what they save."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file, save_file
from test_base import at, published, same, settings, weights_of  # noqa: F401
from test_pretrain import comparable, stop_after

from etude.config import Settings
from etude.errors import InputError
from etude.model.adapter import is_factor
from etude.model.decoding import Decoding
from etude.model.folder import load_config, load_model_folder
from etude.model.lora import LoRALinear
from etude.plan.disk_use import disk_use
from etude.pretrained.base import open_base
from etude.pretrained.import_model import import_model
from etude.pretrained.load_model import load_trained
from etude.run import RunFolder
from etude.run.checkpoints import list_checkpoints, step_of, verify_checkpoint
from etude.run.file_checks import verify
from etude.serve import look_types, run_types
from etude.serve.answers import Answers
from etude.serve.facts import facts_of
from etude.serve.request import Question as Asked
from etude.serve.tensor_files import TensorFiles
from etude.watch.arithmetic import weight_step
from etude.watch.forking import fork
from etude.watch.inspect import Question, look_at
from etude.watch.layer_in_step import LayerInStep
from etude.watch.opened_step import open_step
from etude.watch.reconciliation import reconcile
from etude.watch.time_machine import TimeMachine
from etude.workflow import jobs
from etude.workflow.prepare import make_plan
from serving import require_type

peft = pytest.importorskip("peft")
transformers = pytest.importorskip("transformers")
ADAPTER = {"lora_rank": 4, "lora_alpha": 8.0, "keep_every": 5}


def changed(settings: Settings, **train: Any) -> Settings:  # noqa: F811
    """Return the settings with others of training."""
    values = settings.model_dump()
    values["train"] |= train
    return Settings.model_validate(values)


@pytest.fixture
def adapting(settings: Settings) -> Settings:  # noqa: F811
    """Return settings of twelve steps that train an adapter of that model."""
    return changed(settings, **ADAPTER)


def factors_of(folder: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in weights_of(folder).items() if is_factor(name)}


def logits_of(folder: Path, ids: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return load_model_folder(folder)[0](ids)


def test_a_checkpoint_is_an_adapter_and_the_base_is_stored_once(
    adapting: Settings,
    published: Path,  # noqa: F811
    console: Console,
) -> None:
    run = jobs.grow(adapting, console).run
    first, last = at(run, 0), at(run, 12)
    assert same(weights_of(first), weights_of(published))
    assert not (last / "model.safetensors").exists()
    assert json.loads((last / "adapter_config.json").read_text())["target_modules"][:2] == [
        "q_proj",
        "k_proj",
    ]
    weights = weights_of(last)
    base = {name: tensor for name, tensor in weights.items() if not is_factor(name)}
    assert same(base, weights_of(published))  # frozen, to the bit
    assert all(tensor.any() for tensor in factors_of(last).values())
    numbers = sum(tensor.numel() for tensor in factors_of(last).values())
    assert 8 * numbers < (last / "optimizer.safetensors").stat().st_size < 8 * numbers + 12_288
    assert 4 * numbers < (last / "adapter_model.safetensors").stat().st_size < 4 * numbers + 8192
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        assert (last / name).read_bytes() == (published / name).read_bytes()
    assert all(check.ok for check in verify(run))


@pytest.mark.parametrize("only", ["", r"layers\.1"])
def test_any_step_is_replayed_with_proof(adapting: Settings, console: Console, only: str) -> None:
    run = jobs.grow(changed(adapting, only=only, dropout=0.1, lora_dropout=0.1), console).run
    machine = TimeMachine(run.path)
    for step in (12, 1, 7):
        machine.go_to(step)
        assert machine.proof.holds, machine.proof
        if step == 12:
            assert same(dict(machine.state.model.state_dict()), weights_of(at(run, 12)))
    names = {name for name, tensor in factors_of(at(run, 12)).items() if name.endswith("B") and tensor.any()}
    assert names == {n for n in factors_of(at(run, 12)) if n.endswith("B") and (not only or "layers.1" in n)}


def test_an_interruption_changes_nothing(
    adapting: Settings, tmp_path: Path, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapting = changed(adapting, lora_dropout=0.1)
    whole = jobs.grow(adapting, console).run
    for step in (0, 6):
        with monkeypatch.context() as patch:
            stop_after(patch, step)
            run = jobs.grow(adapting, console).run
        moved = RunFolder(run.path.rename(tmp_path / f"moved-{step}"))  # the base moves with the run
        assert jobs.resume(moved.path, console).reason == "finished"
        assert comparable(moved) == comparable(whole)
        assert same(weights_of(at(moved, 12)), weights_of(at(whole, 12)))


def test_other_settings_of_the_adapter_are_refused_on_a_resume_and_in_a_fork(
    adapting: Settings, console: Console
) -> None:
    run = jobs.grow(adapting, console).run
    others = (
        "train.lora_rank=2",
        "train.lora_alpha=3",
        "train.lora_targets=q_proj",
        "train.lora_dropout=0.1",
    )
    for key in others:
        with pytest.raises(InputError, match="start a new run"):
            jobs.resume(run.path, console, [key])
        with pytest.raises(InputError, match=r"a fork keeps its parent's adapter"):
            jobs.fork(f"{run.path}@5", console, [key, "train.steps=8"])


def test_forks_carry_the_base(adapting: Settings, tmp_path: Path, console: Console) -> None:
    run = jobs.grow(changed(adapting, lora_dropout=0.1), console).run
    assert json.loads((at(run, 12) / "adapter_config.json").read_text())["lora_dropout"] == 0.1
    whole = comparable(run)
    fork = jobs.fork(f"{run.path}@5", console).run
    assert same(weights_of(at(fork, 12)), weights_of(at(run, 12)))
    again = jobs.fork(f"{fork.path}@10", console).run
    early = jobs.fork(f"{run.path}@0", console, ["train.steps=3"]).run
    assert same(weights_of(at(early, 0)), weights_of(at(run, 0)))
    files = [run.checkpoints / "step-00000000", fork.checkpoints / "base", again.checkpoints / "base"]
    assert len({(folder / "model.safetensors").stat().st_ino for folder in files}) == 1
    assert comparable(run) == whole
    shutil.rmtree(run.path)
    shutil.rmtree(fork.path)
    last = RunFolder(again.path.rename(tmp_path / "moved"))
    assert at(last, 12).is_dir()
    machine = TimeMachine(last.path)
    machine.go_to(12)
    assert machine.proof.holds
    assert load_trained(last.path).model.config.adapter is not None


def test_the_base_of_a_fork_is_verified_and_restored(adapting: Settings, console: Console) -> None:
    run = jobs.grow(adapting, console).run
    fork = jobs.fork(f"{run.path}@5", console, ["train.steps=8"]).run
    weights = fork.checkpoints / "base" / "model.safetensors"
    good = weights.read_bytes()
    weights.unlink()
    weights.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    assert [check.thing for check in verify(fork) if not check.ok] == ["checkpoints/base"]
    with pytest.raises(InputError, match="damaged"):
        load_trained(fork.path)
    fork.write_status("stopped", 8)
    assert jobs.resume(fork.path, console, ["train.steps=10"]).reason == "finished"
    assert weights.read_bytes() == good
    assert all(check.ok for check in verify(fork))


def test_peft_computes_the_same(adapting: Settings, console: Console) -> None:
    last = at(jobs.grow(adapting, console).run, 12)
    named = json.loads((last / "adapter_config.json").read_text())["base_model_name_or_path"]
    base = transformers.AutoModelForCausalLM.from_pretrained(named, dtype=torch.float32)
    ids = torch.randint(300, (2, 17), generator=torch.Generator().manual_seed(1))
    alone = base(ids).logits.detach().clone()
    theirs = peft.PeftModel.from_pretrained(base, last).eval()
    actual = logits_of(last, ids)
    torch.testing.assert_close(actual, theirs(ids).logits, atol=1e-5, rtol=1e-5)
    assert (actual - alone).abs().max() > 1e-3
    automatic = transformers.AutoModelForCausalLM.from_pretrained(last, dtype=torch.float32)
    torch.testing.assert_close(actual, automatic(ids).logits, atol=1e-5, rtol=1e-5)


def test_import_merges_it(adapting: Settings, tmp_path: Path, console: Console) -> None:
    run = jobs.grow(adapting, console).run
    folder = import_model(f"{run.path}@12", str(tmp_path / "merged"), console)
    network = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    ids = torch.randint(300, (2, 17), generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(logits_of(at(run, 12), ids), network(ids).logits, atol=1e-5, rtol=1e-5)
    assert (folder / "chat_template.jinja").is_file()
    origin = json.loads((folder / "origin.json").read_text())
    assert origin["adapter"]["rank"] == 4
    assert load_config(folder).adapter is None
    assert open_base(folder).config == load_config(at(run, 0))


def test_it_is_a_base_of_another_run(adapting: Settings, console: Console) -> None:
    parent = jobs.grow(adapting, console).run
    values = adapting.model_dump()
    values["model"]["base"] = f"{parent.path}@10"
    run = jobs.grow(Settings.model_validate(values), console).run
    entry = run.read_manifest()["base"]
    assert (entry["source"], entry["step"]) == (f"{parent.path}@10", 10)
    ids = torch.randint(300, (2, 17), generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(
        logits_of(at(run, 0), ids), logits_of(at(parent, 10), ids), atol=1e-5, rtol=1e-5
    )
    machine = TimeMachine(run.path)
    machine.go_to(7)
    assert machine.proof.holds


def test_its_disk_space_is_predicted(adapting: Settings, console: Console) -> None:
    chosen = changed(adapting, steps=20, keep_checkpoints=1, state_every=10)
    use = disk_use(make_plan(chosen, console)[0])
    run = jobs.grow(chosen, console).run
    folders = list_checkpoints(run.checkpoints)
    assert [step_of(folder) for folder in folders] == [0, 1, 2, 4, 5, 8, 10, 15, 16, 20]
    size = sum(file.stat().st_size for folder in folders for file in folder.iterdir())
    assert size == pytest.approx(use.final, rel=0.05)


def test_the_plan_keeps_many_small_checkpoints(settings: Settings, console: Console) -> None:  # noqa: F811
    values = settings.model_dump()
    for key in ("lr", "checkpoint_every"):
        values["train"][key] = "auto"
    values["train"] |= {"lora_rank": 4, "steps": 2000}
    plan, _ = make_plan(Settings.model_validate(values), console)
    train = plan.settings.train
    assert (train.checkpoint_every, train.keep_every, train.lora_alpha, train.lr) == (40, 40, 8.0, 5e-4)
    assert train.state_every % train.keep_every == 0
    whole, _ = make_plan(changed(Settings.model_validate(values), lora_rank=0), console)
    assert plan.memory.optimizer < whole.memory.optimizer / 3
    assert plan.memory.gradients < whole.memory.gradients / 3
    assert whole.settings.train.keep_every == 0


def test_a_step_opens_with_the_gradients_that_were_not_applied(adapting: Settings, console: Console) -> None:
    run = jobs.grow(adapting, console).run
    opened = open_step(TimeMachine(run.path), 7)
    assert opened.proof.holds
    name = "model.layers.1.mlp.up_proj"
    assert {f"{name}.weight", f"{name}.lora_A", f"{name}.lora_B", "model.norm.weight"} <= set(
        opened.gradients
    )
    # dL/dB = scale * (dL/dW) A' and dL/dA = scale * B' dL/dW, for any matrix W + scale * B A.
    before = opened.before.weights
    gradient = opened.gradients[f"{name}.weight"].double()
    up, down = (before[f"{name}.lora_{part}"].double() for part in "BA")
    for part, expected in (("B", 2.0 * gradient @ down.T), ("A", 2.0 * up.T @ gradient)):
        actual = opened.gradients[f"{name}.lora_{part}"].double()
        torch.testing.assert_close(actual, expected, atol=1e-7, rtol=1e-4)
        assert opened.parameter(f"{name}.lora_{part}").rule.name == "adamw"
    assert opened.parameter(f"{name}.weight").rule.name == "frozen"
    assert set(opened.used) == {key for key in before if is_factor(key)}
    found = reconcile(opened)
    assert found.holds, found


@pytest.mark.parametrize("tied", [True, False])
def test_frozen_weights_take_no_part(
    adapting: Settings,
    published: Path,  # noqa: F811
    tmp_path: Path,
    console: Console,
    tied: bool,
) -> None:
    folder = tmp_path / "other"
    shutil.copytree(published, folder)
    network = transformers.LlamaForCausalLM.from_pretrained(published, tie_word_embeddings=tied)
    network.save_pretrained(folder)
    values = adapting.model_dump()
    values["model"]["base"] = str(folder)
    run = jobs.grow(Settings.model_validate(values), console).run
    state = load_file(at(run, 12) / "optimizer.safetensors")
    assert {key.rpartition(".")[0] for key in state} == set(factors_of(at(run, 12)))


def test_damage_gets_one_line(adapting: Settings, tmp_path: Path, console: Console) -> None:
    run = jobs.grow(adapting, console).run
    last = at(run, 12)
    alone = tmp_path / "alone"
    shutil.copytree(last, alone)
    (alone / "train_state.json").unlink()
    config = json.loads((alone / "adapter_config.json").read_text())
    (alone / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": "gone"}))
    with pytest.raises(InputError, match=r"the base model of the adapter .* is not at gone"):
        load_model_folder(alone)
    (alone / "adapter_config.json").write_text(json.dumps(config | {"r": 2}))
    with pytest.raises(
        InputError, match=r"the matrices for .* do not fit adapter_config\.json and the base model"
    ):
        load_model_folder(alone)
    (alone / "adapter_config.json").write_text(json.dumps(config | {"target_modules": ["c_attn"]}))
    with pytest.raises(InputError, match=r"adapter_config\.json: no linear layer is called 'c_attn'"):
        load_model_folder(alone)
    wider = tmp_path / "wider"
    shutil.copytree(at(run, 0), wider)
    other = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=304, hidden_size=48, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4
        )
    )
    other.save_pretrained(wider)
    (alone / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": str(wider)}))
    with pytest.raises(InputError, match="give the base that the adapter was trained on"):
        load_model_folder(alone)
    tensors = load_file(last / "adapter_model.safetensors")
    tensors.pop(next(iter(tensors)))
    save_file(tensors, last / "adapter_model.safetensors")
    with pytest.raises(InputError, match="is damaged: use an older checkpoint"):
        verify_checkpoint(last)
    weights = at(run, 0) / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.unlink()
    weights.write_bytes(content)
    with pytest.raises(InputError, match=r"step-00000000.model\.safetensors is damaged"):
        load_trained(f"{run.path}@10")


def test_an_adapter_needs_a_base(small_settings: Settings, console: Console) -> None:
    with pytest.raises(InputError, match="add --from MODEL, or omit --lora"):
        jobs.grow(changed(small_settings, lora_rank=4), console)
    with pytest.raises(
        InputError, match="lora_dropout describe an adapter, and this run has none: add --lora"
    ):
        jobs.grow(changed(small_settings, lora_dropout=0.1), console)


def require_sums_at_tokens(layer: LayerInStep) -> None:
    """Check that the terms at a token add up with the weights that dropout leaves there, and not with others."""
    for unit, row, position in ((3, 0, 5), (4, 1, 20)):
        seen, error = layer.sum(unit, row, position), layer.error(unit, row, position)
        for each in (seen.gate, seen.up):
            assert each is not None
            assert abs(each.difference) <= 1e-6 * float(each.terms.abs().sum())
        products = error.outgoing * error.arriving
        assert error.at_activation == pytest.approx(
            float(products.sum()), abs=1e-6 * float(products.abs().sum())
        )
        assert not torch.equal(layer.node_layer.outgoing(layer.opened.model, unit).double(), error.outgoing)


@pytest.mark.parametrize(("dtype", "dropout"), [("fp32", 0.2), ("bf16", 0.0)])
def test_a_number_of_an_adapted_matrix_is_explained(
    adapting: Settings, console: Console, dtype: str, dropout: float
) -> None:
    values = changed(adapting, lora_dropout=dropout).model_dump()
    values["device"]["dtype"] = dtype
    run = jobs.grow(Settings.model_validate(values), console).run
    opened = open_step(TimeMachine(run.path), 7)
    assert opened.proof.holds
    assert reconcile(opened).holds, reconcile(opened)
    path, (row, column) = "model.layers.1.mlp.up_proj", (4, 5)
    step = weight_step(opened, f"{path}.weight", (row, column))
    part = step.low_rank
    assert part is not None
    for model, product in ((opened.model, part.product), (opened.model_after, part.product_after)):
        layer = model.get_submodule(path)
        assert isinstance(layer, LoRALinear)
        assert part.base == float(layer.base_weight[row, column])
        assert part.base + product == pytest.approx(float(layer.weight[row, column]), abs=1e-8)
    assert part.product != part.product_after
    assert part.share == pytest.approx(abs(part.product) / (abs(part.product) + abs(part.base)))
    # The gradient that was not applied is the sum of error times input over all tokens of the batch.
    layer = LayerInStep(opened, "model.layers.1.mlp")
    gate = weight_step(opened, "model.layers.1.mlp.gate_proj.weight", (row, column))
    terms = layer.gradient_terms(row, column)
    tolerance = 1e-5 if dtype == "fp32" else 2e-2
    assert terms.total == pytest.approx(
        gate.gradient, rel=tolerance, abs=tolerance * float(terms.terms.abs().sum())
    )
    assert (step.before, step.lr, step.rule.name) == (step.after, 0.0, "frozen")
    if dropout:
        require_sums_at_tokens(layer)
    for leaf, index in (("lora_A", (1, column)), ("lora_B", (row, 1))):
        moved = weight_step(opened, f"{path}.{leaf}", index)
        assert moved.low_rank is None
        assert abs(moved.difference) <= 2 * moved.spacing
        assert moved.update != 0


def test_inspect_shows_factors_product_and_share(adapting: Settings, console: Console) -> None:
    run = jobs.grow(adapting, console).run
    weight = "model.layers.1.mlp.up_proj.weight[4,5]"
    look = look_at(Question(run.path, step=6, weight=weight))
    values: Any = look.values
    part = values["at"]["low_rank"]
    assert values["values"]["5"] == part["sum"]
    assert values["values"]["6"] == part["sum_after"]
    assert len(part["up"]) == len(part["down"]) == 4
    assert part["product"] == pytest.approx(
        2.0 * sum(u * d for u, d in zip(part["up"], part["down"], strict=True))
    )
    text = "\n".join(map(str, look.parts))
    assert "not applied, for the weight itself is frozen" in text
    assert "of the sizes of both" in text
    json.dumps(look.values)
    frozen: Any = look_at(Question(run.path, step=7, weight="model.norm.weight[3]"))
    assert "low_rank" not in frozen.values["at"]
    assert "not applied" in "\n".join(map(str, frozen.parts))
    look_at(Question(run.path, step=7, node="model.layers.1.mlp:3", token="0:5"))
    factor: Any = look_at(Question(run.path, step=7, weight="model.layers.1.mlp.up_proj.lora_A[1,5]"))
    assert factor.values["at"]["rule"] == "adamw"


def test_a_knob_on_a_factor_makes_a_fork_and_one_on_the_base_does_not(
    adapting: Settings, console: Console
) -> None:
    run = jobs.grow(adapting, console).run
    machine, name = TimeMachine(run.path), "model.layers.1.mlp.up_proj.lora_B"
    with pytest.raises(InputError, match="is frozen, and a run with an adapter stores only its factors"):
        fork(machine, 10, ["model.layers.1.mlp.up_proj.weight[4,1]=0.5"])
    with pytest.raises(InputError, match="choose a later step"):
        fork(machine, 0, [f"{name}[4,1]=0.5"])
    turned = fork(machine, 10, [f"{name}[4,1]=0.5"])
    expected = factors_of(at(run, 10))
    expected[name][4, 1] = 0.5
    assert same(factors_of(at(turned, 10)), expected)
    named = json.loads((at(turned, 10) / "adapter_config.json").read_text())["base_model_name_or_path"]
    assert Path(named) == at(run, 0)
    assert jobs.resume(turned.path, console).step == 12
    replayed = TimeMachine(turned.path)
    replayed.go_to(12)
    assert replayed.proof.holds


GATE, FACTOR = "model.layers.1.mlp.gate_proj.weight", "model.layers.1.mlp.gate_proj.lora_B"
UNIT = {"layer": 1, "unit": 3}


@pytest.mark.parametrize("step", [7, 10])
def test_the_studio_answers(adapting: Settings, tmp_path: Path, console: Console, step: int) -> None:
    run = jobs.grow(adapting, console).run
    answers = Answers(run.path.parent, TensorFiles(tmp_path))
    questions: list[tuple[str, dict[str, Any]]] = [
        ("step", {"row": 0}),
        ("token", {"row": 0, "position": 5}),
        ("unit", {"row": 0, "position": 5, **UNIT}),
        ("weight", {"name": GATE, "index": [3, 5]}),
        ("weight", {"name": FACTOR, "index": [3, 1]}),
        *(
            ("matrix", {"name": name, "what": what})
            for name in (GATE, FACTOR)
            for what in ("before", "gradient", "update", "since_start")
        ),
        ("prompt", {"text": "One day"}),
        ("node", UNIT),
        ("neurons", {"text": "One day", "layer": 1}),
        ("compare", {"text": "One day", "knobs": [f"{FACTOR}[3,1]=0.5"]}),
        ("story", {"text": "One day"}),
        ("fork", {"knobs": [f"{FACTOR}[3,1]=0.5"], "name": "turned"}),
    ]
    for look, rest in questions:
        at_step = {} if look == "story" else {"step": step}
        question = Asked({"run": run.path.name, "look": look, **at_step, **rest})
        answer = answers.answer(question, lambda line: None)
        require_type(look_types.ANSWERS[look], answer)
        if look == "weight":
            assert "low_rank" in answer["at"] or rest["name"] == FACTOR  # type: ignore[index, call-overload]
    require_type(run_types.RunFacts, facts_of(run.path, True))


def test_knobs_and_generation_read_the_sum(adapting: Settings, console: Console) -> None:
    run = jobs.grow(changed(adapting, lr=0.05), console).run
    trained = load_trained(f"{run.path}@12")
    ids = torch.randint(300, (1, 9), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = trained.model(ids)
        decoding, cache = Decoding(trained.model), trained.model.new_cache(1, 16)
        for place in range(9):
            logits = decoding.step(ids[:, place], cache)
        torch.testing.assert_close(logits, expected[:, -1], atol=1e-4, rtol=1e-4)
        assert (load_trained(f"{run.path}@0").model(ids) - expected).abs().max() > 0.01
