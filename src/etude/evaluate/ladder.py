"""The n-gram ladder: what counting alone achieves on a text, as rungs that a model passes one by one."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from etude.errors import InputError
from etude.evaluate.ngram import DEFAULT_MAX_BYTES, MAX_ORDER, Stream, gram_tables, score_orders
from etude.evaluate.sampling import RULE, evenly_spaced
from etude.untrusted import shown

SCHEMA = 1
DEFAULT_MAX_VALIDATION_BYTES = 500_000


@dataclass(frozen=True)
class Rung:
    """A Kneser-Ney model's order and its bits per byte on the validation text."""

    order: int
    bits_per_byte: float


@dataclass(frozen=True)
class Ladder:
    """The rungs, lowest order first, and how much text they were counted and scored on."""

    unit: str
    train_bytes: int
    corpus_train_bytes: int
    validation_bytes: int
    rungs: tuple[Rung, ...]
    sampling: str = RULE

    def passed(self, bits_per_byte: float) -> int:
        """The highest order k such that `bits_per_byte` is below every rung up to k; 0 when below none.

        On a small text a higher order may score worse than a lower one. Such a rung is then passed together
        with the better one under it, so that the answer never falls as a model improves and never claims an
        order whose shorter contexts still predict better than the model.
        """
        order = 0
        for rung in self.rungs:
            if not bits_per_byte < rung.bits_per_byte:
                break
            order = rung.order
        return order

    def to_json(self) -> dict[str, Any]:
        """What `ladder.json` of a run folder holds."""
        return {
            "schema": SCHEMA,
            "unit": self.unit,
            "train_bytes": self.train_bytes,
            "corpus_train_bytes": self.corpus_train_bytes,
            "validation_bytes": self.validation_bytes,
            "sampling": self.sampling,
            "rungs": [{"order": rung.order, "bits_per_byte": rung.bits_per_byte} for rung in self.rungs],
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Ladder:
        """The inverse of `to_json`. Raises InputError where `content` is something else."""
        try:
            if content["schema"] != SCHEMA:
                raise InputError(
                    f"ladder.json has schema {shown(content['schema'])}; this etude reads {SCHEMA}: update it"
                )
            rungs = [Rung(int(rung["order"]), float(rung["bits_per_byte"])) for rung in content["rungs"]]
            if not all(rung.order >= 1 and math.isfinite(rung.bits_per_byte) for rung in rungs):
                raise ValueError("not the rungs of a ladder")
            return cls(
                str(content["unit"]),
                int(content["train_bytes"]),
                int(content["corpus_train_bytes"]),
                int(content["validation_bytes"]),
                tuple(sorted(rungs, key=lambda rung: rung.order)),
                str(content.get("sampling", RULE)),
            )
        except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
            raise InputError(f"ladder.json is damaged ({shown(error)}): delete it or train again") from error


def build_ladder(
    train: Iterable[bytes],
    validation: Iterable[bytes],
    *,
    orders: Sequence[int] = range(1, MAX_ORDER + 1),
    max_train_bytes: int = DEFAULT_MAX_BYTES,
    max_validation_bytes: int = DEFAULT_MAX_VALIDATION_BYTES,
    bytes_counted: Callable[[bytes], npt.NDArray[np.bool_]] | None = None,
) -> Ladder:
    """Count `train`, score `validation` (UTF-8 documents), and return one rung an order.

    Each document is scored from its own start; boundaries are not scored. Where `bytes_counted` returns which
    bytes of a document count, a rung is the mean over these alone, and `validation_bytes` is their number; `validation`
    must then fit its cap. Both texts are read once, to the end, and sampled by `etude.evaluate.sampling.RULE` above
    their caps, so that memory has a bound: about 135 bytes for each byte of `max_train_bytes` on text that no order
    compresses, 40 on prose or source code.
    Raises InputError when one of the two holds no bytes.
    """
    wanted = sorted(set(orders))
    if not wanted or not 1 <= wanted[0] <= wanted[-1] <= MAX_ORDER:
        raise ValueError(f"orders must be among 1 to {MAX_ORDER}, not {list(orders)}")
    counted = evenly_spaced(train, max_train_bytes)
    scored = evenly_spaced(validation, max_validation_bytes)
    for name, sample in (("training", counted), ("validation", scored)):
        if not sample.num_bytes:
            raise InputError(f"the {name} text is empty: add text, or change how much of it validation takes")
    tables = gram_tables(Stream.of(counted.documents), wanted[-1])
    scores = score_orders(tables, Stream.of(scored.documents))
    num_bytes = scored.num_bytes
    if bytes_counted is not None:
        if scored.num_bytes < scored.corpus_bytes:
            raise ValueError("a sample of the validation text has no whole documents to count parts of")
        mask = np.concatenate([bytes_counted(document) for document in scored.documents])
        num_bytes = int(mask.sum())
        scores = (nats[mask] for nats in scores)
    rungs = [Rung(order, float(nats.mean()) / math.log(2)) for order, nats in enumerate(scores, start=1)]
    return Ladder(
        unit="byte",
        train_bytes=counted.num_bytes,
        corpus_train_bytes=counted.corpus_bytes,
        validation_bytes=num_bytes,
        rungs=tuple(rung for rung in rungs if rung.order in wanted),
    )
