"""Costs of a transformer, counted from its switches: parameters, and the numbers saved for the backward pass.

Letters: B rows, T context, D hidden_size, F intermediate_size, L layers, H heads, K kv heads, Dh head_dim,
V vocab_size. Another kind of network overrides the counts that differ.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from etude.model.config import ModelConfig

TOKEN_ID = 2
"""An int64 token id takes the memory of two float32 numbers."""


@dataclass(frozen=True, slots=True)
class ParameterCount:
    """Number of parameters by part of the network. A tied head is counted once, as the embedding."""

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
        """Parameters without embeddings, positions and head: the N of most scaling laws."""
        return self.attention + self.mlp + self.norms


class TransformerCost:
    """Costs of the decoder-only transformer. What is kept for the backward pass counts float32 numbers per token."""

    def parameters(self, config: ModelConfig) -> ParameterCount:
        """Count the parameters of the network that `etude.model.build.build_model` builds."""
        width, layers = config.hidden_size, config.num_hidden_layers
        norm_width = width * (2 if config.norm == "layernorm" else 1)
        norms_per_layer = 4 if config.norm_placement == "both" else 2
        return ParameterCount(
            embedding=config.vocab_size * width,
            positions=config.max_position_embeddings * width if config.position == "learned" else 0,
            attention=layers * (_attention_weights(config) + _attention_biases(config)),
            mlp=layers * (_mlp_weights(config) + _mlp_biases(config)),
            norms=layers * (norms_per_layer * norm_width + _qk_norm_weights(config)) + norm_width,
            head=0 if config.tie_word_embeddings else config.vocab_size * width,
        )

    def hidden_matrices(self, config: ModelConfig) -> int:
        """Count the weights of the matrices between embedding and head."""
        return config.num_hidden_layers * (_attention_weights(config) + _mlp_weights(config))

    def head_inputs(self, config: ModelConfig) -> int:
        """Count the numbers that the output matrix reads."""
        return config.hidden_size

    def layer_input(self, config: ModelConfig) -> int:
        """Count the numbers that a layer reads: all that it saves under activation checkpointing."""
        return config.hidden_size

    def kept_per_layer(self, config: ModelConfig) -> int:
        """Count the numbers that one layer saves for the backward pass, its input included."""
        inner = config.intermediate_size
        query_width = config.num_attention_heads * config.head_dim
        key_width = config.num_key_value_heads * config.head_dim
        norm_and_product = _kept_by_norm(config) + config.hidden_size
        heads = 2 * query_width + 2 * key_width + config.num_attention_heads  # q, output, k, v, log-sum-exp
        if config.qk_norm:
            per_head = config.num_attention_heads + config.num_key_value_heads
            heads += 2 * (query_width + key_width) + (per_head if config.qk_norm_width == "head" else 2)
        if config.position == "rope" and config.rotary_dim < config.head_dim:
            heads += query_width  # concatenating the parts changes the layout, so the output projection reads a copy
        if config.parallel_residual:
            heads -= config.hidden_size  # both norms read the same stream
        mlp = 4 * inner if config.mlp == "gated" else 2 * inner
        more_norms = 2 * _kept_by_norm(config) if config.norm_placement == "both" else 0
        return 2 * norm_and_product + heads + mlp + more_norms

    def kept_per_layer_in_bf16(self, config: ModelConfig) -> float:
        """Count what one layer saves where its products are in bf16; numbers in bf16 count half.

        Every product saves its own rounded copy of its input, and attention its expanded keys and values.
        """
        inputs = 5 if config.mlp == "gated" else 4  # q, k, v, and those of the MLP that read the stream
        query_width = config.num_attention_heads * config.head_dim
        key_width = config.num_key_value_heads * config.head_dim
        inner = (4 if config.mlp == "gated" else 2) * config.intermediate_size
        halves = inputs * config.hidden_size + 4 * query_width + inner
        norms = (4 if config.norm_placement == "both" else 2) * _kept_by_norm(config)
        if config.qk_norm:
            norms += 2 * (query_width + key_width)
        return norms + halves / 2

    def kept_per_compiled_layer(self, config: ModelConfig, *, rounded: bool) -> int | float:
        """Count what one layer saves where `torch.compile` compiles it by itself; ``rounded``: in bf16.

        What is cheap to compute again from the rest is not saved: normalised inputs, activated and rotated numbers.
        Rounding leaves the layer's input and the scales of norms in fp32, unless no norm reads that input.
        """
        width, heads = config.hidden_size, config.num_attention_heads
        query_width = heads * config.head_dim
        key_width = config.num_key_value_heads * config.head_dim
        placement = config.norm_placement
        scales = {"before": 2, "after": 2, "both": 4}[placement]
        if config.norm == "layernorm":
            scales = 2 if config.parallel_residual else 4  # mean and scale; both norms read the same stream
        before_norm = 0
        if config.qk_norm:
            before_norm = query_width + key_width
            scales += heads + config.num_key_value_heads if config.qk_norm_width == "head" else 2
        inner = (3 if config.mlp == "gated" else 2) * config.intermediate_size
        if not rounded:
            stream = (5 if placement == "both" else 4) * width
            return stream + before_norm + 2 * query_width + 2 * key_width + heads + inner + scales
        exact = 0 if placement == "after" else width
        products = (3 + (placement != "before") - config.parallel_residual) * width
        halves = products + before_norm + 4 * query_width + inner
        return exact + halves / 2 + scales + 2 * heads  # of each query's softmax: its maximum and its sum

    def kept_outside_layers(self, config: ModelConfig, *, recompute: bool) -> int:
        """Count what is saved outside the layers: token ids, the last norm, and the input of the head."""
        return TOKEN_ID + _kept_by_norm(config) + config.hidden_size

    def patterns_per_token(self, config: ModelConfig, context: int, *, compiled: bool = False) -> int:
        """Count what attention in blocks of queries saves in a layer, per token: in a compiled layer, all in bf16."""
        from etude.model.attention import QUERIES_AT_ONCE

        # A query sees the keys up to the end of its block.
        mean_keys = min(context, (context + QUERIES_AT_ONCE) / 2)
        return math.ceil((1 if compiled else 1.5) * config.num_attention_heads * mean_keys)

    def masks(self, config: ModelConfig, context: int) -> int:
        """Count what a micro-batch saves of the windows: PyTorch's kernels make a float mask in each sliding layer."""
        sliding = sum(config.sliding_layers) if context > config.sliding_window else 0
        return sliding * context**2


TRANSFORMER_COST = TransformerCost()


def _attention_weights(config: ModelConfig) -> int:
    heads = 2 * config.num_attention_heads + 2 * config.num_key_value_heads
    return heads * config.head_dim * config.hidden_size


def _attention_biases(config: ModelConfig) -> int:
    if not config.attention_bias:
        return 0
    heads = config.num_attention_heads + 2 * config.num_key_value_heads
    return heads * config.head_dim + (config.hidden_size if config.attention_output_bias else 0)


def _qk_norm_weights(config: ModelConfig) -> int:
    if not config.qk_norm:
        return 0
    if config.qk_norm_width == "head":
        return 2 * config.head_dim
    return (config.num_attention_heads + config.num_key_value_heads) * config.head_dim


def _mlp_weights(config: ModelConfig) -> int:
    return (3 if config.mlp == "gated" else 2) * config.hidden_size * config.intermediate_size


def _mlp_biases(config: ModelConfig) -> int:
    inner = (2 if config.mlp == "gated" else 1) * config.intermediate_size
    return inner + config.hidden_size if config.mlp_bias else 0


def _kept_by_norm(config: ModelConfig) -> int:
    """Count what a norm saves: RMSNorm its input, normalised input and scale; LayerNorm its input, mean and scale."""
    return 2 * config.hidden_size + 1 if config.norm == "rmsnorm" else config.hidden_size + 2
