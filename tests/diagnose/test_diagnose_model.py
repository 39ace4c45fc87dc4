"""The doctor on a model without a run: what it finds, and what it says it cannot judge."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from bare_models import make_model
from etude.cli.main import app
from etude.diagnose.model import DEAD, FINITE, HEADS, HISTORY, LOSS, TIED, UNUSED, diagnose_model
from etude.diagnose.run.verdict import Rule, Verdict
from etude.errors import InputError
from etude.model.folder import load_model_folder

PROSE = "The quick brown fox jumps over the lazy dog. " * 20


def verdict(verdicts: list[Verdict], rule: Rule) -> Verdict:
    (found,) = (each for each in verdicts if each.rule == rule.name)
    return found


def change(folder: Path, name: str, to: torch.Tensor) -> None:
    weights = load_file(folder / "model.safetensors")
    weights[name] = to
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def test_without_a_text_or_a_run_it_says_what_it_cannot_judge(tmp_path: Path) -> None:
    model = make_model(tmp_path / "model", "llama-plain")
    verdicts = diagnose_model(model)
    for rule in (LOSS, DEAD, HEADS, HISTORY):
        assert verdict(verdicts, rule).severity == "not judged"
    assert f"etude train TEXT --from {model}" in verdict(verdicts, HISTORY).finding
    assert verdict(verdicts, FINITE).severity == "fine"
    assert "not tied" in verdict(verdicts, TIED).finding


def test_the_loss_on_a_text_is_that_of_the_network(tmp_path: Path) -> None:
    model = make_model(tmp_path / "model", "gpt2")
    text = tmp_path / "text.txt"
    text.write_text(PROSE[:60])
    verdicts = diagnose_model(model, text)
    from etude.data.tokens.published import model_tokenizer

    tokenizer, network = model_tokenizer(model), load_model_folder(model)[0]
    ids = torch.tensor([tokenizer.roles.document_id, *tokenizer.encode(PROSE[:60])])
    with torch.no_grad():
        logits = network.head(network.hidden(ids[None]))[0].double()
    loss = float(torch.nn.functional.cross_entropy(logits[:-1], ids[1:]))
    assert f"{loss:.3f} nats per token on {len(ids) - 1} tokens" in verdict(verdicts, LOSS).finding
    assert verdict(verdicts, HEADS).severity == "fine"


def test_broken_weights_dead_neurons_and_untrained_tokens_are_found(tmp_path: Path) -> None:
    model, text = make_model(tmp_path / "model", "llama-plain"), tmp_path / "text.txt"
    text.write_text(PROSE)
    weights = load_file(model / "model.safetensors")
    embedding, down = weights["model.embed_tokens.weight"], weights["model.layers.1.mlp.down_proj.weight"]
    embedding[[5, 9]] *= 0.001
    change(model, "model.embed_tokens.weight", embedding)
    down[:, :50] = 0
    change(model, "model.layers.1.mlp.down_proj.weight", down)
    verdicts = diagnose_model(model, text)
    assert verdict(verdicts, UNUSED).severity == "notice"
    assert verdict(verdicts, UNUSED).finding.startswith("2 of ")
    assert verdict(verdicts, DEAD).severity == "notice"
    assert "most in layer 1: 50" in verdict(verdicts, DEAD).finding
    down[0, 0] = float("nan")
    change(model, "model.layers.1.mlp.down_proj.weight", down)
    assert verdict(diagnose_model(model), FINITE).severity == "problem"
    result = CliRunner().invoke(app, ["doctor", str(model), "--json"])
    assert result.exit_code == 1
    assert json.loads(result.output.splitlines()[0])["rule"] == FINITE.name


def test_the_command_prints_findings_and_refuses_in_one_line(tmp_path: Path) -> None:
    model = make_model(tmp_path / "model", "qwen3")
    result = CliRunner().invoke(app, ["doctor", str(model)])
    assert result.exit_code == 0, result.output
    assert "roles of tokens: <|endoftext|> begins a document" in " ".join(result.output.split())
    with pytest.raises(InputError, match="cannot be read"):
        diagnose_model(model, tmp_path / "missing.txt")
    (tmp_path / "empty.txt").write_text(" ")
    with pytest.raises(InputError, match="holds no text"):
        diagnose_model(model, tmp_path / "empty.txt")
