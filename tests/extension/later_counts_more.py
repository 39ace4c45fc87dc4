"""An objective from outside Etude: every token is learned, and counts more the later it is in its document.

ETUDE_PLUGINS=later_counts_more.py etude train TEXT --set train.objective=later-counts-more
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from etude.data.tokens.parts import TokenPart
from etude.registry import OBJECTIVES
from etude.train.objectives import LossScope, ObjectiveKind, next_token


class Later(LossScope):
    """Weights from 0.5 at the beginning of a document to 1.5 at its end."""

    name = "every token, and more the later it stands in its document"

    def mask(self, part: TokenPart, places: npt.NDArray[np.int64]) -> None:
        """Return None: every token counts."""

    def weights(self, part: TokenPart, places: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        number = part.document_numbers(places)
        begin, end = part.documents[number], part.documents[number + 1]
        weights: npt.NDArray[np.float32] = (0.5 + (places % part.num_tokens - begin) / (end - begin)).astype(
            np.float32
        )
        return weights

    def bytes_counted(self, document: bytes) -> npt.NDArray[np.bool_]:
        return np.ones(len(document), bool)


OBJECTIVES.register("later-counts-more", ObjectiveKind(next_token, scope=lambda data, settings: Later()))
