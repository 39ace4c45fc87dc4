"""The items of the lm-eval library's tasks that can be asked fairly: all of their words stand in the training text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from etude.errors import InputError
from etude.evaluate.word_coverage import known_words, words_of


@dataclass(frozen=True)
class Covered:
    """Of one task. numbers: of the items that can be asked, in their order; left_out: how many others there are."""

    numbers: Sequence[int]
    left_out: int


def covered_items(tasks: Mapping[str, Any], training_text: Iterable[bytes]) -> dict[str, Covered]:
    """For each task (the library's, by name) which of its items are covered.

    training_text: UTF-8 documents. They are read once, for the words of all tasks together.
    Raises InputError where no item is left of any task.
    """
    words = {
        name: [words_of(" ".join(_texts(task, item))) for item in task.eval_docs]
        for name, task in tasks.items()
    }
    wanted: set[str] = set().union(*(one for items in words.values() for one in items))
    known = known_words(training_text, wanted)
    found = {}
    for name, items in words.items():
        numbers = [at for at, one in enumerate(items) if one <= known]
        found[name] = Covered(numbers, len(items) - len(numbers))
    if not any(one.numbers for one in found.values()):
        raise InputError(
            f"every item of {', '.join(list(found)[:5])} has a word that the training text has not: leave --covered out"
        )
    return found


def _texts(task: Any, item: Any) -> Sequence[str]:
    """What the model is shown of an item, and the answers among which it chooses."""
    told = [task.doc_to_text(item), task.doc_to_target(item)]
    if task.OUTPUT_TYPE == "multiple_choice":
        told += task.doc_to_choice(item)
    return [one for one in told if isinstance(one, str)]  # a number says which of the choices
