"""The kinds of held-out questions: what the rows of the data call themselves, or what a built-in conversation asks."""

from __future__ import annotations

import re
from functools import cache

from etude.data.corpus.corpus import Corpus
from etude.evaluate.tuning.held_out import Question


def kind_of(corpus: Corpus, number: int, question: Question) -> str:
    """Return the kind of a question, from the held-out example of this number; empty where the data do not name it."""
    from etude.data.instructions.generator import SOURCE

    if corpus.name("validation", number)[1].startswith(f"{SOURCE}/"):
        return next((kind for kind, form in _instructions() if form.fullmatch(question.asked)), "")
    return corpus.kind("validation", number)


@cache
def _instructions() -> tuple[tuple[str, re.Pattern[str]], ...]:
    """Return (kind, the form of its questions) for every instruction of the built-in conversations."""
    from etude.data.instructions.generator import INSTRUCTIONS

    return tuple(
        (kind, re.compile(re.sub(r"\\\{\w+\\\}", ".+", re.escape(form))))
        for kind, forms in INSTRUCTIONS.items()
        for form in forms
    )
