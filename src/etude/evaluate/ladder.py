"""Build the n-gram ladder: what counting alone achieves on a text, as rungs that a model passes one by one."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import numpy.typing as npt

from etude.errors import InputError
from etude.evaluate.ngram import DEFAULT_MAX_BYTES, MAX_ORDER, Stream, gram_tables, score_orders
from etude.evaluate.sampling import RULE, evenly_spaced
from etude.run.ladder import Ladder, Rung

DEFAULT_MAX_VALIDATION_BYTES = 500_000


def build_ladder(
    train: Iterable[bytes],
    validation: Iterable[bytes],
    *,
    orders: Sequence[int] = range(1, MAX_ORDER + 1),
    max_train_bytes: int = DEFAULT_MAX_BYTES,
    max_validation_bytes: int = DEFAULT_MAX_VALIDATION_BYTES,
    bytes_counted: Callable[[bytes], npt.NDArray[np.bool_]] | None = None,
) -> Ladder:
    """Count `train`, score `validation` (UTF-8 documents), and return one rung per order.

    Each document is scored from its own start; boundaries are not scored. If `bytes_counted` is given, it returns which
    bytes of a document count; a rung is then the mean over these alone, `validation_bytes` is their number, and
    `validation` must fit its cap. Both texts are read once, to the end, and sampled by `etude.evaluate.sampling.RULE`
    above their caps. This bounds memory to about 135 bytes per byte of `max_train_bytes` on text that no order
    compresses, and 40 on prose or source code.
    Raises InputError if either text is empty.
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
            raise ValueError("a sampled validation text has no whole documents whose bytes could be selected")
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
        sampling=RULE,
    )
