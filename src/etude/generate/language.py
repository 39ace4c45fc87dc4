"""A trained model with its tokenizer, as ``etude.load`` returns it: generates and scores text."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Unpack

import numpy as np
from numpy.typing import NDArray

from etude.data.tokens.tokenizer import EtudeTokenizer
from etude.device import Dtype
from etude.errors import InputError
from etude.generate.engine import FinishReason, generate, stream
from etude.generate.sampling import (
    CHAT_SAMPLING,
    SamplingChanges,
    SamplingSettings,
    changed,
    likeliest,
    log_probabilities,
    require_seed,
    row_seed,
    whole_number,
)
from etude.generate.scoring import score_tokens
from etude.generate.stop import GeneratedText, stop_strings
from etude.generate.text import bytes_of_tokens
from etude.model.language_model import LanguageModel
from etude.pretrained.load_model import load_trained
from etude.untrusted import shown

_ROWS = 16
"""Continuations of one prompt that are generated as one batch."""
_SPACES = (" ", "\t")


@dataclass(frozen=True)
class TextScore:
    """The log-probabilities of a text under a model."""

    token_ids: list[int]
    tokens: list[str]  # text of each token; U+FFFD for bytes that are only a part of a character
    logprobs: list[float]  # natural logarithms, one for each token
    num_bytes: int  # of the text, in UTF-8

    @property
    def nats_per_token(self) -> float:
        """Mean loss of the tokens."""
        return -math.fsum(self.logprobs) / len(self.logprobs)

    @property
    def bits_per_byte(self) -> float:
        """Loss per UTF-8 byte in bits, comparable across tokenizers."""
        return -math.fsum(self.logprobs) / math.log(2) / self.num_bytes


@dataclass(frozen=True)
class Continuation:
    """One continuation of a prompt."""

    text: str  # without a stop string
    token_ids: list[int]  # with those of a stop string
    logprobs: list[float]  # natural logarithms under the model itself, before temperature and other settings
    finish_reason: FinishReason
    seed: int  # reproduces this continuation alone
    likeliest: list[list[tuple[int, float]]]  # for each token, the most likely ones with their logprobs

    def each_token(self) -> Iterator[tuple[int, float, list[tuple[int, float]]]]:
        """Yield (id, log-probability, most likely alternatives) of each token."""
        return zip(self.token_ids, self.logprobs, self.likeliest, strict=True)


@dataclass(frozen=True)
class _Start:
    """The prompt as tokens."""

    ids: list[int]
    given: str
    """The end of the prompt that the first new token must begin with."""
    first_tokens: NDArray[np.intp] | None


@dataclass
class _Row:
    """The text of one continuation while it is generated."""

    text: GeneratedText
    pieces: list[str] = field(default_factory=list)
    likeliest: list[list[tuple[int, float]]] = field(default_factory=list)

    def feed(self, token: int) -> bool:
        """Add a token; return whether a stop string is complete."""
        self.pieces.append(self.text.feed(token))
        return self.text.stopped

    def whole(self) -> str:
        """Return the whole text."""
        return "".join([*self.pieces, self.text.finish()])


@dataclass(frozen=True)
class Language:
    """A model and its tokenizer, from a run, a checkpoint or a Hugging Face folder."""

    folder: Path
    model: LanguageModel
    tokenizer: EtudeTokenizer
    dtype: Dtype = "fp32"
    """Precision of its matrices during generation: see :func:`etude.generate.engine.generate`."""

    def stream(
        self,
        prompt: str = "",
        settings: SamplingSettings | None = None,
        seed: int = 0,
        *,
        stop: str | Sequence[str] = (),
        **changes: Unpack[SamplingChanges],
    ) -> Iterator[str]:
        """Yield the continuation of ``prompt`` in pieces, while it is generated; see :meth:`generate`."""
        start, stops, sampling = self._start(prompt), stop_strings(stop), changed(settings, changes)
        return self._pieces(start, stops, sampling, require_seed(seed))

    def _pieces(
        self, start: _Start, stops: tuple[str, ...], settings: SamplingSettings, seed: int
    ) -> Iterator[str]:
        text = GeneratedText(self.tokenizer.backend, stops, start.given)
        for token in stream(
            self.model,
            start.ids,
            settings,
            stop_ids=self.tokenizer.roles.stop_ids,
            seed=seed,
            dtype=self.dtype,
            first_tokens=start.first_tokens,
        ):
            if piece := text.feed(token):
                yield piece
            if text.stopped:
                return
        if piece := text.finish():
            yield piece

    def generate(
        self,
        prompt: str = "",
        settings: SamplingSettings | None = None,
        seed: int = 0,
        *,
        stop: str | Sequence[str] = (),
        **changes: Unpack[SamplingChanges],
    ) -> str:
        """Return the continuation of ``prompt``, such as ``generate("One day", max_new_tokens=50)``.

        Args:
            prompt: if it ends in a space, the first new token begins with a space: tokens of words in the training
                text have their space before them.
            settings: the settings that ``changes`` do not name; None: temperature 0.8, top_p 0.95.
            seed: the same seed gives the same text.
            stop: a text or several; the continuation ends before the first of them.
            changes: ``max_new_tokens``, ``temperature``, ``top_k``, ``top_p``, ``min_p``, ``repetition_penalty``: see
                :class:`~etude.generate.sampling.SamplingSettings`.

        Raises:
            InputError: an invalid value.
        """
        return "".join(self.stream(prompt, settings, seed, stop=stop, **changes))

    def chat(
        self,
        messages: Any,
        settings: SamplingSettings | None = None,
        seed: int = 0,
        *,
        stop: str | Sequence[str] = (),
        **changes: Unpack[SamplingChanges],
    ) -> str:
        """Return the answer to a conversation, such as ``chat([{"role": "user", "content": "Hello"}])``.

        Args:
            messages: perhaps a system prompt, then user and assistant in turn, up to a question; or a question as text.
                If they do not fit the context, the oldest exchanges are not read.
            settings: the settings that ``changes`` do not name; None: temperature 0.
            seed, stop, changes: as in :meth:`generate`.

        Raises:
            InputError: a model without a chat template, a conversation that it cannot answer, or an invalid value.
        """
        from etude.generate.chat_session import ChatSession

        sampling = changed(CHAT_SAMPLING if settings is None else settings, changes)
        session = ChatSession(self, settings=sampling, seed=seed, stop=stop)
        return "".join(session.answer(messages))

    def continuations(
        self,
        prompt: str = "",
        settings: SamplingSettings | None = None,
        seed: int = 0,
        *,
        samples: int = 1,
        stop: str | Sequence[str] = (),
        alternatives: int = 0,
        **changes: Unpack[SamplingChanges],
    ) -> Iterator[Continuation]:
        """Yield ``samples`` continuations of ``prompt``, the first one with ``seed`` itself.

        ``alternatives``: number of most likely tokens to report for each token. Other arguments as in :meth:`generate`.
        """
        for name, value, least in (("samples", samples, 1), ("alternatives", alternatives, 0)):
            if whole_number(name, value) < least:
                raise InputError(f"{name} must be {least} or more, not {value}")
        start, stops, sampling = self._start(prompt), stop_strings(stop), changed(settings, changes)
        first_seed = require_seed(seed)
        seeds = (row_seed(first_seed, sample) for sample in range(samples))
        return self._continuations(start, stops, sampling, seeds, samples, alternatives)

    def _continuations(
        self,
        start: _Start,
        stops: tuple[str, ...],
        settings: SamplingSettings,
        seeds: Iterator[int],
        samples: int,
        alternatives: int,
    ) -> Iterator[Continuation]:
        for done in range(0, samples, _ROWS):
            rows = min(_ROWS, samples - done)
            some = [next(seeds) for _ in range(rows)]
            texts = [_Row(GeneratedText(self.tokenizer.backend, stops, start.given)) for _ in some]
            generations = generate(
                self.model,
                [start.ids] * rows,
                settings,
                stop_ids=self.tokenizer.roles.stop_ids,
                seed=some,
                dtype=self.dtype,
                first_tokens=[start.first_tokens] * rows,
                on_token=lambda row, token, texts=texts: texts[row].feed(token),  # type: ignore[misc]
                on_prediction=lambda row, _, logits, texts=texts: texts[row].likeliest.append(  # type: ignore[misc]
                    likeliest(log_probabilities(logits), alternatives) if alternatives else []
                ),
            )
            for made, text, seed in zip(generations, texts, some, strict=True):
                yield Continuation(
                    text.whole(), made.token_ids, made.logprobs, made.finish_reason, seed, text.likeliest
                )

    @cached_property
    def _token_bytes(self) -> dict[int, bytes] | None:
        return bytes_of_tokens(self.tokenizer.backend)

    @property
    def joins_spaces(self) -> bool | None:
        """Whether some token begins with a space and continues; None if single tokens have no fixed text."""
        if self._token_bytes is None:
            return None
        return any(len(token) > 1 and token[:1] == b" " for token in self._token_bytes.values())

    def _tokens_beginning_with(self, text: str) -> NDArray[np.intp]:
        """Return the ids of all tokens that begin with ``text``, ascending."""
        known = (self._token_bytes or {}).items()
        return np.array(sorted(i for i, token in known if token.startswith(text.encode())), dtype=np.intp)

    def _start(self, prompt: str) -> _Start:
        """Tokenize the prompt.

        A space at its end is left to the first new token. In the training text the space before a word is a part of the
        word's token, so the model has rarely seen a word after a token of a single space.
        """
        if not isinstance(prompt, str):
            raise InputError(f"the prompt must be text, not {shown(prompt)}")
        given, first_tokens = "", None
        if prompt.endswith(_SPACES) and self.joins_spaces:
            given, first_tokens = prompt[-1], self._tokens_beginning_with(prompt[-1])
        ids = self.tokenizer.encode(prompt.removesuffix(given) if given else prompt)
        return _Start([self.tokenizer.roles.document_id, *ids], given, first_tokens)

    def score(self, text: str) -> TextScore:
        """Return the log-probabilities of the tokens of ``text``, as a whole document, cleaned as in training.

        Raises:
            InputError: no text.
        """
        if not text:
            raise InputError("there is no text to score: give a file with at least one character")
        text = self.tokenizer.normalise(text)
        ids = self.tokenizer.encode(text)
        if not ids:
            raise InputError("there is no text to score: nothing but characters that cleaning removes")
        scores = score_tokens(self.model, [self.tokenizer.roles.document_id, *ids])
        tokens = [self.tokenizer.decode([token]) for token in ids]
        return TextScore(ids, tokens, [float(x) for x in scores.logprobs], len(text.encode("utf-8")))


def load(path: str | Path, dtype: Dtype = "fp32") -> Language:
    """Load the language model at ``path``: a run (its newest checkpoint), a checkpoint, or a Hugging Face folder.

    With ``dtype`` "bf16" models of 10 M parameters and more generate up to 1.5 times as fast (lab notebook), from
    weights rounded to bf16. Scores always use the original weights.

    Raises:
        InputError: no model at ``path``, damaged files, or a tokenizer that does not belong to the model.
    """
    trained = load_trained(path)
    return Language(trained.folder, trained.model, trained.tokenizer, dtype)
