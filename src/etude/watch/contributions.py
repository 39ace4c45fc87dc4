"""Which part of the network a logit comes from.

The residual stream is a sum, and behind it come only the last norm and the output matrix. With the norm's scale taken
as it is for this token, both are linear: a logit is the sum of what the embedding, each head, each MLP and each bias
gives (Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits"). All sums are in float64.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from etude.model.language_model import LanguageModel
from etude.model.layers import LearnedPositions, RMSNorm
from etude.model.mlp import WindowMLP
from etude.model.transformer import Block, Transformer
from etude.watch.forward import LOGITS

EMBED = "model.embed_tokens.embed"


@dataclass(frozen=True)
class Contributions:
    """The terms of one logit.

    Attributes:
        terms: by the part that gives it, in the order of the network.
        unexplained: the logit less their sum: rounding of the forward pass.
    """

    position: int
    token: int
    text: str
    logit: float
    terms: dict[str, float]

    @property
    def unexplained(self) -> float:
        return self.logit - sum(self.terms.values())

    def __repr__(self) -> str:
        largest = sorted(self.terms.items(), key=lambda term: -abs(term[1]))
        lines = [f"{value:+9.4f}  {name}" for name, value in largest[:9]]
        rest = sum(value for _, value in largest[9:])
        return "\n".join(
            [
                f"logit {self.logit:.4f} of {self.text!r} behind position {self.position}",
                *lines,
                f"{rest:+9.4f}  {max(0, len(largest) - 9)} others; unexplained {self.unexplained:.1e}",
            ]
        )


@torch.no_grad()
def contributions(
    model: LanguageModel,
    opened: Mapping[str, Tensor],
    position: int,
    token: int,
    decode: Callable[[int], str],
) -> Contributions:
    """The terms of the logit of ``token`` behind ``position``, from the activations of a pass."""
    here = {name: value[0, position].cpu().double() for name, value in opened.items()}
    if isinstance(model, WindowMLP):
        terms = _of_window_mlp(model, here, position, token)
    else:
        assert isinstance(model, Transformer)
        terms = _of_transformer(model, here, position, token)
    return Contributions(position, token, decode(token), float(here[LOGITS][token]), terms)


def _of_transformer(
    model: Transformer, here: Mapping[str, Tensor], position: int, token: int
) -> dict[str, float]:
    decoder, last = model.model, model.config.num_hidden_layers - 1
    stream = here[f"model.layers.{last}.mlp_out"] + _before_last_mlp(model, here)
    reads, constant = _linear_readout(decoder.norm, model.unembedding()[0][token].cpu().double(), stream)
    found = {"embedding": float(here[EMBED] @ reads)}
    if isinstance(decoder.embed_positions, LearnedPositions):
        found["position"] = float(decoder.embed_positions.weight[position].cpu().double() @ reads)
    for layer, block in enumerate(decoder.layers):
        assert isinstance(block, Block)
        path, output = f"model.layers.{layer}", block.self_attn.o_proj
        z = here[f"{path}.self_attn.z"]  # (H, Dh)
        per_head = output.weight.cpu().double().view(len(reads), *z.shape)  # (D, H, Dh)
        by_head = torch.einsum("dhk,hk,d->h", per_head, z, reads)
        found |= {f"{path}.self_attn head {head}": value for head, value in enumerate(by_head.tolist())}
        if output.bias is not None:
            found[f"{path}.self_attn.o_proj.bias"] = float(output.bias.cpu().double() @ reads)
        down: nn.Linear = block.mlp.down_proj  # type: ignore[assignment]
        nodes = here[f"{path}.mlp.post"]
        found[f"{path}.mlp"] = float((down.weight.cpu().double() @ nodes) @ reads)
        if down.bias is not None:
            found[f"{path}.mlp.down_proj.bias"] = float(down.bias.cpu().double() @ reads)
    if constant is not None:
        found["model.norm.bias"] = constant
    return found


def _before_last_mlp(model: Transformer, here: Mapping[str, Tensor]) -> Tensor:
    last = model.config.num_hidden_layers - 1
    return here[f"model.layers.{last}.resid_pre"] + here[f"model.layers.{last}.attn_out"]


def _linear_readout(
    norm: nn.Module, unembedding: Float[Tensor, " D"], stream: Float[Tensor, " D"]
) -> tuple[Float[Tensor, " D"], float | None]:
    """What each number of the stream is worth to the logit, and what the norm's bias gives."""
    if isinstance(norm, RMSNorm):
        scale = (stream.square().mean() + norm.eps).rsqrt()
        return unembedding * norm.weight.cpu().double() * scale, None
    assert isinstance(norm, nn.LayerNorm)
    scale = (stream.var(unbiased=False) + norm.eps).rsqrt()
    weighted = unembedding * norm.weight.cpu().double() * scale
    # The mean is taken off the stream: as well off what reads it.
    return weighted - weighted.mean(), float(norm.bias.cpu().double() @ unembedding)


def _of_window_mlp(
    model: WindowMLP, here: Mapping[str, Tensor], position: int, token: int
) -> dict[str, float]:
    reads, nodes = model.lm_head.weight[token].cpu().double(), here["model.post"]
    products = reads[: len(nodes)] * nodes
    found = {f"model node {unit}": value for unit, value in enumerate(products.tolist())}
    if model.model.direct:
        embedded = here[EMBED].view(model.config.context_size, -1)
        by_place = (reads[len(nodes) :].view_as(embedded) * embedded).sum(-1).tolist()
        found |= {f"embedding {len(by_place) - 1 - slot} back": value for slot, value in enumerate(by_place)}
    found["lm_head.bias"] = float(model.lm_head.bias[token])
    return found
