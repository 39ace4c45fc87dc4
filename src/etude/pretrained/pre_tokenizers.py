"""How text is split into words before BPE, by the names that GGUF files use (``tokenizer.ggml.pre``).

Each entry is what the tokenizer.json of the models of that name has, so that the token ids are theirs. llama.cpp splits
alike, with two known exceptions: it does not normalise text (Qwen2's NFC), and it takes no U+017F for an "s" after an
apostrophe. `tests/pretrained` compares all three.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from etude.data.tokens.patterns import PATTERNS

_BYTES: dict[str, Any] = {
    "type": "ByteLevel",
    "add_prefix_space": False,
    "trim_offsets": True,
    "use_regex": False,
}
_GPT2_WORDS = _BYTES | {"use_regex": True}
_FROM_BYTES = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}


@dataclass(frozen=True, slots=True)
class PreTokenizer:
    """The parts of a tokenizer.json that a name stands for.

    Attributes:
        splitter, normalizer, decoder: its ``pre_tokenizer``, ``normalizer`` and ``decoder``.
        ignore_merges: whether a word that is a token is encoded as that token, whatever the merges.
        byte_fallback: whether a character that is no token becomes its bytes.
        adds_bos: whether a text begins with the bos token where the file does not specify it.
    """

    splitter: dict[str, Any] | None
    normalizer: dict[str, Any] | None = None
    decoder: dict[str, Any] = field(default_factory=lambda: _FROM_BYTES)
    ignore_merges: bool = False
    byte_fallback: bool = False
    adds_bos: bool = False


def _sequence(first: dict[str, Any], last: dict[str, Any]) -> dict[str, Any]:
    return {"type": "Sequence", "pretokenizers": [first, last]}


def _split(pattern: str) -> dict[str, Any]:
    expression = {
        "type": "Split",
        "pattern": {"Regex": PATTERNS[pattern]},
        "behavior": "Isolated",
        "invert": False,
    }
    return _sequence(expression, _BYTES)


_DIGITS = PreTokenizer(_sequence({"type": "Digits", "individual_digits": True}, _GPT2_WORDS))
_LLAMA3 = PreTokenizer(_split("llama3"), ignore_merges=True, adds_bos=True)

PRE_TOKENIZERS: dict[str, PreTokenizer] = {
    "gpt-2": PreTokenizer(_GPT2_WORDS),
    "llama-bpe": _LLAMA3,
    "llama3": _LLAMA3,
    "llama-v3": _LLAMA3,
    "smaug-bpe": PreTokenizer(_split("llama3")),
    "qwen2": PreTokenizer(_split("qwen2"), normalizer={"type": "NFC"}),
    "smollm": _DIGITS,
    "starcoder": _DIGITS,
    "refact": _DIGITS,
}
