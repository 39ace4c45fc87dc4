"""The forward pass with everything in it at hand: each activation has a name, can be kept, changed, and differentiated.

The network that trains is compiled and holds no hooks. Here the same modules are gone through once more, in the order
of their ``forward``, with attention written out so that scores and pattern exist. What it gives is the network's own
output up to rounding (tested for every family); whoever shows it says how far.

Names are the module's path and the leaf that TransformerLens uses (B batch, T position, D hidden, H heads, K kv heads,
Dh head, F nodes of the MLP, V vocabulary):

=====================================================  ===================  ==========================================
``model.embed_tokens.embed``                           (B, T, D)            the tokens' embeddings, positions not yet
``model.layers.0.resid_pre``, ``resid_mid``,           (B, T, D)            the residual stream before attention,
``resid_post``                                                              before the MLP, and behind it
``model.layers.0.input_layernorm.normalized``          (B, T, D)            what attention reads; the MLP reads
                                                                            ``post_attention_layernorm.normalized``
``model.layers.0.self_attn.q``, ``k``, ``v``           (B, T, H or K, Dh)   projections, before norm and rotation
``model.layers.0.self_attn.rot_q``, ``rot_k``          (B, T, H or K, Dh)   what is compared
``model.layers.0.self_attn.scores``, ``pattern``       (B, H, T, T)         query by key, before and after softmax
``model.layers.0.self_attn.z``                         (B, T, H, Dh)        values mixed by the pattern
``model.layers.0.attn_out``, ``mlp_out``               (B, T, D)            what is added to the stream
``model.layers.0.mlp.pre``                             (B, T, F)            nodes: inputs times weights plus bias
``model.layers.0.mlp.pre_linear``                      (B, T, F)            the values that a gated MLP lets through
``model.layers.0.mlp.post``                            (B, T, F)            nodes after their activation function
``model.norm.normalized``                              (B, T, D)            what the output matrix reads
``logits``                                             (B, T, V)
=====================================================  ===================  ==========================================

The feed-forward model has ``model.embed_tokens.embed`` (B, T, N * D), ``model.pre``, ``model.post`` (B, T, F) and
``logits``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor

from etude.device import Dtype
from etude.model.attention import Attention, document_mask, document_positions, is_in_blocks
from etude.model.dropout import Dropout
from etude.model.language_model import LanguageModel
from etude.model.layers import GatedMLP, PlainMLP, Rotation
from etude.model.mlp import WindowMLP
from etude.model.transformer import Block, Transformer

Change = Callable[[Tensor], Tensor]
"""What an activation becomes on its way; the rest of the pass goes on from that."""
LOGITS = "logits"


def every_activation(name: str) -> bool:
    return True


@dataclass
class Taps:
    """Where each activation passes by: changed if somebody wants that, kept if asked for."""

    wanted: Callable[[str], bool] = every_activation
    changes: Mapping[str, Change] = field(default_factory=dict)
    gradients: bool = False  # kept activations get a ``grad`` in a backward pass
    kept: dict[str, Tensor] = field(default_factory=dict)
    met: set[str] = field(default_factory=set)

    def __call__(self, name: str, value: Tensor) -> Tensor:
        self.met.add(name)
        if name in self.changes:
            value = self.changes[name](value)
        if self.wanted(name):
            if self.gradients and value.requires_grad:
                value.retain_grad()
            self.kept[name] = value
        return value


def run_opened(
    model: LanguageModel,
    inputs: Int[Tensor, "B T"],
    *,
    document_ids: Int[Tensor, "B T"] | None = None,
    dropout: Dropout | None = None,
    taps: Taps | None = None,
) -> dict[str, Tensor]:
    """The activations that ``taps`` keeps (all of them by default), by name, in the order of the pass.

    Arguments as in ``LanguageModel.hidden``. Gradients flow where PyTorch has them switched on.

    Raises:
        KeyError: a change was given for a name that this network has not.
    """
    taps = taps or Taps()
    if isinstance(model, WindowMLP):
        _window_mlp(model, inputs, document_ids, dropout, taps)
    else:
        assert isinstance(model, Transformer)
        _transformer(model, inputs, document_ids, dropout, taps)
    missing = set(taps.changes) - taps.met
    if missing:
        raise KeyError(f"no activation is called {sorted(missing)[0]}")
    return taps.kept


def activation_names(model: LanguageModel) -> list[str]:
    """Every name that :func:`run_opened` knows for ``model``, in the order of the pass."""
    with torch.no_grad():
        names = Taps()
        inputs = torch.zeros(1, 1, dtype=torch.long, device=model.unembedding()[0].device)
        return list(run_opened(model, inputs, taps=names))


def activation_bytes(model: LanguageModel, count: int) -> int:
    """Memory that all activations of ``count`` tokens take."""
    config = model.config
    if isinstance(model, WindowMLP):
        numbers = config.context_size * config.hidden_size + 2 * config.intermediate_size + config.vocab_size
        return 4 * count * numbers
    inner = config.head_dim * (3 * config.num_attention_heads + 3 * config.num_key_value_heads)
    layer = 7 * config.hidden_size + inner + 3 * config.intermediate_size
    layer += 2 * config.num_attention_heads * count
    return 4 * count * (config.num_hidden_layers * layer + 2 * config.hidden_size + config.vocab_size)


def _transformer(
    model: Transformer,
    inputs: Tensor,
    document_ids: Tensor | None,
    dropout: Dropout | None,
    taps: Taps,
) -> None:
    decoder = model.model
    positions = None if document_ids is None else document_positions(document_ids)
    visible = _visible(inputs, document_ids)
    embedded = taps("model.embed_tokens.embed", decoder.embed_tokens(inputs))
    residual, rotation = decoder.embed_positions(embedded, 0, positions)
    if dropout is not None:
        residual = dropout(residual, 0)
    for layer, block in enumerate(decoder.layers):
        assert isinstance(block, Block)
        residual = run_block(block, residual, rotation, visible, taps, f"model.layers.{layer}", dropout)
    normalized = taps("model.norm.normalized", decoder.norm(residual))
    taps(LOGITS, model.head(normalized))


def run_block(
    block: Block,
    residual: Float[Tensor, "B T D"],
    rotation: Rotation | None,
    visible: Tensor,
    taps: Taps,
    path: str,
    dropout: Dropout | None = None,
) -> Float[Tensor, "B T D"]:
    """One layer. ``visible`` (B or 1, 1, T, T) is True where a query sees a key."""
    residual = taps(f"{path}.resid_pre", residual)
    normalized = taps(f"{path}.input_layernorm.normalized", block.input_layernorm(residual))
    mixed = _attention(block.self_attn, normalized, rotation, visible, taps, f"{path}.self_attn")
    if dropout is not None:
        mixed = dropout(mixed, 2 * block.layer + 1)
    residual = taps(f"{path}.resid_mid", residual + taps(f"{path}.attn_out", mixed))
    normalized = taps(f"{path}.post_attention_layernorm.normalized", block.post_attention_layernorm(residual))
    added = _mlp(block.mlp, normalized, taps, f"{path}.mlp")
    if dropout is not None:
        added = dropout(added, 2 * block.layer + 2)
    return taps(f"{path}.resid_post", residual + taps(f"{path}.mlp_out", added))


def _attention(
    attention: Attention, x: Tensor, rotation: Rotation | None, visible: Tensor, taps: Taps, path: str
) -> Tensor:
    rows, count, _ = x.shape
    heads = (rows, count, -1, attention.head_dim)
    queries = taps(f"{path}.q", attention.q_proj(x).view(heads))
    keys = taps(f"{path}.k", attention.k_proj(x).view(heads))
    values = taps(f"{path}.v", attention.v_proj(x).view(heads))
    queries = attention.rotate(attention.q_norm(queries).transpose(1, 2), rotation)  # type: ignore[arg-type]
    keys = attention.rotate(attention.k_norm(keys).transpose(1, 2), rotation)  # type: ignore[arg-type]
    queries = taps(f"{path}.rot_q", queries.transpose(1, 2)).transpose(1, 2)
    keys = taps(f"{path}.rot_k", keys.transpose(1, 2)).transpose(1, 2)
    served = queries.shape[1] // keys.shape[1]
    keys = keys.repeat_interleave(served, 1)
    values = values.transpose(1, 2).repeat_interleave(served, 1)
    # In bf16 the kernel rounds what it reads and writes, and keeps scores and sums wide; in blocks scores are rounded.
    read, wide = values.dtype, queries.dtype
    written = read if is_in_blocks(queries, keys, values) else wide
    with torch.autocast(x.device.type, enabled=False):
        scores = (queries.to(read).to(wide) @ keys.to(read).to(wide).mT).to(written).to(wide)
        scores = scores / math.sqrt(attention.head_dim)
        scores = taps(f"{path}.scores", scores.masked_fill(~visible, -torch.inf))
        pattern = taps(f"{path}.pattern", scores.softmax(-1))
        mixed = (pattern.to(read).to(wide) @ values.to(wide)).to(read)
    mixed = taps(f"{path}.z", mixed.transpose(1, 2))
    return attention.o_proj(mixed.reshape(rows, count, -1))  # type: ignore[no-any-return]


def _mlp(mlp: torch.nn.Module, x: Tensor, taps: Taps, path: str) -> Tensor:
    if isinstance(mlp, GatedMLP):
        before = taps(f"{path}.pre", mlp.gate_proj(x))
        passed = taps(f"{path}.pre_linear", mlp.up_proj(x))
        return mlp.down_proj(taps(f"{path}.post", mlp.activation(before) * passed))  # type: ignore[no-any-return]
    assert isinstance(mlp, PlainMLP)
    before = taps(f"{path}.pre", mlp.up_proj(x))
    return mlp.down_proj(taps(f"{path}.post", mlp.activation(before)))  # type: ignore[no-any-return]


def _window_mlp(
    model: WindowMLP, inputs: Tensor, document_ids: Tensor | None, dropout: Dropout | None, taps: Taps
) -> None:
    encoder = model.model
    windows = model.windows(inputs, document_ids)
    embedded = taps("model.embed_tokens.embed", encoder.embed_tokens(windows).flatten(2))
    before = taps("model.pre", encoder.hidden(embedded))
    nodes = taps("model.post", encoder.activation(before))
    hidden = torch.cat((nodes, embedded), dim=-1) if encoder.direct else nodes
    if dropout is not None:
        hidden = dropout(hidden, 0)
    taps(LOGITS, model.head(hidden))


def _visible(inputs: Tensor, document_ids: Tensor | None) -> Tensor:
    if document_ids is not None:
        return document_mask(document_ids)
    count = inputs.shape[1]
    return torch.ones(count, count, dtype=torch.bool, device=inputs.device).tril()[None, None]


def as_read(numbers: Tensor, by: Tensor) -> Tensor:
    """What the product that gave ``by`` read of ``numbers``: rounded as it rounds; float64, on the CPU."""
    return numbers.to(by.dtype).cpu().double()


def dtype_of(value: Tensor) -> Dtype:
    """The arithmetic of the product that gave ``value``."""
    return "bf16" if value.dtype == torch.bfloat16 else "fp32"


def entropy(pattern: Float[Tensor, "*shape T"]) -> Float[Tensor, "*shape"]:
    """Of distributions over the last axis, in nats."""
    summed: Tensor = torch.special.entr(pattern).sum(-1)
    return summed


def layers_of(names: Sequence[str], leaf: str) -> Iterator[tuple[int, str]]:
    """(layer, name) of every activation whose name ends with ``leaf``."""
    for name in names:
        parts = name.split(".")
        if name.endswith(f".{leaf}") and parts[1] == "layers":
            yield int(parts[2]), name
