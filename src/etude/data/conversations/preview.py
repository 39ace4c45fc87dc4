"""What would be trained of some data: each token as context, trained, truncated or dropped."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from etude.data.conversations.conversation import Example
from etude.data.conversations.encode import Encoded, Mask, encode_example
from etude.data.conversations.shards import OTHER_KIND, has_pairs
from etude.data.conversations.template import ChatTemplate
from etude.data.corpus.store import content_hash
from etude.data.reading.piece import SourceLog
from etude.data.reading.sources import Source, nothing_usable
from etude.data.tokens.packing import pieces_of_example
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
        context: tokens in a row.
        tokens: the tokens that remain of all examples.
        trained: how many of them are trained.
        truncated: examples that lose their last turns.
        dropped: examples and rows that are not used, by the reason.
        such_as: the name of a row for each reason; first: that of the first row.
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
    first: str = ""
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
            f"truncated to rows of {self.context:,} tokens: {self.truncated:,} ({self.truncated_tokens:,} tokens in "
            "all)",
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
    copies: bool = False,
) -> Preview:
    """Encode all rows of ``sources``, which must be read as examples; keep the first ``rows``.

    As in training, the fewer of pairs of answers and other examples are dropped, and exact copies without ``copies``.

    Raises:
        InputError: no row can be used.
    """
    of_kind = {pairs: Preview(context) for pairs in (False, True)}
    log, seen = SourceLog(), set[int]()
    kept: list[tuple[bool, PreviewRow]] = []
    for source in sources:
        log.looked_at.append(source.name)
        for piece in source.pieces(log):
            name, line = piece.document.id, piece.document.text
            key = content_hash(line.encode())
            if key in seen and not copies:
                log.skip("exact copy", name)
                continue
            seen.add(key)
            example = Example.from_json(line)
            is_pair = example.kind == "preference"
            part = of_kind[is_pair]
            part.first = part.first or name
            row = _row(part, name, example, tokenizer, template, mask, len(kept) < rows)
            if row is not None:
                kept.append((is_pair, row))
    pairs = has_pairs(of_kind[False].kinds + of_kind[True].kinds)
    result, other = of_kind[pairs], of_kind[not pairs]
    if not result.kinds:
        raise nothing_usable(log)
    if other.kinds:
        result.kinds += other.kinds
        result.drop(OTHER_KIND[pairs], other.first, other.kinds.total())
    result.rows = [row if is_pair == pairs else _dropped(row, OTHER_KIND[pairs]) for is_pair, row in kept]
    for reason, count in log.skipped.items():
        result.drop(reason, log.examples.get(reason, [""])[0], count)
    result.notes += log.notes()
    return result


def _dropped(row: PreviewRow, problem: str) -> PreviewRow:
    tokens = tuple(replace(token, state="dropped") for token in row.tokens)
    return replace(row, tokens=tokens, problem=problem)


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
    states = states_of(whole, result.context)
    used = sum(state in ("context", "trained") for state in states)
    problem = ""
    if not used:
        problem = f"no trained turn fits into a row of {result.context:,} tokens"
        result.drop(problem, name)
    else:
        result.tokens += used
        result.trained += states.count("trained")
        result.truncated += used < len(states)
        result.truncated_tokens += len(states) - used
    if not keep:
        return None
    return PreviewRow(name, example.kind, tuple(shown_tokens(whole, states, tokenizer)), problem)


BETWEEN = "\n--- rejected:\n"
"""Shown between the two conversations of a preference."""


def states_of(whole: Encoded, context: int) -> list[State]:
    """Return what becomes of each token of an example in rows of ``context`` tokens."""
    pieces = pieces_of_example(whole.trained, () if whole.cuttable else whole.turn_ends, context)
    states: list[State] = ["truncated" if pieces else "dropped"] * len(whole.ids)
    for start, length in pieces:
        trained = whole.trained[start + 1 : start + length].tolist()
        states[start + 1 : start + length] = ["trained" if counts else "context" for counts in trained]
        if states[start] == "truncated":  # else it is the last token of the piece before
            states[start] = "context"
    return states


def shown_tokens(whole: Encoded, states: Sequence[State], tokenizer: EtudeTokenizer) -> Iterator[ShownToken]:
    """Yield the tokens of an example as text; tokens that are parts of one character are joined."""
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
        )
        start = end


def _in_place(text: str, ids: list[int], start: int, end: int, tokenizer: EtudeTokenizer) -> str:
    """Return a token's text within its context: some decoders drop the blank before a token that stands alone."""
    if start == 0:
        return text
    before = tokenizer.decode([ids[start - 1]])
    both = tokenizer.decode(ids[start - 1 : end])
    return both[len(before) :] if both.startswith(before) and both.endswith(text) else text
