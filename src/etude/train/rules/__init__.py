"""Update rules: how a gradient becomes a change of the weights. One file for each rule."""

from __future__ import annotations

from etude.train.rules.chosen import rates_of, register, rule_named, rule_of, rules_in_use
from etude.train.rules.contract import (
    ROLES,
    Definition,
    Explanation,
    Hyperparameters,
    Parameter,
    Rate,
    Tolerances,
    UpdateRule,
    rate_at_width,
    weight_decay_of,
)
from etude.train.rules.terms import NumberUpdate, constant, sign, sqrt

__all__ = [
    "ROLES",
    "Definition",
    "Explanation",
    "Hyperparameters",
    "NumberUpdate",
    "Parameter",
    "Rate",
    "Tolerances",
    "UpdateRule",
    "constant",
    "rate_at_width",
    "rates_of",
    "register",
    "rule_named",
    "rule_of",
    "rules_in_use",
    "sign",
    "sqrt",
    "weight_decay_of",
]
