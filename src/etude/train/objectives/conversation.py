"""Next-token prediction of the trained tokens of conversations: answers, with the end of their turn.

Which tokens are trained is part of the prepared tokens (:class:`etude.data.tokens.examples.ExampleTokens`): it follows
from the model's chat template and ``data.mask``.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from etude.config import Settings
from etude.data.prepared_data import PreparedData
from etude.data.tokens.examples import ExampleTokens, text_key
from etude.data.tokens.parts import TokenPart
from etude.errors import InputError
from etude.train.batch import Int64, Mask
from etude.train.objectives.contract import LossScope, ObjectiveKind
from etude.train.objectives.next_token import next_token

CONVERSATION = "conversation"
NAMES = {
    "assistant": "the answers of conversations",
    "last": "the last answers of conversations",
    "all": "the tokens of whole conversations",
}
"""What is trained with each value of ``data.mask``."""


class TrainedTokens(LossScope):
    """The trained tokens of examples. ``validation`` are those of the held-out part, whose bytes are counted."""

    def __init__(self, name: str, validation: ExampleTokens) -> None:
        self.name = name
        self._validation = validation

    def mask(self, part: TokenPart, places: Int64) -> Mask:
        """Return which of the tokens at ``places`` are trained."""
        assert part.examples is not None
        mask: Mask = part.examples.trained[places]
        return mask

    def weights(self, part: TokenPart, places: Int64) -> None:
        """Return None: every trained token counts the same."""

    def bytes_counted(self, document: bytes) -> npt.NDArray[np.bool_]:
        """Return which bytes (N,) of the rendered text of a held-out example are trained."""
        number = self._validation.numbers[text_key(document)]
        return self._validation.bytes_trained(number)


def trained_tokens(data: PreparedData, settings: Settings) -> TrainedTokens:
    """Return the scope of the trained tokens of ``data``."""
    assert data.validation.examples is not None
    return TrainedTokens(NAMES[settings.data.mask], data.validation.examples)


def require_examples(data: PreparedData, settings: Settings) -> None:
    """Raise InputError for plain text, which has no trained and untrained tokens."""
    if data.train.examples is None:
        raise InputError(
            f"train.objective={CONVERSATION} is for conversations, and this is plain text: omit it, or give rows with "
            "messages, instruction and output, or prompt and completion"
        )
    if data.train.examples.rejected is not None:
        raise InputError(
            f"train.objective={CONVERSATION} is for conversations, and these are pairs of a chosen and a rejected "
            "answer: omit it"
        )


OBJECTIVE = ObjectiveKind(next_token, trained_tokens, require_examples)
