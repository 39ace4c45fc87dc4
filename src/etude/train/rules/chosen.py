"""Which rule moves which parameter: the one that ``train.optimizer`` names wherever it may, AdamW the rest."""

from __future__ import annotations

from etude.registry import UPDATE_RULES
from etude.train.rules.contract import ROLES, Parameter, Rate, UpdateRule

REST = "adamw"
"""The rule of the parameters that the chosen one may not take; it may take all."""


def register(rule: UpdateRule) -> None:
    """Make a rule known under its name, as a value of ``train.optimizer``.

    Raises:
        InputError: the rule lacks something, its descriptions of the update disagree, or the name is taken.
    """
    UPDATE_RULES.register(getattr(rule, "name", ""), rule)


def rule_named(name: str) -> UpdateRule:
    """Return the rule of a name.

    Raises:
        InputError: there is none; the message has the names there are.
    """
    found: UpdateRule = UPDATE_RULES.get(name)
    return found


def rules_in_use(chosen: UpdateRule) -> tuple[UpdateRule, ...]:
    """Return the rules of a run with this one as its optimizer, the chosen one last."""
    return (chosen,) if chosen.moves >= ROLES else (rule_named(REST), chosen)


def rule_of(parameter: Parameter, chosen: UpdateRule) -> UpdateRule:
    """Return the rule that moves a parameter in a run with ``chosen`` as its optimizer."""
    return chosen if parameter.role in chosen.moves else rule_named(REST)


def rates_of(optimizer: str) -> dict[str, Rate]:
    """Return the peak rates of a run with this optimizer, by setting, with the dial's values.

    Raises:
        InputError: there is no such rule.
    """
    return {key: rate for rule in rules_in_use(rule_named(optimizer)) for key, rate in rule.rates.items()}
