"""The n-gram ladder of a run, as ladder.json stores it: the bits per byte of n-gram models of increasing order.

:mod:`etude.evaluate.ladder` computes one from a text.
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
    """The order of a Kneser-Ney model, and its bits per byte on the validation text."""

    order: int
    bits_per_byte: float


@dataclass(frozen=True)
class Ladder:
    """The rungs, lowest order first, and the sizes of the text that they were trained and scored on."""

    unit: str
    train_bytes: int
    corpus_train_bytes: int
    validation_bytes: int
    rungs: tuple[Rung, ...]
    sampling: str = ""  # how a training text above `ladder.max_train_bytes` was sampled, in words

    def passed(self, bits_per_byte: float) -> int:
        """Return the highest order k such that `bits_per_byte` is below every rung up to k; 0 if it is below none.

        On a small text a higher order may score worse than a lower one. Requiring all lower rungs makes the result
        monotonic: it never falls as a model improves, and never names an order while a lower one still beats the model.
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
        """Return the ladder of the object that `to_json` returned.

        Raises:
            InputError: `content` has another form.
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
