"""Model families: what is true of one family alone stands in its file, and everything else asks its declaration."""

from __future__ import annotations

from etude.model.families.contract import Family
from etude.registry import MODEL_FAMILIES

__all__ = ["Family", "family_named"]


def family_named(name: str) -> Family:
    """Return the declaration of a family.

    Raises:
        InputError: no family has that name; the message has those there are.
    """
    family: Family = MODEL_FAMILIES.get(name)
    return family
