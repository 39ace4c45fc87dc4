"""Parameters, FLOPs and memory of a network, counted from its configuration without building it.

Letters: B rows, T context, D hidden_size, F intermediate_size, L layers, H heads, K kv heads, Dh head_dim,
V vocab_size, N context_size of the mlp.
"""

from __future__ import annotations

from dataclasses import dataclass

from etude.model.adapter import adapted_matrices, adapter_parameters
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
    """Peak memory of training in bytes, with float32 parameters.

    Process, weights, optimizer and snapshot are there all the time. The others belong to one of three moments: the
    backward pass, the update and its summary, and an evaluation. The peak is the largest of the three.
    """

    weights: int
    gradients: int
    optimizer: int
    activations: int
    """Tensors that the forward pass saves for the backward pass; a network that is compiled as one graph saves less.
    With activation checkpointing, the inputs of all layers, and what one layer saves while it is recomputed."""
    logits: int
    """The logits and their gradient, besides the log-probabilities that the loss saves; or those of a piece, and the
    gradient of the output matrix."""
    rounded: int = 0
    """The copies of the matrices in bf16 that a forward pass in it makes."""
    snapshot: int = 0
    """The copy of weights and optimizer state that a checkpoint is written from, if it is in the same memory."""
    compared: int = 0
    """The copy of the weights that the summary of a step compares with, if it is in the same memory."""
    evaluation: int = 0
    """The logits of an evaluation, or the weights in the layout of generation for a sample. Both find the gradient of
    the last step."""
    process: int = 0
    """The interpreter and its libraries."""
    accumulated: bool = False
    """Whether a backward pass adds to the gradient of the micro-batches before it."""
    holes: float = 0.0
    """The share of freed blocks between those that a moment uses, where freed memory is kept."""

    @property
    def total(self) -> int:
        backward = self.activations + self.logits + self.rounded + self.accumulated * self.gradients
        update, evaluation = self.gradients + self.compared, self.gradients + self.evaluation
        always = self.process + self.weights + self.optimizer + self.snapshot
        return always + int((1 + self.holes) * max(backward, update, evaluation))


def training_memory(
    config: ModelConfig,
    *,
    batch_size: int,
    context: int,
    trained: int | None = None,
    state_bytes: int = 0,
    recompute: bool = False,
    in_blocks: bool = False,
    compiled: bool = False,
    snapshot: bool = False,
    compared: bool = False,
    rounded: bool = False,
    accumulated: bool = False,
    layers: int | None = None,
    trains_head: bool = True,
    piece: int | None = None,
    evaluated: int = 0,
    sampled: bool = False,
    process: int = 0,
) -> TrainingMemory:
    """Return the peak memory of a training step on `batch_size` rows of `context` tokens (one micro-batch).

    Args:
        trained: number of parameters that are trained; None: all.
        state_bytes: memory of the optimizer's state (`etude.train.optimizer.state_bytes`).
        recompute, compiled: activation checkpointing; layers are compiled one by one (`etude.model.run_layer`).
        in_blocks: attention in blocks of queries, which saves its patterns (`etude.model.attention`).
        snapshot, compared, rounded, accumulated, trains_head: whether checkpoints are written from a copy, steps are
            summarised, products are in bf16, a step has several micro-batches, and the output matrix is trained.
        layers: number of the last layers through which the backward pass goes; None: all.
        piece: most positions whose logits are computed together in training; None: all.
        evaluated: tokens that an evaluation reads together.
        sampled: whether samples are generated, from weights in another layout.
        process: memory before a network is built.
    """
    every, tokens, cost = config.num_hidden_layers, batch_size * context, config.family.cost
    layers, factors = every if layers is None else layers, adapter_parameters(config)
    parameters, head = count_parameters(config).total + factors, cost.head_inputs(config) * config.vocab_size
    piece = tokens if piece is None else min(piece, tokens)
    in_pieces = piece < tokens
    how = {"recompute": recompute, "rounded": rounded, "in_blocks": in_blocks, "compiled": compiled}
    saved = _saved(config, tokens, context, layers, **how) - tokens * in_pieces * config.vocab_size
    adds = trains_head and (in_pieces or accumulated or config.tie_word_embeddings)
    logits = 2 * piece * config.vocab_size + adds * head  # its gradient, before it is added to another
    matrices = cost.hidden_matrices(config)
    copies = rounded * (matrices * layers // max(1, every) + head) // 2
    return TrainingMemory(
        weights=_BYTES * parameters,
        gradients=_BYTES * (parameters if trained is None else trained),
        optimizer=state_bytes,
        activations=int(_BYTES * saved),
        logits=_BYTES * logits,
        rounded=_BYTES * copies,
        snapshot=_BYTES * (factors or parameters) + state_bytes if snapshot else 0,
        compared=_BYTES * (factors or parameters) if compared else 0,
        evaluation=_BYTES * max(2 * evaluated * config.vocab_size + copies, sampled * (matrices + head)),
        process=process,
        accumulated=accumulated,
    )


def _saved(
    config: ModelConfig,
    tokens: int,
    context: int,
    layers: int,
    *,
    recompute: bool,
    rounded: bool,
    in_blocks: bool,
    compiled: bool,
) -> int | float:
    """Count what is saved of a micro-batch while a backward pass goes through the last ``layers``."""
    cost = config.family.cost
    kept = kept_per_token(config, recompute=recompute, rounded=rounded, compiled=compiled, layers=layers)
    if recompute and layers:  # the layer that is being recomputed; its input is counted already
        kept += _kept_per_layer(config, rounded, compiled) - cost.layer_input(config)
    if in_blocks:
        patterns = cost.patterns_per_token(config, context, compiled=compiled)
        return tokens * (kept + patterns * (min(1, layers) if recompute else layers))
    masks = cost.masks(config, context)
    masks = context**2 if recompute and masks else masks  # those of the layer that is being recomputed
    return tokens * kept + masks


def kept_per_token(
    config: ModelConfig,
    *,
    recompute: bool = False,
    rounded: bool = False,
    compiled: bool = False,
    layers: int | None = None,
) -> int | float:
    """Count the numbers that forward pass and loss save for the backward pass, per token.

    With `recompute` (activation checkpointing) each layer saves only its input. `rounded`: in bf16, whose numbers count
    half. `compiled`: layers are compiled one by one. `layers`: those that save anything; None: all.
    """
    cost = config.family.cost
    layer = cost.layer_input(config) if recompute else _kept_per_layer(config, rounded, compiled)
    loss = config.vocab_size + TOKEN_ID  # log-probabilities, and the target
    outside = cost.kept_outside_layers(config, recompute=recompute)
    return (config.num_hidden_layers if layers is None else layers) * layer + outside + loss


def _kept_per_layer(config: ModelConfig, rounded: bool, compiled: bool) -> int | float:
    cost = config.family.cost
    if compiled:
        return cost.kept_per_compiled_layer(config, rounded=rounded)
    kept = cost.kept_per_layer_in_bf16(config) if rounded else cost.kept_per_layer(config)
    if config.adapter is not None and config.adapter.dropout:
        # The input of each branch, and a byte for its mask.
        inputs = sum(matrix.inputs * len(matrix.parts) for matrix in adapted_matrices(config))
        kept += inputs * ((0.5 if rounded else 1) + 0.25) / config.num_hidden_layers
    return kept
