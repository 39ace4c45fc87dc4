"""Select the fair items of lm-eval tasks: those whose words all occur in the training text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from etude.errors import InputError
from etude.evaluate.word_coverage import known_words, words_of


@dataclass(frozen=True)
class Covered:
    """The covered items of one task. numbers: their indices, in order; left_out: how many other items there are."""

    numbers: Sequence[int]
    left_out: int


def covered_items(tasks: Mapping[str, Any], training_text: Iterable[bytes]) -> dict[str, Covered]:
    """Find which items of each task (by the library's name) are covered.

    training_text: UTF-8 documents. They are read once, for the words of all tasks together.
    Raises InputError if no item of any task is covered.
    """
    words = {
        name: [words_of(" ".join(_texts(task, item))) for item in task.eval_docs]
        for name, task in tasks.items()
    }
    wanted: set[str] = set().union(*(words_of_item for items in words.values() for words_of_item in items))
    known = known_words(training_text, wanted)
    covered = {}
    for name, items in words.items():
        numbers = [index for index, words_of_item in enumerate(items) if words_of_item <= known]
        covered[name] = Covered(numbers, len(items) - len(numbers))
    if not any(task.numbers for task in covered.values()):
        raise InputError(
            f"every item of {', '.join(list(covered)[:5])} has a word that the training text lacks: omit --covered"
        )
    return covered


def _texts(task: Any, item: Any) -> Sequence[str]:
    """Return what an item shows the model, and the answers to choose from."""
    texts = [task.doc_to_text(item), task.doc_to_target(item)]
    if task.OUTPUT_TYPE == "multiple_choice":
        texts += task.doc_to_choice(item)
    return [text for text in texts if isinstance(text, str)]  # a number is the index of a choice
