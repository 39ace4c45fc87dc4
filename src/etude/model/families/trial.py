"""Check a family before it is registered: build a small network of it, convert it both ways, count it, and run it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from etude.errors import InputError
from etude.model.families.contract import SWITCH_DEFAULTS, Family
from etude.registry import checked_call

if TYPE_CHECKING:
    from torch import Tensor

    from etude.model.config import ModelConfig
    from etude.model.language_model import LanguageModel

SIZES: dict[str, Any] = {"vocab_size": 64, "hidden_size": 32, "max_position_embeddings": 16}


def require_complete(family: Any) -> None:
    """Raise InputError unless the declaration of ``family`` is complete and fits the network that it builds."""
    if not isinstance(family, Family):
        raise InputError(f"a model family is declared by an etude.model.families.Family, not {family!r}")
    try:
        problems = list(_unknown_values(family)) or list(_disagreements(family))
    except InputError as error:
        problems = [str(error)]
    if problems:
        raise InputError(f"the model family {family.name!r} is incomplete: {'; '.join(problems)}")


def _unknown_values(family: Family) -> Iterator[str]:
    """Yield what names something that does not exist."""
    from etude.data.tokens.patterns import PATTERNS
    from etude.model.config import ModelConfig

    known = {field.name for field in dataclasses.fields(ModelConfig)}
    for attribute in ("fixed", "style"):
        if unknown := sorted(set(getattr(family, attribute)) - known):
            yield f"`{attribute}` names {', '.join(unknown)}, which ModelConfig does not have"
    if unknown := sorted(family.free - set(SWITCH_DEFAULTS)):
        yield f"`free` names {', '.join(unknown)}: choose from {', '.join(SWITCH_DEFAULTS)}"
    if family.tokenizer_pattern not in PATTERNS:
        yield f"tokenizer_pattern {family.tokenizer_pattern!r} is unknown: choose from {', '.join(PATTERNS)}"


def _disagreements(family: Family) -> Iterator[str]:
    """Yield where the declaration and a small network of it differ."""
    # Imported late: these modules use the registry, which calls this one.
    from etude.model.build import build_model
    from etude.model.config import preset
    from etude.model.cost import count_parameters
    from etude.model.hf_config import config_from_hf, config_to_hf

    config = checked_call("the configuration", partial(preset, family.name, **SIZES))
    values = checked_call("config_to_hf", config_to_hf, config)
    if checked_call("config_from_hf", config_from_hf, values) != config:
        yield "config_from_hf does not read what config_to_hf writes"
    model = checked_call("network", build_model, config)
    yield from _wrong_tensors(family, config, dict(model.state_dict()))
    counted, real = count_parameters(config).total, sum(p.numel() for p in model.parameters())
    if counted != real:
        yield f"its cost counts {counted} parameters, and the network has {real}"
    yield from _wrong_network(family, model)


def _wrong_tensors(family: Family, config: ModelConfig, state: dict[str, Tensor]) -> Iterator[str]:
    """Yield where names or values of tensors do not survive a round trip."""
    import torch

    saved = checked_call("to_saved", family.to_saved, state, config)
    back = checked_call("from_saved", family.from_saved, saved, config)
    if back.keys() != state.keys() or not all(torch.equal(back[name], state[name]) for name in state):
        yield "from_saved does not invert to_saved"
    if lost := [name for name in saved if family.parameter_name(name) != name]:
        yield f"parameter_name does not keep {lost[0]}, which to_saved writes"


def _wrong_network(family: Family, model: LanguageModel) -> Iterator[str]:
    """Yield where the network is not what the declaration says, or hides what watching needs."""
    import torch

    from etude.model.taps import Taps
    from etude.model.transformer import Transformer

    if family.has_attention is not model.has_attention:
        yield "has_attention differs from the network's"
    if family.decodes_fast and not isinstance(model, Transformer):
        yield "decodes_fast is True, and the network is no etude.model.transformer.Transformer"
    taps = Taps()
    with torch.no_grad():
        inputs = torch.zeros(1, 4, dtype=torch.long)
        logits = checked_call("the network", lambda: model.head(model.hidden(inputs, taps=taps)))
    if tuple(logits.shape) != (1, 4, SIZES["vocab_size"]):
        yield f"the network gives logits of shape {tuple(logits.shape)}, not (B, T, V)"
    if not model.node_layers():
        yield "the network names no layer of neurons (node_layers)"
    for layer in model.node_layers():
        if hidden := sorted(layer.watched - taps.met):
            yield f"the network hands no activation {hidden[0]} to the taps"
        gate = layer.linear(model, layer.gate).weight
        if layer.all_outgoing(model).shape[1] != layer.size or gate.shape != (layer.size, layer.inputs):
            yield f"{layer.path} does not have the sizes that it declares"
