"""Rebuild a SentencePiece tokenizer, which GGUF files call "llama", as a BPE with a list of merges.

SentencePiece joins two neighbouring pieces whose joined text is a piece: always those whose piece has the highest
score, and of several of the same score the leftmost. BPE joins the pair of the lowest rank, and of several of one pair
the leftmost. One pair for each piece is enough: while no join crosses the ends of a stretch of text, its inside is
joined as if it stood alone, so a piece is always made from the pair that makes it from its own text alone
(:func:`last_pair`). These pairs in the order of the scores give the same tokens for every text; pieces of the same
score are treated by :func:`_require_order`.

A special token is never made from pieces, as in SentencePiece. llama.cpp may make one from text that looks like it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np

from etude.errors import InputError
from etude.pretrained.gguf_file import GgufFile
from etude.pretrained.pre_tokenizers import PreTokenizer
from etude.untrusted import shown

SPACE = "\u2581"
"""Stands for a space in pieces."""
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
"""Types of tokens in ``tokenizer.ggml.token_type``."""
DEFAULT_ROLES = {"bos": 1, "eos": 2, "unk": 0}
"""The special tokens of a file that does not name them, as in llama.cpp."""
MOST_WORK = 1 << 26
"""Sum of the squares of the lengths of all tokens; four times that of Gemma 3's 262,144 tokens."""
_BYTE_TOKENS = frozenset(f"<0x{byte:02X}>" for byte in range(256))
_USE_ANOTHER = "use the original folder of the model"

Pair = tuple[str, str]


def rules_of(file: GgufFile) -> PreTokenizer:
    """Return how text is treated before and after the merges.

    Raises:
        InputError: a treatment of white space that programs do not agree on, or a table that replaces characters.
    """
    pre = file.get("tokenizer.ggml.pre", str, "default")
    if pre != "default":
        raise _refused(file, f"the pre-tokenizer {shown(repr(pre))}, which SentencePiece does not have")
    if file.get("tokenizer.ggml.remove_extra_whitespaces", bool, False):
        raise _refused(file, "remove_extra_whitespaces, which programs treat differently")
    if file.metadata.get("tokenizer.ggml.precompiled_charsmap") is not None:
        raise _refused(file, "a table that replaces characters (precompiled_charsmap)")
    begins = file.get("tokenizer.ggml.add_space_prefix", bool, True)
    replace = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
    prepend = {"type": "Prepend", "prepend": SPACE}
    back = {"type": "Replace", "pattern": {"String": SPACE}, "content": " "}
    strip = {"type": "Strip", "content": " ", "start": 1, "stop": 0}
    bytes_ = [{"type": "ByteFallback"}, {"type": "Fuse"}]
    return PreTokenizer(
        splitter=None,
        normalizer={"type": "Sequence", "normalizers": [prepend, replace] if begins else [replace]},
        decoder={"type": "Sequence", "decoders": [back, *bytes_, *([strip] if begins else [])]},
        byte_fallback=True,
        adds_bos=True,
    )


def merges_of(file: GgufFile, ids: Mapping[str, int], types: Sequence[int]) -> list[Pair]:
    """Return the merges that give the same tokens as the scores of the file, in the order of their ranks.

    Args:
        ids: the id of each token in use.
        types: the type of each id.

    Raises:
        InputError: no scores, no token for each byte, or a vocabulary for which no merges give the same tokens.
    """
    scores = file.get("tokenizer.ggml.scores", np.ndarray)
    if scores is None or scores.dtype != np.float32 or len(scores) != len(types):
        raise file.damaged("tokenizer.ggml.scores does not fit its tokens")
    if not np.isfinite(scores).all():
        raise file.damaged("a score of its tokens is not a number")
    pieces = {token: float(scores[number]) for token, number in ids.items() if types[number] == NORMAL}
    bytes_ = {token for token, number in ids.items() if types[number] == BYTE}
    if bytes_ != _BYTE_TOKENS:
        raise _refused(file, f"{len(bytes_ & _BYTE_TOKENS)} of the 256 tokens that stand for a byte")
    _require_certain(file, ids, types, pieces)
    pairs = {piece: pair for piece in pieces if (pair := last_pair(piece, pieces)) is not None}
    for piece in list(pairs):
        outside = [character for character in piece if character not in pieces]
        if any(character not in ids for character in outside):  # BPE has only its bytes
            raise _refused(file, f"the token {shown(repr(piece))}, of which a character is no token")
        if outside:  # an added token, at which the text is split before
            del pairs[piece]
    _require_order(file, pairs, pieces)
    return [pairs[piece] for piece in sorted(pairs, key=lambda piece: (-pieces[piece], -len(piece)))]


def last_pair(piece: str, scores: Mapping[str, float]) -> Pair | None:
    """Return the two parts from which SentencePiece makes ``piece`` from its text alone; None where it does not."""
    parts = list(piece)
    if len(parts) < 2:
        return None
    never = -math.inf
    joined = [scores.get(left + right, never) for left, right in itertools.pairwise(parts)]
    while len(parts) > 2:
        at = joined.index(max(joined))
        if joined[at] == never:
            return None
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
        del joined[at]
        if at:
            joined[at - 1] = scores.get(parts[at - 1] + parts[at], never)
        if at < len(joined):
            joined[at] = scores.get(parts[at] + parts[at + 1], never)
    return parts[0], parts[1]


def _require_certain(
    file: GgufFile, ids: Mapping[str, int], types: Sequence[int], pieces: Mapping[str, float]
) -> None:
    """Raise InputError for a token that programs treat differently, and for a vocabulary that takes too long."""
    for token, number in ids.items():
        if types[number] == USER_DEFINED and SPACE in token:
            raise _refused(
                file, f"the added token {shown(repr(token))}, whose spaces are not written as spaces"
            )
        if types[number] in (UNKNOWN, CONTROL) and len(token) == 1:
            raise _refused(file, f"the special token {shown(repr(token))}, which is one character")
    tokens: list[str] = file.metadata["tokenizer.ggml.tokens"]
    if sum(len(token) ** 2 for token in tokens) > MOST_WORK:
        raise _refused(file, "too many or too long tokens")
    for token, kind in zip(tokens, types, strict=True):
        if kind == UNUSED and token and (len(token) == 1 or last_pair(token, pieces) is not None):
            raise _refused(file, f"the unused token {shown(repr(token))}, which occurs in text")


def _require_order(file: GgufFile, pairs: Mapping[str, Pair], pieces: Mapping[str, float]) -> None:
    """Raise InputError where two pieces have the same score, other than all runs of one character.

    Runs of spaces have one score in Llama 2. From the left, a run grows by its next character, or joins the one before
    it; all that is to the right are single characters. So the leftmost join makes the longest piece, which has the
    lowest rank.
    """
    same: dict[float, list[str]] = {}
    for piece in pairs:
        same.setdefault(pieces[piece], []).append(piece)
    for score, group in same.items():
        character = group[0][0]
        runs = [piece for piece in pairs if piece == character * len(piece)] if len(group) > 1 else group
        if len(runs) != len(group) or any(pieces[piece] != score for piece in runs):
            raise _refused(file, f"the same score for {shown(repr(group[0]))} and {shown(repr(group[1]))}")


def _refused(file: GgufFile, what: str) -> InputError:
    return InputError(f"{file.path} has a SentencePiece tokenizer with {what}: {_USE_ANOTHER}")
