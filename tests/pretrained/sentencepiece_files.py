"""SentencePiece vocabularies as GGUF files hold them, and the published algorithm, written again to compare with."""

from __future__ import annotations

import heapq
import mmap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGUFWriter, TokenType

from etude.pretrained.gguf_file import GgufFile

SPACE = "\u2581"
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
Token = tuple[str, float, TokenType]


def vocabulary(pieces: Mapping[str, float], added: Sequence[tuple[str, TokenType]] = ()) -> list[Token]:
    """Return the tokens of a vocabulary: unknown, bos, eos, the bytes, the pieces, and added tokens."""
    control = [("<unk>", TokenType.UNKNOWN), ("<s>", TokenType.CONTROL), ("</s>", TokenType.CONTROL)]
    return [
        *((token, 0.0, kind) for token, kind in control),
        *((token, 0.0, TokenType.BYTE) for token in BYTES),
        *((token, score, TokenType.NORMAL) for token, score in pieces.items()),
        *((token, -1000.0, kind) for token, kind in added),
    ]


def metadata(tokens: Sequence[Token], **changes: Any) -> dict[str, Any]:
    """Return the metadata of a GGUF file as the reader gives them; a change to None leaves a key out."""
    values: dict[str, Any] = {
        "model": "llama",
        "pre": "default",
        "tokens": [token for token, _, _ in tokens],
        "scores": np.array([score for _, score, _ in tokens], np.float32),
        "token_type": np.array([int(kind) for _, _, kind in tokens], np.int32),
        "bos_token_id": 1,
        "eos_token_id": 2,
        "unknown_token_id": 0,
        **changes,
    }
    return {f"tokenizer.ggml.{key}": value for key, value in values.items() if value is not None}


def opened(tokens: Sequence[Token], **changes: Any) -> GgufFile:
    """Return a file with this tokenizer and no tensors."""
    return GgufFile(Path("a.gguf"), metadata(tokens, **changes), {}, mmap.mmap(-1, 1))


def add_tokenizer(writer: GGUFWriter, tokens: Sequence[Token], *, space_prefix: bool | None = None) -> None:
    """Write the tokenizer as llama.cpp's converter does."""
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([token for token, _, _ in tokens])
    writer.add_token_scores([score for _, score, _ in tokens])
    writer.add_token_types([kind for _, _, kind in tokens])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    if space_prefix is not None:
        writer.add_add_space_prefix(space_prefix)


def published_ids(text: str, tokens: Sequence[Token]) -> list[int]:
    """Return the ids of a text whose spaces are escaped, by SentencePiece's algorithm (bpe_model.cc).

    A queue holds all neighbours whose joined text is a piece; the highest score comes first, then the leftmost.
    """
    score = {token: score for token, score, kind in tokens if kind == TokenType.NORMAL}
    number = {token: number for number, (token, _, _) in enumerate(tokens)}
    parts: list[str] = list(text)
    before, after = list(range(-1, len(parts) - 1)), list(range(1, len(parts) + 1))
    queue: list[tuple[float, int, int, str]] = []

    def push(left: int, right: int) -> None:
        if left >= 0 and right < len(parts) and parts[left] + parts[right] in score:
            joined = parts[left] + parts[right]
            heapq.heappush(queue, (-score[joined], left, right, joined))

    for left in range(len(parts) - 1):
        push(left, left + 1)
    while queue:
        _, left, right, joined = heapq.heappop(queue)
        if not parts[left] or not parts[right] or len(parts[left]) + len(parts[right]) != len(joined):
            continue
        parts[left], parts[right] = joined, ""
        after[left] = after[right]
        if after[left] < len(parts):
            before[after[left]] = left
        push(before[left], left)
        push(left, after[left])
    ids: list[int] = []
    for part in filter(None, parts):
        if part in score:
            ids.append(number[part])
        else:
            ids += [number[BYTES[byte]] for byte in part.encode()]
    return ids
