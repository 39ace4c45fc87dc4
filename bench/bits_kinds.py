"""The runs that ``same_bits.py`` compares: one of every kind that Etude can train, on text that is always the same.

Settings are those of the command line, so that versions of the source that differ widely inside can train them.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from dataclasses import dataclass, field

COMMON = {
    "run.folder": "runs",
    "data.workers": "1",
    "data.validation_fraction": "0.2",
    "tokenizer.vocab_size": "384",
    "model.size": "nano",
    "model.hidden_size": "64",
    "train.steps": "16",
    "train.context": "48",
    "train.batch_rows": "8",
    "train.micro_batch_rows": "8",
    "train.optimizer": "muon",
    "train.dropout": "0",
    "train.eval_every": "8",
    "train.eval_tokens": "1024",
    "train.sample_every": "8",
    "train.checkpoint_every": "8",
    "train.checksum_every": "1",
    "train.summary_every": "8",
    "ladder.max_order": "4",
    "device.kind": "cpu",
    "device.dtype": "fp32",
    "device.threads": "1",
    "device.compile": "false",
}
"""Settings of every kind, so that nothing relevant is derived from the machine."""
LAYERS = {"model.num_hidden_layers": "2", "model.num_attention_heads": "4"}
SHAPES: dict[str, dict[str, str]] = {"llama": LAYERS, "qwen3": LAYERS, "gpt2": LAYERS, "mlp": {}}
ADAMW = {"train.optimizer": "adamw"}
BF16 = {"device.dtype": "bf16"}
COMPILED = {"device.compile": "true"}
APART = {"data.cross_document_attention": "false"}
DROPOUT = {"train.dropout": "0.1"}
ACCUMULATED = {"train.micro_batch_rows": "2"}
PLAIN = {"model.attention_bias": "false", "model.mlp_bias": "false", "model.tie_word_embeddings": "true"}
GROUPED = {"model.num_key_value_heads": "2"}
RECOMPUTED = {"train.activation_checkpointing": "true"}
CHARACTERS = {"tokenizer.kind": "char"}
LARGE = {"train.steps": "8", "train.batch_rows": "256", "train.micro_batch_rows": "256"}
"""Enough positions per micro-batch that the loss is computed in pieces (2**22 logits)."""
TEXT = "text.jsonl"
PROMPT = "The miller found the old lantern"
TRANSFORMER_LOOKS = {
    "step": ("--step", "13"),
    "first step": ("--step", "1"),
    "token": ("--token", "1:12"),
    "node": ("--node", "1:3"),
    "node at token": ("--step", "13", "--node", "0:5", "--token", "2:20"),
    "matrix": ("--weight", "model.layers.0.mlp.up_proj.weight[3,5]"),
    "vector": ("--weight", "model.layers.1.post_attention_layernorm.weight[7]"),
    "prompt": ("--prompt", PROMPT),
    "node in prompt": ("--prompt", PROMPT, "--node", "1:3"),
    "knob": ("--prompt", PROMPT, "--knob", "model.layers.0.mlp.post[17]*0"),
}
"""Options of `etude inspect`, by what they show."""
WINDOW_LOOKS = {
    "step": ("--step", "13"),
    "token": ("--token", "1:12"),
    "node": ("--node", "model:3"),
    "node at token": ("--step", "13", "--node", "model:5", "--token", "2:20"),
    "matrix": ("--weight", "model.hidden.weight[3,5]"),
    "prompt": ("--prompt", PROMPT),
    "node in prompt": ("--prompt", PROMPT, "--node", "model:3"),
    "knob": ("--prompt", PROMPT, "--knob", "model.post[17]*0"),
}
BF16_LOOKS = {name: TRANSFORMER_LOOKS[name] for name in ("step", "node at token")}


@dataclass(frozen=True)
class Kind:
    """A run: the family, settings in addition to ``COMMON``, and the commands that are run on it afterwards."""

    family: str
    settings: Mapping[str, str] = field(default_factory=dict)
    looks: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    evaluated: bool = False
    sources: tuple[str, ...] = (TEXT,)
    ranks: int = 1
    parent: str = ""  # RUN@STEP that it is a fork of

    @property
    def in_bf16(self) -> bool:
        return self.settings.get("device.dtype") == "bf16"


KINDS = {
    "llama": Kind("llama", looks=TRANSFORMER_LOOKS, evaluated=True),
    "llama-adamw-wsd": Kind("llama", ADAMW | {"train.schedule": "wsd"} | PLAIN | GROUPED),
    "llama-accumulated-recomputed": Kind("llama", ACCUMULATED | RECOMPUTED | DROPOUT),
    "llama-compiled": Kind("llama", COMPILED),
    "llama-compiled-accumulated": Kind("llama", COMPILED | DROPOUT | APART | ACCUMULATED),
    "llama-bf16": Kind("llama", BF16, looks=BF16_LOOKS),
    "llama-ranks": Kind("llama", DROPOUT | ACCUMULATED, ranks=2),
    "llama-large-batch": Kind("llama", LARGE | APART),
    "llama-builtin": Kind(
        "llama", {"data.max_bytes": "100000"}, evaluated=True, sources=("builtin:primer", "builtin:tasks")
    ),
    "llama-fork": Kind("llama", {"train.muon_lr": "0.01"}, parent="llama@8"),
    "qwen3": Kind("qwen3", APART, looks=TRANSFORMER_LOOKS, evaluated=True),
    "qwen3-adamw-grouped": Kind("qwen3", ADAMW | GROUPED | DROPOUT | CHARACTERS),
    "qwen3-bf16-compiled": Kind("qwen3", BF16 | COMPILED | APART | GROUPED),
    "gpt2": Kind("gpt2", ADAMW | DROPOUT, looks=TRANSFORMER_LOOKS, evaluated=True),
    "gpt2-muon-bf16": Kind("gpt2", BF16 | APART | DROPOUT),
    "gpt2-compiled": Kind("gpt2", ADAMW | COMPILED),
    "gpt2-ranks": Kind("gpt2", ADAMW | APART, ranks=2),
    "mlp": Kind("mlp", looks=WINDOW_LOOKS, evaluated=True),
    "mlp-adamw-accumulated": Kind("mlp", ADAMW | DROPOUT | APART | ACCUMULATED),
    "mlp-compiled": Kind("mlp", COMPILED | DROPOUT),
    "mlp-large-batch": Kind("mlp", ADAMW | LARGE),
    "mlp-bf16-ranks": Kind("mlp", BF16 | APART, ranks=2),
}


def made_text() -> str:
    """Return 300 stories as JSON lines, always the same, with rare words and quotes for the probes of `etude eval`."""
    choose = random.Random(20).choice
    syllables = ("ba", "cor", "del", "fi", "gan", "hol", "lu", "mer", "no", "pin", "ros", "ta", "vel", "win")

    def word() -> str:
        return "".join(choose(syllables) for _ in range(choose((2, 3, 3, 4))))

    def story() -> str:
        names, place = [word().title() for _ in range(3)], word()
        forms = (
            "{name} found the {old} {thing} near the {place}, and {other} was {mood}.",
            "{other} walked to the {place} (where {name} had left a {old} {thing} and {count} coins).",
            '"Where is the {thing}?" asked {name}. "It was at the {place} before the winter came," said {other}.',
            "At {count} o'clock {name} and {other} sold a {thing} to the {old} {trade}.",
            "The {trade} of the {place} gave {name} {count} loaves of bread; {other} took the {thing}.",
        )
        return " ".join(
            choose(forms).format(
                name=choose(names),
                other=choose(names),
                place=choose((place, "river", "market", "mill")),
                thing=choose((word(), "lantern", "boat", "key", "map", "bell")),
                trade=choose((word(), "miller", "painter")),
                old=choose(("old", "new", "broken", "heavy", "silver")),
                mood=choose(("glad", "tired", "afraid", "proud")),
                count=choose(range(2, 90)),
            )
            for _ in range(choose(range(2, 16)))
        )

    return "".join(json.dumps({"text": story()}) + "\n" for _ in range(300))
