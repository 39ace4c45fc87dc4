"""A question from the page, read with care: it may come from anywhere."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from etude.errors import InputError
from etude.untrusted import inside, shown

MOST_CHARACTERS = 200_000
MOST_ITEMS = 1_000
MOST_NUMBER = 2**53


WRITES = ("fork",)
"""The looks that write into the folder of the runs."""


class Asked:
    """The fields of a question; each is checked when it is read, and InputError says what should be there."""

    def __init__(self, fields: Any) -> None:
        if not isinstance(fields, Mapping):
            raise InputError("a question is a JSON object: run, look, and what the look needs")
        self._fields = fields

    def __contains__(self, name: str) -> bool:
        return self._fields.get(name) is not None

    def run(self, runs: Path) -> Path:
        """The folder of the run that is asked about, in ``runs``."""
        path = inside(runs, self.text("run"))
        if not (path / "run.toml").is_file():
            raise InputError(f"there is no run called '{shown(path.name)}'")
        return path

    @property
    def writes(self) -> bool:
        """Whether the answer to it writes into the folder of the runs."""
        return self._fields.get("look") in WRITES

    def number(self, name: str, otherwise: int | None = None) -> int:
        """A whole number from 0 on."""
        value = self._fields.get(name)
        if value is None and otherwise is not None:
            return otherwise
        if type(value) is not int or not 0 <= value <= MOST_NUMBER:
            raise InputError(f"'{name}' is a whole number from 0 on, not {shown(value)}")
        return value

    def real(self, name: str, otherwise: float) -> float:
        value = self._fields.get(name)
        if value is None:
            return otherwise
        if type(value) not in (int, float) or not abs(value) <= MOST_NUMBER:
            raise InputError(f"'{name}' is a number, not {shown(value)}")
        return float(value)

    def numbers(self, name: str, count: int | None = None) -> list[int]:
        """A list of whole numbers from 0 on; of ``count`` of them where that is given."""
        value = self._fields.get(name)
        if not isinstance(value, list) or len(value) > MOST_ITEMS or count not in (None, len(value)):
            many = "" if count is None else f"{count} "
            raise InputError(f"'{name}' is a list of {many}whole numbers, not {shown(value)}")
        return [Asked({name: one}).number(name) for one in value]

    def text(self, name: str) -> str:
        value = self._fields.get(name)
        if not isinstance(value, str) or len(value) > MOST_CHARACTERS:
            raise InputError(f"'{name}' is a text of at most {MOST_CHARACTERS:,} characters")
        return value

    def texts(self, name: str) -> list[str]:
        value = self._fields.get(name)
        if not isinstance(value, list) or len(value) > MOST_ITEMS:
            raise InputError(f"'{name}' is a list of texts")
        return [Asked({name: one}).text(name) for one in value]

    def choice(self, name: str, choices: tuple[str, ...]) -> str:
        value = self._fields.get(name)
        if value not in choices:
            raise InputError(f"'{name}' is one of {', '.join(choices)}, not {shown(value)}")
        return str(value)
