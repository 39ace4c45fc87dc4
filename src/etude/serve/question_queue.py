"""The questions that wait for the worker, and the order in which it takes them."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass
class QueuedQuestion:
    """A question in the queue.

    Attributes:
        number: identifies it.
        question: its fields, as received.
        left: steps that its replay had left when it was last preempted.
    """

    number: Any
    question: Any
    left: float = math.inf

    @property
    def is_chat(self) -> bool:
        return isinstance(self.question, dict) and self.question.get("look") == "chat"


class QuestionQueue:
    """Questions in order of arrival, except that quick ones go first. Thread-safe.

    Args:
        is_quick: whether answering a question costs little in the current state.
    """

    def __init__(self, is_quick: Callable[[Any], bool]) -> None:
        self._is_quick = is_quick
        self._waiting: list[QueuedQuestion] = []
        self._begun: set[Any] = set()
        self._cancelled: set[Any] = set()
        self._changed = threading.Condition()

    def add(self, waiting: QueuedQuestion) -> None:
        """Append a question."""
        with self._changed:
            self._waiting.append(waiting)
            self._changed.notify_all()

    def put_back(self, waiting: QueuedQuestion) -> None:
        """Put a preempted question at the front, to be resumed."""
        with self._changed:
            self._begun.discard(waiting.number)
            self._waiting.insert(0, waiting)

    def take(self, *, wait: bool, chats: bool) -> QueuedQuestion | None:
        """Return the next question and mark it as running; None if there is none.

        Args:
            wait: block until there is one.
            chats: whether chats may start too.
        """
        with self._changed:
            while True:
                ready = [queued for queued in self._waiting if chats or not queued.is_chat]
                if ready or not wait:
                    break
                self._changed.wait()
            if not ready:
                return None
            taken = next((queued for queued in ready if self._is_quick(queued.question)), ready[0])
            self._waiting.remove(taken)
            self._begun.add(taken.number)
            return taken

    def has_quick(self, *, chats: bool) -> bool:
        """Return whether a quick question waits; with ``chats``, chats count too."""
        with self._changed:
            ready = [queued for queued in self._waiting if chats or not queued.is_chat]
        return any(self._is_quick(queued.question) for queued in ready)

    def cancel(self, number: Any) -> bool:
        """Cancel a question. Returns True if it had not started; a running one is only marked."""
        with self._changed:
            if number in self._begun:
                self._cancelled.add(number)
                return False
            before = len(self._waiting)
            self._waiting = [queued for queued in self._waiting if queued.number != number]
            return len(self._waiting) < before

    def is_cancelled(self, number: Any) -> bool:
        """Return whether a running question was cancelled."""
        with self._changed:
            return number in self._cancelled

    def unanswered(self) -> list[object]:
        """Return the numbers of the questions that wait or run."""
        with self._changed:
            return [*(queued.number for queued in self._waiting), *self._begun]

    def forget(self, number: Any) -> None:
        """Remove an answered question."""
        with self._changed:
            self._begun.discard(number)
            self._cancelled.discard(number)
