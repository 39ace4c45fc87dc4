"""Assign update rules to parameters: the rule of ``train.optimizer`` where it is able to, AdamW elsewhere."""

from __future__ import annotations

from etude.registry import UPDATE_RULES
from etude.train.rules.contract import ROLES, Parameter, Rate, UpdateRule

REST = "adamw"
"""The rule of all parameters that the chosen rule cannot update."""


def register(rule: UpdateRule) -> None:
    """Register a rule under its name, as a value of ``train.optimizer``.

    Raises:
        InputError: the rule is incomplete, its descriptions of the update disagree, or the name is taken.
    """
    UPDATE_RULES.register(getattr(rule, "name", ""), rule)


def rule_named(name: str) -> UpdateRule:
    """Return the rule of a name.

    Raises:
        InputError: unknown name; the message lists the known ones.
    """
    rule: UpdateRule = UPDATE_RULES.get(name)
    return rule


def rules_in_use(chosen: UpdateRule) -> tuple[UpdateRule, ...]:
    """Return the rules of a run with ``chosen`` as its optimizer, ``chosen`` last."""
    return (chosen,) if chosen.moves >= ROLES else (rule_named(REST), chosen)


def rule_of(parameter: Parameter, chosen: UpdateRule) -> UpdateRule:
    """Return the rule that updates a parameter in a run with ``chosen`` as its optimizer."""
    return chosen if parameter.role in chosen.moves else rule_named(REST)


def rates_of(optimizer: str) -> dict[str, Rate]:
    """Return the dial's peak learning rates for a run with this optimizer, by setting.

    Raises:
        InputError: unknown rule.
    """
    return {key: rate for rule in rules_in_use(rule_named(optimizer)) for key, rate in rule.rates.items()}
