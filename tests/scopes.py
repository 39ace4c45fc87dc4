"""Scopes of a loss for tests: some tokens count, or some count more."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from etude.data.tokens.parts import TokenPart


@dataclass(frozen=True)
class Counted:
    """Tokens of a range of residues of their index count, with weights or without."""

    every: int = 3
    counted: int = 1  # of so many tokens one after another
    weighted: bool = False
    name: str = "some tokens"

    def mask(self, part: TokenPart, places: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_] | None:
        return places % part.num_tokens % self.every < self.counted

    def weights(self, part: TokenPart, places: npt.NDArray[np.int64]) -> npt.NDArray[np.float32] | None:
        if not self.weighted:
            return None
        return (1 + np.sin(places % part.num_tokens)).astype(np.float32)

    def bytes_counted(self, document: bytes) -> npt.NDArray[np.bool_]:
        return np.ones(len(document), bool)
