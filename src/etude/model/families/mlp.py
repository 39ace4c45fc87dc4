"""The feed-forward language model of Bengio et al. (2003): a window of embeddings and one layer of tanh neurons.

Only Etude loads its folders. The network is `etude.model.mlp.WindowMLP`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from etude.errors import InputError
from etude.model.families.contract import Family
from etude.model.families.network_cost import TOKEN_ID, ParameterCount, TransformerCost
from etude.model.families.node_layers import EMBED, LOGITS, NodeLayerPlan
from etude.model.families.sizes import plain_inner_size

if TYPE_CHECKING:
    from etude.model.config import ModelConfig
    from etude.model.language_model import LanguageModel

PATH = "model"
"""What its one layer of neurons is called."""
CONTEXT_SIZE = 8
"""Default number of previous tokens that a network reads."""
_FIELDS = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "context_size",
    "direct_connections",
    "max_position_embeddings",
    "hidden_act",
)
_NO_ATTENTION = {"num_hidden_layers": 1, "num_attention_heads": 0, "num_key_value_heads": 0, "head_dim": 0}


def config_to_hf(config: ModelConfig) -> dict[str, Any]:
    """Return the fields of config.json."""
    return {name: getattr(config, name) for name in _FIELDS}


def config_from_hf(values: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of `ModelConfig` that a config.json describes."""
    return {name: values[name] for name in _FIELDS} | _NO_ATTENTION


def sizes(dims: Mapping[str, Any], inner_size: int) -> dict[str, Any]:
    """Return defaults for the sizes that ``dims`` does not have."""
    return _NO_ATTENTION | {
        "intermediate_size": inner_size,
        "max_position_embeddings": 256,
        "context_size": min(CONTEXT_SIZE, int(dims.get("max_position_embeddings", 256))),
    }


def check(config: ModelConfig) -> None:
    """Raise InputError for a configuration without a padding token, or with an impossible window or depth."""
    if config.eos_token_id is None:
        raise InputError("model_type 'mlp' needs eos_token_id: it fills the window before the first token")
    if config.context_size > config.max_position_embeddings:
        raise InputError(
            f"context_size {config.context_size} is more than "
            f"max_position_embeddings {config.max_position_embeddings}"
        )
    if config.num_hidden_layers != 1:
        raise InputError("model_type 'mlp' has one hidden layer: leave num_hidden_layers out")


def network(config: ModelConfig) -> LanguageModel:
    """Build the network."""
    from etude.model.mlp import WindowMLP

    return WindowMLP(config)


def node_layers(config: ModelConfig) -> list[NodeLayerPlan]:
    """Return the one layer of neurons: it reads the window of embeddings, and the logits read it."""
    return [
        NodeLayerPlan(
            path=PATH,
            size=config.intermediate_size,
            inputs=_window_width(config),
            reads=EMBED,
            gate="model.hidden",
            up=None,
            out="lm_head",
            added_to=LOGITS,
            dropout_place=0,
            drops_units=True,
        )
    ]


class WindowCost(TransformerCost):
    """Costs of the feed-forward model; N is context_size."""

    def parameters(self, config: ModelConfig) -> ParameterCount:
        return ParameterCount(
            embedding=config.vocab_size * config.hidden_size,
            positions=0,
            attention=0,
            mlp=self.hidden_matrices(config) + config.intermediate_size,
            norms=0,
            head=self.head_inputs(config) * config.vocab_size + config.vocab_size,
        )

    def hidden_matrices(self, config: ModelConfig) -> int:
        return _window_width(config) * config.intermediate_size

    def head_inputs(self, config: ModelConfig) -> int:
        return config.intermediate_size + (_window_width(config) if config.direct_connections else 0)

    def layer_input(self, config: ModelConfig) -> int:
        return TOKEN_ID

    def kept_per_layer(self, config: ModelConfig) -> int:
        return TOKEN_ID + _window_width(config) + config.intermediate_size

    def kept_per_layer_in_bf16(self, config: ModelConfig) -> float:
        return TOKEN_ID + 1.5 * _window_width(config) + config.intermediate_size

    def kept_outside_layers(self, config: ModelConfig, *, recompute: bool) -> int:
        return self.head_inputs(config) * (recompute or config.direct_connections)

    def patterns_per_token(self, config: ModelConfig, context: int, *, compiled: bool = False) -> int:
        return 0


def _window_width(config: ModelConfig) -> int:
    return config.context_size * config.hidden_size


FAMILY = Family(
    name="mlp",
    architecture="EtudeMLPForCausalLM",
    fixed={
        "norm": "none",
        "position": "window",
        "mlp": "plain",
        "qk_norm": False,
        "attention_bias": False,
        "mlp_bias": True,
        "tie_word_embeddings": False,
    },
    free=frozenset({"context_size", "direct_connections"}),
    adapters=None,
    style={"hidden_act": "tanh"},
    tokenizer_pattern="gpt2",
    config_to_hf=config_to_hf,
    config_from_hf=config_from_hf,
    sizes=sizes,
    inner_size=plain_inner_size,
    inner_size_reason="4 times the width",
    check=check,
    network=network,
    node_layers=node_layers,
    cost=WindowCost(),
    has_attention=False,
    compiles_by_layer=False,
    decodes_fast=False,
    library="etude",
    unused_settings=frozenset(
        {
            "num_hidden_layers",
            "num_attention_heads",
            "num_key_value_heads",
            "attention_bias",
            "mlp_bias",
            "qk_norm",
            "tie_word_embeddings",
        }
    ),
)
