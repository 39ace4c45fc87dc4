"""Causal attention with grouped heads, and what each position may look at."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from etude.model.cache import Cache, KVCache
from etude.model.config import ModelConfig
from etude.model.layers import RMSNorm, Rotation, no_rotation, rotate


@dataclass(frozen=True, slots=True)
class Visibility:
    """Which keys each query sees: `causal` (the fast path), else a mask (True = visible), else all."""

    causal: bool
    mask: Tensor | None = None


CAUSAL = Visibility(causal=True)


def document_mask(document_ids: Int[Tensor, "B T"]) -> Bool[Tensor, "B 1 T T"]:
    """True where a position may look: at itself and what came before it in its own document."""
    count = document_ids.shape[1]
    same = document_ids[:, :, None] == document_ids[:, None, :]
    causal = torch.ones(count, count, dtype=torch.bool, device=document_ids.device).tril()
    return (same & causal)[:, None]


def document_positions(document_ids: Int[Tensor, "B T"]) -> Int[Tensor, "B T"]:
    """Positions that begin at 0 with every document; documents stand one after another in a row."""
    index = torch.arange(document_ids.shape[1], device=document_ids.device).expand_as(document_ids)
    changes = document_ids[:, 1:] != document_ids[:, :-1]
    begins = torch.where(F.pad(changes, (1, 0), value=True), index, 0)
    return index - begins.cummax(dim=1).values


def cached_visibility(cache: Cache, count: int, device: torch.device) -> Visibility:
    """What the next `count` tokens see when the cache's tokens stand before them."""
    start = cache.start
    if start == 0:
        return CAUSAL
    if start is not None and count == 1:
        return Visibility(causal=False)
    keys = torch.arange(max(cache.lengths) + count, device=device)
    positions = cache.positions(count, device) if start is None else cache.positions(count, device)[:1]
    return Visibility(causal=False, mask=(keys <= positions[:, :, None])[:, None])


class Attention(nn.Module):
    """softmax(q k^T / sqrt(Dh)) v per head; each of the K kv heads serves H / K query heads (Ainslie et al.
    2023).

    With `qk_norm` each head's query and key are normalised before they are turned, as Qwen3 does.
    """

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.head_dim = config.head_dim
        self.grouped = config.num_key_value_heads != config.num_attention_heads
        query_width = config.num_attention_heads * config.head_dim
        key_width = config.num_key_value_heads * config.head_dim
        bias = config.attention_bias
        self.q_proj = nn.Linear(config.hidden_size, query_width, bias=bias)
        self.k_proj = nn.Linear(config.hidden_size, key_width, bias=bias)
        self.v_proj = nn.Linear(config.hidden_size, key_width, bias=bias)
        self.o_proj = nn.Linear(query_width, config.hidden_size, bias=bias)
        self.q_norm: nn.Module = nn.Identity()
        self.k_norm: nn.Module = nn.Identity()
        if config.qk_norm:
            self.q_norm = RMSNorm(config.head_dim, config.rms_norm_eps)
            self.k_norm = RMSNorm(config.head_dim, config.rms_norm_eps)
        self.rotate = rotate if config.position == "rope" else no_rotation

    def forward(
        self,
        x: Float[Tensor, "B T D"],
        rotation: Rotation | None,
        visibility: Visibility,
        cache: KVCache | None = None,
    ) -> Float[Tensor, "B T D"]:
        rows, count, _ = x.shape
        heads = (rows, count, -1, self.head_dim)
        queries = self.q_norm(self.q_proj(x).view(heads)).transpose(1, 2)  # (B, H, T, Dh)
        keys = self.k_norm(self.k_proj(x).view(heads)).transpose(1, 2)  # (B, K, T, Dh)
        values = self.v_proj(x).view(heads).transpose(1, 2)  # (B, K, T, Dh)
        queries = self.rotate(queries, rotation)  # type: ignore[arg-type]
        keys = self.rotate(keys, rotation)  # type: ignore[arg-type]
        if cache is not None:
            keys, values = cache.write(self.layer, keys, values)
        mixed = F.scaled_dot_product_attention(
            queries,
            keys,
            values,
            attn_mask=visibility.mask,
            is_causal=visibility.causal,
            enable_gqa=self.grouped,
        )
        return self.o_proj(mixed.transpose(1, 2).reshape(rows, count, -1))  # type: ignore[no-any-return]
