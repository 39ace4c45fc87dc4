"""The decoder-only transformer. Its state dict has the names of a Llama or Qwen3 checkpoint, so it is the
export.

GPT-2's layers have the same names here, with `model.embed_positions.weight` and the biases of its norms
besides.
"""

from __future__ import annotations

from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from etude.model.attention import (
    CAUSAL,
    Attention,
    Visibility,
    cached_visibility,
    document_mask,
    document_positions,
)
from etude.model.cache import Cache, KVCache
from etude.model.config import ModelConfig
from etude.model.dropout import Dropout
from etude.model.language_model import LanguageModel
from etude.model.layers import LearnedPositions, RotaryPositions, Rotation, make_mlp, make_norm


class Block(nn.Module):
    """One layer: x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.input_layernorm = make_norm(config, config.hidden_size)
        self.self_attn = Attention(config, layer)
        # The norm before the MLP: Llama's checkpoints call it so, and the names are theirs.
        self.post_attention_layernorm = make_norm(config, config.hidden_size)
        self.mlp = make_mlp(config)

    def forward(
        self,
        residual: Float[Tensor, "B T D"],
        rotation: Rotation | None,
        visibility: Visibility,
        cache: KVCache | None = None,
        dropout: Dropout | None = None,
    ) -> Float[Tensor, "B T D"]:
        mixed = self.self_attn(self.input_layernorm(residual), rotation, visibility, cache)
        residual = residual + (mixed if dropout is None else dropout(mixed, 2 * self.layer + 1))
        added = self.mlp(self.post_attention_layernorm(residual))
        return residual + (added if dropout is None else dropout(added, 2 * self.layer + 2))


class Decoder(nn.Module):
    """Embedding, the layers, and the last norm."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.embed_positions = (
            RotaryPositions(config) if config.position == "rope" else LearnedPositions(config)
        )
        self.layers = nn.ModuleList(Block(config, layer) for layer in range(config.num_hidden_layers))
        self.norm = make_norm(config, config.hidden_size)

    def forward(
        self,
        inputs: Int[Tensor, "B T"],
        start: int,
        positions: Int[Tensor, "B T"] | None,
        visibility: Visibility,
        cache: KVCache | None,
        dropout: Dropout | None = None,
        recompute: bool = False,
    ) -> Float[Tensor, "B T D"]:
        residual, rotation = self.embed_positions(self.embed_tokens(inputs), start, positions)
        if dropout is not None:
            residual = dropout(residual, 0)
        for layer in self.layers:
            arguments = (residual, rotation, visibility, cache, dropout)
            residual = checkpoint(layer, *arguments, use_reentrant=False) if recompute else layer(*arguments)
        return self.norm(residual)  # type: ignore[no-any-return]


class Transformer(LanguageModel):
    """Llama, Qwen3 or GPT-2, as the configuration says."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.model = Decoder(config)
        self.lm_head: nn.Linear | None = None
        if not config.tie_word_embeddings:
            self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)

    def hidden(
        self,
        inputs: Int[Tensor, "B T"],
        *,
        document_ids: Int[Tensor, "B T"] | None = None,
        cache: Cache | None = None,
        dropout: Dropout | None = None,
        recompute: bool = False,
    ) -> Float[Tensor, "B T D"]:
        if cache is not None:
            if document_ids is not None:
                raise ValueError("document_ids and a cache cannot be given together")
            return self._hidden_after(inputs, cache)
        self._require_positions(inputs.shape[1])
        if document_ids is None:
            return self.model(inputs, 0, None, CAUSAL, None, dropout, recompute)  # type: ignore[no-any-return]
        visibility = Visibility(causal=False, mask=document_mask(document_ids))
        positions = document_positions(document_ids)
        return self.model(inputs, 0, positions, visibility, None, dropout, recompute)  # type: ignore[no-any-return]

    def _hidden_after(self, inputs: Int[Tensor, "B T"], cache: Cache) -> Float[Tensor, "B T D"]:
        rows, count = inputs.shape
        cache.require_room(rows, count)
        self._require_positions(max(cache.lengths) + count)
        start = cache.start
        positions = cache.positions(count, inputs.device) if start is None else None
        visibility = cached_visibility(cache, count, inputs.device)
        hidden = self.model(inputs, start or 0, positions, visibility, cache)
        cache.advance(count)
        return hidden  # type: ignore[no-any-return]

    def _require_positions(self, count: int) -> None:
        if count > self.config.max_position_embeddings:
            most = self.config.max_position_embeddings
            raise ValueError(f"{count} positions are more than max_position_embeddings {most}")

    def dropout_shape(self, rows: int, context: int) -> tuple[int, int, int, int]:
        return 2 * self.config.num_hidden_layers + 1, rows, context, self.config.hidden_size

    def unembedding(self) -> tuple[Float[Tensor, "V D"], Float[Tensor, " V"] | None]:
        return (self.model.embed_tokens if self.lm_head is None else self.lm_head).weight, None

    def new_cache(self, batch_size: int, capacity: int) -> KVCache:
        weight = self.model.embed_tokens.weight
        return KVCache(
            num_layers=self.config.num_hidden_layers,
            batch_size=batch_size,
            num_heads=self.config.num_key_value_heads,
            capacity=min(capacity, self.config.max_position_embeddings),
            head_dim=self.config.head_dim,
            dtype=weight.dtype,
            device=weight.device,
        )
