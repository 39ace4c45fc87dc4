"""The form that a family's models have in GGUF files, for reading and writing them.

Tensor names are not declared: the `gguf` package maps Hugging Face's names to GGUF's for each architecture.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

ROPE_KEYS: Mapping[str, str] = {
    "max_position_embeddings": "context_length",
    "hidden_size": "embedding_length",
    "num_hidden_layers": "block_count",
    "intermediate_size": "feed_forward_length",
    "num_attention_heads": "attention.head_count",
    "num_key_value_heads": "attention.head_count_kv",
    "rms_norm_eps": "attention.layer_norm_rms_epsilon",
    "rope_theta": "rope.freq_base",
    "head_dim": "attention.key_length",
}
"""`GgufForm.keys` of the families with rotary positions and RMSNorm."""
ROPE_OPTIONAL = frozenset({"num_key_value_heads", "rope_theta", "head_dim"})
"""The fields of :data:`ROPE_KEYS` that a file may lack: a kv head for each head, 10,000, width / heads."""


@dataclass(frozen=True, kw_only=True)
class GgufForm:
    """How GGUF files hold the models of one family.

    Attributes:
        architecture: ``general.architecture``, which also begins the keys of the metadata.
        keys: the key of the metadata, without the architecture, that holds each field of config.json.
        optional: the fields of `keys` that a file may lack.
        flags: fields of config.json that are true where a file has the named tensor.
        paired: the modules (the end of their saved names) whose rows GGUF stores with the two halves of each head
            interleaved, because llama.cpp rotates neighbours; the value is the `ModelConfig` field that counts the
            heads.
        transposed: the modules whose saved weights are (in, out); GGUF stores (out, in).
        derived: returns fields of config.json that llama.cpp computes from those of `keys`.
    """

    architecture: str
    keys: Mapping[str, str] = field(default_factory=lambda: ROPE_KEYS)
    optional: frozenset[str] = ROPE_OPTIONAL
    flags: Mapping[str, str] = field(default_factory=dict)
    paired: Mapping[str, str] = field(default_factory=dict)
    transposed: frozenset[str] = frozenset()
    derived: Callable[[Mapping[str, Any]], dict[str, Any]] = lambda values: {}
