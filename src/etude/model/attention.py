"""Causal attention with grouped heads (GQA), and the masks that limit which positions a query sees."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from etude.model.cache import Cache, KVCache
from etude.model.config import ModelConfig
from etude.model.dropout import Dropout
from etude.model.layers import ProjectionNorm, Rotation, make_norm, no_rotation, rotate, rotate_part
from etude.model.lora import project
from etude.model.taps import Taps, tap


@dataclass(frozen=True, slots=True)
class Visibility:
    """Which keys each query sees: its own and earlier ones (`causal`), those of a mask (True: visible), or all."""

    causal: bool
    mask: Tensor | None = None


CAUSAL = Visibility(causal=True)

QUERIES_AT_ONCE = 256
LONGEST_IN_BLOCKS = 1024
"""Longest row for attention in blocks: the backward pass needs the patterns, whose memory is quadratic in it."""


def document_mask(document_ids: Int[Tensor, "B T"]) -> Bool[Tensor, "B 1 T T"]:
    """Return which keys each query sees: itself and the earlier positions of its own document."""
    count = document_ids.shape[1]
    same = document_ids[:, :, None] == document_ids[:, None, :]
    causal = torch.ones(count, count, dtype=torch.bool, device=document_ids.device).tril()
    return (same & causal)[:, None]  # (B, 1, T, T): the same for all heads


def document_positions(document_ids: Int[Tensor, "B T"]) -> Int[Tensor, "B T"]:
    """Return positions that restart at 0 in every document. The tokens of a document are contiguous in its row."""
    index = torch.arange(document_ids.shape[1], device=document_ids.device).expand_as(document_ids)
    changes = document_ids[:, 1:] != document_ids[:, :-1]
    # The index where each document begins, 0 at all other positions.
    begins = torch.where(F.pad(changes, (1, 0), value=True), index, 0)
    return index - begins.cummax(dim=1).values


def cached_visibility(cache: Cache, count: int, device: torch.device) -> Visibility:
    """Return what the next `count` tokens see: the tokens in the cache, and one another causally."""
    start = cache.start
    if start == 0:
        return CAUSAL
    if start is not None and count == 1:
        return Visibility(causal=False)  # a single query sees every key, so no mask is needed
    keys = torch.arange(max(cache.lengths) + count, device=device)
    positions = cache.positions(count, device) if start is None else cache.positions(count, device)[:1]
    return Visibility(causal=False, mask=(keys <= positions[:, :, None])[:, None])


def within_window(
    visibility: Visibility, window: int, cache: Cache | None, count: int, device: torch.device
) -> Visibility:
    """Return ``visibility`` of the next ``count`` tokens, limited to the last ``window`` positions of each query.

    A query's own position is one of them. Positions are those in the row: the tokens of a document are contiguous, so
    the distances are the same in the document.
    """
    total = count if cache is None else max(cache.lengths) + count
    if total <= window:
        return visibility
    places = torch.arange(count, device=device)[None] if cache is None else cache.positions(count, device)
    keys, queries = torch.arange(total, device=device), places[:, :, None]  # (S,), (1 or B, T, 1)
    visible = keys > queries - window  # (1 or B, T, S)
    if visibility.causal:
        visible = visible & (keys <= queries)
    mask = visible[:, None]  # the same for all heads
    if visibility.mask is not None:
        mask = mask & visibility.mask
    return Visibility(causal=False, mask=mask)


def is_in_blocks(queries: Tensor, keys: Tensor, values: Tensor) -> bool:
    """Return whether `attend` computes these tensors in blocks of queries: self-attention in bf16 on a CPU."""
    count, in_bf16 = queries.shape[2], values.dtype == torch.bfloat16
    return count == keys.shape[2] and takes_blocks(values.device.type, in_bf16, count)


def takes_blocks(device_type: str, in_bf16: bool, count: int) -> bool:
    """Return whether self-attention over rows of ``count`` tokens is computed in blocks of queries on such a device."""
    return device_type == "cpu" and in_bf16 and count <= LONGEST_IN_BLOCKS


def attend(
    queries: Float[Tensor, "B H T Dh"],
    keys: Float[Tensor, "B K S Dh"],
    values: Float[Tensor, "B K S Dh"],
    visibility: Visibility,
    scale: float | None = None,
) -> Float[Tensor, "B H T Dh"]:
    """Return softmax(scale q k^T) v; each of the K kv heads serves H / K query heads. None: 1 / sqrt(Dh)."""
    looks_back = visibility.causal or visibility.mask is not None
    if looks_back and is_in_blocks(queries, keys, values):
        return _attend_in_blocks(queries.to(values.dtype), keys.to(values.dtype), values, visibility, scale)
    return F.scaled_dot_product_attention(
        queries,
        keys,
        values,
        attn_mask=visibility.mask,
        is_causal=visibility.causal,
        scale=scale,
        enable_gqa=queries.shape[1] != keys.shape[1],
    )


def _attend_in_blocks(
    queries: Float[Tensor, "B H T Dh"],
    keys: Float[Tensor, "B K T Dh"],
    values: Float[Tensor, "B K T Dh"],
    visibility: Visibility,
    scale: float | None,
) -> Float[Tensor, "B H T Dh"]:
    """Compute attention as plain matrix products, a block of queries at a time, over the keys up to its last query.

    On a CPU, matrix products in bf16 run near peak speed; PyTorch's fused kernel reaches a quarter of it (lab notebook,
    2026-11-29). Scores and pattern are rounded to bf16; the softmax between them is computed in fp32.
    """
    served = queries.shape[1] // keys.shape[1]
    if served > 1:
        keys, values = (heads.repeat_interleave(served, 1) for heads in (keys, values))
    count, scale = queries.shape[2], queries.shape[3] ** -0.5 if scale is None else scale
    places = torch.arange(count, device=queries.device)
    mixed = []
    for begin in range(0, count, QUERIES_AT_ONCE):
        end = min(begin + QUERIES_AT_ONCE, count)
        if visibility.mask is None:
            visible = places[:end] <= places[begin:end, None]  # (block, end)
        else:
            visible = visibility.mask[:, :, begin:end, :end]  # (B, 1, block, end)
        scores = (queries[:, :, begin:end] @ keys[:, :, :end].mT).float() * scale  # (B, H, block, end)
        # When compiled, adding a -inf mask takes half the time of masked_fill.
        pattern = (scores + torch.where(visible, 0.0, -torch.inf)).softmax(-1)
        mixed.append(pattern.to(values.dtype) @ values[:, :, :end])
    return torch.cat(mixed, 2)  # (B, H, T, Dh)


def attend_with_taps(
    queries: Float[Tensor, "B H T Dh"],
    keys: Float[Tensor, "B K T Dh"],
    values: Float[Tensor, "B K T Dh"],
    visibility: Visibility,
    taps: Taps,
    path: str,
    scale: float | None,
) -> Float[Tensor, "B H T Dh"]:
    """Compute `attend`, up to rounding, with scores and pattern as tensors that taps can record and change.

    In bf16 it rounds where `attend` rounds. In blocks the products read and return bf16, so the result is the same to
    the bit. PyTorch's kernels read and write bf16, and keep scores and sums in fp32.
    """
    served = queries.shape[1] // keys.shape[1]
    keys = keys.repeat_interleave(served, 1)  # (B, H, T, Dh)
    values = values.repeat_interleave(served, 1)  # (B, H, T, Dh)
    visible = visibility.mask
    if visible is None:
        count = queries.shape[2]
        visible = torch.ones(count, count, dtype=torch.bool, device=queries.device).tril()[None, None]
    # Without a rotation the queries are bf16 themselves; softmax is computed in fp32 all the same.
    read, wide = values.dtype, torch.promote_types(queries.dtype, torch.float32)
    in_blocks, width = is_in_blocks(queries, keys, values), queries.shape[-1]
    summed = read if in_blocks else wide
    with torch.autocast(queries.device.type, enabled=False):  # the rounding is written out below
        scores = (queries.to(read).to(summed) @ keys.to(read).to(summed).mT).to(wide)  # (B, H, T, T)
        if scale is not None:
            scores = scores * scale
        else:
            scores = scores * width**-0.5 if in_blocks else scores / math.sqrt(width)
        scores = tap(taps, path, "scores", scores.masked_fill(~visible, -torch.inf))
        pattern = tap(taps, path, "pattern", scores.softmax(-1))
        mixed = (pattern.to(read).to(summed) @ values.to(summed)).to(read)  # (B, H, T, Dh)
    return tap(taps, path, "z", mixed.transpose(1, 2)).transpose(1, 2)


class Attention(nn.Module):
    """Grouped-query attention (Ainslie et al. 2023): softmax(q k^T / sqrt(Dh)) v, each kv head for H / K query heads.

    With `qk_norm`, queries and keys are normalised before the rotation: per head (Qwen3), or over all heads together
    (OLMo 2). Some layers see only the last `sliding_window` positions (Gemma), or rotate nothing (SmolLM3).
    """

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.path = f"model.layers.{layer}.self_attn"
        self.head_dim = config.head_dim
        query_width = config.num_attention_heads * config.head_dim
        key_width = config.num_key_value_heads * config.head_dim
        bias = config.attention_bias
        self.q_proj = nn.Linear(config.hidden_size, query_width, bias=bias)
        self.k_proj = nn.Linear(config.hidden_size, key_width, bias=bias)
        self.v_proj = nn.Linear(config.hidden_size, key_width, bias=bias)
        self.o_proj = nn.Linear(query_width, config.hidden_size, bias=bias and config.attention_output_bias)
        self.q_norm: nn.Module = nn.Identity()
        self.k_norm: nn.Module = nn.Identity()
        if config.qk_norm and config.qk_norm_width == "head":
            self.q_norm = make_norm(config, config.head_dim)
            self.k_norm = make_norm(config, config.head_dim)
        elif config.qk_norm:
            self.q_norm = ProjectionNorm(query_width, config.rms_norm_eps)
            self.k_norm = ProjectionNorm(key_width, config.rms_norm_eps)
        self.rotate = _rotation_of(config, layer)
        self.scale = config.score_scale

    def forward(
        self,
        x: Float[Tensor, "B T D"],
        rotation: Rotation | None,
        visibility: Visibility,
        cache: KVCache | None = None,
        dropout: Dropout | None = None,
        taps: Taps | None = None,
    ) -> Float[Tensor, "B T D"]:
        rows, count, _ = x.shape
        heads = (rows, count, -1, self.head_dim)
        queries = tap(taps, self.path, "q", project(self.q_proj, x, dropout).view(heads))  # (B, T, H, Dh)
        queries = self.q_norm(queries).transpose(1, 2)  # (B, H, T, Dh)
        keys = tap(taps, self.path, "k", project(self.k_proj, x, dropout).view(heads))  # (B, T, K, Dh)
        keys = self.k_norm(keys).transpose(1, 2)  # (B, K, T, Dh)
        values = tap(taps, self.path, "v", project(self.v_proj, x, dropout).view(heads))  # (B, T, K, Dh)
        values = values.transpose(1, 2)  # (B, K, T, Dh)
        queries = self.rotate(queries, rotation)
        keys = self.rotate(keys, rotation)
        if cache is not None:
            keys, values = cache.write(self.layer, keys, values)
        if taps is None:  # the fused kernels; taps need scores and pattern as tensors
            mixed = attend(queries, keys, values, visibility, self.scale)  # (B, H, T, Dh)
        else:
            queries = tap(taps, self.path, "rot_q", queries.transpose(1, 2)).transpose(1, 2)
            keys = tap(taps, self.path, "rot_k", keys.transpose(1, 2)).transpose(1, 2)
            mixed = attend_with_taps(queries, keys, values, visibility, taps, self.path, self.scale)
        return project(self.o_proj, mixed.transpose(1, 2).reshape(rows, count, -1), dropout)


def _rotation_of(config: ModelConfig, layer: int) -> Callable[[Tensor, Rotation | None], Tensor]:
    """Return the function that rotates queries and keys of a layer by their positions."""
    if not config.is_rotary(layer):
        return no_rotation
    return rotate if config.rotary_dim == config.head_dim else rotate_part  # type: ignore[return-value]
