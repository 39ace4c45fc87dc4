"""Check a rule before it is registered: it must be complete, and its descriptions of an update must agree.

The rule's optimizer makes three updates of a small network with random gradients. After each, the check compares the
weights and the state with the rule's definition in float64 and with the terms of single numbers. Then it replays the
last update from the saved state, which must give the same bits: otherwise a run could not be resumed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from etude.config import ResolvedTrain, known_keys
from etude.device import Device
from etude.errors import InputError
from etude.model.build import build_model
from etude.model.config import preset
from etude.model.language_model import LanguageModel
from etude.train.optimizer import UpdateRules
from etude.train.rules.applied import ParameterUpdate
from etude.train.rules.chosen import REST, rule_named
from etude.train.rules.contract import ROLES, Explanation, Rate, Tolerances, UpdateRule
from etude.train.rules.terms import DIRECTION, FP32, ROUNDINGS

CONFIG = preset(
    "llama",
    vocab_size=23,
    hidden_size=16,
    intermediate_size=24,
    num_hidden_layers=1,
    num_attention_heads=2,
    num_key_value_heads=1,
    max_position_embeddings=8,
)
UPDATES, FACTOR, MOMENTUM = 3, 0.5, 0.9
NUMBERS = 4
"""Numbers of each tensor whose terms are checked."""
STATE_APART = 1e-5
"""Relative difference between state and definition that fp32 explains."""
_CPU = Device("cpu", "fp32", 1)
_NAME = re.compile(r"[a-z][a-z0-9_]*")
_ATTRIBUTES = ("name", "title", "summary", "moves", "rates", "tolerances", "explanation")


def require_complete(rule: Any) -> None:
    """Raise InputError unless ``rule`` is complete and its descriptions agree."""
    problem = _lacks(rule) or next(_disagreements(rule), None)
    if problem is not None:
        name = getattr(rule, "name", None) or getattr(rule, "__name__", type(rule).__name__)
        raise InputError(f"the update rule '{name}' cannot be registered: {problem}")


def _lacks(rule: Any) -> str | None:
    """Return a line on what the rule lacks, None for a complete one."""
    if isinstance(rule, type) and issubclass(rule, UpdateRule):
        missing = sorted(rule.__abstractmethods__)
        return f"it does not define {', '.join(missing)}" if missing else "give an instance of the class"
    if not isinstance(rule, UpdateRule):
        return "it is not an etude.train.rules.UpdateRule"
    lacking = [name for name in _ATTRIBUTES if not hasattr(rule, name)]
    if lacking:
        return f"it does not define {', '.join(lacking)}"
    if not _NAME.fullmatch(rule.name):
        return "its name must begin with a small letter, and have small letters, digits and _ only"
    if not rule.title or not isinstance(rule.explanation, Explanation) or not rule.explanation.words:
        return "it has no title, or no Explanation in words"
    if not rule.moves or not rule.moves <= ROLES:
        return f"`moves` must be some of {', '.join(sorted(ROLES))}"
    wrong = [key for key in rule.rates if not key.startswith("train.") or key not in known_keys()]
    if wrong or not rule.rates:
        return f"`rates` must be settings of train, such as train.lr; got {', '.join(wrong) or 'none'}"
    if any(not isinstance(rate, Rate) or not 0 < rate.value < math.inf for rate in rule.rates.values()):
        return "each of its rates must be a Rate above 0"
    others = {} if rule.moves >= ROLES else rule_named(REST).rates
    shared = [key for key in rule.rates if key in others and rule.rates[key].value != others[key].value]
    if shared:
        return f"{shared[0]} is the rate of the parameters that it may not move: choose another setting for its own"
    return None if isinstance(rule.tolerances, Tolerances) else "`tolerances` must be a Tolerances"


def _disagreements(rule: UpdateRule) -> Iterator[str]:
    """Yield a line for each disagreement in the updates of a small network."""
    rates: dict[str, float] = {"lr": 0.01, "muon_lr": 0.01}
    rates |= {key.removeprefix("train."): rate.value for key, rate in rule.rates.items()}
    settings = ResolvedTrain.model_validate({**rates, "weight_decay": 0.1, "steps": UPDATES})
    generator = torch.Generator().manual_seed(2)
    model = build_model(CONFIG, seed=1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.1)
    rules = UpdateRules(model, settings, _CPU, rule)
    for _ in range(UPDATES):
        gradients = {n: torch.randn(p.shape, generator=generator) for n, p in model.named_parameters()}
        before, state = _copied(model.state_dict()), _copied(rules.named_state())
        _make_update(model, rules, gradients)
        _, from_zero = _replayed(  # weights of 0 leave the update itself
            settings, rule, {n: torch.zeros_like(w) for n, w in before.items()}, state, gradients
        )
        for update in _updates(rule, rules, model, before, state, gradients):
            yield from _wrong_with_state(update)
            yield from _wrong_with_definition(update)
            yield from _wrong_with_terms(update, from_zero[update.name].double())
    replayed_rules, weights = _replayed(settings, rule, before, state, gradients)
    for name, value in replayed_rules.named_state().items():
        if not torch.equal(value, rules.named_state()[name]):
            yield f"an update from its saved state leaves another {name}, so that a run cannot be resumed"
    for name, parameter in model.named_parameters():
        if not torch.equal(parameter, weights[name]):
            yield f"an update from its saved state moves {name} differently, so that a run cannot be resumed"


def _copied(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


def _make_update(model: LanguageModel, rules: UpdateRules, gradients: Mapping[str, Tensor]) -> None:
    for name, parameter in model.named_parameters():
        parameter.grad = gradients[name].clone()
    rules.step(FACTOR, MOMENTUM)


def _replayed(
    settings: ResolvedTrain,
    rule: UpdateRule,
    weights: Mapping[str, Tensor],
    state: Mapping[str, Tensor],
    gradients: Mapping[str, Tensor],
) -> tuple[UpdateRules, dict[str, Tensor]]:
    """Make an update of ``weights`` with a new optimizer; return it and the weights after the update."""
    model = build_model(CONFIG, seed=1)
    model.load_state_dict(weights)
    rules = UpdateRules(model, settings, _CPU, rule)
    rules.load_named_state(state)
    _make_update(model, rules, gradients)
    return rules, _copied(model.state_dict())


def _updates(
    rule: UpdateRule,
    rules: UpdateRules,
    model: LanguageModel,
    before: Mapping[str, Tensor],
    state: Mapping[str, Tensor],
    gradients: Mapping[str, Tensor],
) -> Iterator[ParameterUpdate]:
    """Yield the last update of every parameter that ``rule`` updates."""
    after = rules.named_state()
    for name, used in rules.used().items():
        if used.rule == rule.name:
            leaves = [
                {
                    key.removeprefix(f"{name}."): value
                    for key, value in all_leaves.items()
                    if key.startswith(f"{name}.")
                }
                for all_leaves in (state, after)
            ]
            weight = model.get_parameter(name).detach()
            yield ParameterUpdate(
                rule, name, before[name], weight, gradients[name], 1.0, leaves[0], leaves[1], used
            )


def _wrong_with_state(update: ParameterUpdate) -> Iterator[str]:
    declared = update.rule.state_shapes(update.before.shape)
    actual = {leaf: tuple(value.shape) for leaf, value in update.state_after.items()}
    if actual != declared or any(value.dtype != torch.float32 for value in update.state_after.values()):
        yield f"the state of {update.name} has shapes {actual}; `state_shapes` declares {declared}, all in fp32"


def _wrong_with_definition(update: ParameterUpdate) -> Iterator[str]:
    if not update.difference <= update.rule.tolerances.update + update.rounding:
        yield f"`definition` moves {update.name} differently from `optimizer`"
    for leaf, value in update.state_after.items():
        wanted = update.definition.state.get(leaf, torch.full_like(value, math.nan)).double()
        if not float((value.double() - wanted).norm()) <= STATE_APART * float(wanted.norm()):
            yield f"`definition` leaves another {leaf} of {update.name} than `optimizer`"


def _wrong_with_terms(update: ParameterUpdate, moved_from_zero: Tensor) -> Iterator[str]:
    whole = update.rule.of_whole(moved_from_zero, update.used)
    if sorted(whole) != sorted(update.rule.whole):
        yield f"`of_whole` returns {sorted(whole)}, and `whole` declares {sorted(update.rule.whole)}"
        return
    count: int = update.before.numel()
    for flat in range(0, count, max(1, count // NUMBERS)):
        index = tuple(int(at) for at in torch.unravel_index(torch.tensor(flat), update.before.shape))
        number = update.number(index, {name: float(value[index]) for name, value in whole.items()})
        place = f"{update.name}{list(index)}"
        if not number.terms or number.terms[-1].symbol != DIRECTION:
            yield f"the last of its `terms` must have the symbol {DIRECTION}"
            return
        direction, w = number.terms[-1], float(update.before[index])
        expected = w - update.used.lr * update.used.weight_decay * w - update.used.lr * direction.value
        allowed = ROUNDINGS * FP32 * (abs(w) + update.used.lr * direction.size)
        if not abs(float(update.after[index]) - expected) <= allowed:
            yield f"its `terms` move {place} differently from `optimizer`"
        left = update.leaves(update.state_after, index)
        for term in number.terms:
            if term.leaf and not abs(left[term.leaf] - term.value) <= ROUNDINGS * FP32 * term.size:
                yield f"its term {term.symbol} of {place} is not the {term.leaf} that `optimizer` left"
