"""Model families: one file declares everything specific to a family; all other code uses the declaration."""

from __future__ import annotations

from etude.model.families.contract import Family
from etude.registry import MODEL_FAMILIES

__all__ = ["Family", "family_named", "register"]


def family_named(name: str) -> Family:
    """Return the declaration of a family.

    Raises:
        InputError: no family has that name; the message lists the names.
    """
    family: Family = MODEL_FAMILIES.get(name)
    return family


def register(family: Family) -> None:
    """Make a family known under its name, as a value of ``model.preset`` and as a ``model_type`` of config.json.

    Raises:
        InputError: the declaration is incomplete or does not fit its network, or the name is taken.
    """
    MODEL_FAMILIES.register(getattr(family, "name", ""), family)
