"""Print what ``etude generate`` and ``etude score`` print."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from etude.config import Settings
from etude.data.corpus.clean import normalise
from etude.data.reading.options import ReadingOptions
from etude.data.reading.piece import SourceLog
from etude.data.reading.sources import nothing_usable, open_sources
from etude.device import Dtype
from etude.errors import InputError
from etude.generate.language import Continuation, Language, TextScore, load
from etude.generate.sampling import SamplingSettings, require_seed
from etude.generate.stop import stop_strings


@dataclass(frozen=True)
class OutputOptions:
    """What is printed of a continuation."""

    samples: int = 1
    json_lines: bool = False
    logprobs: int | None = None
    """So many of the likeliest tokens at each place, besides the token itself; None: no tokens, only text."""

    def __post_init__(self) -> None:
        if self.samples < 1:
            raise InputError(f"--samples must be 1 or more, not {self.samples}")
        if self.logprobs is not None and self.logprobs < 0:
            raise InputError(f"--logprobs must be 0 (no alternatives) or more, not {self.logprobs}")


def generate(
    model: Path,
    prompt: str,
    settings: SamplingSettings,
    seed: int,
    dtype: Dtype = "fp32",
    stop: Sequence[str] = (),
    wanted: OutputOptions | None = None,
) -> None:
    """Print ``prompt`` and its continuation as it comes; or several, or one JSON object for each, or their tokens.

    Raises:
        InputError: there is no model, or a value that means nothing.
    """
    wanted = wanted or OutputOptions()
    stops, seed = stop_strings(stop), require_seed(seed)
    language = load(model, dtype)
    if prompt == "-":
        prompt = _standard_input()
    prompt = language.tokenizer.normalise(prompt)
    if prompt.endswith(" ") and language.joins_spaces is None:
        print(
            "the prompt ends in a space, which most tokenizers join to the word after it: leave it out for better text",
            file=sys.stderr,
        )
    if wanted == OutputOptions():
        sys.stdout.write(prompt)
        for piece in language.stream(prompt, settings, seed, stop=stops):
            sys.stdout.write(piece)
            sys.stdout.flush()
        sys.stdout.write("\n")
        return
    found = language.continuations(
        prompt, settings, seed, samples=wanted.samples, stop=stops, alternatives=wanted.logprobs or 0
    )
    for number, one in enumerate(found):
        if wanted.json_lines:
            _print_json(language, prompt, one, tokens=wanted.logprobs is not None)
            continue
        if number:
            print(_BETWEEN_SAMPLES)
        if wanted.logprobs is None:
            print(f"{prompt}{one.text}")
        else:
            _print_alternatives(language, one)
        sys.stdout.flush()


_BETWEEN_SAMPLES = "-" * 15


def _print_json(language: Language, prompt: str, found: Continuation, *, tokens: bool) -> None:
    line: dict[str, Any] = {
        "prompt": prompt,
        "text": found.text,
        "tokens": found.token_ids,
        "finish_reason": found.finish_reason,
        "seed": found.seed,
    }
    if tokens:
        line["logprobs"] = [
            _token(language, token, logprob) | {"top": [_token(language, *other) for other in others]}
            for token, logprob, others in zip(found.token_ids, found.logprobs, found.likeliest, strict=True)
        ]
    print(json.dumps(line, ensure_ascii=False), flush=True)


def _token(language: Language, token_id: int, logprob: float) -> dict[str, Any]:
    return {"id": token_id, "token": language.tokenizer.decode([token_id]), "logprob": logprob}


def _print_alternatives(language: Language, found: Continuation) -> None:
    """A line for each new token, as of ``etude score``, and behind it the likeliest at its place."""
    for token, logprob, others in zip(found.token_ids, found.logprobs, found.likeliest, strict=True):
        top = "  ".join(f"{value:.4f} {language.tokenizer.decode([other])!r}" for other, value in others)
        print(
            f"{logprob:9.4f}  {language.tokenizer.decode([token])!r}"
            + (f"   likeliest: {top}" if top else "")
        )


def score(model: Path, source: str, options: ReadingOptions, *, json_lines: bool, summary: bool) -> None:
    """Print each token of what ``source`` holds with its log-probability, then the figures of the whole.

    ``source`` is anything that a model can be trained on. Each document is scored from its own beginning; where there
    are several, the figures of each stand behind its tokens. What cannot be used is told on standard error.

    Raises:
        InputError: there is no model, no such source, or nothing usable in it.
    """
    language = load(model)
    log = SourceLog(looked_at=[source])
    whole, last, name = _Figures(), _Figures(), ""
    for document, text in _documents(source, options, log):
        if whole.documents and not summary:  # only now is it known that there are several
            print(last.line(json_lines, name))
        result, name = language.score(text), document
        last = _Figures.of(result)
        whole.add(last)
        if not summary:
            _print_tokens(result, json_lines)
    if not whole.documents:
        raise nothing_usable(log)
    if whole.documents > 1 and not summary:
        print(last.line(json_lines, name))
    print(whole.line(json_lines))
    for note in log.notes():
        print(note, file=sys.stderr)
    for reason, count in log.skipped.most_common():
        print(f"left out: {count:,} {reason} (such as {log.examples[reason][0]})", file=sys.stderr)


@dataclass
class _Figures:
    """Of one document, or of several together."""

    documents: int = 0
    tokens: int = 0
    num_bytes: int = 0
    nats: float = 0.0

    @classmethod
    def of(cls, score: TextScore) -> _Figures:
        return cls(1, len(score.logprobs), score.num_bytes, -math.fsum(score.logprobs))

    def add(self, other: _Figures) -> None:
        self.documents += other.documents
        self.tokens += other.tokens
        self.num_bytes += other.num_bytes
        self.nats += other.nats

    def line(self, json_lines: bool, name: str = "") -> str:
        """As JSON or as words; ``name`` is that of a single document among several."""
        nats_per_token, bits_per_byte = self.nats / self.tokens, self.nats / math.log(2) / self.num_bytes
        if json_lines:
            figures = {
                **({"document": name} if name else {"documents": self.documents}),
                "tokens": self.tokens,
                "bytes": self.num_bytes,
                "nats_per_token": nats_per_token,
                "bits_per_byte": bits_per_byte,
            }
            return json.dumps(figures, ensure_ascii=False)
        what = f"{name}: " if name else f"{self.documents:,} documents, " if self.documents > 1 else ""
        return (
            f"{what}{self.tokens:,} tokens, {self.num_bytes:,} bytes: {nats_per_token:.4f} nats a token, "
            f"{bits_per_byte:.4f} bits a byte"
        )


def _print_tokens(result: TextScore, json_lines: bool) -> None:
    for token_id, token, logprob in zip(result.token_ids, result.tokens, result.logprobs, strict=True):
        if json_lines:
            print(json.dumps({"id": token_id, "token": token, "logprob": logprob}, ensure_ascii=False))
        else:
            print(f"{logprob:9.4f}  {token!r}")


def _documents(name: str, options: ReadingOptions, log: SourceLog) -> Iterator[tuple[str, str]]:
    """(id, text) of every document of a source, with line ends and characters as they are in training."""
    with TemporaryDirectory(prefix="etude-") as spool:
        sources = open_sources(
            [name], options=options, max_bytes=None, seed=Settings().run.seed, spool=Path(spool)
        )
        document, texts = "", [""]
        for piece in chain.from_iterable(source.pieces(log) for source in sources):
            if not piece.continues:
                yield from _cleaned(document, texts, log)
                document, texts = piece.document.id, []
            texts.append(piece.document.text)
        yield from _cleaned(document, texts, log)


def _cleaned(document: str, texts: list[str], log: SourceLog) -> Iterator[tuple[str, str]]:
    text = normalise("".join(texts), "none", log.changed)
    if text:
        yield document, text
    elif document:
        log.skip("empty", document)


def _standard_input() -> str:
    if sys.stdin is None:
        raise InputError("standard input is closed: pipe the prompt into the command, or type it")
    try:
        return sys.stdin.buffer.read().decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"standard input is not UTF-8 text (byte {error.start})") from None
