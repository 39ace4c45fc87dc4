"""How well a model predicts text that it has not learned from."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from etude.data.tokens.coverage import evaluation_windows, is_text
from etude.data.tokens.parts import TokenPart
from etude.device import Device
from etude.model.language_model import LanguageModel
from etude.train.loss import token_losses

TOKENS_AT_ONCE = 8192
"""In one forward pass: bounds the memory of the logits."""


@dataclass(frozen=True)
class Score:
    """The result of scoring a text."""

    loss: float  # nats per token, ends of documents included, as in training
    bits_per_byte: float  # of the text alone: ends of documents neither cost bits nor count as bytes
    num_tokens: int


@dataclass(frozen=True)
class ValidationText:
    """The first ``max_tokens`` tokens (or all) of the held-out part, in consecutive windows of ``context`` tokens.

    Every token is predicted exactly once, from the tokens before it in its window. The same text is used at every
    evaluation, so a difference is the model's.
    """

    part: TokenPart
    context: int
    device: Device
    max_tokens: int | None = None
    within_documents: bool = False

    @property
    def source_bytes(self) -> int:
        """UTF-8 bytes of the text that is scored: the beginning of the held-out part."""
        return evaluation_windows(self.part, self.context, self.max_tokens).source_bytes

    @torch.no_grad()
    def score(self, model: LanguageModel) -> Score:
        """How well ``model`` predicts the text."""
        windows = evaluation_windows(self.part, self.context, self.max_tokens)
        rows = max(1, TOKENS_AT_ONCE // self.context)
        all_nats, text_nats = 0.0, 0.0
        for first in range(0, len(windows), rows):
            inputs, targets = windows.batch(first, rows)
            documents = None
            if self.within_documents:
                documents = torch.from_numpy(windows.document_ids(first, rows)).to(self.device.torch)
            with self.device.autocast():
                logits = model(torch.from_numpy(inputs).to(self.device.torch), document_ids=documents)
            losses = token_losses(logits, torch.from_numpy(targets).to(self.device.torch)).cpu().double()
            all_nats += losses.sum().item()
            text_nats += losses[torch.from_numpy(is_text(targets, self.part.eos_id))].sum().item()
        return Score(
            loss=all_nats / windows.num_targets,
            bits_per_byte=text_nats / math.log(2) / windows.source_bytes,
            num_tokens=windows.num_targets,
        )
