"""The output of ``etude generate`` and ``etude score``."""

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
    """What to print of continuations."""

    samples: int = 1
    json_lines: bool = False
    logprobs: int | None = None
    """Number of most likely alternatives to print for each token; None: print text only, without tokens."""

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
    output: OutputOptions | None = None,
) -> None:
    """Print ``prompt`` with its continuation while it is generated; or several continuations, as text, JSON or tokens.

    Raises:
        InputError: no model, or an invalid value.
    """
    output = output or OutputOptions()
    stops, seed = stop_strings(stop), require_seed(seed)
    language = load(model, dtype)
    if prompt == "-":
        prompt = _standard_input()
    prompt = language.tokenizer.normalise(prompt)
    if prompt.endswith(" ") and language.joins_spaces is None:
        print(
            "the prompt ends in a space, which most tokenizers join to the next word: remove it for better text",
            file=sys.stderr,
        )
    if output == OutputOptions():  # one continuation as plain text: stream it
        sys.stdout.write(prompt)
        for piece in language.stream(prompt, settings, seed, stop=stops):
            sys.stdout.write(piece)
            sys.stdout.flush()
        sys.stdout.write("\n")
        return
    continuations = language.continuations(
        prompt, settings, seed, samples=output.samples, stop=stops, alternatives=output.logprobs or 0
    )
    for number, continuation in enumerate(continuations):
        if output.json_lines:
            _print_json(language, prompt, continuation, tokens=output.logprobs is not None)
            continue
        if number:
            print(_BETWEEN_SAMPLES)
        if output.logprobs is None:
            print(f"{prompt}{continuation.text}")
        else:
            _print_alternatives(language, continuation)
        sys.stdout.flush()


_BETWEEN_SAMPLES = "-" * 15


def _print_json(language: Language, prompt: str, continuation: Continuation, *, tokens: bool) -> None:
    """Print a continuation as one line of JSON, with its tokens if ``tokens``."""
    line: dict[str, Any] = {
        "prompt": prompt,
        "text": continuation.text,
        "tokens": continuation.token_ids,
        "finish_reason": continuation.finish_reason,
        "seed": continuation.seed,
    }
    if tokens:
        line["logprobs"] = [
            _token(language, token, logprob) | {"top": [_token(language, *other) for other in others]}
            for token, logprob, others in continuation.each_token()
        ]
    print(json.dumps(line, ensure_ascii=False), flush=True)


def _token(language: Language, token_id: int, logprob: float) -> dict[str, Any]:
    return {"id": token_id, "token": language.tokenizer.decode([token_id]), "logprob": logprob}


def _print_alternatives(language: Language, continuation: Continuation) -> None:
    """Print a line for each new token, as ``etude score`` does, followed by the most likely tokens."""
    for token, logprob, others in continuation.each_token():
        top = "  ".join(f"{value:.4f} {language.tokenizer.decode([other])!r}" for other, value in others)
        print(
            f"{logprob:9.4f}  {language.tokenizer.decode([token])!r}"
            + (f"   likeliest: {top}" if top else "")
        )


def score(model: Path, source: str, options: ReadingOptions, *, json_lines: bool, summary: bool) -> None:
    """Print the log-probability of each token in ``source``, then the totals.

    ``source`` may be anything that a model can be trained on. Each document is scored from its start; with several
    documents, the totals of each follow its tokens. Skipped documents are reported on standard error.

    Raises:
        InputError: no model, no such source, or no usable text in it.
    """
    language = load(model)
    log = SourceLog(looked_at=[source])
    whole, last, name = _Figures(), _Figures(), ""
    for document, text in _documents(source, options, log):
        if whole.documents and not summary:  # the totals of the document before: there are several
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
        print(f"skipped: {count:,} {reason} (such as {log.examples[reason][0]})", file=sys.stderr)


@dataclass
class _Figures:
    """Totals of one document or several."""

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
        """Return the totals as JSON or text; ``name`` is the document's, for one of several."""
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
            f"{what}{self.tokens:,} tokens, {self.num_bytes:,} bytes: {nats_per_token:.4f} nats per token, "
            f"{bits_per_byte:.4f} bits per byte"
        )


def _print_tokens(result: TextScore, json_lines: bool) -> None:
    for token_id, token, logprob in zip(result.token_ids, result.tokens, result.logprobs, strict=True):
        if json_lines:
            print(json.dumps({"id": token_id, "token": token, "logprob": logprob}, ensure_ascii=False))
        else:
            print(f"{logprob:9.4f}  {token!r}")


def _documents(name: str, options: ReadingOptions, log: SourceLog) -> Iterator[tuple[str, str]]:
    """Yield (id, text) of every document of a source, cleaned as for training."""
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
