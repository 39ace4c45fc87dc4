"""What every network here can do, whatever is inside it."""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from etude.model.cache import Cache
from etude.model.config import ModelConfig
from etude.model.dropout import Dropout


class LanguageModel(nn.Module):
    """A distribution over the next token at every position, given the tokens up to it.

    `forward` is `head(hidden(inputs))`. The two are separate so that a loss can project to the vocabulary in
    pieces, and generation at the last position only.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config.validate()

    def hidden(
        self,
        inputs: Int[Tensor, "B T"],
        *,
        document_ids: Int[Tensor, "B T"] | None = None,
        cache: Cache | None = None,
        dropout: Dropout | None = None,
        recompute: bool = False,
    ) -> Float[Tensor, "B T D"]:
        """What the head reads, for every position.

        `document_ids` keeps each position to its own document (equal ids, next to each other in the row).
        With a `cache`, `inputs` follow the tokens it holds, and it is advanced past them. Not both at once.
        Training may leave out some of the numbers that a layer adds (`dropout`).
        With `recompute` a layer keeps only its input, and is run again in the backward pass (Chen et al. 2016).
        Raises ValueError when the tokens reach beyond max_position_embeddings.
        """
        raise NotImplementedError

    def dropout_shape(self, rows: int, context: int) -> tuple[int, int, int, int]:
        """(P, B, T, D): the places at which dropout leaves out numbers, and the shape of these."""
        raise NotImplementedError

    def unembedding(self) -> tuple[Float[Tensor, "V D"], Float[Tensor, " V"] | None]:
        """Weight and bias of the head; the weight is the token embedding's when they are tied."""
        raise NotImplementedError

    def new_cache(self, batch_size: int, capacity: int) -> Cache:
        """An empty cache for this network, on its device and in its dtype."""
        raise NotImplementedError

    def head(self, hidden: Float[Tensor, "*shape D"]) -> Float[Tensor, "*shape V"]:
        """Logits from hidden states."""
        weight, bias = self.unembedding()
        return F.linear(hidden, weight, bias)

    def forward(
        self,
        inputs: Int[Tensor, "B T"],
        *,
        document_ids: Int[Tensor, "B T"] | None = None,
        cache: Cache | None = None,
    ) -> Float[Tensor, "B T V"]:
        """Logits of the token after each position; arguments as in `hidden`."""
        return self.head(self.hidden(inputs, document_ids=document_ids, cache=cache))
