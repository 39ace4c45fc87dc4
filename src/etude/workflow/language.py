"""A trained model with its tokenizer: what a person loads to make text, or to weigh it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from etude.data.tokens.tokenizer import EtudeTokenizer
from etude.device import Dtype
from etude.errors import InputError
from etude.evaluate.scoring import score_tokens
from etude.generate.engine import stream
from etude.generate.sampling import USUAL_SAMPLING, SamplingSettings
from etude.generate.text import TokenStreamDecoder
from etude.model.language_model import LanguageModel
from etude.train.trained import load_trained


@dataclass(frozen=True)
class TextScore:
    """How probable a text is to a model."""

    token_ids: list[int]
    tokens: list[str]  # each token's own text; bytes that are only a part of a character show as U+FFFD
    logprobs: list[float]  # natural logarithms, one a token
    num_bytes: int  # of the text, in UTF-8

    @property
    def nats_per_token(self) -> float:
        return -math.fsum(self.logprobs) / len(self.logprobs)

    @property
    def bits_per_byte(self) -> float:
        return -math.fsum(self.logprobs) / math.log(2) / self.num_bytes


@dataclass(frozen=True)
class Language:
    """A model and its tokenizer, from a run, a checkpoint or a Hugging Face folder."""

    folder: Path
    model: LanguageModel
    tokenizer: EtudeTokenizer
    dtype: Dtype = "fp32"
    """In which it reads its matrices while it writes: see :func:`etude.generate.engine.generate`."""

    def stream(self, prompt: str, settings: SamplingSettings | None = None, seed: int = 0) -> Iterator[str]:
        """The continuation of ``prompt``, in pieces as they become certain."""
        ids = [self.tokenizer.eos_id, *self.tokenizer.encode(prompt)]
        eos_id = self.tokenizer.eos_id
        new_ids = stream(
            self.model, ids, settings or USUAL_SAMPLING, eos_id=eos_id, seed=seed, dtype=self.dtype
        )
        return TokenStreamDecoder(self.tokenizer.backend).decode(new_ids)

    def generate(self, prompt: str = "", settings: SamplingSettings | None = None, seed: int = 0) -> str:
        """The continuation of ``prompt`` as one string."""
        return "".join(self.stream(prompt, settings, seed))

    def score(self, text: str) -> TextScore:
        """Log-probabilities of the tokens of ``text``, normalised as in training, as a document from its start.

        Raises:
            InputError: there is no text.
        """
        if not text:
            raise InputError("there is no text to score: give a file with at least one character")
        text = self.tokenizer.normalise(text)
        ids = self.tokenizer.encode(text)
        if not ids:
            raise InputError("there is no text to score: nothing but characters that cleaning removes")
        scores = score_tokens(self.model, [self.tokenizer.eos_id, *ids])
        tokens = [self.tokenizer.decode([token]) for token in ids]
        return TextScore(ids, tokens, [float(x) for x in scores.logprobs], len(text.encode("utf-8")))


def load(path: str | Path, dtype: Dtype = "fp32") -> Language:
    """The language model at ``path``: a run (its newest checkpoint), a checkpoint, or a Hugging Face folder.

    In ``dtype`` "bf16" a model of 10 M parameters and more writes up to half as fast again (lab notebook), from weights
    that are rounded to 8 bits; scores stay exact.

    Raises:
        InputError: nothing there, damaged files, or a tokenizer that does not belong to the model.
    """
    found = load_trained(path)
    return Language(found.folder, found.model, found.tokenizer, dtype)
