"""The transformer's forward pass for one new token of each row, optimised for speed.

It computes what `Transformer.hidden` computes with a cache and one new token, in as few operations as possible. A
single token costs only the overhead of each operation and the reading of the weights. So query, key and value are one
matrix product, gate and up are another, and the weights are stored in the layout of the fastest product.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from etude.model.attention import Attention
from etude.model.cache import KVCache
from etude.model.language_model import LanguageModel
from etude.model.layers import (
    GatedMLP,
    LearnedPositions,
    PlainMLP,
    ProjectionNorm,
    RMSNorm,
    RotaryPositions,
    ZeroCenteredNorm,
    no_rotation,
    rounded_scale,
)
from etude.model.matmul import Product, make_product, rounds_weights_only
from etude.model.stored_matrix import in_memory
from etude.model.transformer import Block, Transformer

Norm = Callable[[Tensor], Tensor]
Angles = tuple[Tensor, Tensor]
"""cos and signed sin of positions."""


@dataclass(frozen=True, slots=True, eq=False)
class _Place:
    """The positions of the new tokens, and the cached positions that they see."""

    start: int | None
    """The position of the new token, if it is the same in all rows; else None."""
    positions: Int[Tensor, " B"] | None
    end: int
    """Number of cached positions to read, the new one included."""
    mask: Bool[Tensor, "B 1 S"] | None
    """True for positions that a row sees, of those from `begin` to `end`; None where every row sees all of them."""
    begin: int = 0
    """The first cached position to read."""

    def within(self, window: int) -> _Place:
        """Return the place of the same tokens where each sees only the last ``window`` positions, its own included."""
        if self.positions is None:
            return replace(self, begin=max(0, self.end - window))
        assert self.mask is not None
        reach = torch.arange(self.end, device=self.positions.device)
        near = reach > self.positions[:, None] - window  # (B, S)
        return replace(self, mask=self.mask & near[:, None])


class _Layer:
    """The weights of one layer, and its forward pass for one token of each row."""

    def __init__(self, block: Block, compiled: bool, rounded: bool) -> None:
        def product(*parts: nn.Linear) -> Product:
            return _joined(parts, compiled, rounded)

        attention, mlp = block.self_attn, block.mlp
        assert isinstance(mlp, GatedMLP | PlainMLP)
        self.index = attention.layer
        self.head_dim = attention.head_dim
        self.key_heads = attention.k_proj.out_features // self.head_dim
        self.rotated_heads = attention.q_proj.out_features // self.head_dim + self.key_heads
        self.scale = self.head_dim**-0.5 if attention.scale is None else attention.scale
        self.sliding = block.sliding
        self.rotates = attention.rotate is not no_rotation
        self.parallel = block.parallel
        self.attention_norm = _norm(block.input_layernorm)
        self.attention_output_norm = _output_norm(block.attention_output_layernorm)
        self.mlp_norm = _norm(block.post_attention_layernorm)
        self.mlp_output_norm = _output_norm(block.mlp_output_layernorm)
        self.qkv = product(attention.q_proj, attention.k_proj, attention.v_proj)
        self.o = product(attention.o_proj)
        self.head_norm = _head_norm(attention, self.rotated_heads - self.key_heads, self.key_heads)
        self.gated = isinstance(mlp, GatedMLP)
        self.inner = (
            product(mlp.gate_proj, mlp.up_proj) if isinstance(mlp, GatedMLP) else product(mlp.up_proj)
        )
        self.down = product(mlp.down_proj)
        self.activation = mlp.activation

    def __call__(self, residual: Tensor, rotation: Angles | None, place: _Place, cache: KVCache) -> Tensor:
        mixed = self._attend(self.qkv(self.attention_norm(residual)), rotation, place, cache)
        middle = _added(self.o, mixed, residual, self.attention_output_norm)
        inner = self.inner(self.mlp_norm(residual if self.parallel else middle))
        if self.gated:
            gate, up = inner.chunk(2, dim=-1)
            post = self.activation(gate) * up
        else:
            post = self.activation(inner)
        return _added(self.down, post, middle, self.mlp_output_norm)  # (B, D)

    def _attend(self, qkv: Tensor, rotation: Angles | None, place: _Place, cache: KVCache) -> Tensor:
        rows = qkv.shape[0]
        heads = qkv.view(rows, -1, self.head_dim)  # (B, H + 2 K, Dh)
        rotated, values = torch.split(heads, [self.rotated_heads, self.key_heads], dim=1)
        if self.head_norm is not None:
            rotated = self.head_norm(rotated)
        if rotation is not None and self.rotates:
            rotated = _rotate(rotated, *rotation)
        queries, keys = torch.split(rotated, [self.rotated_heads - self.key_heads, self.key_heads], dim=1)
        all_keys, all_values = cache.keys[self.index], cache.values[self.index]
        _write(all_keys, keys, place)
        _write(all_values, values, place)
        if torch.compiler.is_compiling():
            return _traced_attention(queries, all_keys, all_values, place, self.scale)
        return _attention(queries, all_keys, all_values, place, self.scale)


class Decoding:
    """The weights of a transformer, copied and fused for decoding one token at a time.

    The copies take up to as much memory as the network, and do not follow later changes of its weights.

    `rounded`: large matrices are stored in bf16, at half the memory. Activations between the products keep the
    precision of the parameters; so does the output matrix where its product would round the logits.
    """

    def __init__(self, model: LanguageModel, *, compiled: bool = False, rounded: bool = False) -> None:
        assert isinstance(model, Transformer)  # `Family.decodes_fast` guarantees it
        decoder = model.model
        self.embedding = decoder.embed_tokens.weight
        if compiled:
            self.embedding = in_memory(self.embedding)
        places = decoder.embed_positions
        dtype = self.embedding.dtype
        self.learned: Tensor | None = None
        """One vector for each position (GPT-2), else None."""
        self.rotation: Angles | None = None
        """cos and signed sin of every position, else None."""
        self.local_rotation: Angles | None = None
        """Those of the sliding layers; None without such layers."""
        self.window = decoder.window
        self.embedding_scale: Tensor | None = None
        if decoder.embedding_scale != 1.0:
            self.embedding_scale = rounded_scale(decoder.embedding_scale, self.embedding)
        if isinstance(places, LearnedPositions):
            self.learned = places.weight
        else:
            self.rotation = _angles(places, dtype)
        if decoder.local_positions is not None:
            self.local_rotation = _angles(decoder.local_positions, dtype)
        self.layers = [_Layer(block, compiled, rounded) for block in decoder.layers]  # type: ignore[arg-type]
        self.norm = _norm(decoder.norm)
        weight, bias = model.unembedding()
        exact = rounds_weights_only(weight, compiled=compiled)
        self.head = make_product(weight, bias, compiled=compiled, rounded=rounded and exact)

    def step(self, tokens: Int[Tensor, " B"], cache: KVCache) -> Float[Tensor, "B V"]:
        """Read one token for each row, add it to the cache, and return the logits of the next token.

        Raises:
            ValueError: the cache is full, or has another number of rows.
        """
        cache.require_room(len(tokens), 1)
        logits = self._forward(tokens, _place(cache, tokens.device), cache)
        cache.advance(1)
        return logits

    def traced_step(
        self,
        tokens: Int[Tensor, " B"],
        positions: Int[Tensor, " B"],
        reach: Int[Tensor, " S"],
        cache: KVCache,
    ) -> Float[Tensor, "B V"]:
        """Compute `step` in a form to compile: only the values of tensors change from token to token.

        `reach` lists the cached positions to read, 0 to S - 1, of which each row sees those up to its own position. S
        may be any number from the new length of the longest row to the capacity. The caller advances the cache.
        """
        mask = reach <= positions[:, None]  # (B, S)
        return self._forward(tokens, _Place(None, positions, reach.shape[0], mask[:, None]), cache)

    def _forward(self, tokens: Tensor, place: _Place, cache: KVCache) -> Tensor:
        residual = F.embedding(tokens, self.embedding)  # (B, D)
        if self.embedding_scale is not None:
            residual = residual * self.embedding_scale
        at = slice(place.start, place.end) if place.positions is None else place.positions
        if self.learned is not None:
            residual = residual + self.learned[at]
        seen = [(_at(self.rotation, at), place)]  # by every position, and within the window
        if self.local_rotation is not None:
            seen.append((_at(self.local_rotation, at), place.within(self.window)))
        for layer in self.layers:
            residual = layer(residual, *seen[layer.sliding], cache)
        return self.head(self.norm(residual))


def _angles(positions: RotaryPositions, dtype: torch.dtype) -> Angles:
    """Return the tables of all positions, (max_position_embeddings, 1, R) each."""
    return positions.cos.to(dtype)[:, None], positions.sin.to(dtype)[:, None]


def _at(rotation: Angles | None, at: slice | Tensor) -> Angles | None:
    """Return the rotation at these positions; None without one."""
    return None if rotation is None else (rotation[0][at], rotation[1][at])


def _place(cache: KVCache, device: torch.device) -> _Place:
    """Return the positions of the next token of each row of ``cache``."""
    start = cache.start
    if start is not None:
        return _Place(start, None, start + 1, None)
    positions = torch.tensor(cache.lengths, device=device)
    end = max(cache.lengths) + 1
    mask = torch.arange(end, device=device) <= positions[:, None]
    return _Place(None, positions, end, mask[:, None])


def _write(buffer: Tensor, new: Tensor, place: _Place) -> None:
    """Store keys or values (B, K, Dh) of the new tokens in a buffer (B, K, capacity, Dh)."""
    if place.positions is None:
        assert place.start is not None
        buffer.select(2, place.start).copy_(new)
    else:
        rows = torch.arange(len(new), device=new.device)
        buffer[rows, :, place.positions] = new


def _added(product: Product, x: Tensor, residual: Tensor, norm: Norm | None) -> Tensor:
    """Apply the last product of a sublayer, and its norm if it has one, and add the result to the stream."""
    return product.plus(x, residual) if norm is None else residual + norm(product(x))


def _rotate(x: Tensor, cos: Tensor, signed_sin: Tensor) -> Tensor:
    """Compute `layers.rotate` and `layers.rotate_part` for (B, H, Dh) with one operation fewer."""
    if cos.shape[-1] < x.shape[-1]:
        rotated, rest = torch.split(x, [cos.shape[-1], x.shape[-1] - cos.shape[-1]], dim=-1)
        return torch.cat((_rotate(rotated, cos, signed_sin), rest), dim=-1)
    rows, heads, width = x.shape
    swapped = x.reshape(rows, heads, 2, width // 2).flip(2).view(rows, heads, width)
    return torch.addcmul(x * cos, swapped, signed_sin)


def _attention(queries: Tensor, keys: Tensor, values: Tensor, place: _Place, scale: float) -> Tensor:
    """Return softmax(q k^T) v for one query per head, (B, H, Dh) -> (B, H Dh).

    For a single query these three plain operations have less overhead than `scaled_dot_product_attention`.
    """
    rows, key_heads, capacity, head_dim = keys.shape
    every = rows * key_heads  # one batched product over all rows and kv heads
    count = place.end - place.begin
    seen_keys = keys.view(every, capacity, head_dim).narrow(1, place.begin, count)
    seen_values = values.view(every, capacity, head_dim).narrow(1, place.begin, count)
    scores = torch.bmm((queries * scale).view(every, -1, head_dim), seen_keys.mT)  # (B K, H / K, S)
    if place.mask is not None:
        hidden = ~place.mask
        scores = scores.view(rows, -1, count).masked_fill(hidden, -torch.inf).view(scores.shape)
    return torch.bmm(scores.softmax(dim=-1), seen_values).view(rows, -1)


def _traced_attention(queries: Tensor, keys: Tensor, values: Tensor, place: _Place, scale: float) -> Tensor:
    """Compute `_attention` in a form to compile: on a CPU the compiler's loops for plain sums beat its operators."""
    assert place.mask is not None
    rows, heads, head_dim = queries.shape
    keys, values = keys[:, :, : place.end], values[:, :, : place.end]  # (B, K, S, Dh)
    if keys.device.type != "cpu":
        mixed = F.scaled_dot_product_attention(
            queries[:, :, None],
            keys,
            values,
            attn_mask=place.mask[:, None],
            enable_gqa=heads != keys.shape[1],
            scale=scale,
        )
        return mixed.reshape(rows, -1)
    grouped = (queries * scale).view(rows, keys.shape[1], -1, 1, head_dim)
    scores = (grouped * keys[:, :, None]).sum(dim=-1)  # (B, K, H / K, S)
    weights = scores.masked_fill(~place.mask[:, None], -torch.inf).softmax(dim=-1)
    return (weights[..., None] * values[:, :, None]).sum(dim=-2).view(rows, -1)  # type: ignore[no-any-return]


def _joined(parts: tuple[nn.Linear, ...], compiled: bool, rounded: bool) -> Product:
    """Fuse linear layers that read the same input into one product."""
    if len(parts) == 1:
        return make_product(parts[0].weight, parts[0].bias, compiled=compiled, rounded=rounded)
    weight = torch.cat([part.weight.detach() for part in parts])
    biases = [part.bias.detach() for part in parts if part.bias is not None]
    return make_product(weight, torch.cat(biases) if biases else None, compiled=compiled, rounded=rounded)


def _norm(module: nn.Module) -> Norm:
    return _RootMeanSquare(_gain(module), module.eps) if isinstance(module, RMSNorm) else module


def _gain(norm: RMSNorm) -> Tensor:
    """Return the factors of a norm; in fp32 at least where they are 1 + weight, which bf16 would round."""
    dtype = norm.weight.dtype
    if isinstance(norm, ZeroCenteredNorm):
        dtype = torch.promote_types(dtype, torch.float32)
    return norm.gain(dtype).detach()


def _output_norm(module: nn.Module) -> Norm | None:
    """Return the norm after a sublayer, None where it has none."""
    return None if isinstance(module, nn.Identity) else _norm(module)


def _head_norm(attention: Attention, query_heads: int, key_heads: int) -> Norm | None:
    """Fuse the norms of queries and keys into one, for the heads of both side by side; None without them."""
    queries, keys = attention.q_norm, attention.k_norm
    if isinstance(queries, ProjectionNorm) and isinstance(keys, ProjectionNorm):
        return _ProjectionNorms(queries, keys)
    if not isinstance(queries, RMSNorm) or not isinstance(keys, RMSNorm):
        return None
    gain = torch.cat((_gain(queries).expand(query_heads, -1), _gain(keys).expand(key_heads, -1)))
    return _RootMeanSquare(gain, queries.eps)


class _ProjectionNorms:
    """Normalise queries and keys side by side, (B, H + K, Dh), each over all its heads."""

    def __init__(self, queries: ProjectionNorm, keys: ProjectionNorm) -> None:
        self.widths = [len(queries.weight), len(keys.weight)]
        self.norms = [_RootMeanSquare(_gain(norm), norm.eps) for norm in (queries, keys)]

    def __call__(self, x: Tensor) -> Tensor:
        parts = torch.split(x.flatten(-2), self.widths, dim=-1)
        normed = [norm(part) for norm, part in zip(self.norms, parts, strict=True)]
        return torch.cat(normed, dim=-1).view_as(x)


class _RootMeanSquare:
    """RMSNorm over the last axis, with factors that may differ between heads."""

    def __init__(self, gain: Tensor, eps: float) -> None:
        self.gain = gain
        self.width = gain.shape[-1]
        self.eps = eps
        self.eps_tensor = torch.tensor(eps, dtype=gain.dtype, device=gain.device)

    def __call__(self, x: Tensor) -> Tensor:
        if torch.compiler.is_compiling() or x.dtype != torch.float32:
            normalised = F.rms_norm(x.to(self.gain.dtype), (self.width,), None, self.eps)
            return (normalised * self.gain).to(x.dtype)
        # Three times as fast as F.rms_norm for one row on a CPU, which consists of more operations.
        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        mean_square = torch.addcmul(self.eps_tensor, length, length, value=1 / self.width)
        return x * mean_square.rsqrt_() * self.gain
