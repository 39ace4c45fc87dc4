"""Even sampling of a stream: bounded, repeatable, spread over the whole, and exact when all of it fits."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from etude.evaluate.sampling import PIECE_BYTES, evenly_spaced


@given(st.lists(st.binary(max_size=50), max_size=30))
def test_everything_is_kept_when_it_fits(documents: list[bytes]) -> None:
    sample = evenly_spaced(iter(documents), 10**6)
    assert sample.documents == [document for document in documents if document]
    assert sample.num_bytes == sample.corpus_bytes == sum(map(len, documents))


@given(st.lists(st.binary(max_size=50), max_size=60), st.integers(1, 300))
def test_never_above_the_cap_and_never_invented(documents: list[bytes], cap: int) -> None:
    sample = evenly_spaced(iter(documents), cap)
    assert sample.num_bytes <= cap
    assert sample.corpus_bytes == sum(map(len, documents))
    assert all(any(kept in document for document in documents) for kept in sample.documents)
    assert bool(sample.documents) == any(documents)


def test_the_kept_documents_are_spread_evenly() -> None:
    documents = [number.to_bytes(4, "big") for number in range(10_000)]
    kept = [int.from_bytes(document, "big") for document in evenly_spaced(documents, 4_000).documents]
    assert kept == list(range(0, 10_000, 16))


def test_a_long_document_is_whole_below_the_cap_and_spread_above_it() -> None:
    text = bytes(number % 251 for number in range(10 * PIECE_BYTES + 77))
    assert evenly_spaced([text], len(text)).documents == [text]
    pieces = evenly_spaced([text], 4 * PIECE_BYTES).documents
    assert [text.index(piece, number * 4 * PIECE_BYTES) for number, piece in enumerate(pieces)] == [
        0,
        4 * PIECE_BYTES,
        8 * PIECE_BYTES,
    ]


def test_memory_holds_the_cap_and_not_the_stream() -> None:
    import tracemalloc

    tracemalloc.start()
    sample = evenly_spaced((b"x" * 1000 for _ in range(100_000)), 1_000_000)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert sample.corpus_bytes == 100_000_000
    assert peak < 3_000_000
