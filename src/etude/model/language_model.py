"""The interface of every network: hidden states, logits, dropout, taps, caches, and where its neurons are."""

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
    """Raise ValueError for arguments of `LanguageModel.hidden` that cannot be combined."""
    if cache is not None and document_ids is not None:
        raise ValueError("document_ids and a cache cannot be given together")
    if taps is not None and (cache is not None or recompute):
        raise ValueError("taps cannot be given together with a cache or with recompute")


class LanguageModel(nn.Module):
    """A distribution over the next token at every position, given the tokens up to it.

    `forward` is `head(hidden(inputs))`. The two are separate so that the loss can compute logits in pieces, and
    generation only at the last position.

    Attributes:
        has_attention: whether the network has attention heads and a residual stream.
        tokens_per_position: number of tokens whose embeddings the activation :data:`EMBED` holds at a position, side
            by side, the newest last.
    """

    has_attention: ClassVar[bool] = True
    tokens_per_position: int = 1

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config.validate()

    def get_parameter(self, target: str) -> nn.Parameter:
        """Return the parameter of this name. That of an adapted layer's weight is the frozen matrix, not the sum."""
        path, _, name = target.rpartition(".")
        parameter = self.get_submodule(path)._parameters.get(name)
        return super().get_parameter(target) if parameter is None else parameter

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
        """Return the hidden states that the head reads.

        Args:
            document_ids: limits each position to its own document: the contiguous positions with the same id.
            cache: holds the tokens before `inputs`; these are added to it. Excludes `document_ids`.
            dropout: that of this batch, in training.
            recompute: activation checkpointing (Chen et al. 2016): each layer stores only its input, and runs again
                in the backward pass.
            taps: receive every activation by name, and may change it. Exclude `cache` and `recompute`.

        Raises:
            ValueError: arguments that exclude each other, or more tokens than max_position_embeddings.
        """
        raise NotImplementedError

    def gathered_apart(self) -> list[nn.Module]:
        """Return the parts whose parameters a process that holds only pieces gathers when it runs them.

        The parameters of the rest, the head's among them, are gathered for a whole step.
        """
        return []

    def dropout_shape(self, rows: int, context: int) -> tuple[int, int, int, int]:
        """Return the shape (P, B, T, D) of the keep masks, P the number of places with dropout."""
        raise NotImplementedError

    def unembedding(self) -> tuple[Float[Tensor, "V D"], Float[Tensor, " V"] | None]:
        """Return weight and bias of the head. A tied weight is the token embedding's."""
        raise NotImplementedError

    def new_cache(self, batch_size: int, capacity: int) -> Cache:
        """Allocate an empty cache for this network, on its device and in its dtype."""
        raise NotImplementedError

    def node_layers(self) -> list[NodeLayer]:
        """Return the layers of neurons that the family declares, from the first to the last."""
        return [NodeLayer(**vars(plan)) for plan in self.config.family.node_layers(self.config)]

    def embedding_weight(self) -> Float[Tensor, "V E"]:
        """Return the embedding of every token, detached."""
        return self.get_parameter("model.embed_tokens.weight").detach()

    def activation_numbers(self, count: int) -> int:
        """Count the numbers in all activations that `taps` receive for ``count`` tokens."""
        raise NotImplementedError

    def logits_of_stream(self, residual: Float[Tensor, "*shape D"]) -> Float[Tensor, "*shape V"]:
        """Apply last norm and head to a residual stream of any layer (the logit lens)."""
        raise NotImplementedError

    def logit_terms(self, activations: Mapping[str, Tensor], position: int, token: int) -> dict[str, float]:
        """Decompose one logit into the contributions of the network's parts, in the order of the network.

        `activations` are those of one position, by name, in float64 on the CPU: all that `taps` receive under names
        that end with `.embed`, `.z`, `.attn_out`, `.mlp_out`, `.post` or `.resid_pre`.
        """
        raise NotImplementedError

    def direct_effect(self, layer: NodeLayer, column: Float[Tensor, " M"]) -> Float[Tensor, " V"]:
        """Return the direct effect on each logit of adding ``column`` where a layer of neurons adds; float64, CPU.

        It ignores later layers, and the scales of norms, which depend on the text and are the same for all tokens.
        """
        raise NotImplementedError

    def head(self, hidden: Float[Tensor, "*shape D"]) -> Float[Tensor, "*shape V"]:
        """Return the logits of hidden states."""
        weight, bias = self.unembedding()
        return F.linear(hidden, weight, bias)

    def forward(
        self,
        inputs: Int[Tensor, "B T"],
        *,
        document_ids: Int[Tensor, "B T"] | None = None,
        cache: Cache | None = None,
    ) -> Float[Tensor, "B T V"]:
        """Return the logits of the token after each position. The arguments are those of `hidden`."""
        return self.head(self.hidden(inputs, document_ids=document_ids, cache=cache))
