"""What every network here can do, whatever is inside it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from etude.model.cache import Cache
from etude.model.config import ModelConfig
from etude.model.dropout import Dropout
from etude.model.families.node_layers import EMBED as EMBED
from etude.model.families.node_layers import LOGITS as LOGITS
from etude.model.nodes import NodeLayer
from etude.model.taps import Taps


def refuse_together(
    document_ids: Tensor | None, cache: Cache | None, recompute: bool, taps: Taps | None
) -> None:
    """Raise ValueError for arguments of `LanguageModel.hidden` that exclude each other."""
    if cache is not None and document_ids is not None:
        raise ValueError("document_ids and a cache cannot be given together")
    if taps is not None and (cache is not None or recompute):
        raise ValueError("taps cannot be given together with a cache or with recompute")


class LanguageModel(nn.Module):
    """A distribution over the next token at every position, given the tokens up to it.

    `forward` is `head(hidden(inputs))`. The two are separate so that a loss can project to the vocabulary in
    pieces, and generation at the last position only.

    Attributes:
        has_attention: whether there are heads whose patterns can be looked at, and a residual stream.
        tokens_per_position: how many tokens' embeddings the activation :data:`EMBED` holds at a position, side by side
            and the newest last.
    """

    has_attention: ClassVar[bool] = True
    tokens_per_position: int = 1

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
        taps: Taps | None = None,
    ) -> Float[Tensor, "B T D"]:
        """What the head reads, for every position.

        `document_ids` keeps each position to its own document (equal ids, next to each other in the row).
        With a `cache`, `inputs` follow the tokens it holds, and it is advanced past them. Not both at once.
        Training may leave out some of the numbers that a layer adds (`dropout`).
        With `recompute` a layer keeps only its input, and is run again in the backward pass (Chen et al. 2016).
        With `taps` every activation is handed to them under its name; not together with a cache or `recompute`.
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

    def node_layers(self) -> list[NodeLayer]:
        """Return the layers of neurons that the family declares, from the first to the last."""
        return [NodeLayer(**vars(plan)) for plan in self.config.family.node_layers(self.config)]

    def embedding_weight(self) -> Float[Tensor, "V E"]:
        """The embedding of every token."""
        return self.get_parameter("model.embed_tokens.weight").detach()

    def activation_numbers(self, count: int) -> int:
        """How many numbers all activations of ``count`` tokens are that `taps` are handed."""
        raise NotImplementedError

    def logits_of_stream(self, residual: Float[Tensor, "*shape D"]) -> Float[Tensor, "*shape V"]:
        """What would be predicted if the residual stream were read as it is (the logit lens)."""
        raise NotImplementedError

    def logit_terms(self, activations: Mapping[str, Tensor], position: int, token: int) -> dict[str, float]:
        """The terms of one logit by the part of the network that gives them, in the order of the network.

        `activations` are those of one position, by name, in float64 on the CPU: all that `taps` are handed whose
        names end with `.embed`, `.z`, `.attn_out`, `.mlp_out`, `.post` or `.resid_pre`.
        """
        raise NotImplementedError

    def direct_effect(self, layer: NodeLayer, column: Float[Tensor, " M"]) -> Float[Tensor, " V"]:
        """What ``column``, added where a layer of neurons adds, gives to each logit directly; float64, on the CPU.

        The division by the scale of norms is left out, which depends on the text and is the same for all tokens; so
        is what later layers make of it.
        """
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
