"""A question from the page. It is untrusted: every field is checked when it is read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from etude.errors import InputError
from etude.messages import command
from etude.run.published_history import PublishedHistory
from etude.serve.collection import Collection
from etude.untrusted import shown as _shown

if TYPE_CHECKING:
    from etude.data.conversations.conversation import Message

MOST_CHARACTERS = 200_000
MOST_ITEMS = 1_000
MOST_TOKENS = 200_000
MOST_NUMBER = 2**53
NO_HISTORY = "{name} is a model without a history of training: start one with  {train}"
WRITES = ("fork",)
"""The looks that write into the folder of runs."""


def no_record(name: str, path: Path) -> str:
    """Return why a model, or a history that Etude did not record, has no answer that needs the record of a run.

    Raises:
        InputError: the versions in the folder do not fit together.
    """
    history = PublishedHistory.at(path)
    if history is not None:
        return history.refusal
    return NO_HISTORY.format(name=_shown(name), train=command("train", "TEXT", "--from", path))


class Question:
    """The fields of a question. Each is checked when it is read; InputError names what is expected."""

    def __init__(self, fields: Any) -> None:
        if not isinstance(fields, Mapping):
            raise InputError("a question is a JSON object: run, look, and what the look needs")
        self._fields = fields

    def __contains__(self, name: str) -> bool:
        return self._fields.get(name) is not None

    def place(self, shown: Collection) -> Path:
        """Return the folder of the run or model in question."""
        return shown.path(self.text("run"))

    def run(self, shown: Collection) -> Path:
        """Return the folder of the run in question.

        Raises:
            InputError: there is no such run, or a model has that name.
        """
        path = self.place(shown)
        if not (path / "run.toml").is_file():
            raise InputError(no_record(path.name, path))
        return path

    @property
    def writes(self) -> bool:
        """Whether answering writes into the folder of runs."""
        return self._fields.get("look") in WRITES

    def number(self, name: str, default: int | None = None) -> int:
        """Return a whole number from 0 on."""
        value = self._fields.get(name)
        if value is None and default is not None:
            return default
        if type(value) is not int or not 0 <= value <= MOST_NUMBER:
            raise InputError(f"'{name}' must be a whole number from 0 on, not {_shown(value)}")
        return value

    def real(self, name: str, default: float) -> float:
        """Return a number."""
        value = self._fields.get(name)
        if value is None:
            return default
        if type(value) not in (int, float) or not abs(value) <= MOST_NUMBER:
            raise InputError(f"'{name}' must be a number, not {_shown(value)}")
        return float(value)

    def numbers(self, name: str, count: int | None = None, most: int = MOST_ITEMS) -> list[int]:
        """Return a list of at most ``most`` whole numbers from 0 on, ``count`` of them if given."""
        value = self._fields.get(name)
        if not isinstance(value, list) or len(value) > most or count not in (None, len(value)):
            many = "" if count is None else f"{count} "
            raise InputError(f"'{name}' must be a list of {many}whole numbers, not {_shown(value)}")
        return [Question({name: item}).number(name) for item in value]

    def passage(self) -> str | tuple[int, ...]:
        """Return what is to be read: the tokens ``ids``, or else the text ``text``."""
        return tuple(self.numbers("ids", most=MOST_TOKENS)) if "ids" in self else self.text("text")

    def messages(self) -> list[Message]:
        """Return a conversation that ends with a question."""
        from etude.generate.chat_prompt import messages_of, require_question

        value = self._fields.get("messages")
        if not isinstance(value, list) or len(value) > MOST_ITEMS:
            raise InputError(f"'messages' must be a list of at most {MOST_ITEMS:,} messages")
        messages = messages_of(value)
        require_question(messages)
        if sum(len(message.content) for message in messages) > MOST_CHARACTERS:
            raise InputError(f"'messages' must have at most {MOST_CHARACTERS:,} characters: begin another")
        return messages

    def text(self, name: str) -> str:
        """Return a text."""
        value = self._fields.get(name)
        if not isinstance(value, str) or len(value) > MOST_CHARACTERS:
            raise InputError(f"'{name}' must be a text of at most {MOST_CHARACTERS:,} characters")
        return value

    def texts(self, name: str) -> list[str]:
        """Return a list of texts."""
        value = self._fields.get(name)
        if not isinstance(value, list) or len(value) > MOST_ITEMS:
            raise InputError(f"'{name}' must be a list of texts")
        return [Question({name: item}).text(name) for item in value]

    def choice(self, name: str, choices: tuple[str, ...]) -> str:
        """Return one of ``choices``."""
        value = self._fields.get(name)
        if value not in choices:
            raise InputError(f"'{name}' must be one of {', '.join(choices)}, not {_shown(value)}")
        return str(value)
