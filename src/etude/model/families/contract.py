"""The declaration of a model family, which all other code uses instead of the family's name.

A family is a ``model_type`` of config.json: the switches that its format fixes, the conversion of configurations and
tensor names in both directions, and the network. To add one, write one file that creates a :class:`Family`, and
call `etude.model.families.register`. The module must not import torch at its top: plans, settings and the page
use families without building a network.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from etude.model.families.adapter_form import PLAIN, AdapterForm
from etude.model.families.gguf_form import GgufForm
from etude.model.families.network_cost import TRANSFORMER_COST, TransformerCost
from etude.model.families.node_layers import NodeLayerPlan, transformer_node_layers
from etude.model.families.sizes import transformer_sizes

if TYPE_CHECKING:
    from torch import Tensor

    from etude.model.config import ModelConfig
    from etude.model.language_model import LanguageModel

State = dict[str, "Tensor"]
"""Tensors by name."""

HEAD = "lm_head.weight"
"""Name of the output matrix in the network, and in most formats."""

SWITCH_DEFAULTS: Mapping[str, Any] = {
    "norm_placement": "before",
    "zero_centered_norm": False,
    "scale_embedding": False,
    "parallel_residual": False,
    "partial_rotary_factor": 1.0,
    "qk_norm_width": "head",
    "rope_scaling": None,
    "rotary_layers": (),
    "sliding_window": 0,
    "sliding_layers": (),
    "rope_local_base_freq": 10_000.0,
    "query_pre_attn_scalar": None,
    "attention_output_bias": True,
    "context_size": 0,
    "direct_connections": False,
}
"""Switches that most formats cannot express, with the values that such families have."""


def transformer(config: ModelConfig) -> LanguageModel:
    """Build the decoder-only transformer that the switches of ``config`` describe."""
    from etude.model.transformer import Transformer

    return Transformer(config)


def names_unchanged(state: State, config: ModelConfig) -> State:
    """Return the tensors unchanged: the saved names are those of the network."""
    return dict(state)


def every_tensor(name: str) -> str | None:
    """Return ``name``: every stored tensor is a parameter under its full name."""
    return name


def no_further_check(config: ModelConfig) -> None:
    """Check nothing beyond the general checks."""


@dataclass(frozen=True, kw_only=True)
class Family:
    """One model family.

    Attributes:
        name: ``model_type`` in config.json, and the name of the preset.
        architecture: the class in ``architectures`` of config.json.
        fixed: values of `ModelConfig` fields that the saved format fixes.
        free: fields of :data:`SWITCH_DEFAULTS` that the format can express with any value.
        style: default values of a new network of this family.
        tokenizer_pattern: how programs that run this family split text before BPE (`etude.data.tokens.patterns`).
        config_to_hf: returns the fields of config.json, besides those of all families.
        config_from_hf: returns fields of `ModelConfig` from the values of a config.json. Raises KeyError with the name
            of a missing field, and InputError for what the network cannot compute.
        to_saved, from_saved: convert tensors to the names and layouts of the saved format, and back.
        parameter_name: returns the full name of a stored tensor; None for one that is not a parameter (mask, table).
        head_name: stored name of the output matrix, which files may hold even where it is the embedding's.
        check: raises InputError for impossible sizes.
        inner_size: returns the default intermediate_size for a width.
        inner_size_reason: its reason, printed with the plan.
        sizes: returns the open sizes for (given sizes, intermediate_size), for `etude.model.config.preset`.
        network: builds the network.
        node_layers: returns the layers of neurons, from the first to the last.
        cost: counts parameters, FLOPs and memory from the configuration.
        has_attention: whether the network has heads, patterns and layers.
        compiles_by_layer: whether `hidden` of the network has an argument `run_layer` (:mod:`etude.model.run_layer`),
            which applies each layer.
        decodes_fast: whether `etude.model.decoding` supports the network.
        library: the Python package that loads a saved folder.
        gguf: the form of its models in GGUF files; None where no program reads such files.
        adapters: the linear layers that a low-rank adapter may change, as PEFT names them; None where it may not. A
            family that converts its tensors must declare its own.
        unused_settings: settings of ``[model]`` that the family does not use; setting one is an error.
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
    head_name: str = HEAD
    check: Callable[[ModelConfig], None] = no_further_check
    network: Callable[[ModelConfig], LanguageModel] = transformer
    node_layers: Callable[[ModelConfig], list[NodeLayerPlan]] = transformer_node_layers
    cost: TransformerCost = TRANSFORMER_COST
    has_attention: bool = True
    compiles_by_layer: bool = True
    decodes_fast: bool = True
    library: str = "transformers"
    gguf: GgufForm | None = None
    adapters: AdapterForm | None = PLAIN
    unused_settings: frozenset[str] = frozenset()

    @property
    def fixed_switches(self) -> dict[str, Any]:
        """Every switch that the saved format fixes, with its value."""
        defaults = {name: value for name, value in SWITCH_DEFAULTS.items() if name not in self.free}
        return defaults | dict(self.fixed)
