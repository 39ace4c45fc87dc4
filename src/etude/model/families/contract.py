"""What there is to know of a model family: one declaration, which everything else asks.

A family is a ``model_type`` of config.json: the switches that its format fixes, its configuration and its tensor names
in both directions, and the network that computes it. To add one, write one file that makes a :class:`Family`, and
call `etude.model.families.register`. The module must not import torch at its top: plans, settings and the page
ask families where no network is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from etude.model.families.network_cost import TRANSFORMER_COST, TransformerCost
from etude.model.families.node_layers import NodeLayerPlan, transformer_node_layers
from etude.model.families.sizes import transformer_sizes

if TYPE_CHECKING:
    from torch import Tensor

    from etude.model.config import ModelConfig
    from etude.model.language_model import LanguageModel

State = dict[str, "Tensor"]
"""Tensors by name."""

SWITCH_DEFAULTS: Mapping[str, Any] = {
    "norm_placement": "before",
    "parallel_residual": False,
    "partial_rotary_factor": 1.0,
    "qk_norm_width": "head",
    "rope_scaling": None,
    "context_size": 0,
    "direct_connections": False,
}
"""Switches that most formats cannot express: a family that does not name one has it as here."""


def transformer(config: ModelConfig) -> LanguageModel:
    """Build the decoder-only transformer that the switches of ``config`` describe."""
    from etude.model.transformer import Transformer

    return Transformer(config)


def names_unchanged(state: State, config: ModelConfig) -> State:
    """Return the tensors as they are: the format's names are the network's."""
    return dict(state)


def every_tensor(name: str) -> str | None:
    """Return the stored name itself: every stored tensor is a parameter under its full name."""
    return name


def no_further_check(config: ModelConfig) -> None:
    """Accept every configuration that the general checks accept."""


@dataclass(frozen=True, kw_only=True)
class Family:
    """One model family.

    Attributes:
        name: ``model_type`` in config.json, and the name of the preset.
        architecture: the class in ``architectures`` of config.json.
        fixed: values of `ModelConfig` fields that the saved format fixes.
        free: fields of :data:`SWITCH_DEFAULTS` that the format can express, whatever their value.
        style: values that a network of this family begins with unless the user chooses others.
        tokenizer_pattern: how runners of this family split text before BPE (`etude.data.tokens.patterns`).
        config_to_hf: the fields of config.json, besides those that all families share.
        config_from_hf: fields of `ModelConfig` from the values of a config.json. A KeyError names a missing one;
            raises InputError for what the network cannot compute.
        to_saved, from_saved: the tensors of a network under the names and layouts of the saved format, and back.
        parameter_name: the full name of a stored tensor, None for one that is no parameter (a mask, a table).
        check: raises InputError for sizes that this family cannot have.
        inner_size: intermediate_size that follows from a width.
        inner_size_reason: why, for the plan that is printed.
        sizes: (given sizes, intermediate_size) to the sizes that they leave open, for `etude.model.config.preset`.
        network: builds the network.
        node_layers: the layers of neurons, from the first to the last.
        cost: parameters, arithmetic and memory, from the configuration alone.
        has_attention: False where there are no heads, patterns and layers to look at.
        decodes_fast: whether `etude.model.decoding` can arrange the network's weights.
        library: the Python package that opens a saved folder.
        unused_settings: settings of ``[model]`` that mean nothing here and are refused when set.
    """

    name: str
    architecture: str
    fixed: Mapping[str, Any]
    tokenizer_pattern: str
    config_to_hf: Callable[[ModelConfig], dict[str, Any]]
    config_from_hf: Callable[[dict[str, Any]], dict[str, Any]]
    inner_size: Callable[[int], int]
    inner_size_reason: str
    sizes: Callable[[Mapping[str, Any], int], dict[str, Any]] = transformer_sizes
    free: frozenset[str] = frozenset()
    style: Mapping[str, Any] = field(default_factory=dict)
    to_saved: Callable[[State, ModelConfig], State] = names_unchanged
    from_saved: Callable[[State, ModelConfig], State] = names_unchanged
    parameter_name: Callable[[str], str | None] = every_tensor
    check: Callable[[ModelConfig], None] = no_further_check
    network: Callable[[ModelConfig], LanguageModel] = transformer
    node_layers: Callable[[ModelConfig], list[NodeLayerPlan]] = transformer_node_layers
    cost: TransformerCost = TRANSFORMER_COST
    has_attention: bool = True
    decodes_fast: bool = True
    library: str = "transformers"
    unused_settings: frozenset[str] = frozenset()

    @property
    def fixed_switches(self) -> dict[str, Any]:
        """Every switch that the saved format fixes, with its value."""
        defaults = {name: value for name, value in SWITCH_DEFAULTS.items() if name not in self.free}
        return defaults | dict(self.fixed)
