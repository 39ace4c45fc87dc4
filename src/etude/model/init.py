"""Initialisation of all parameters: one table of rules, matched by parameter name.

Each tensor has its own random generator, seeded by (seed, name). So the result does not depend on the order in which
the network is built; a deeper network starts with the same lower layers; and a rank that holds only some of the tensors
draws the same numbers for them.
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
from etude.model.pieces import fill

Rule = Literal["zeros", "ones", "initializer_range", "fan_in", "residual", "embedding", "uniform"]


@dataclass(frozen=True, slots=True)
class InitRule:
    """Initialise parameters whose full name matches `pattern` by `rule`; `reason` is printed with the plan."""

    pattern: str
    rule: Rule
    reason: str


@dataclass(frozen=True, slots=True)
class InitSettings:
    """The choices that `init_table` leaves open."""

    matrices: Literal["fan_in", "initializer_range"] = "fan_in"
    output_projections: Literal["zeros", "residual"] = "zeros"
    embeddings: Literal["embedding", "initializer_range"] = "embedding"
    lm_head: Literal["zeros", "initializer_range"] = "zeros"


def init_table(settings: InitSettings | None = None) -> tuple[InitRule, ...]:
    """Return the rules in order; the first that matches the name of a parameter applies."""
    settings = settings or InitSettings()
    layer = r"model\.layers\.\d+\."
    return (
        InitRule(r".*\.lora_B", "zeros", "an adapted network starts as its base"),
        InitRule(
            r".*\.lora_A", "uniform", "within 1/sqrt(fan-in), as in PEFT (Kaiming's rule with a = sqrt(5))"
        ),
        InitRule(r".*\.bias", "zeros", "a neuron starts without a bias towards on or off"),
        InitRule(r".*norm\.weight", "ones", "a norm starts as plain normalisation"),
        InitRule(
            layer + r"(self_attn\.o_proj|mlp\.down_proj)\.weight",
            settings.output_projections,
            "each layer starts as the identity, so the first gradients reach every depth unchanged",
        ),
        InitRule(
            layer + r"(self_attn\.[qkv]_proj|mlp\.(gate|up)_proj)\.weight",
            settings.matrices,
            "std 1/sqrt(fan-in): inputs of size 1 give sums of size 1",
        ),
        InitRule(
            r"model\.embed_tokens\.weight",
            settings.embeddings,
            "of the size that a norm would give it, so that updates change its direction gently",
        ),
        InitRule(
            r"model\.embed_positions\.weight", "initializer_range", "positions contribute little at first"
        ),
        InitRule(r"model\.hidden\.weight", "fan_in", "sums in the range where tanh is not saturated"),
        InitRule(r"lm_head\.weight", settings.lm_head, "the first prediction is uniform: loss ln V"),
    )


def rule_for(name: str, table: tuple[InitRule, ...]) -> InitRule:
    """Return the first rule that matches. Raise ValueError where none does, so that no new parameter is forgotten."""
    for rule in table:
        if re.fullmatch(rule.pattern, name):
            return rule
    raise ValueError(f"no rule of initialisation for the parameter {name}")


def rule_std(rule: Rule, shape: torch.Size, config: ModelConfig) -> float:
    """Return the standard deviation that the rule gives to a tensor of shape (out, in)."""
    if rule in ("zeros", "ones"):
        return 0.0
    if rule == "initializer_range":
        return config.initializer_range
    if rule == "embedding":  # a tied table is also the output matrix, and its first logits must be small
        return config.initializer_range if config.tie_word_embeddings else 1.0 / config.embedding_scale
    fan_in = 1.0 / math.sqrt(shape[-1])
    if rule == "uniform":
        return fan_in / math.sqrt(3)
    # 2 L branches add to the residual stream; divided by sqrt(2 L), their sum has the size of one (GPT-2 report,
    # section 2.3).
    return fan_in if rule == "fan_in" else fan_in / math.sqrt(2 * config.num_hidden_layers)


@torch.no_grad()
def initialise(
    model: nn.Module, config: ModelConfig, seed: int, settings: InitSettings | None = None
) -> None:
    """Initialise every parameter of `model` in place; of one that is divided among processes, this one's piece."""
    table = init_table(settings)
    for name, parameter in model.named_parameters():
        fill(parameter, _value(rule_for(name, table).rule, name, parameter.shape, config, seed))


def first_value(name: str, shape: torch.Size, config: ModelConfig, seed: int) -> Tensor:
    """Return the first value of one parameter, in float32 on the CPU."""
    return _value(rule_for(name, init_table()).rule, name, shape, config, seed)


def _value(rule: Rule, name: str, shape: torch.Size, config: ModelConfig, seed: int) -> Tensor:
    if rule in ("zeros", "ones"):
        # A zero-centred norm adds the 1 itself.
        return torch.full(shape, 1.0 if rule == "ones" and not config.zero_centered_norm else 0.0)
    if rule == "uniform":
        return (2 * torch.rand(shape, generator=_generator(seed, name)) - 1) / math.sqrt(shape[-1])
    return torch.randn(shape, generator=_generator(seed, name)) * rule_std(rule, shape, config)


def _generator(seed: int, name: str) -> torch.Generator:
    """Return the generator of a parameter. It draws on the CPU, so that all devices start with the same weights."""
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
