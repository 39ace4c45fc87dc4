"""The forward pass with taps: every activation has a name, and can be kept, changed and differentiated.

Training runs the network compiled and without hooks. Here the same ``forward`` runs uncompiled and passes every
activation to the taps; attention is written out, so that scores and pattern exist. The output equals that of training
up to rounding (tested for every family).

Names are the module's path and the leaf that TransformerLens uses (B batch, T position, D hidden, H heads, K kv heads,
Dh head, F neurons of the MLP, V vocabulary):

=====================================================  ===================  ==========================================
``model.embed_tokens.embed``                           (B, T, D)            the tokens' embeddings, before positions
``model.layers.0.resid_pre``, ``resid_mid``,           (B, T, D)            the residual stream before attention,
``resid_post``                                                              before the MLP, and after it
``model.layers.0.input_layernorm.normalized``          (B, T, D)            what attention reads; the MLP reads
                                                                            ``post_attention_layernorm.normalized``
``model.layers.0.self_attn.q``, ``k``, ``v``           (B, T, H or K, Dh)   projections, before norm and rotation
``model.layers.0.self_attn.rot_q``, ``rot_k``          (B, T, H or K, Dh)   what is compared
``model.layers.0.self_attn.scores``, ``pattern``       (B, H, T, T)         query by key, before and after softmax
``model.layers.0.self_attn.z``                         (B, T, H, Dh)        values mixed by the pattern
``model.layers.0.attn_out``, ``mlp_out``               (B, T, D)            what is added to the stream
``model.layers.0.mlp.pre``                             (B, T, F)            neurons: inputs times weights plus bias
``model.layers.0.mlp.pre_linear``                      (B, T, F)            what the gate of a gated MLP multiplies
``model.layers.0.mlp.post``                            (B, T, F)            neurons after their activation function
``model.norm.normalized``                              (B, T, D)            what the output matrix reads
``logits``                                             (B, T, V)
=====================================================  ===================  ==========================================

The feed-forward model has ``model.embed_tokens.embed`` (B, T, N * D), ``model.pre``, ``model.post`` (B, T, F) and
``logits``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from etude.device import Dtype
from etude.model.dropout import Dropout
from etude.model.language_model import LOGITS, LanguageModel
from etude.model.taps import Taps


def run_with_taps(
    model: LanguageModel,
    inputs: Int[Tensor, "B T"],
    *,
    document_ids: Int[Tensor, "B T"] | None = None,
    dropout: Dropout | None = None,
    taps: Taps | None = None,
) -> dict[str, Tensor]:
    """Return the activations that ``taps`` keeps (default: all), by name, in the order of the forward pass.

    The arguments are those of ``LanguageModel.hidden``. Gradients flow where PyTorch has them enabled.

    Raises:
        KeyError: a change names an activation that this network does not have.
    """
    taps = taps or Taps()
    hidden = model.hidden(inputs, document_ids=document_ids, dropout=dropout, taps=taps)
    taps(LOGITS, model.head(hidden))
    missing = set(taps.changes) - taps.met
    if missing:
        raise KeyError(f"no activation is called {sorted(missing)[0]}")
    return taps.kept


def activation_names(model: LanguageModel) -> list[str]:
    """Return the name of every activation of ``model``, in the order of the forward pass."""
    with torch.no_grad():
        names = Taps()
        inputs = torch.zeros(1, 1, dtype=torch.long, device=model.unembedding()[0].device)
        return list(run_with_taps(model, inputs, taps=names))


def activation_bytes(model: LanguageModel, count: int) -> int:
    """Return the memory that all activations of ``count`` tokens take, in float32."""
    return 4 * model.activation_numbers(count)


def as_read(numbers: Tensor, by: Tensor) -> Tensor:
    """Return ``numbers`` as the product that gave ``by`` read them: rounded to its dtype; float64, on the CPU."""
    return numbers.to(by.dtype).cpu().double()


def dtype_of(value: Tensor) -> Dtype:
    """Return the dtype of the product that gave ``value``."""
    return "bf16" if value.dtype == torch.bfloat16 else "fp32"


def entropy(pattern: Float[Tensor, "*shape T"]) -> Float[Tensor, "*shape"]:
    """Return the entropy over the last axis, in nats."""
    summed: Tensor = torch.special.entr(pattern).sum(-1)
    return summed


def layers_of(names: Sequence[str], leaf: str) -> Iterator[tuple[int, str]]:
    """Yield (layer, name) of every activation whose name ends with ``leaf``."""
    for name in names:
        parts = name.split(".")
        if name.endswith(f".{leaf}") and parts[1] == "layers":
            yield int(parts[2]), name
