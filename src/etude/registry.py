"""Names for things of one kind, such as objectives, that other packages may add to."""

from __future__ import annotations

from typing import Generic, TypeVar

from etude.errors import InputError
from etude.messages import nearest_key
from etude.untrusted import shown

T = TypeVar("T")


class Registry(Generic[T]):
    """Things of one kind by name; ``kind`` is what an error message calls them."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._things: dict[str, T] = {}

    def register(self, name: str, thing: T) -> T:
        """Add ``thing`` under ``name`` and return it.

        Raises:
            ValueError: another thing has that name.
        """
        if self._things.setdefault(name, thing) is not thing:
            raise ValueError(f"another {self.kind} is called '{name}'")
        return thing

    def get(self, name: str) -> T:
        """Return the thing called ``name``.

        Raises:
            InputError: none is; the nearest name is suggested.
        """
        if name not in self._things:
            near = nearest_key(name, self.names())
            hint = f"did you mean '{near}'?" if near else f"there is {', '.join(self.names())}"
            raise InputError(f"there is no {self.kind} '{shown(name)}': {hint}")
        return self._things[name]

    def names(self) -> list[str]:
        """Return the names, sorted."""
        return sorted(self._things)
