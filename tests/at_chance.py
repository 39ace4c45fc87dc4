"""Networks and counts at chance, for the tests of probes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch

from etude.data.tokens.tokenizer import EtudeTokenizer
from etude.data.tokens.vocabulary import train_bpe
from etude.evaluate.answerers import CountingAnswerer
from etude.evaluate.items import Probe
from etude.evaluate.network_answerer import ModelAnswerer
from etude.evaluate.ngram import KneserNey
from etude.evaluate.results import Measured, measure
from networks import make_config, make_network


def uniform(texts: Sequence[str]) -> ModelAnswerer:
    """Make a network with equal logits, and a tokenizer of the texts that knows many of their words."""
    tokenizer: EtudeTokenizer = train_bpe(texts, 700, "llama3")
    config = make_config("llama", vocab_size=tokenizer.vocab_size, hidden_size=16, num_hidden_layers=1)
    model = make_network(config, 0)
    with torch.no_grad():
        model.unembedding()[0].zero_()
    return ModelAnswerer(model, tokenizer, batch_size=64)


def counted(texts: Iterable[str]) -> CountingAnswerer:
    return CountingAnswerer(KneserNey.fit([text.encode() for text in texts], 7), 7)


def measured(probe: Probe, answerer: ModelAnswerer | CountingAnswerer) -> Measured:
    return measure(probe, answerer.answer(probe.items))
