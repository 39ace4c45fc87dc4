"""The shape of a network as plain values: its sizes, its few switches, and the presets that set them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from etude.errors import InputError
from etude.untrusted import shown

TRANSFORMER_TYPES = ("llama", "qwen3", "gpt2")
MODEL_TYPES = (*TRANSFORMER_TYPES, "mlp")
ACTIVATIONS = ("silu", "gelu", "gelu_new", "gelu_pytorch_tanh", "relu", "relu2", "tanh")

# Far above any real model; a damaged config.json asks for more and is refused before anything is allocated.
_LARGEST = {
    "vocab_size": 2**24,
    "hidden_size": 2**20,
    "intermediate_size": 2**22,
    "num_hidden_layers": 2**12,
    "num_attention_heads": 2**12,
    "max_position_embeddings": 2**24,
    "context_size": 2**16,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """Sizes and switches of one network, in Hugging Face's names.

    Letters used for shapes elsewhere: D hidden_size (d_model), F intermediate_size, L num_hidden_layers,
    H num_attention_heads, K num_key_value_heads, Dh head_dim, V vocab_size.

    The switches (`norm`, `position`, `mlp`, `qk_norm`, the biases) can only take the combinations that a
    saved format can express, because every checkpoint is a model folder that other programs load; see
    `validate`. For `model_type` "mlp", `hidden_size` is the width of one token's embedding,
    `intermediate_size` the number of tanh nodes, `context_size` how many previous tokens they see, and the
    attention sizes are 0.
    """

    model_type: str
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    max_position_embeddings: int
    hidden_act: str = "silu"
    norm: str = "rmsnorm"
    position: str = "rope"
    mlp: str = "gated"
    qk_norm: bool = False
    attention_bias: bool = True
    mlp_bias: bool = True
    tie_word_embeddings: bool = False
    rope_theta: float = 10_000.0
    rms_norm_eps: float = 1e-6
    """Epsilon of whichever norm is chosen; GPT-2's `layer_norm_epsilon`."""
    initializer_range: float = 0.02
    bos_token_id: int | None = 0
    eos_token_id: int | None = 0
    context_size: int = 0
    """mlp only: how many previous tokens the network sees (n - 1 in Bengio et al.)."""
    direct_connections: bool = False
    """mlp only: also connect the embeddings straight to the output nodes (W of Bengio et al., equation 1)."""

    def validate(self) -> ModelConfig:
        """Return self when a network can be built from it and saved; raise InputError naming the fault."""
        if self.model_type not in MODEL_TYPES:
            raise InputError(f"model_type {self.model_type!r} is unknown: choose {_either(MODEL_TYPES)}")
        _check_sizes(self)
        if self.hidden_act not in ACTIVATIONS:
            raise InputError(
                f"hidden_act {shown(repr(self.hidden_act))} is unknown: choose {_either(ACTIVATIONS)}"
            )
        _check_switches(self)
        if self.model_type == "mlp":
            _check_window(self)
        else:
            _check_heads(self)
        return self

    def replace(self, **changes: Any) -> ModelConfig:
        """A validated copy with the given fields changed."""
        return dataclasses.replace(self, **changes).validate()


# What each saved format fixes. A field that is absent here is free in that format.
FIXED_SWITCHES: dict[str, dict[str, Any]] = {
    "llama": {"norm": "rmsnorm", "position": "rope", "mlp": "gated", "qk_norm": False},
    "qwen3": {"norm": "rmsnorm", "position": "rope", "mlp": "gated", "qk_norm": True, "mlp_bias": False},
    "gpt2": {
        "norm": "layernorm",
        "position": "learned",
        "mlp": "plain",
        "qk_norm": False,
        "attention_bias": True,
        "mlp_bias": True,
    },
    "mlp": {
        "norm": "none",
        "position": "window",
        "mlp": "plain",
        "qk_norm": False,
        "attention_bias": False,
        "mlp_bias": True,
        "tie_word_embeddings": False,
    },
}


def preset(name: str, **dims: Any) -> ModelConfig:
    """The named family with the given sizes, validated.

    `vocab_size` and `hidden_size` must be given; every other field has a default that follows from them:
    head_dim 64 from width 512 on and 32 below, as many kv heads as heads, F = 8/3 D (gated, rounded up to a
    multiple of 32; Shazeer 2020, section 2) or 4 D (plain), 4 layers, 256 positions.
    """
    if name not in MODEL_TYPES:
        raise InputError(f"preset {name!r} is unknown: choose {_either(MODEL_TYPES)}")
    known = {field.name for field in dataclasses.fields(ModelConfig)}
    for key in dims:
        if key not in known:
            raise InputError(f"{key!r} is no setting of a model: choose one of {', '.join(sorted(known))}")
    for key in ("vocab_size", "hidden_size"):
        if key not in dims:
            raise InputError(f"{key} must be given for the preset {name!r}")
    values = _default_sizes(name, dims) | FIXED_SWITCHES[name] | _STYLE.get(name, {}) | dims
    return ModelConfig(model_type=name, **values).validate()


_STYLE: dict[str, dict[str, Any]] = {
    "llama": {"attention_bias": True, "mlp_bias": True},
    "qwen3": {"attention_bias": False},
    "gpt2": {"hidden_act": "gelu_new", "tie_word_embeddings": True, "rms_norm_eps": 1e-5},
    "mlp": {"hidden_act": "tanh"},
}


def _default_sizes(name: str, dims: dict[str, Any]) -> dict[str, Any]:
    width = int(dims["hidden_size"])
    if name == "mlp":
        return {
            "intermediate_size": 4 * width,
            "num_hidden_layers": 1,
            "num_attention_heads": 0,
            "num_key_value_heads": 0,
            "head_dim": 0,
            "max_position_embeddings": 256,
            "context_size": min(8, int(dims.get("max_position_embeddings", 256))),
        }
    head_dim = int(dims.get("head_dim", 0)) or (64 if width >= 512 else 32)
    heads = int(dims.get("num_attention_heads", 0)) or max(1, width // head_dim)
    if "head_dim" not in dims and width % heads:
        raise InputError(
            f"hidden_size {width} does not divide into {heads} attention heads: "
            f"choose a hidden_size that is a multiple of {heads}, or another num_attention_heads"
        )
    return {
        "intermediate_size": 4 * width if name == "gpt2" else -(-8 * width // 3 // 32) * 32,
        "num_hidden_layers": 4,
        "num_attention_heads": heads,
        "num_key_value_heads": heads,
        "head_dim": head_dim if "head_dim" in dims else width // heads,
        "max_position_embeddings": 256,
    }


def _either(names: tuple[str, ...]) -> str:
    return f"{', '.join(names[:-1])} or {names[-1]}"


def _check_sizes(config: ModelConfig) -> None:
    """Sizes are whole numbers in the range of real models, token ids inside the vocabulary."""
    names = ["vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "max_position_embeddings"]
    if config.model_type == "mlp":
        names.append("context_size")
    else:
        names += ["num_attention_heads", "num_key_value_heads", "head_dim"]
    for name in names:
        value = getattr(config, name)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise InputError(f"{name} must be a whole number of at least 1, not {shown(value)}")
        if value > _LARGEST.get(name, 2**24):
            raise InputError(
                f"{name} {shown(value)} is impossible: at most {_LARGEST.get(name, 2**24)} can be built"
            )
    for name in ("rope_theta", "rms_norm_eps", "initializer_range"):
        value = getattr(config, name)
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < float("inf"):
            raise InputError(f"{name} must be a number above 0, not {shown(value)}")
    for name in ("bos_token_id", "eos_token_id"):
        value = getattr(config, name)
        if value is not None and not (isinstance(value, int) and 0 <= value < config.vocab_size):
            raise InputError(f"{name} {shown(value)} is outside the vocabulary of {config.vocab_size} tokens")


def _check_switches(config: ModelConfig) -> None:
    for name, fixed in FIXED_SWITCHES[config.model_type].items():
        value = getattr(config, name)
        if value != fixed:
            able = [kind for kind in MODEL_TYPES if FIXED_SWITCHES[kind].get(name, value) == value]
            hint = f"; {', '.join(able)} can" if able else ""
            raise InputError(
                f"{name} = {value!r} cannot be saved as a {config.model_type} folder, "
                f"which has {name} = {fixed!r}{hint}"
            )
    if config.model_type != "mlp" and (config.context_size or config.direct_connections):
        raise InputError("context_size and direct_connections belong to model_type 'mlp' only")


def _check_heads(config: ModelConfig) -> None:
    heads, kv_heads, width = config.num_attention_heads, config.num_key_value_heads, config.hidden_size
    if config.model_type in ("llama", "gpt2") and width % heads:
        raise InputError(
            f"hidden_size {width} is not divisible by num_attention_heads {heads}: "
            f"choose a multiple of {heads}"
        )
    if heads % kv_heads:
        raise InputError(
            f"num_attention_heads {heads} is not divisible by num_key_value_heads {kv_heads}: "
            f"each kv head serves the same number of heads"
        )
    if config.position == "rope" and config.head_dim % 2:
        raise InputError(
            f"head_dim {config.head_dim} is odd: rotary positions turn pairs, choose an even number"
        )
    if config.model_type == "gpt2" and (kv_heads != heads or config.head_dim * heads != width):
        raise InputError(
            "a gpt2 folder has one kv head for each head and head_dim = hidden_size / num_attention_heads: "
            "leave num_key_value_heads and head_dim out, or choose llama or qwen3"
        )


def _check_window(config: ModelConfig) -> None:
    if config.eos_token_id is None:
        raise InputError("model_type 'mlp' needs eos_token_id: it stands for the tokens before the beginning")
    if config.context_size > config.max_position_embeddings:
        raise InputError(
            f"context_size {config.context_size} is more than "
            f"max_position_embeddings {config.max_position_embeddings}"
        )
    if config.num_hidden_layers != 1:
        raise InputError("model_type 'mlp' has one hidden layer: leave num_hidden_layers out")
