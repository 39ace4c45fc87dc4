"""Encode the examples of a corpus into token files, with the tables of what is trained."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from etude.data.conversations.conversation import Example
from etude.data.conversations.encode import Encoded, Mask, encode_example
from etude.data.conversations.template import template_of
from etude.data.corpus.corpus import Corpus, Part
from etude.data.tokens.examples import ExampleWriter
from etude.data.tokens.shards import Encoded as EncodedPieces
from etude.data.tokens.shards import PartWriter, Progress, token_dtype
from etude.data.tokens.tokenizer import EtudeTokenizer
from etude.errors import InputError

SHARD_TOKENS = 1 << 27
OTHER_KIND = {
    False: "a pair of answers among other examples, which are more: give pairs to a run of their own",
    True: "no pair of answers among pairs, which are more: give other examples to a run of their own",
}
"""Why an example is dropped that is of the other kind, by whether the data are pairs (:func:`has_pairs`)."""


def encode_examples(
    corpus: Corpus, part: Part, tokenizer: EtudeTokenizer, mask: Mask, folder: Path, progress: Progress
) -> tuple[dict[str, Any], list[str]]:
    """Write the tokens of a part to ``folder``, and which of them are trained.

    An example that the template cannot write becomes one token that is not trained, so that examples keep their
    numbers. So do the fewer ones where some examples are preferences and others are not: no run learns from both.

    Returns:
        Counts for the manifest, and lines about the examples that were dropped.

    Raises:
        InputError: the template can write none of the examples.
    """
    template, dtype = template_of(tokenizer), token_dtype(tokenizer.vocab_size)
    not_text, total = special_ids(tokenizer), corpus.num_bytes(part)
    tokens, tables = PartWriter(folder, part, dtype, SHARD_TOKENS), ExampleWriter(folder, part)
    dropped: Counter[str] = Counter()
    first = "there is no conversation to learn from"
    read = written = 0
    pairs = has_pairs(corpus.facts.get("kinds", {}))
    for document in corpus.documents(part):
        try:
            example = Example.from_json(document.decode("utf-8"))
            if (example.kind == "preference") != pairs:
                raise InputError(OTHER_KIND[pairs])
            encoded = encode_example(example, tokenizer, template, mask)
            written += 1
        except InputError as error:
            first = first if dropped else str(error)
            dropped[getattr(error, "reason", str(error))] += 1
            encoded = Encoded([tokenizer.roles.document_id], np.zeros(1, bool), ())
        # The text of a preference is that of the chosen answer: n-gram models and bits per byte are of this one.
        text, spans = rendered(encoded.until(encoded.second or len(encoded.ids)), tokenizer, not_text)
        turns = () if encoded.cuttable else encoded.turn_ends
        size = tables.add(encoded.trained, turns, text, spans, encoded.second)
        row = np.array(encoded.ids, dtype).tobytes()
        tokens.add(EncodedPieces(row, [len(encoded.ids)], [size], [True]))
        read += len(document)
        progress(f"encode {part}", read, total)
    if not written:
        raise InputError(first)
    facts = {**tokens.close(), **tables.close(), "cut_words": 0, "dropped": sum(dropped.values())}
    lines = [f"{count:,} examples were dropped: {reason}" for reason, count in dropped.most_common()]
    return facts, lines


def has_pairs(kinds: Mapping[str, int]) -> bool:
    """Return whether examples of which there are so many of each kind count as preferences: at least half are."""
    pairs = kinds.get("preference", 0)
    return bool(pairs and 2 * pairs >= sum(kinds.values()))


def rendered(
    encoded: Encoded, tokenizer: EtudeTokenizer, not_text: frozenset[int]
) -> tuple[str, list[tuple[int, int]]]:
    """Return the text of the tokens, and the ranges of its characters that are trained and not special tokens."""
    pieces: list[str] = []
    spans: list[tuple[int, int]] = []
    at = 0
    runs = groupby(
        zip(encoded.ids, encoded.trained.tolist(), strict=True),
        key=lambda pair: (pair[0] in not_text, pair[1]),
    )
    for (special, trained), run in runs:
        text = tokenizer.decode([token for token, _ in run])
        if trained and not special and text:
            spans.append((at, at + len(text)))
        pieces.append(text)
        at += len(text)
    return "".join(pieces), spans


def special_ids(tokenizer: EtudeTokenizer) -> frozenset[int]:
    """Return the ids of the special tokens, which stand for no text."""
    added = tokenizer.backend.get_added_tokens_decoder()
    return frozenset({tokenizer.roles.document_id, *(id for id, token in added.items() if token.special)})
