"""Write GGUF files as llama.cpp's converter does, with the writer of the `gguf` package."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType, GGUFWriter, TokenType
from torch import Tensor

from etude.model.config import ModelConfig

GPT2_EXPRESSION = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3_EXPRESSION = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|"
    r"\s+(?!\S)|\s+"
)
QWEN2_EXPRESSION = LLAMA3_EXPRESSION.replace("{1,3}", "")
_BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}


def _split(expression: str) -> dict[str, Any]:
    split = {"type": "Split", "pattern": {"Regex": expression}, "behavior": "Isolated", "invert": False}
    return {"type": "Sequence", "pretokenizers": [split, _BYTES]}


PUBLISHED: dict[str, dict[str, Any]] = {
    "gpt-2": {"pre_tokenizer": _split(GPT2_EXPRESSION)},
    "llama-bpe": {"pre_tokenizer": _split(LLAMA3_EXPRESSION), "ignore_merges": True},
    "smaug-bpe": {"pre_tokenizer": _split(LLAMA3_EXPRESSION)},
    "qwen2": {"pre_tokenizer": _split(QWEN2_EXPRESSION), "normalizer": {"type": "NFC"}},
    "smollm": {
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": r"\p{N}"}, "behavior": "Isolated", "invert": False},
                *_split(GPT2_EXPRESSION)["pretokenizers"],
            ],
        }
    },
}
"""What the tokenizer.json of published models has, by the name of the pre-tokenizer in their GGUF files."""
UNMERGED = "\u0120world"
SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
TRAINING = (
    "The quick brown fox jumps over the lazy dog. It's 2024, and they'll have 12345 things to do: 3.14159 and more.\n"
    "def f(x):\n    return x + 1\n\n\nWE'RE HERE   now\tand  there; "
    "naïve café, Ωμέγα, мир, 你好世界, こんにちは, ١٢٣.\r\n"
    "cafe\u0301 re\u0301sume\u0301 100000 200 30 4 ' 's 'S 've 'VE _x __init__ (a+b)*c != d && e || f ... "
    "!!! ??? #### ====\n"
)


def published_tokenizer(pre: str, vocab_size: int = 420, after: bool = False) -> dict[str, Any]:
    """Return a small trained tokenizer.json whose words are split as by the models that GGUF calls ``pre``.

    Three control tokens have the first ids, or, with ``after``, the last, where a token of ordinary text follows.
    """
    from tokenizers import Tokenizer, models, trainers

    parts = dict(PUBLISHED[pre])
    ignore = parts.pop("ignore_merges", False)
    # Trained without words, it has tokens across their ends, so that any other split gives other ids.
    frame = json.loads(Tokenizer(models.BPE()).to_str()) | {"pre_tokenizer": _BYTES}
    frame["decoder"] = {
        "type": "ByteLevel",
        "add_prefix_space": True,
        "trim_offsets": True,
        "use_regex": True,
    }
    backend = Tokenizer.from_str(json.dumps(frame))
    alphabet = sorted(gguf_alphabet())
    specials = [] if after else list(SPECIALS)
    backend.train_from_iterator(
        _training_lines(),
        trainers.BpeTrainer(
            vocab_size=vocab_size - (5 if after else 1),
            special_tokens=specials,
            initial_alphabet=alphabet,
            show_progress=False,
        ),
    )
    stated: dict[str, Any] = json.loads(backend.to_str()) | parts
    stated["model"]["ignore_merges"] = ignore
    # No merges lead to this token: only a tokenizer that looks up whole words first finds it.
    assert UNMERGED not in stated["model"]["vocab"]
    stated["model"]["vocab"][UNMERGED] = len(stated["model"]["vocab"])
    if after:
        count = len(stated["model"]["vocab"])
        for number, content in enumerate((*SPECIALS, "<tool>"), start=count):
            token = {"id": number, "content": content, "special": content != "<tool>", "normalized": False}
            stated["added_tokens"].append({"single_word": False, "lstrip": False, "rstrip": False} | token)
    return stated


def _training_lines() -> list[str]:
    """Return lines of the words of the training text, in any order, with numbers between."""
    random, words = Random(0), TRAINING.split(" ")
    lines = []
    for _ in range(400):
        chosen = random.choices(words, k=8)
        lines.append(" ".join([*chosen, str(random.randrange(10_000)), random.choice(words)]))
    return lines


def gguf_alphabet() -> list[str]:
    from tokenizers import pre_tokenizers

    return list(pre_tokenizers.ByteLevel.alphabet())


def add_tokenizer(writer: GGUFWriter, stated: dict[str, Any], pre: str, unused: int = 0) -> None:
    """Add the metadata that stand for a tokenizer.json; ``unused`` placeholder tokens follow its own."""
    vocabulary = dict(stated["model"]["vocab"])
    types = dict.fromkeys(vocabulary, TokenType.NORMAL)
    for token in stated["added_tokens"]:
        vocabulary[token["content"]] = token["id"]
        types[token["content"]] = TokenType.CONTROL if token["special"] else TokenType.USER_DEFINED
    tokens = sorted(vocabulary, key=vocabulary.__getitem__)
    assert [vocabulary[token] for token in tokens] == list(range(len(tokens)))
    padding = [f"[PAD{number}]" for number in range(len(tokens), len(tokens) + unused)]
    merges = stated["model"]["merges"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens + padding)
    writer.add_token_types([types[token] for token in tokens] + [TokenType.UNUSED] * unused)
    writer.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in merges])
    ids = {name: vocabulary[name] for name in SPECIALS if name in vocabulary}
    if ids:
        writer.add_bos_token_id(ids["<|im_start|>"])
        writer.add_eos_token_id(ids["<|im_end|>"])
        writer.add_pad_token_id(ids["<|endoftext|>"])


def write_gguf(
    path: Path,
    config: ModelConfig,
    saved: dict[str, Tensor],
    *,
    kind: str = "F32",
    pre: str = "qwen2",
    stated: dict[str, Any] | None = None,
    unused: int = 0,
    license: str = "mit",
    extra: Callable[[GGUFWriter], None] = lambda writer: None,
    tokenizer: Callable[[GGUFWriter], None] | None = None,
) -> None:
    """Write a model, given in Hugging Face's tensor names; matrices have the number format ``kind``.

    ``tokenizer`` adds a tokenizer in place of ``stated``.
    """
    assert config.family.gguf is not None
    architecture = config.family.gguf.architecture
    writer = GGUFWriter(path, architecture)
    writer.add_name("Tiny")
    writer.add_license(license)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    if architecture == "gpt2":
        writer.add_layer_norm_eps(config.rms_norm_eps)
    else:
        writer.add_head_count_kv(config.num_key_value_heads)
        writer.add_layer_norm_rms_eps(config.rms_norm_eps)
        writer.add_key_length(config.head_dim)
        writer.add_value_length(config.head_dim)
        writer.add_rope_dimension_count(config.head_dim)
        writer.add_rope_freq_base(config.rope_theta)
        writer.add_vocab_size(config.vocab_size)
        if config.rope_scaling is not None and config.rope_scaling.rope_type == "linear":
            writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
            writer.add_rope_scaling_factor(config.rope_scaling.factor)
    if config.sliding_window:
        writer.add_sliding_window(config.sliding_window)
        if config.rope_local_base_freq != 10_000:
            writer.add_float32(f"{architecture}.rope.freq_base_swa", config.rope_local_base_freq)
    if tokenizer is None:
        add_tokenizer(writer, stated or published_tokenizer(pre, config.vocab_size), pre, unused)
    else:
        tokenizer(writer)
    add_tensors(writer, config, saved, kind)
    extra(writer)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def add_tensors(writer: GGUFWriter, config: ModelConfig, saved: dict[str, Tensor], kind: str) -> None:
    assert config.family.gguf is not None
    known = {name: key for key, name in gguf.MODEL_ARCH_NAMES.items()}
    architecture = known[config.family.gguf.architecture]
    names = gguf.get_tensor_name_map(architecture, config.num_hidden_layers)
    for name, tensor in saved.items():
        values = tensor.float().numpy()
        if config.model_type in ("llama", "smollm3"):
            for end, heads in (
                ("q_proj", config.num_attention_heads),
                ("k_proj", config.num_key_value_heads),
            ):
                if name.rpartition(".")[0].endswith(end):
                    paired = values.reshape(heads, 2, len(values) // heads // 2, *values.shape[1:])
                    values = paired.swapaxes(1, 2).reshape(values.shape)
        if config.model_type == "gpt2" and (".attn." in name or ".mlp." in name):
            values = values.T
        if config.model_type == "gemma3_text" and name.endswith("norm.weight"):
            values = values + 1
        gguf_name = names.get_name(name, (".weight", ".bias"))
        assert gguf_name is not None, name
        raw = GGMLQuantizationType.F32 if values.ndim == 1 else GGMLQuantizationType[kind]
        writer.add_tensor(gguf_name, stored_numbers(np.ascontiguousarray(values), raw), raw_dtype=raw)


def stored_numbers(values: np.ndarray, kind: GGMLQuantizationType) -> np.ndarray:
    """Return numbers in a format. Where the package has no quantisation for it, random bytes: every byte means some."""
    try:
        return np.asarray(gguf.quants.quantize(values, kind))
    except NotImplementedError:
        shape = gguf.quant_shape_to_byte_shape(values.shape, kind)
        return np.random.default_rng(len(values)).integers(0, 256, shape, np.uint8)


def network_tensors(model: torch.nn.Module, config: ModelConfig) -> dict[str, Tensor]:
    from etude.model.folder import stored_state

    return {name: tensor.detach() for name, tensor in stored_state(model.state_dict(), config).items()}
