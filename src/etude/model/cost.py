"""What a network costs, counted from its structure: parameters, arithmetic, memory. Nothing is built or run.

Letters: B rows, T context, D hidden_size, F intermediate_size, L layers, H heads, K kv heads, Dh head_dim,
V vocab_size, N context_size of the mlp.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from etude.model.attention import QUERIES_AT_ONCE
from etude.model.config import ModelConfig

_BYTES = 4  # of a number in float32
_TOKEN_ID = 2  # an int64 counts as two numbers
_FLOPS_PER_WEIGHT = 2  # one multiplication and one addition
_BACKWARD = 2  # the gradients of the inputs and of the weights each cost as much as the forward product


@dataclass(frozen=True, slots=True)
class ParameterCount:
    """Parameters by where they stand. A tied head is counted once, as the embedding."""

    embedding: int
    positions: int
    attention: int
    mlp: int
    norms: int
    head: int

    @property
    def total(self) -> int:
        return sum(getattr(self, part.name) for part in fields(self))

    @property
    def non_embedding(self) -> int:
        """Without the tables that are looked up, and without the head: the N of most scaling laws."""
        return self.attention + self.mlp + self.norms


def count_parameters(config: ModelConfig) -> ParameterCount:
    """Parameters of the network that `build_model(config)` builds."""
    width, vocab = config.hidden_size, config.vocab_size
    if config.model_type == "mlp":
        return ParameterCount(
            embedding=vocab * width,
            positions=0,
            attention=0,
            mlp=_window_width(config) * config.intermediate_size + config.intermediate_size,
            norms=0,
            head=_head_inputs(config) * vocab + vocab,
        )
    layers = config.num_hidden_layers
    norm_width = width * (2 if config.norm == "layernorm" else 1)
    qk_norms = 2 * config.head_dim if config.qk_norm else 0
    return ParameterCount(
        embedding=vocab * width,
        positions=config.max_position_embeddings * width if config.position == "learned" else 0,
        attention=layers * (_attention_weights(config) + _attention_biases(config)),
        mlp=layers * (_mlp_weights(config) + _mlp_biases(config)),
        norms=layers * (2 * norm_width + qk_norms) + norm_width,
        head=0 if config.tie_word_embeddings else vocab * width,
    )


def hidden_matrix_parameters(config: ModelConfig) -> int:
    """Return the number of weights of the matrices between embedding and head."""
    if config.model_type == "mlp":
        return _window_width(config) * config.intermediate_size
    return config.num_hidden_layers * (_attention_weights(config) + _mlp_weights(config))


def forward_flops_per_token(config: ModelConfig, context: int, *, causal: bool = False) -> float:
    """Floating-point operations of the matrix products of one token's forward pass, head included.

    Attention is counted over all `context` keys, as most counters do; with `causal` only over those at or
    before the token, on average (context + 1) / 2. Norms, activations and lookups are left out (a few
    percent).
    """
    matrices = hidden_matrix_parameters(config) + _head_inputs(config) * config.vocab_size
    keys = (context + 1) / 2 if causal else context
    heads_width = config.num_attention_heads * config.head_dim
    scores_and_mixing = 2 * keys * heads_width * config.num_hidden_layers
    return float(_FLOPS_PER_WEIGHT * (matrices + scores_and_mixing))


def training_flops_per_token(config: ModelConfig, context: int, *, causal: bool = False) -> float:
    """Forward and backward: three times the forward pass, the familiar 6 N and attention's part."""
    return (1 + _BACKWARD) * forward_flops_per_token(config, context, causal=causal)


@dataclass(frozen=True, slots=True)
class TrainingMemory:
    """Bytes that training needs at its peak, in float32."""

    weights: int
    gradients: int
    optimizer: int
    activations: int
    """What the forward pass keeps for the backward pass, uncompiled; a compiled network keeps less. With layers
    recomputed, that and what one of them keeps while it is gone back through."""
    logits: int
    """The logits and their gradient, on top of the log-probabilities that the loss keeps."""
    snapshot: int = 0
    """The copy of weights and optimizer state that a checkpoint is written from, where it lies in the same memory."""
    compared: int = 0
    """The copy of the weights that a summary of a step compares with, where it lies in the same memory."""

    @property
    def total(self) -> int:
        return sum(getattr(self, part.name) for part in fields(self))


def training_memory(
    config: ModelConfig,
    *,
    batch_size: int,
    context: int,
    state_bytes: int = 0,
    recompute: bool = False,
    in_blocks: bool = False,
    snapshot: bool = False,
    compared: bool = False,
) -> TrainingMemory:
    """Return the peak memory of a training step on `batch_size` rows of `context` tokens (one micro-batch).

    `state_bytes` is the memory of the optimizer's state, which its update rules know (`etude.train.optimizer`).
    With `in_blocks` attention keeps its patterns (`etude.model.attention`), uncompiled in float32 and in bf16. With
    `snapshot` a checkpoint is being written from the same memory meanwhile; with `compared` the step is one that a
    summary is made of.
    """
    parameters = count_parameters(config).total
    tokens = batch_size * context
    kept = kept_per_token(config, recompute=recompute)
    if recompute:  # the layer at work besides; its input counts already
        kept += kept_per_layer(config) - _layer_input(config)
    if in_blocks and config.model_type != "mlp":
        kept += patterns_per_token(config, context) * (1 if recompute else config.num_hidden_layers)
    return TrainingMemory(
        weights=_BYTES * parameters,
        gradients=_BYTES * parameters,
        optimizer=state_bytes,
        activations=_BYTES * tokens * kept,
        logits=_BYTES * tokens * 2 * config.vocab_size,
        snapshot=_BYTES * parameters + state_bytes if snapshot else 0,
        compared=_BYTES * parameters if compared else 0,
    )


def kept_per_token(config: ModelConfig, *, recompute: bool = False) -> int:
    """Numbers that the uncompiled forward pass and the loss keep for the backward pass, per token.

    With `recompute` each layer keeps only its input.
    """
    layers = _layer_input(config) if recompute else kept_per_layer(config)
    loss = config.vocab_size + _TOKEN_ID  # log-probabilities, and the target
    if config.model_type == "mlp":
        return layers + _head_inputs(config) * (recompute or config.direct_connections) + loss
    last_norm_and_product = _kept_by_norm(config) + config.hidden_size
    return _TOKEN_ID + config.num_hidden_layers * layers + last_norm_and_product + loss


def kept_per_layer(config: ModelConfig) -> int:
    """Numbers that one layer keeps for the backward pass, per token, its input among them."""
    if config.model_type == "mlp":
        return _TOKEN_ID + _window_width(config) + config.intermediate_size
    inner = config.intermediate_size
    query_width = config.num_attention_heads * config.head_dim
    key_width = config.num_key_value_heads * config.head_dim
    norm_and_product = _kept_by_norm(config) + config.hidden_size
    heads = 2 * query_width + 2 * key_width + config.num_attention_heads
    if config.qk_norm:
        heads += 2 * (query_width + key_width) + config.num_attention_heads + config.num_key_value_heads
    mlp = 4 * inner if config.mlp == "gated" else 2 * inner
    return 2 * norm_and_product + heads + mlp


def patterns_per_token(config: ModelConfig, context: int) -> int:
    """What attention in blocks of queries keeps in a layer, for each token: as many float32 numbers."""
    mean_keys = min(context, (context + QUERIES_AT_ONCE) / 2)
    return math.ceil(1.5 * config.num_attention_heads * mean_keys)


def _attention_weights(config: ModelConfig) -> int:
    heads = 2 * config.num_attention_heads + 2 * config.num_key_value_heads
    return heads * config.head_dim * config.hidden_size


def _attention_biases(config: ModelConfig) -> int:
    heads = config.num_attention_heads + 2 * config.num_key_value_heads
    return heads * config.head_dim + config.hidden_size if config.attention_bias else 0


def _mlp_weights(config: ModelConfig) -> int:
    return (3 if config.mlp == "gated" else 2) * config.hidden_size * config.intermediate_size


def _mlp_biases(config: ModelConfig) -> int:
    inner = (2 if config.mlp == "gated" else 1) * config.intermediate_size
    return inner + config.hidden_size if config.mlp_bias else 0


def _kept_by_norm(config: ModelConfig) -> int:
    """An RMSNorm keeps its input, the normalised input and one scale; a LayerNorm its input, mean and scale."""
    return 2 * config.hidden_size + 1 if config.norm == "rmsnorm" else config.hidden_size + 2


def _layer_input(config: ModelConfig) -> int:
    return _TOKEN_ID if config.model_type == "mlp" else config.hidden_size


def _window_width(config: ModelConfig) -> int:
    return config.context_size * config.hidden_size


def _head_inputs(config: ModelConfig) -> int:
    if config.model_type != "mlp":
        return config.hidden_size
    return config.intermediate_size + (_window_width(config) if config.direct_connections else 0)
