"""The decoder-only transformer, the same code for all families.

The names in its state dict are those of Llama and Qwen3 checkpoints, so these are saved without conversion. The other
families convert (`etude.model.families`).
"""

from __future__ import annotations

from collections.abc import Mapping

from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from etude.model import readout
from etude.model.attention import (
    CAUSAL,
    Attention,
    Visibility,
    cached_visibility,
    document_mask,
    document_positions,
    within_window,
)
from etude.model.cache import Cache, KVCache
from etude.model.config import ModelConfig
from etude.model.dropout import Dropout
from etude.model.language_model import LanguageModel, refuse_together
from etude.model.layers import (
    LearnedPositions,
    RotaryPositions,
    Rotation,
    make_mlp,
    make_norm,
    rounded_scale,
)
from etude.model.nodes import NodeLayer
from etude.model.run_layer import RunLayer, apply_layer
from etude.model.taps import Taps, tap


class Block(nn.Module):
    """One layer: x + attention(norm(x)), then x + mlp(norm(x)).

    Some families place norms after the sublayers, instead of or besides those before them
    (`ModelConfig.norm_placement`), or run attention and MLP in parallel on the same stream
    (`ModelConfig.parallel_residual`).
    """

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()

        def norm(placed: bool) -> nn.Module:
            return make_norm(config, config.hidden_size) if placed else nn.Identity()

        before, after = config.norm_placement != "after", config.norm_placement != "before"
        self.layer = layer
        self.path = f"model.layers.{layer}"
        self.parallel = config.parallel_residual
        self.sliding = config.is_sliding(layer)
        self.input_layernorm = norm(before)
        self.self_attn = Attention(config, layer)
        self.attention_output_layernorm = norm(after)
        # The norm before the MLP; the name is that of Llama's checkpoints.
        self.post_attention_layernorm = norm(before)
        self.mlp = make_mlp(config, f"{self.path}.mlp")
        self.mlp_output_layernorm = norm(after)

    def forward(
        self,
        residual: Float[Tensor, "B T D"],
        rotation: Rotation | None,
        visibility: Visibility,
        cache: KVCache | None = None,
        dropout: Dropout | None = None,
        taps: Taps | None = None,
    ) -> Float[Tensor, "B T D"]:
        residual = tap(taps, self.path, "resid_pre", residual)
        read = tap(taps, self.path, "input_layernorm.normalized", self.input_layernorm(residual))
        # Attention moves information between positions. Dropout place 0 is the embedding; each layer has two more.
        mixed = self.attention_output_layernorm(
            self.self_attn(read, rotation, visibility, cache, dropout, taps)
        )
        mixed = tap(
            taps, self.path, "attn_out", mixed if dropout is None else dropout(mixed, 2 * self.layer + 1)
        )
        middle = tap(taps, self.path, "resid_mid", residual + mixed)
        # The MLP computes at each position by itself.
        read = self.post_attention_layernorm(residual if self.parallel else middle)
        read = tap(taps, self.path, "post_attention_layernorm.normalized", read)
        added = self.mlp_output_layernorm(self.mlp(read, dropout, taps))
        added = tap(
            taps, self.path, "mlp_out", added if dropout is None else dropout(added, 2 * self.layer + 2)
        )
        return tap(taps, self.path, "resid_post", middle + added)


class Decoder(nn.Module):
    """Token embedding, layers, and last norm: everything below the output matrix."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.embed_positions = (
            RotaryPositions(config) if config.position == "rope" else LearnedPositions(config)
        )
        self.local_positions: RotaryPositions | None = None
        """Positions of the sliding layers."""
        if any(config.sliding_layers):
            self.local_positions = RotaryPositions(config, local=True)
        self.window = config.sliding_window
        self.embedding_scale = config.embedding_scale
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
        run_layer: RunLayer = apply_layer,
        taps: Taps | None = None,
    ) -> Float[Tensor, "B T D"]:
        embedded = tap(taps, "model.embed_tokens", "embed", self.embed_tokens(inputs))
        if self.embedding_scale != 1.0:
            embedded = embedded * rounded_scale(self.embedding_scale, embedded)
        residual, rotation = self.embed_positions(embedded, start, positions)
        seen = [(rotation, visibility)]  # by every position, and within the window
        if self.local_positions is not None:
            near = within_window(visibility, self.window, cache, inputs.shape[1], inputs.device)
            seen.append((self.local_positions(embedded, start, positions)[1], near))
        if dropout is not None:
            residual = dropout(residual, 0)
        for layer in self.layers:
            arguments = (layer, residual, *seen[bool(layer.sliding)], cache, dropout, taps)
            residual = (
                checkpoint(run_layer, *arguments, use_reentrant=False) if recompute else run_layer(*arguments)
            )
        return tap(taps, "model.norm", "normalized", self.norm(residual))


class Transformer(LanguageModel):
    """A decoder-only transformer of any family, built from the switches of the configuration."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.model = Decoder(config)
        self.lm_head: nn.Linear | None = None  # None: tied, the head uses the embedding matrix
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
        run_layer: RunLayer = apply_layer,
        taps: Taps | None = None,
    ) -> Float[Tensor, "B T D"]:
        refuse_together(document_ids, cache, recompute, taps)
        if cache is not None:
            return self._hidden_after(inputs, cache)
        self._require_positions(inputs.shape[1])
        if document_ids is None:
            return self.model(  # type: ignore[no-any-return]
                inputs, 0, None, CAUSAL, None, dropout, recompute, run_layer, taps
            )
        visibility = Visibility(causal=False, mask=document_mask(document_ids))
        positions = document_positions(document_ids)
        return self.model(  # type: ignore[no-any-return]
            inputs, 0, positions, visibility, None, dropout, recompute, run_layer, taps
        )

    def _hidden_after(self, inputs: Int[Tensor, "B T"], cache: Cache) -> Float[Tensor, "B T D"]:
        """Return the hidden states of `inputs`, which follow the tokens in `cache`, and add these to it."""
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

    def gathered_apart(self) -> list[nn.Module]:
        # A tied embedding is also the head's matrix, which the loss reads.
        embedding = [] if self.lm_head is None else [self.model.embed_tokens]
        return [*embedding, *self.model.layers]

    def activation_numbers(self, count: int) -> int:
        config = self.config
        heads = config.head_dim * (3 * config.num_attention_heads + 3 * config.num_key_value_heads)
        layer = 7 * config.hidden_size + heads + 3 * config.intermediate_size
        layer += 2 * config.num_attention_heads * count
        return count * (config.num_hidden_layers * layer + 2 * config.hidden_size + config.vocab_size)

    def logits_of_stream(self, residual: Float[Tensor, "*shape D"]) -> Float[Tensor, "*shape V"]:
        return self.head(self.model.norm(residual))

    def logit_terms(self, activations: Mapping[str, Tensor], position: int, token: int) -> dict[str, float]:
        unembedding = self.unembedding()[0][token]
        return readout.logit_terms(self.model, unembedding, activations, position)

    def direct_effect(self, layer: NodeLayer, column: Float[Tensor, " M"]) -> Float[Tensor, " V"]:
        block = self.get_submodule(layer.path.removesuffix(".mlp"))
        assert isinstance(block, Block)
        return readout.direct_effect(self.model, block, self.unembedding()[0], column)

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
