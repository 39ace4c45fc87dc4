"""Parameters, FLOPs and memory of a network, counted from its configuration without building it.

Letters: B rows, T context, D hidden_size, F intermediate_size, L layers, H heads, K kv heads, Dh head_dim,
V vocab_size, N context_size of the mlp.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from etude.model.config import ModelConfig
from etude.model.families.network_cost import TOKEN_ID, ParameterCount

_BYTES = 4  # a float32 number
_FLOPS_PER_WEIGHT = 2  # one multiplication and one addition
_BACKWARD = 2  # gradients of inputs and of weights: each costs as much as the forward product


def count_parameters(config: ModelConfig) -> ParameterCount:
    """Count the parameters of the network that `build_model(config)` builds."""
    return config.family.cost.parameters(config)


def hidden_matrix_parameters(config: ModelConfig) -> int:
    """Count the weights of the matrices between embedding and head."""
    return config.family.cost.hidden_matrices(config)


def forward_flops_per_token(config: ModelConfig, context: int, *, causal: bool = False) -> float:
    """Count the floating-point operations of the matrix products in one token's forward pass, head included.

    Attention counts all `context` keys, as is usual; with `causal`, only those up to the token itself, on average
    (context + 1) / 2. Norms, activation functions and lookups (a few percent) are not counted.
    """
    matrices = hidden_matrix_parameters(config) + config.family.cost.head_inputs(config) * config.vocab_size
    keys = (context + 1) / 2 if causal else context
    heads_width = config.num_attention_heads * config.head_dim
    scores_and_mixing = 2 * keys * heads_width * config.num_hidden_layers
    return float(_FLOPS_PER_WEIGHT * (matrices + scores_and_mixing))


def training_flops_per_token(config: ModelConfig, context: int, *, causal: bool = False) -> float:
    """Count forward and backward pass: three times the forward pass, the usual 6 N plus attention."""
    return (1 + _BACKWARD) * forward_flops_per_token(config, context, causal=causal)


@dataclass(frozen=True, slots=True)
class TrainingMemory:
    """Peak memory of training in bytes, with float32 parameters."""

    weights: int
    gradients: int
    optimizer: int
    activations: int
    """Tensors that the uncompiled forward pass saves for the backward pass; a compiled network saves less. With
    activation checkpointing, the inputs of all layers, and what one layer saves while it is recomputed."""
    logits: int
    """The logits and their gradient, besides the log-probabilities that the loss saves."""
    snapshot: int = 0
    """The copy of weights and optimizer state that a checkpoint is written from, if it is in the same memory."""
    compared: int = 0
    """The copy of the weights that the summary of a step compares with, if it is in the same memory."""

    @property
    def total(self) -> int:
        return sum(getattr(self, part.name) for part in fields(self))


def training_memory(
    config: ModelConfig,
    *,
    batch_size: int,
    context: int,
    trained: int | None = None,
    state_bytes: int = 0,
    recompute: bool = False,
    in_blocks: bool = False,
    snapshot: bool = False,
    compared: bool = False,
) -> TrainingMemory:
    """Return the peak memory of a training step on `batch_size` rows of `context` tokens (one micro-batch).

    Args:
        trained: number of parameters that are trained and have gradients; None: all.
        state_bytes: memory of the optimizer's state (`etude.train.optimizer.state_bytes`).
        recompute: activation checkpointing.
        in_blocks: attention in blocks of queries, which saves its patterns (`etude.model.attention`): uncompiled, in
            float32 and in bf16.
        snapshot: a checkpoint is written from the same memory at the same time.
        compared: the step is summarised.
    """
    parameters = count_parameters(config).total
    tokens = batch_size * context
    cost = config.family.cost
    kept = kept_per_token(config, recompute=recompute)
    if recompute:  # the layer that is being recomputed; its input is counted already
        kept += cost.kept_per_layer(config) - cost.layer_input(config)
    if in_blocks:
        kept += cost.patterns_per_token(config, context) * (1 if recompute else config.num_hidden_layers)
    masks = 0 if in_blocks else cost.masks(config, context)
    if recompute and masks:
        masks = context**2  # those of the layer that is being recomputed
    return TrainingMemory(
        weights=_BYTES * parameters,
        gradients=_BYTES * (parameters if trained is None else trained),
        optimizer=state_bytes,
        activations=_BYTES * (tokens * kept + masks),
        logits=_BYTES * tokens * 2 * config.vocab_size,
        snapshot=_BYTES * parameters + state_bytes if snapshot else 0,
        compared=_BYTES * parameters if compared else 0,
    )


def kept_per_token(config: ModelConfig, *, recompute: bool = False) -> int:
    """Count the numbers that uncompiled forward pass and loss save for the backward pass, per token.

    With `recompute` (activation checkpointing) each layer saves only its input.
    """
    cost = config.family.cost
    layer = cost.layer_input(config) if recompute else cost.kept_per_layer(config)
    loss = config.vocab_size + TOKEN_ID  # log-probabilities, and the target
    outside = cost.kept_outside_layers(config, recompute=recompute)
    return config.num_hidden_layers * layer + outside + loss
