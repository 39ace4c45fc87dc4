"""The questions that wait for the worker, and which of them comes next."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass
class Waiting:
    """A question in the line.

    Attributes:
        number: names it.
        question: its fields, as they were sent.
        left: steps that a replay had left when it was last put aside.
    """

    number: Any
    question: Any
    left: float = math.inf

    @property
    def is_chat(self) -> bool:
        return isinstance(self.question, dict) and self.question.get("look") == "chat"


class Line:
    """Questions in the order in which they came, of which those that are quick go first. For use by several threads.

    Args:
        is_quick: whether a question costs little, as things stand.
    """

    def __init__(self, is_quick: Callable[[Any], bool]) -> None:
        self._is_quick = is_quick
        self._waiting: list[Waiting] = []
        self._begun: set[Any] = set()
        self._cancelled: set[Any] = set()
        self._changed = threading.Condition()

    def add(self, waiting: Waiting) -> None:
        """To the end."""
        with self._changed:
            self._waiting.append(waiting)
            self._changed.notify_all()

    def put_back(self, waiting: Waiting) -> None:
        """To the front: it was begun and is to be resumed."""
        with self._changed:
            self._begun.discard(waiting.number)
            self._waiting.insert(0, waiting)

    def take(self, *, wait: bool, chats: bool) -> Waiting | None:
        """The next question, which has then begun; None where there is none.

        ``wait``: until there is one. ``chats``: chats may begin too.
        """
        with self._changed:
            while True:
                ready = [one for one in self._waiting if chats or not one.is_chat]
                if ready or not wait:
                    break
                self._changed.wait()
            if not ready:
                return None
            found = next((one for one in ready if self._is_quick(one.question)), ready[0])
            self._waiting.remove(found)
            self._begun.add(found.number)
            return found

    def has_quick(self, *, chats: bool) -> bool:
        """Whether a quick question waits; ``chats``: one of these counts too."""
        with self._changed:
            ready = [one for one in self._waiting if chats or not one.is_chat]
        return any(self._is_quick(one.question) for one in ready)

    def cancel(self, number: Any) -> bool:
        """Nobody waits for a question any more. Returns whether it left the line; one at work ends by itself."""
        with self._changed:
            if number in self._begun:
                self._cancelled.add(number)
                return False
            before = len(self._waiting)
            self._waiting = [one for one in self._waiting if one.number != number]
            return len(self._waiting) < before

    def is_cancelled(self, number: Any) -> bool:
        """Whether nobody waits for a question any more that is at work."""
        with self._changed:
            return number in self._cancelled

    def forget(self, number: Any) -> None:
        """A question was answered."""
        with self._changed:
            self._begun.discard(number)
            self._cancelled.discard(number)
