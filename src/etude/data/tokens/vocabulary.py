"""Train a vocabulary on the training text: byte-level BPE, or characters with a fallback to bytes."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from etude.data.tokens.patterns import MAX_CHARACTERS, PATTERNS
from etude.data.tokens.tokenizer import EOS, EtudeTokenizer
from etude.errors import InputError

SAMPLE_BYTES = 64_000_000
"""Most bytes of training text used to train the vocabulary, evenly spaced over all of it."""
MIN_VOCABULARY, MAX_VOCABULARY = 384, 32_768
LONGEST_WORD = 200
"""Most characters without white space, or of white space, that vocabulary training reads as one word."""
_ENDLESS = re.compile(rf"\S{{{LONGEST_WORD}}}|\s{{{LONGEST_WORD}}}|[\S\x1c-\x1f]{{{LONGEST_WORD}}}")
"""The third case is for separators that Python counts as white space and the models' expressions do not."""


def auto_vocab_size(train_bytes: int) -> int:
    """Return the nearest power of two to 1024 * (MB of training text) ** 0.35, from 384 to 32,768.

    512 at 100 kB, 1,024 at 1 MB, 2,048 at 3 to 20 MB, 4,096 at 20 to 140 MB, 8,192 at 1 GB. The number of distinct
    words grows with about the square root of the text (Heaps' law); the vocabulary grows more slowly, because a rare
    token costs a small model more than it saves.
    """
    size = 1024 * (max(train_bytes, 1) / 1e6) ** 0.35
    power = 2 ** round(math.log2(size)) if size > MIN_VOCABULARY else 0
    return min(max(power, MIN_VOCABULARY), MAX_VOCABULARY)


def train_bpe(texts: Iterable[str], vocab_size: int, pattern: str) -> EtudeTokenizer:
    """Train byte-level BPE on ``texts``.

    All 256 bytes are in the vocabulary, so any text can be written. A text with too few pairs for ``vocab_size`` gives
    a smaller vocabulary.

    Args:
        texts: pieces of the training text; no merge crosses from one to the next.
        vocab_size: including the end-of-document token (id 0) and the 256 bytes.
        pattern: ``gpt2``, ``llama3`` or ``qwen2``.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PATTERNS[pattern]), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        special_tokens=[EOS],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    backend.train_from_iterator(_without_endless_words(texts), trainer)
    return EtudeTokenizer(backend, kind="bpe")


def _without_endless_words(texts: Iterable[str]) -> Iterator[str]:
    """Yield the same text, cut inside words and white space of more than :data:`LONGEST_WORD` characters.

    The time to merge pairs grows with the square of a word's length. A text without spaces is one word, and so is a run
    of spaces.
    """
    for text in texts:
        begin = 0
        for word in _ENDLESS.finditer(text):
            yield text[begin : word.end()]
            begin = word.end()
        yield text[begin:]


def train_char(texts: Iterable[str]) -> EtudeTokenizer:
    """Make one token for each character of ``texts``, and one for each byte, used for all other characters."""
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(text)
    ranked = sorted(counts, key=lambda char: (-counts[char], char))[:MAX_CHARACTERS]
    tokens = [EOS, *(f"<0x{byte:02X}>" for byte in range(256)), *sorted(ranked)]
    return EtudeTokenizer(_char_backend({token: number for number, token in enumerate(tokens)}), kind="char")


def _char_backend(vocabulary: dict[str, int]) -> Any:
    from tokenizers import AddedToken, Tokenizer, decoders, models

    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[], byte_fallback=True, fuse_unk=False))
    backend.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    backend.add_special_tokens([AddedToken(EOS, special=True, normalized=False)])
    return backend


BASE = "base"
"""The kind of a tokenizer that comes with the base model of a run."""


def check_kind(kind: str) -> None:
    """Refuse a tokenizer that is neither a known kind nor a path.

    Raises:
        InputError: for a value such as ``bep``.
    """
    if kind not in {"bpe", "char", BASE} and not kind.endswith(".json") and "/" not in kind:
        raise InputError(f"there is no tokenizer '{kind}': choose bpe, char, or a path to a tokenizer.json")
