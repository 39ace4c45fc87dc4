"""What a network costs, counted from its structure: parameters, arithmetic, memory. Nothing is built or run.

Letters: B rows, T context, D hidden_size, F intermediate_size, L layers, H heads, K kv heads, Dh head_dim,
V vocab_size, N context_size of the mlp.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from etude.model.config import ModelConfig
from etude.model.families.network_cost import TOKEN_ID, ParameterCount

_BYTES = 4  # of a number in float32
_FLOPS_PER_WEIGHT = 2  # one multiplication and one addition
_BACKWARD = 2  # the gradients of the inputs and of the weights each cost as much as the forward product


def count_parameters(config: ModelConfig) -> ParameterCount:
    """Parameters of the network that `build_model(config)` builds."""
    return config.family.cost.parameters(config)


def hidden_matrix_parameters(config: ModelConfig) -> int:
    """Return the number of weights of the matrices between embedding and head."""
    return config.family.cost.hidden_matrices(config)


def forward_flops_per_token(config: ModelConfig, context: int, *, causal: bool = False) -> float:
    """Floating-point operations of the matrix products of one token's forward pass, head included.

    Attention is counted over all `context` keys, as most counters do; with `causal` only over those at or
    before the token, on average (context + 1) / 2. Norms, activations and lookups are left out (a few
    percent).
    """
    matrices = hidden_matrix_parameters(config) + config.family.cost.head_inputs(config) * config.vocab_size
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
    cost = config.family.cost
    kept = kept_per_token(config, recompute=recompute)
    if recompute:  # the layer at work besides; its input counts already
        kept += cost.kept_per_layer(config) - cost.layer_input(config)
    if in_blocks:
        kept += cost.patterns_per_token(config, context) * (1 if recompute else config.num_hidden_layers)
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
    cost = config.family.cost
    layer = cost.layer_input(config) if recompute else cost.kept_per_layer(config)
    loss = config.vocab_size + TOKEN_ID  # log-probabilities, and the target
    outside = cost.kept_outside_layers(config, recompute=recompute)
    return config.num_hidden_layers * layer + outside + loss
