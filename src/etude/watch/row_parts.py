"""Which tokens of a row of a step's batch are trained, which are context only, and which are padding.

This is what the objective's batch holds: its loss mask, made from the tables of the run's data, and the number of the
example that each token belongs to.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby

from etude.data.tokens.coverage import IGNORE_INDEX
from etude.train.batch import Row
from etude.train.objectives.preference import PairRow
from etude.watch.opened_step import OpenedStep
from etude.watch.tuned_types import RowPart

Decode = Callable[[Sequence[int]], str]


def row_parts(opened: OpenedStep, row: int, decode: Decode) -> list[RowPart]:
    """Return the parts of a row, in the order of their tokens; none for a run on plain text.

    Raises:
        InputError: the batch has no such row.
    """
    if opened.era.plan.data.train.examples is None:
        return []
    return parts_of(opened.read(row), decode)


def parts_of(row: Row, decode: Decode) -> list[RowPart]:
    """Return the parts of a row of examples."""
    assert row.document_ids is not None, "examples do not see each other"
    owners, targets = row.document_ids[0].tolist(), row.targets[0].tolist()
    parts: list[RowPart] = []
    for owner, group in groupby(range(len(owners)), key=owners.__getitem__):
        places = list(group)
        counted = [targets[place] != IGNORE_INDEX for place in places]
        parts.append(
            {
                "kind": "padding"
                if owner < 0
                else "example"
                if not isinstance(row, PairRow)
                else "rejected"
                if owner % 2  # see Packing.inputs
                else "chosen",
                "first": places[0],
                # A token is the target of the position before it; the first of a part follows nothing.
                "trained": [False, *counted[:-1]],
                "last": decode([targets[places[-1]]]) if counted[-1] else None,
            }
        )
    return parts
