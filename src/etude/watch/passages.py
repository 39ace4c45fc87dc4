"""Passages of a text at which a neuron is most, or least, active: a marked token with its context."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from etude.data.prepared_data import PreparedData
from etude.data.tokens.tokenizer import EtudeTokenizer
from etude.watch.held_out import HeldOut

AROUND = 8
"""Tokens shown on each side."""


@dataclass(frozen=True)
class Passage:
    """A token of the held-out text in its context.

    ``token_ids`` is what the network had read at that token, the token itself last: pass it to ``Node.on_tokens``.
    """

    value: float  # the neuron's activation at the token
    before: str
    token: str
    after: str
    place: int  # index of the token in the held-out part
    document: str
    token_ids: tuple[int, ...] = field(repr=False)

    def __str__(self) -> str:
        return f"{self.value:+.3g}  {plain(self.before)}[[{plain(self.token)}]]{plain(self.after)}"


def extreme_passages(
    values: npt.NDArray[np.float64],
    sample: HeldOut,
    tokenizer: EtudeTokenizer,
    *,
    count: int,
    highest: bool,
    around: int = AROUND,
) -> tuple[Passage, ...]:
    """Return the ``count`` tokens of ``sample`` with the highest (or lowest) of ``values`` (N, T).

    A token is skipped if its passage would overlap a chosen one. Of equal values the earlier comes first. Fewer than
    ``count`` are returned only if the text is too short.
    """
    rows, columns = np.nonzero(sample.real)
    keys = values[rows, columns]
    chosen: list[int] = []
    passages: list[Passage] = []
    for index in np.argsort(-keys if highest else keys, kind="stable"):
        if len(passages) == count:
            break
        row, column = int(rows[index]), int(columns[index])
        place = int(sample.places[row, column])
        if any(abs(place - other) <= 2 * around for other in chosen):
            continue
        chosen.append(place)
        passages.append(_passage(float(keys[index]), sample, tokenizer, row, column, around))
    return tuple(passages)


def beginnings(data: PreparedData, most_tokens: int, count: int = 4, characters: int = 320) -> list[str]:
    """Return how some held-out documents begin, up to the end of a word or ``most_tokens``.

    These are the first long documents; if few are long, the longest.
    """
    texts: list[str] = []
    for document in data.documents("validation", 1_000_000):
        text = document[: 4 * characters].decode("utf-8", "ignore").strip()[:characters]
        if len(text) == characters:
            text = text[: max(text.rfind(" "), text.rfind("\n"), characters // 2)]
        texts.append(text)
        if sum(len(text) >= characters // 2 for text in texts) == count:
            break
    texts = sorted(
        (text for text in texts if text), key=lambda text: min(len(text), characters // 2), reverse=True
    )
    ids = [data.tokenizer.encode(text)[:most_tokens] for text in texts[:count]]
    return [data.tokenizer.decode(some).rstrip("\ufffd") for some in ids]  # drop a character cut in half


def _passage(
    value: float, sample: HeldOut, tokenizer: EtudeTokenizer, row: int, column: int, around: int
) -> Passage:
    part, place = sample.part, int(sample.places[row, column])
    number = part.document_number(place)
    first = 0  # the first token that the network had read
    if sample.document_ids is not None:
        first = max(0, column - (place - int(part.documents[number])))
    read = sample.inputs[row, first : column + 1].tolist()
    following = min(around, int(part.documents[number + 1]) - place - 1)
    after = part.window(place + 1, following).tolist() if following else []
    before = read[:-1][-around:]
    return Passage(
        value,
        tokenizer.decode(before),
        tokenizer.decode(read[-1:]),
        tokenizer.decode(after),
        place,
        part.document_of(place),
        tuple(read),
    )


def plain(text: str) -> str:
    """Return ``text`` on one line, with escapes for line breaks and tabs."""
    return text.replace("\n", "\\n").replace("\r", "\\r").replace("\t", "\\t")
