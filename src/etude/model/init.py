"""How every parameter begins: one table, applied by name.

Each tensor is drawn from a generator of its own, seeded by (seed, name). So the same seed gives the same
network in whatever order its parts are built, a deeper network begins with the same lower layers, and a rank
that holds only some of the tensors draws the same numbers for them.
"""

from __future__ import annotations

import hashlib
import math
import re
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from etude.model.config import ModelConfig

Rule = Literal["zeros", "ones", "initializer_range", "fan_in", "residual", "embedding"]


@dataclass(frozen=True, slots=True)
class InitRule:
    """Parameters whose whole name matches `pattern` begin by `rule`; `reason` is what a person is told."""

    pattern: str
    rule: Rule
    reason: str


@dataclass(frozen=True, slots=True)
class InitSettings:
    """The choices in the table below, in one place."""

    matrices: Literal["fan_in", "initializer_range"] = "fan_in"
    output_projections: Literal["zeros", "residual"] = "zeros"
    embeddings: Literal["embedding", "initializer_range"] = "embedding"
    lm_head: Literal["zeros", "initializer_range"] = "zeros"


def init_table(settings: InitSettings | None = None) -> tuple[InitRule, ...]:
    """The rules in the order they are tried: the first that matches a parameter's name holds."""
    settings = settings or InitSettings()
    layer = r"model\.layers\.\d+\."
    return (
        InitRule(r".*\.bias", "zeros", "a node begins without a preference"),
        InitRule(r".*norm\.weight", "ones", "a norm begins as plain normalisation"),
        InitRule(
            layer + r"(self_attn\.o_proj|mlp\.down_proj)\.weight",
            settings.output_projections,
            "each layer begins as the identity, so the first gradients reach every depth unchanged",
        ),
        InitRule(
            layer + r"(self_attn\.[qkv]_proj|mlp\.(gate|up)_proj)\.weight",
            settings.matrices,
            "with std 1/sqrt(inputs), inputs of size 1 give sums of size 1",
        ),
        InitRule(
            r"model\.embed_tokens\.weight",
            settings.embeddings,
            "of the size that a norm would give it, so that its rate moves its direction gently",
        ),
        InitRule(r"model\.embed_positions\.weight", "initializer_range", "a position says little at first"),
        InitRule(r"model\.hidden\.weight", "fan_in", "sums small enough for tanh to bend"),
        InitRule(r"lm_head\.weight", settings.lm_head, "the first prediction is uniform: loss ln V"),
    )


def rule_for(name: str, table: tuple[InitRule, ...]) -> InitRule:
    """The first rule that matches; ValueError when none does, so that no new parameter is forgotten."""
    for rule in table:
        if re.fullmatch(rule.pattern, name):
            return rule
    raise ValueError(f"no rule of initialisation for the parameter {name}")


def rule_std(rule: Rule, shape: torch.Size, config: ModelConfig) -> float:
    """Standard deviation that the rule gives to a tensor of this shape (out, in)."""
    if rule in ("zeros", "ones"):
        return 0.0
    if rule == "initializer_range":
        return config.initializer_range
    if rule == "embedding":  # a tied table is the output matrix as well, and its logits must begin small
        return config.initializer_range if config.tie_word_embeddings else 1.0
    fan_in = 1.0 / math.sqrt(shape[-1])
    # 2 L branches add up in the residual stream; divided so, their sum has the size of one (GPT-2's report,
    # section 2.3).
    return fan_in if rule == "fan_in" else fan_in / math.sqrt(2 * config.num_hidden_layers)


@torch.no_grad()
def initialise(
    model: nn.Module, config: ModelConfig, seed: int, settings: InitSettings | None = None
) -> None:
    """Fill every parameter of `model` in place by the table."""
    table = init_table(settings)
    for name, parameter in model.named_parameters():
        rule = rule_for(name, table).rule
        if rule in ("zeros", "ones"):
            parameter.fill_(0.0 if rule == "zeros" else 1.0)
        else:
            parameter.copy_(_normal(parameter.shape, seed, name) * rule_std(rule, parameter.shape, config))


def _normal(shape: torch.Size, seed: int, name: str) -> Tensor:
    """Standard normal numbers in float32, drawn on the CPU so that every device begins with the same."""
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
    return torch.randn(shape, generator=generator)
