"""The coordinate check (Yang et al. 2022, appendix D.1): updates change activations equally at every width."""

from __future__ import annotations

from typing import Literal

import pytest
import torch

from etude.config import TrainSettings
from etude.device import Device
from etude.model.build import build_model
from etude.model.config import preset
from etude.train.batch import MicroBatch
from etude.train.loss import summed_loss
from etude.train.optimizer import UpdateRules
from etude.train.step import update_step
from networks import make_tokens

CPU = Device("cpu", "fp32", 1)
WIDTHS = (64, 128, 256, 512)
VOCAB, ROWS, CONTEXT, STEPS = 64, 4, 16, 5


def movement(width: int, optimizer: Literal["muon", "adamw"], *, scaled: bool = True) -> dict[str, float]:
    """Root mean square change of the last hidden state and of the logits by a few updates."""
    dims = {"hidden_size": width, "num_hidden_layers": 2, "num_attention_heads": width // 32}
    model = build_model(preset("llama", vocab_size=VOCAB, max_position_embeddings=CONTEXT, **dims), seed=1)
    rules = UpdateRules(
        model, TrainSettings(lr=0.01, muon_lr=0.02, weight_decay=0.1, steps=STEPS, optimizer=optimizer), CPU
    )
    if not scaled:
        rules._peak_lrs = [[0.01] * len(peaks) for peaks in rules._peak_lrs]
    tokens = make_tokens(ROWS, CONTEXT + 1, vocab=VOCAB)
    part = MicroBatch(tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous(), ROWS * CONTEXT)
    with torch.no_grad():
        before = model.hidden(part.inputs), model(part.inputs)
    for _ in range(STEPS):
        update_step(
            list(model.parameters()),
            lambda part: summed_loss(model.hidden(part.inputs), part.targets, *model.unembedding()),
            [part],
            rules,
            lr_factor=1.0,
            momentum=0.9,
            max_grad_norm=1e9,
            device=CPU,
        )
    with torch.no_grad():
        after = model.hidden(part.inputs), model(part.inputs)
    sizes = [float((new - old).square().mean().sqrt()) for new, old in zip(after, before, strict=True)]
    return dict(zip(("hidden", "logits"), sizes, strict=True))


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
@pytest.mark.parametrize("what", ["hidden", "logits"])
def test_updates_change_activations_equally_at_every_width(
    what: str, optimizer: Literal["muon", "adamw"]
) -> None:
    moved = [movement(width, optimizer)[what] for width in WIDTHS]
    assert max(moved) < 2.0 * min(moved), moved


def test_the_check_detects_a_rate_that_does_not_transfer() -> None:
    moved = [movement(width, "adamw", scaled=False)["logits"] for width in WIDTHS]
    assert moved[-1] > 3 * moved[0], moved
