"""Built-in text is not searched for near copies when it is prepared: there are hardly any to find.

Among all 37,395 conversations of ``builtin:primer-instructions`` there were none, among the 15,760 tales of
``builtin:primer`` 24. The parts that are searched here have none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from etude.data.conversations.conversation import Example
from etude.data.corpus.duplicates import NearIndex
from etude.data.document import Document
from etude.data.instructions import generator as instructions
from etude.data.primer import generator as primer

Documents = Callable[[int, int | None], Iterator[Document]]


def questions(document: Document) -> str:
    return "\n".join(Example.from_json(document.text).questions())


@pytest.mark.parametrize(
    ("documents", "text_of"),
    [(primer.documents, lambda document: document.text), (instructions.documents, questions)],
    ids=["primer", "instructions"],
)
def test_no_document_is_a_near_copy(documents: Documents, text_of: Callable[[Document], str]) -> None:
    texts = [text_of(document) for document in documents(1337, 150_000)]
    index = NearIndex()
    assert [index.similar(text, number) for number, text in enumerate(texts)] == [[]] * len(texts)
    assert len(texts) > 150
    assert index.similar(f"{texts[7]} That is all.", len(texts)) == [7]
