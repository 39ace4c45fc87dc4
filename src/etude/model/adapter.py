"""Low-rank adapters (LoRA, Hu et al. 2021): which matrices of a network they change. Needs no PyTorch.

An adapted matrix W computes with W + (alpha / rank) B A. W is frozen; A (rank, in) and B (out, rank) are trained.
Layers that the saved format fuses into one matrix, such as GPT-2's queries, keys and values, share their A, as they do
in PEFT, which adapts the fused matrix.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from etude.errors import InputError
from etude.untrusted import shown

if TYPE_CHECKING:
    from etude.config import ResolvedTrain
    from etude.model.config import ModelConfig

FACTORS = ("lora_A", "lora_B")
"""Names of the trained parameters of an adapted layer, which are PEFT's."""
MOST_RANK = 1 << 20
"""Largest rank and alpha: more is damage."""


@dataclass(frozen=True, slots=True)
class LoRA:
    """An adapter of a network.

    Attributes:
        rank: rows of A and columns of B.
        alpha: the product B A counts alpha / rank times.
        targets: names of the adapted layers in the saved format, such as ``q_proj`` or ``mlp.c_proj``.
        dropout: probability, in training, of zeroing each number that a branch reads.
    """

    rank: int
    alpha: float
    targets: tuple[str, ...]
    dropout: float = 0.0

    @property
    def scale(self) -> float:
        """The factor of the product B A."""
        return self.alpha / self.rank


@dataclass(frozen=True, slots=True)
class AdaptedMatrix:
    """A matrix of the saved format that an adapter changes.

    Attributes:
        module: its name in the saved format, such as ``transformer.h.0.attn.c_attn``.
        parts: the linear layers of the network that it consists of; the first one owns A.
        inputs: numbers that it reads.
        outputs: numbers that each part returns.
    """

    module: str
    parts: tuple[str, ...]
    inputs: int
    outputs: tuple[int, ...]


def is_factor(name: str) -> bool:
    """Return whether a parameter is a factor of an adapter."""
    return name.rpartition(".")[2] in FACTORS


def adapted_by(config: ModelConfig, train: ResolvedTrain) -> ModelConfig:
    """Return the configuration with the adapter that the settings of a run name; ``config`` itself without one.

    Raises:
        InputError: the adapter does not fit the network.
    """
    if not train.lora_rank or config.adapter is not None:
        return config
    alpha = 2.0 * train.lora_rank if train.lora_alpha == "auto" else train.lora_alpha
    targets = train.lora_targets or _leaves(_linear_layers(config))
    return config.replace(adapter=LoRA(train.lora_rank, alpha, tuple(targets), train.lora_dropout))


def begins(saved: ModelConfig, network: ModelConfig, step: int) -> bool:
    """Return whether a checkpoint of ``step`` with the configuration ``saved`` can be loaded into ``network``.

    That of step 0 has no adapter yet.
    """
    return saved == (network if step else network.base)


def adapted_matrices(config: ModelConfig) -> list[AdaptedMatrix]:
    """Return the matrices that the adapter of ``config`` changes, in the order of the network; none without one."""
    if config.adapter is None:
        return []
    return [matrix for matrix in _linear_layers(config) if _is_named(matrix.module, config.adapter.targets)]


def adapter_parameters(config: ModelConfig) -> int:
    """Count the numbers of all factors."""
    rank = 0 if config.adapter is None else config.adapter.rank
    return sum(rank * (matrix.inputs + sum(matrix.outputs)) for matrix in adapted_matrices(config))


def check_adapter(config: ModelConfig) -> None:
    """Raise InputError where the network cannot have the adapter of ``config``."""
    adapter = config.adapter
    if adapter is None:
        return
    layers = _linear_layers(config)
    for target in adapter.targets:
        if not any(_is_named(matrix.module, (target,)) for matrix in layers):
            names = ", ".join(_leaves(layers))
            raise InputError(f"no linear layer is called {shown(repr(target))}: choose from {names}")
    if not 0 < adapter.alpha <= MOST_RANK:
        raise InputError(f"the alpha of an adapter must be above 0, not {shown(adapter.alpha)}")
    most = min(min(m.inputs, sum(m.outputs)) for m in layers if _is_named(m.module, adapter.targets))
    if not 1 <= adapter.rank <= most:
        raise InputError(
            f"an adapter of rank {shown(adapter.rank)} is impossible: its smallest matrix has rank {most}, so choose 1 "
            f"to {most}"
        )


def _linear_layers(config: ModelConfig) -> list[AdaptedMatrix]:
    """Return every matrix that an adapter can change."""
    form = config.family.adapters
    if form is None:
        raise InputError(f"a network of the family {config.model_type} cannot have an adapter: omit --lora")
    query, key = (
        heads * config.head_dim for heads in (config.num_attention_heads, config.num_key_value_heads)
    )
    width, inner = config.hidden_size, config.intermediate_size
    shapes = {
        "self_attn.q_proj": (width, query),
        "self_attn.k_proj": (width, key),
        "self_attn.v_proj": (width, key),
        "self_attn.o_proj": (query, width),
        "mlp.gate_proj": (width, inner),
        "mlp.up_proj": (width, inner),
        "mlp.down_proj": (inner, width),
    }
    if config.mlp != "gated":
        del shapes["mlp.gate_proj"]
    fused: dict[str, list[str]] = {}
    for ours in shapes:
        fused.setdefault(form.names[ours], []).append(ours)
    return [
        AdaptedMatrix(
            f"{form.layers}.{layer}.{theirs}",
            tuple(f"model.layers.{layer}.{part}" for part in parts),
            shapes[parts[0]][0],
            tuple(shapes[part][1] for part in parts),
        )
        for layer in range(config.num_hidden_layers)
        for theirs, parts in fused.items()
    ]


def _is_named(module: str, targets: Sequence[str]) -> bool:
    """Return whether PEFT adapts the module: a target is its name, or the last parts of it."""
    return any(module == target or module.endswith(f".{target}") for target in targets)


def _leaves(matrices: Sequence[AdaptedMatrix]) -> list[str]:
    """Return the last part of each name, once."""
    return list(dict.fromkeys(matrix.module.rpartition(".")[2] for matrix in matrices))
