"""Validation loss and bits per byte against a plain sum over positions in float64."""

from __future__ import annotations

import math

import pytest
import torch

from etude.data.tokens.parts import TokenPart
from etude.device import Device
from etude.model.build import build_model
from etude.model.config import preset
from etude.train.validation import ValidationText

CONTEXT = 8


@pytest.mark.parametrize("within_documents", [False, True])
@pytest.mark.parametrize("max_tokens", [None, 40])
def test_every_token_counts_once(within_documents: bool, max_tokens: int | None) -> None:
    generator = torch.Generator().manual_seed(0)
    lengths = [13, 1, 20, 8, 31]
    documents = [torch.randint(1, 30, (n,), generator=generator).tolist() for n in lengths]
    source_bytes = [3 * n for n in lengths]
    part = TokenPart.from_documents(documents, document_id=0, source_bytes=source_bytes)
    config = preset(
        "llama", vocab_size=30, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=CONTEXT,
    )  # fmt: skip
    model = build_model(config, seed=0).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    score = ValidationText(part, CONTEXT, Device("cpu", "fp32", 1), max_tokens, within_documents).score(model)

    covered = 5 if max_tokens is None else 3  # whole documents: 14 + 2 + 21 tokens with their beginnings
    stream = [token for document in documents[:covered] for token in (0, *document)]
    owner = [n for n, document in enumerate(documents[:covered]) for _ in range(len(document) + 1)]
    nats = {"all": 0.0, "text": 0.0}
    for position in range(1, len(stream)):
        begin = (position - 1) // CONTEXT * CONTEXT
        inputs = torch.tensor([stream[begin:position]])
        ids = torch.tensor([owner[begin:position]]) if within_documents else None
        with torch.no_grad():
            logits = model(inputs, document_ids=ids)[0, -1]
        loss = (torch.logsumexp(logits, 0) - logits[stream[position]]).item()
        nats["all"] += loss
        nats["text"] += loss * (stream[position] != 0)
    assert score.num_tokens == len(stream) - 1
    assert score.loss == pytest.approx(nats["all"] / (len(stream) - 1), rel=1e-5)
    expected = nats["text"] / math.log(2) / sum(source_bytes[:covered])
    assert score.bits_per_byte == pytest.approx(expected, rel=1e-5)
