"""The feed-forward language model of Bengio, Ducharme, Vincent and Jauvin (2003), "A Neural Probabilistic
Language Model", equation 1: y = b + W x + U tanh(d + H x), where x is the embeddings of the n previous tokens
side by side.

It is the smallest neural language model of the project, and a baseline for the transformer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from etude.model.cache import Cache, TokenCache
from etude.model.config import ModelConfig
from etude.model.dropout import Dropout
from etude.model.families.mlp import PATH
from etude.model.language_model import EMBED, LanguageModel, refuse_together
from etude.model.layers import ACTIVATION_FUNCTIONS
from etude.model.nodes import NodeLayer
from etude.model.taps import Taps, tap


class WindowEncoder(nn.Module):
    """The embeddings of a window of tokens side by side, and one layer of neurons that reads them."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.hidden = nn.Linear(config.context_size * config.hidden_size, config.intermediate_size)
        self.activation = ACTIVATION_FUNCTIONS[config.hidden_act]
        self.direct = config.direct_connections

    def forward(self, windows: Int[Tensor, "B T N"], taps: Taps | None = None) -> Float[Tensor, "B T F"]:
        embedded = self.embed_tokens(windows).flatten(2)  # (B, T, N * D)
        embedded = tap(taps, "model.embed_tokens", "embed", embedded)
        post = self.activation(tap(taps, PATH, "pre", self.hidden(embedded)))  # (B, T, F)
        post = tap(taps, PATH, "post", post)
        return torch.cat((post, embedded), dim=-1) if self.direct else post  # (B, T, F + N * D) if direct


class WindowMLP(LanguageModel):
    """The feed-forward language model behind the interface of `LanguageModel`, so that one loop trains all networks.

    Window positions before the first token hold the end-of-document token, which also begins every document. With
    `document_ids` the same padding precedes each document. The cache holds token ids; results with and without
    it are the same. The direct connections W are the last columns of `lm_head`: U and W side by side read neurons and
    embeddings side by side.
    """

    has_attention: ClassVar[bool] = False

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.tokens_per_position = config.context_size
        assert config.eos_token_id is not None
        self.padding = config.eos_token_id
        self.model = WindowEncoder(config)
        direct_width = config.context_size * config.hidden_size if config.direct_connections else 0
        self.lm_head = nn.Linear(config.intermediate_size + direct_width, config.vocab_size)

    def hidden(
        self,
        inputs: Int[Tensor, "B T"],
        *,
        document_ids: Int[Tensor, "B T"] | None = None,
        cache: Cache | None = None,
        dropout: Dropout | None = None,
        recompute: bool = False,
        taps: Taps | None = None,
    ) -> Float[Tensor, "B T F"]:
        refuse_together(document_ids, cache, recompute, taps)
        if cache is not None:
            return self.model(self._windows_after(inputs, cache))  # type: ignore[no-any-return]
        windows = self.windows(inputs, document_ids)
        arguments = (windows, taps)
        post = (
            checkpoint(self.model, *arguments, use_reentrant=False) if recompute else self.model(*arguments)
        )
        return post if dropout is None else dropout(post, 0)  # type: ignore[no-any-return]

    def windows(
        self, inputs: Int[Tensor, "B T"], document_ids: Int[Tensor, "B T"] | None = None
    ) -> Int[Tensor, "B T N"]:
        """Return the tokens that each position reads: the N that end with it."""
        size = self.config.context_size
        windows = _trailing_windows(inputs, size, self.padding)
        if document_ids is None:
            return windows
        documents = _trailing_windows(document_ids, size, -1)
        return torch.where(documents == document_ids[:, :, None], windows, self.padding)

    def _windows_after(self, inputs: Int[Tensor, "B T"], cache: Cache) -> Int[Tensor, "B T N"]:
        assert isinstance(cache, TokenCache)
        rows, count = inputs.shape
        cache.require_room(rows, count)
        cache.write(inputs)
        last = cache.positions(count, inputs.device)
        offsets = torch.arange(1 - self.config.context_size, 1, device=inputs.device)
        index = last[:, :, None] + offsets  # (B, T, N)
        every_row = torch.arange(rows, device=inputs.device)[:, None, None]  # (B, 1, 1)
        tokens = cache.tokens[every_row, index.clamp(min=0)]
        cache.advance(count)
        return torch.where(index >= 0, tokens, self.padding)  # padding before the first token

    def dropout_shape(self, rows: int, context: int) -> tuple[int, int, int, int]:
        return 1, rows, context, self.lm_head.in_features

    def unembedding(self) -> tuple[Float[Tensor, "V D"], Float[Tensor, " V"] | None]:
        return self.lm_head.weight, self.lm_head.bias

    def activation_numbers(self, count: int) -> int:
        config = self.config
        window = config.context_size * config.hidden_size
        return count * (window + 2 * config.intermediate_size + config.vocab_size)

    def logit_terms(self, activations: Mapping[str, Tensor], position: int, token: int) -> dict[str, float]:
        reads, post = self.lm_head.weight[token].cpu().double(), activations[f"{PATH}.post"]
        products = reads[: len(post)] * post
        terms = {f"model node {unit}": value for unit, value in enumerate(products.tolist())}
        if self.model.direct:
            embedded = activations[EMBED].view(self.config.context_size, -1)
            by_slot = (reads[len(post) :].view_as(embedded) * embedded).sum(-1).tolist()
            terms |= {
                f"embedding {len(by_slot) - 1 - slot} back": value for slot, value in enumerate(by_slot)
            }
        terms["lm_head.bias"] = float(self.lm_head.bias[token])
        return terms

    def direct_effect(self, layer: NodeLayer, column: Float[Tensor, " M"]) -> Float[Tensor, " V"]:
        return column.cpu().double()  # the neurons add to the logits themselves

    def new_cache(self, batch_size: int, capacity: int) -> TokenCache:
        return TokenCache(batch_size=batch_size, capacity=capacity, device=self.lm_head.weight.device)


def _trailing_windows(tokens: Int[Tensor, "B T"], size: int, padding: int) -> Int[Tensor, "B T N"]:
    """Return for each position the `size` entries that end with it, `padding` before the first."""
    padded = nn.functional.pad(tokens, (size - 1, 0), value=padding)
    return padded.unfold(1, size, 1)
