"""Places in a text at which a node is most, or least, active: a marked token between a few others."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from etude.data.prepare import PreparedData
from etude.data.tokens.tokenizer import EtudeTokenizer
from etude.watch.held_out import HeldOut

AROUND = 8
"""Tokens that are shown on each side."""


@dataclass(frozen=True)
class Passage:
    """A token of the held-out text with what stands around it.

    ``token_ids`` is all that the network had read there, the token itself last: give it to ``Node.on_tokens``.
    """

    value: float  # the node's activation at the token
    before: str
    token: str
    after: str
    place: int  # of the token in the held-out part
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
    """The ``count`` tokens of ``sample`` with the highest (or lowest) of ``values`` (N, T).

    One is passed over when its passage would overlap with one that is chosen already. Of equal ones the earlier comes
    first. There are fewer than ``count`` only when the text is too short.
    """
    places = sample.starts[:, None] + np.arange(values.shape[1])
    rows, columns = np.nonzero(sample.real)
    keys = values[rows, columns]
    chosen: list[int] = []
    found: list[Passage] = []
    for index in np.argsort(-keys if highest else keys, kind="stable"):
        if len(found) == count:
            break
        row, column = int(rows[index]), int(columns[index])
        place = int(places[row, column])
        if any(abs(place - other) <= 2 * around for other in chosen):
            continue
        chosen.append(place)
        found.append(_passage(float(keys[index]), sample, tokenizer, row, column, around))
    return tuple(found)


def beginnings(data: PreparedData, most_tokens: int, count: int = 4, characters: int = 320) -> list[str]:
    """How some held-out documents begin, up to the end of a word or ``most_tokens``.

    The first long ones; where there are few of them, the longest.
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
    return [data.tokenizer.decode(some).rstrip("\ufffd") for some in ids]  # which half a character would be


def _passage(
    value: float, sample: HeldOut, tokenizer: EtudeTokenizer, row: int, column: int, around: int
) -> Passage:
    part, place = sample.part, int(sample.starts[row]) + column
    number = part.document_number(place)
    first = 0  # of what the network had read
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
    """On one line."""
    return text.replace("\n", "\\n").replace("\r", "\\r").replace("\t", "\\t")
