"""What would be trained of some data: each token as context, trained, truncated or dropped."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from etude.data.conversations.conversation import Example
from etude.data.conversations.encode import Encoded, Mask, encode_example, fit_example
from etude.data.conversations.template import ChatTemplate
from etude.data.reading.piece import SourceLog
from etude.data.reading.sources import Source, nothing_usable
from etude.data.tokens.tokenizer import EtudeTokenizer
from etude.errors import InputError
from etude.untrusted import shown

State = Literal["context", "trained", "truncated", "dropped"]
_MOST_JOINED = 8
"""Most tokens that are shown as one because each is a part of one character."""


@dataclass(frozen=True, slots=True)
class ShownToken:
    """One token, or a few that only together are text, with what becomes of them."""

    text: str
    ids: tuple[int, ...]
    state: State


@dataclass(frozen=True, slots=True)
class PreviewRow:
    """One row of the data as tokens. ``problem`` is why it is dropped; empty for a row that is used."""

    name: str
    kind: str
    tokens: tuple[ShownToken, ...]
    problem: str = ""


@dataclass
class Preview:
    """The first rows, and counts over all rows.

    Attributes:
        context: the longest example that is not truncated, in tokens.
        tokens: the tokens that remain of all examples.
        trained: how many of them are trained.
        truncated: examples that lose their last turns.
        dropped: examples and rows that are not used, by the reason.
        such_as: the name of a row for each reason.
    """

    context: int
    rows: list[PreviewRow] = field(default_factory=list)
    kinds: Counter[str] = field(default_factory=Counter)
    tokens: int = 0
    trained: int = 0
    truncated: int = 0
    truncated_tokens: int = 0
    longest: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    such_as: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def drop(self, reason: str, name: str, count: int = 1) -> None:
        """Count rows that are not used."""
        self.dropped[reason] += count
        self.such_as.setdefault(reason, name)

    def lines(self) -> list[str]:
        """Return the counts as lines."""
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in self.kinds.most_common()) or "none"
        share = self.trained / max(self.tokens, 1)
        lines = [
            f"examples: {kinds}",
            f"tokens: {self.tokens:,}, of which {self.trained:,} are trained ({share:.1%}); the longest example has "
            f"{self.longest:,}",
            f"truncated to {self.context:,} tokens: {self.truncated:,} ({self.truncated_tokens:,} tokens in all)",
            f"dropped: {self.dropped.total():,}",
        ]
        lines += [
            f"  {count:,} {shown(reason)} (such as {shown(self.such_as[reason])})"
            for reason, count in self.dropped.most_common()
        ]
        return lines + self.notes


def preview(
    sources: Sequence[Source],
    tokenizer: EtudeTokenizer,
    template: ChatTemplate | None,
    mask: Mask,
    *,
    context: int,
    rows: int,
) -> Preview:
    """Encode all rows of ``sources``, which must be read as examples; keep the first ``rows``.

    Raises:
        InputError: no row can be used.
    """
    result = Preview(context)
    log = SourceLog()
    for source in sources:
        log.looked_at.append(source.name)
        for piece in source.pieces(log):
            example = Example.from_json(piece.document.text)
            row = _row(result, piece.document.id, example, tokenizer, template, mask, len(result.rows) < rows)
            if row is not None:
                result.rows.append(row)
    if not result.kinds:
        raise nothing_usable(log)
    for reason, count in log.skipped.items():
        result.drop(reason, log.examples.get(reason, [""])[0], count)
    result.notes += log.notes()
    return result


def _row(
    result: Preview,
    name: str,
    example: Example,
    tokenizer: EtudeTokenizer,
    template: ChatTemplate | None,
    mask: Mask,
    keep: bool,
) -> PreviewRow | None:
    """Encode and count one example; return it for display with ``keep``."""
    result.kinds[example.kind] += 1
    try:
        whole = encode_example(example, tokenizer, template, mask)
    except InputError as error:
        result.drop(getattr(error, "reason", str(error)), name)
        texts = tuple(ShownToken(f"{text}\n", (), "dropped") for text in example.texts())
        return PreviewRow(name, example.kind, texts, str(error)) if keep else None
    result.longest = max(result.longest, len(whole.ids))
    # Plain text continues in the next row of a batch, so that nothing of it is lost.
    fitting = whole if whole.cuttable else fit_example(whole, result.context)
    problem = ""
    if fitting is None:
        problem = f"no answer fits into {result.context:,} tokens"
        result.drop(problem, name)
    else:
        result.tokens += len(fitting.ids)
        result.trained += int(fitting.trained.sum())
        result.truncated += len(fitting.ids) < len(whole.ids)
        result.truncated_tokens += len(whole.ids) - len(fitting.ids)
    if not keep:
        return None
    return PreviewRow(name, example.kind, tuple(shown_tokens(whole, fitting, tokenizer)), problem)


BETWEEN = "\n--- rejected:\n"
"""Shown between the two conversations of a preference."""


def shown_tokens(whole: Encoded, fitting: Encoded | None, tokenizer: EtudeTokenizer) -> Iterator[ShownToken]:
    """Yield the tokens of an example as text; tokens that are parts of one character are joined."""
    used = 0 if fitting is None else len(fitting.ids)
    left_over: State = "dropped" if fitting is None else "truncated"
    states = [
        left_over if place >= used else "trained" if trained else "context"
        for place, trained in enumerate(np.asarray(whole.trained).tolist())
    ]
    start = 0
    while start < len(whole.ids):
        if start == whole.second:
            yield ShownToken(BETWEEN, (), "context")
        end = start + 1
        text = tokenizer.decode(whole.ids[start:end])
        while (
            "\ufffd" in text
            and end < min(len(whole.ids), start + _MOST_JOINED)
            and states[end] == states[start]
        ):
            end += 1
            text = tokenizer.decode(whole.ids[start:end])
        if "\ufffd" in text:  # no character even together: the text has one itself
            end, text = start + 1, tokenizer.decode(whole.ids[start : start + 1])
        yield ShownToken(
            _in_place(text, whole.ids, start, end, tokenizer), tuple(whole.ids[start:end]), states[start]
        )  # type: ignore[arg-type]
        start = end


def _in_place(text: str, ids: list[int], start: int, end: int, tokenizer: EtudeTokenizer) -> str:
    """Return a token's text within its context: some decoders drop the blank before a token that stands alone."""
    if start == 0:
        return text
    before = tokenizer.decode([ids[start - 1]])
    both = tokenizer.decode(ids[start - 1 : end])
    return both[len(before) :] if both.startswith(before) and both.endswith(text) else text
