"""Score a held-out text with a network, a few documents at a time, and sum the results."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from etude.data.tokens.parts import TokenPart
from etude.data.tokens.tokenizer import EtudeTokenizer
from etude.errors import InputError
from etude.evaluate.text_measures import ScoredDocument, TextMeasures, TextSums
from etude.generate.scoring import score_sequences, tokens_seen
from etude.model.language_model import LanguageModel

_BATCH_BYTES = 1 << 18
"""Source text whose tokens and scores are held at a time; longer documents are processed alone."""
_BATCH_DOCUMENTS = 256
_COUNTED_AT_ONCE = 1 << 22

Named = tuple[str, str]
"""A document's name and its text."""
Report = Callable[[int, int], None]
"""Progress callback (documents scored, bytes scored)."""


class BytesDisagree(AssertionError, InputError):
    """The tokens of a document do not decode to its text, so bits per byte would be wrong."""


def measure_text(
    model: LanguageModel,
    tokenizer: EtudeTokenizer,
    documents: Iterable[Named],
    *,
    token_counts: NDArray[np.int64] | None = None,
    batch_size: int = 16,
    report: Report | None = None,
) -> TextMeasures:
    """Measure `documents`, each read from its own beginning after the token that begins a document.

    token_counts: of the training text, from `count_tokens`. Raises InputError if there is no text, and BytesDisagree
    (an AssertionError) if tokens decode to a different text.
    """
    sums = TextSums(token_counts)
    add_documents(sums, model, tokenizer, documents, batch_size=batch_size, report=report)
    return sums.measures()


def add_documents(
    sums: TextSums,
    model: LanguageModel,
    tokenizer: EtudeTokenizer,
    documents: Iterable[Named],
    *,
    first_number: int = 0,
    batch_size: int = 16,
    report: Report | None = None,
) -> None:
    """Score `documents` and add them to `sums`; `first_number` is the first one's number in the whole text."""
    done_documents = done_bytes = 0
    for batch in _batches(documents):
        named = [(name, tokenizer.normalise(text)) for name, text in batch]
        filled = [(at, name, text) for at, (name, text) in enumerate(named, done_documents) if text]
        sums.empty += len(batch) - len(filled)
        encoded = tokenizer.encode_batch([text for _, _, text in filled])
        for (_, name, text), ids in zip(filled, encoded, strict=True):
            require_same_text(name, text, tokenizer.decode(ids))
        whole = [[tokenizer.roles.document_id, *ids] for ids in encoded]
        scored = score_sequences(model, whole, batch_size=batch_size)
        for (at, name, text), ids, scores in zip(filled, encoded, scored, strict=True):
            seen = tokens_seen(len(ids), model.config.max_position_embeddings)
            num_bytes = len(text.encode())
            sums.add(
                ScoredDocument(
                    first_number + at,
                    name,
                    num_bytes,
                    np.array(ids, np.int64),
                    seen,
                    scores.logprobs,
                    scores.credits,
                    scores.confidences,
                    scores.briers,
                )
            )
            done_bytes += num_bytes
        done_documents += len(batch)
        if report is not None:
            report(done_documents, done_bytes)


def count_tokens(part: TokenPart, vocab_size: int) -> NDArray[np.int64]:
    """Count how often each token occurs in a part, by id; the part is read piece by piece."""
    counts = np.zeros(vocab_size, np.int64)
    for shard in part.shards:
        for start in range(0, len(shard), _COUNTED_AT_ONCE):
            counts += np.bincount(shard[start : start + _COUNTED_AT_ONCE], minlength=vocab_size)
    return counts


def _batches(documents: Iterable[Named]) -> Iterator[list[Named]]:
    """Yield consecutive documents, as many at a time as fit."""
    batch: list[Named] = []
    size = 0
    for document in documents:
        if batch and (size + len(document[1]) > _BATCH_BYTES or len(batch) == _BATCH_DOCUMENTS):
            yield batch
            batch, size = [], 0
        batch.append(document)
        size += len(document[1])
    if batch:
        yield batch


def require_same_text(name: str, text: str, decoded: str) -> None:
    """Raise BytesDisagree if the tokens of a document decode to another text."""
    if decoded == text:
        return
    pairs = zip(text, decoded, strict=False)
    at = next((at for at, (a, b) in enumerate(pairs) if a != b), min(len(text), len(decoded)))
    expected, actual = (repr("".join(islice(content, at, at + 12))) for content in (text, decoded))
    raise BytesDisagree(
        f"document {name}: its tokens decode to another text from character {at} on ({actual}, not {expected}), so "
        "bits per byte would be wrong: use the model's own tokenizer, or omit the document"
    )
