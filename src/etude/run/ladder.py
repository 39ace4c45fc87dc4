"""The n-gram ladder of a run, as ladder.json stores it: the bits per byte of models that only count, by their order.

:mod:`etude.evaluate.ladder` builds one from a text.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from etude.errors import InputError
from etude.untrusted import shown

SCHEMA = 1


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
    sampling: str = ""  # in words, how a text above the cap was sampled

    def passed(self, bits_per_byte: float) -> int:
        """Return the highest order k such that `bits_per_byte` is below every rung up to k; 0 when below none.

        On a small text a higher order may score worse than a lower one. Such a rung is passed together with the better
        one under it, so the result never falls as a model improves, and never names an order whose shorter contexts
        still predict better than the model.
        """
        order = 0
        for rung in self.rungs:
            if not bits_per_byte < rung.bits_per_byte:
                break
            order = rung.order
        return order

    def to_json(self) -> dict[str, Any]:
        """Return the content of `ladder.json`."""
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
        """Invert `to_json`.

        Raises:
            InputError: `content` is something else.
        """
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
                str(content.get("sampling", "")),
            )
        except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
            raise InputError(f"ladder.json is damaged ({shown(error)}): delete it or train again") from error
