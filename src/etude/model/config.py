"""The configuration of a network: its sizes, its switches, and the presets that set them."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

from etude.errors import InputError
from etude.messages import either
from etude.model.adapter import LoRA, check_adapter
from etude.model.families import Family, family_named
from etude.model.families.sizes import MOST_LAYERS
from etude.model.rope import RopeScaling
from etude.registry import MODEL_FAMILIES
from etude.untrusted import shown

ACTIVATIONS = ("silu", "gelu", "gelu_new", "gelu_pytorch_tanh", "relu", "relu2", "tanh")

# Far above any real model: a damaged config.json is refused before memory is allocated.
_LARGEST = {
    "vocab_size": 2**24,
    "hidden_size": 2**20,
    "intermediate_size": 2**22,
    "num_hidden_layers": MOST_LAYERS,
    "num_attention_heads": 2**12,
    "max_position_embeddings": 2**24,
    "context_size": 2**16,
    "query_pre_attn_scalar": 2**24,
    "sliding_window": 2**24,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """Sizes and switches of one network, in Hugging Face's names.

    Letters in shapes: D hidden_size (d_model), F intermediate_size, L num_hidden_layers, H num_attention_heads,
    K num_key_value_heads, Dh head_dim, V vocab_size.

    Every checkpoint is a model folder that other programs load. So the switches (from `norm` to `mlp_bias`) take only
    the combinations that a saved format can express; see `validate`. For `model_type` "mlp", `hidden_size` is the
    width of a token's embedding, `intermediate_size` the number of tanh neurons, `context_size` the number of
    previous tokens they read, and the attention sizes are 0.
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
    """"rmsnorm", "layernorm" or "none"."""
    norm_placement: str = "before"
    """Position of the norms relative to a sublayer: "before", "after" (OLMo 2), or "both"."""
    zero_centered_norm: bool = False
    """Whether an RMSNorm multiplies by 1 + weight instead of its weight (Gemma)."""
    scale_embedding: bool = False
    """Whether embeddings are multiplied by sqrt(hidden_size) (Gemma)."""
    parallel_residual: bool = False
    """Whether attention and MLP read the same residual stream, so that both run in parallel (GPT-NeoX)."""
    position: str = "rope"
    """"rope", "learned" or "window"."""
    partial_rotary_factor: float = 1.0
    """Fraction of each head that rotary positions rotate."""
    rope_scaling: RopeScaling | None = None
    rotary_layers: tuple[bool, ...] = ()
    """For each layer whether it rotates queries and keys (SmolLM3: not every fourth); empty: every layer does."""
    sliding_window: int = 0
    """Number of positions that a query of a sliding layer sees, its own included."""
    sliding_layers: tuple[bool, ...] = ()
    """For each layer whether its attention is limited to the window (Gemma); empty: no layer's is."""
    rope_local_base_freq: float = 10_000.0
    """Base of the rotary positions in sliding layers, which `rope_scaling` does not change."""
    mlp: str = "gated"
    """"gated" or "plain"."""
    qk_norm: bool = False
    """Whether queries and keys are normalised before the rotation."""
    qk_norm_width: str = "head"
    """What the norm runs over: each "head" (Qwen3), or the whole "projection" (OLMo 2)."""
    query_pre_attn_scalar: int | None = None
    """Attention divides scores by the root of this number; None: head_dim."""
    attention_bias: bool = True
    attention_output_bias: bool = True
    """Whether `attention_bias` also holds for o_proj (Qwen2: for q_proj, k_proj and v_proj alone)."""
    mlp_bias: bool = True
    tie_word_embeddings: bool = False
    rope_theta: float = 10_000.0
    rms_norm_eps: float = 1e-6
    """Epsilon of either norm; `layer_norm_epsilon` of GPT-2, `layer_norm_eps` of GPT-NeoX."""
    initializer_range: float = 0.02
    bos_token_id: int | None = 0
    eos_token_id: int | None = 0
    context_size: int = 0
    """mlp only: number of previous tokens that the network reads (n - 1 in Bengio et al.)."""
    direct_connections: bool = False
    """mlp only: also connect the embeddings directly to the logits (W of Bengio et al., equation 1)."""

    adapter: LoRA | None = None
    """The low-rank adapter of the network; its folder holds it apart from the configuration."""

    @property
    def base(self) -> ModelConfig:
        """The configuration of the network without its adapter."""
        return self if self.adapter is None else dataclasses.replace(self, adapter=None)

    @property
    def family(self) -> Family:
        """The declaration of the network's family."""
        return family_named(self.model_type)

    @property
    def rotary_dim(self) -> int:
        """Number of components of each head that rotary positions rotate."""
        return int(self.head_dim * self.partial_rotary_factor)

    @property
    def embedding_scale(self) -> float:
        """The factor between a row of the embedding matrix and what is added to the residual stream."""
        return math.sqrt(self.hidden_size) if self.scale_embedding else 1.0

    @property
    def score_scale(self) -> float | None:
        """The factor of attention's scores; None: 1 / sqrt(head_dim)."""
        return None if self.query_pre_attn_scalar is None else self.query_pre_attn_scalar**-0.5

    def is_rotary(self, layer: int) -> bool:
        """Return whether a layer rotates queries and keys by their positions."""
        return self.position == "rope" and (not self.rotary_layers or self.rotary_layers[layer])

    def is_sliding(self, layer: int) -> bool:
        """Return whether the attention of a layer is limited to the sliding window."""
        return bool(self.sliding_layers) and self.sliding_layers[layer]

    def validate(self) -> ModelConfig:
        """Return self if a network can be built from it and saved.

        Raises:
            InputError: it cannot; the message names the fault.
        """
        family = self.family
        _check_sizes(self)
        if self.hidden_act not in ACTIVATIONS:
            raise InputError(
                f"hidden_act {shown(repr(self.hidden_act))} is unknown: choose {either(ACTIVATIONS)}"
            )
        _check_switches(self)
        if family.has_attention:
            _check_heads(self)
            _check_layers(self)
        family.check(self)
        check_adapter(self)
        return self

    def replace(self, **changes: Any) -> ModelConfig:
        """Return a validated copy with the given fields changed."""
        return dataclasses.replace(self, **changes).validate()


def preset(name: str, **dims: Any) -> ModelConfig:
    """Return the validated configuration of the named family with the given sizes.

    `vocab_size` and `hidden_size` must be given; every other field has a default that follows from them or from the
    family (`Family.sizes`, `Family.style`).

    Raises:
        InputError: an unknown family, an unknown field, or sizes that do not fit together.
    """
    family = family_named(name)
    known = {field.name for field in dataclasses.fields(ModelConfig)}
    for key in dims:
        if key not in known:
            raise InputError(f"{key!r} is not a setting of a model: choose one of {', '.join(sorted(known))}")
    for key in ("vocab_size", "hidden_size"):
        if key not in dims:
            raise InputError(f"{key} must be given for the preset {name!r}")
    sizes = family.sizes(dims, family.inner_size(int(dims["hidden_size"])))
    values = sizes | family.fixed_switches | dict(family.style) | dims
    return ModelConfig(model_type=name, **values).validate()


def _check_sizes(config: ModelConfig) -> None:
    """Raise InputError for sizes outside the range of real models, or token ids outside the vocabulary."""
    names = ["vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "max_position_embeddings"]
    if config.family.has_attention:
        names += ["num_attention_heads", "num_key_value_heads", "head_dim"]
    if "context_size" in config.family.free:
        names.append("context_size")
    if any(config.sliding_layers):
        names.append("sliding_window")
    if config.query_pre_attn_scalar is not None:
        names.append("query_pre_attn_scalar")
    for name in names:
        value = getattr(config, name)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise InputError(f"{name} must be a whole number of at least 1, not {shown(value)}")
        if value > _LARGEST.get(name, 2**24):
            raise InputError(
                f"{name} {shown(value)} is impossible: at most {_LARGEST.get(name, 2**24)} can be built"
            )
    for name in ("rope_theta", "rope_local_base_freq", "rms_norm_eps", "initializer_range"):
        value = getattr(config, name)
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < float("inf"):
            raise InputError(f"{name} must be a number above 0, not {shown(value)}")
    for name in ("bos_token_id", "eos_token_id"):
        value = getattr(config, name)
        if value is not None and not (isinstance(value, int) and 0 <= value < config.vocab_size):
            raise InputError(f"{name} {shown(value)} is outside the vocabulary of {config.vocab_size} tokens")


def _check_switches(config: ModelConfig) -> None:
    """Raise InputError for a switch that the family's saved format fixes to another value."""
    for name, fixed in config.family.fixed_switches.items():
        value = getattr(config, name)
        if value != fixed:
            able = [other for other in MODEL_FAMILIES.names() if _can_have(family_named(other), name, value)]
            hint = f"; {', '.join(able)} can" if able else ""
            raise InputError(
                f"{name} = {shown(repr(value))} cannot be saved as a {config.model_type} folder, "
                f"which has {name} = {fixed!r}{hint}"
            )


def _can_have(family: Family, name: str, value: Any) -> bool:
    return bool(family.fixed_switches.get(name, value) == value)


def _check_heads(config: ModelConfig) -> None:
    """Raise InputError where heads cannot share kv heads, or rotary positions cannot form pairs."""
    heads, kv_heads = config.num_attention_heads, config.num_key_value_heads
    if heads % kv_heads:
        raise InputError(
            f"num_attention_heads {heads} is not divisible by num_key_value_heads {kv_heads}: "
            f"each kv head serves the same number of heads"
        )
    if config.position != "rope":
        return
    if not 0 < config.partial_rotary_factor <= 1:
        raise InputError(
            f"partial_rotary_factor must be above 0 and at most 1, not {config.partial_rotary_factor}"
        )
    if config.rotary_dim % 2 or config.rotary_dim == 0:
        what = "head_dim" if config.rotary_dim == config.head_dim else "the rotated part of each head"
        raise InputError(
            f"{what} is {config.rotary_dim}: rotary positions rotate pairs, choose an even number above 0"
        )


def _check_layers(config: ModelConfig) -> None:
    """Raise InputError where a list with an entry for each layer has another length."""
    for name in ("rotary_layers", "sliding_layers"):
        entries = getattr(config, name)
        if entries and len(entries) != config.num_hidden_layers:
            raise InputError(
                f"{name} has {len(entries)} entries for {config.num_hidden_layers} layers: give one for each layer"
            )
