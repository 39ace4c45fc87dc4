"""Decompose a logit of a transformer into the contributions of its parts (direct logit attribution).

The residual stream is a sum, and only the last norm and the output matrix follow it. With the scale of every norm held
at its value for this token, that is linear: a logit is the sum of the contributions of the embedding, each head, each
MLP and each bias (Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits"). All sums are in float64.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor, nn

from etude.model.layers import LearnedPositions, RMSNorm

if TYPE_CHECKING:
    from etude.model.transformer import Block, Decoder

Vector = Float[Tensor, " D"]


def logit_terms(
    decoder: Decoder, unembedding: Vector, activations: Mapping[str, Tensor], position: int
) -> dict[str, float]:
    """Return the contributions to the logit of the output vector ``unembedding``, by part of the network.

    ``activations`` are those of one position, in float64 on the CPU; see `LanguageModel.logit_terms`.
    """
    last = f"model.layers.{len(decoder.layers) - 1}"
    before_last_mlp = activations[f"{last}.resid_pre"] + activations[f"{last}.attn_out"]
    stream = activations[f"{last}.mlp_out"] + before_last_mlp
    reads, constant = read_through(decoder.norm, unembedding.cpu().double(), stream)
    embedding = decoder.embedding_scale * activations["model.embed_tokens.embed"]
    terms = {"embedding": float(embedding @ reads)}
    if isinstance(decoder.embed_positions, LearnedPositions):
        terms["position"] = float(decoder.embed_positions.weight[position].cpu().double() @ reads)
    for block in decoder.layers:
        terms |= _terms_of_layer(block, reads, activations)  # type: ignore[arg-type]
    if constant is not None:
        terms["model.norm.bias"] = constant
    return terms


def _terms_of_layer(block: Block, reads: Vector, activations: Mapping[str, Tensor]) -> dict[str, float]:
    """Return the contributions of the heads, the MLP and the biases of one layer."""
    path, output = block.path, block.self_attn.o_proj
    z = activations[f"{path}.self_attn.z"]  # (H, Dh)
    weight = output.weight.cpu().double()
    mixed = _with_bias(weight @ z.flatten(), output)
    through, constant = read_through(block.attention_output_layernorm, reads, mixed)
    per_head = weight.view(len(reads), *z.shape)  # (D, H, Dh)
    by_head = torch.einsum("dhk,hk,d->h", per_head, z, through)  # (H,); k is Dh
    terms = {f"{path}.self_attn head {head}": value for head, value in enumerate(by_head.tolist())}
    if output.bias is not None:
        terms[f"{path}.self_attn.o_proj.bias"] = float(output.bias.cpu().double() @ through)
    if constant is not None:
        terms[f"{path}.attention_output_layernorm.bias"] = constant
    down = block.mlp.down_proj
    added = down.weight.cpu().double() @ activations[f"{path}.mlp.post"]
    through, constant = read_through(block.mlp_output_layernorm, reads, _with_bias(added, down))
    terms[f"{path}.mlp"] = float(added @ through)
    if down.bias is not None:
        terms[f"{path}.mlp.down_proj.bias"] = float(down.bias.cpu().double() @ through)
    if constant is not None:
        terms[f"{path}.mlp_output_layernorm.bias"] = constant
    return terms


def _with_bias(product: Vector, layer: nn.Linear) -> Vector:
    return product if layer.bias is None else product + layer.bias.cpu().double()


def read_through(norm: nn.Module, reads: Vector, value: Vector) -> tuple[Vector, float | None]:
    """Return the vector that reads the norm's input as ``reads`` reads its output, and the bias's contribution.

    The scale is held at that of ``value``, the norm's input.
    """
    if isinstance(norm, nn.Identity):
        return reads, None
    if isinstance(norm, RMSNorm):
        scale = (value.square().mean() + norm.eps).rsqrt()
        return reads * norm.gain(torch.float64).cpu() * scale, None
    assert isinstance(norm, nn.LayerNorm)
    scale = (value.var(unbiased=False) + norm.eps).rsqrt()
    weighted = reads * norm.weight.cpu().double() * scale
    # Subtracting the mean is symmetric: it applies to the reading vector as well as to the value.
    return weighted - weighted.mean(), float(norm.bias.cpu().double() @ reads)


def direct_effect(
    decoder: Decoder, block: Block, unembedding: Float[Tensor, "V D"], column: Vector
) -> Float[Tensor, " V"]:
    """Return the effect of ``column``, an output of the block's MLP, on each logit, up to the scales of norms."""
    column = column.cpu().double()
    for norm in (block.mlp_output_layernorm, decoder.norm):
        if isinstance(norm, nn.Identity):
            continue
        if isinstance(norm, nn.LayerNorm):
            column = column - column.mean()
        gain = norm.gain(torch.float64) if isinstance(norm, RMSNorm) else norm.weight
        assert isinstance(gain, Tensor)
        column = gain.cpu().double() * column
    return unembedding.cpu().double() @ column
