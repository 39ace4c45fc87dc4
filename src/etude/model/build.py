"""From a configuration to a network with its first weights."""

from __future__ import annotations

import torch

from etude.model.config import ModelConfig
from etude.model.init import InitSettings, initialise
from etude.model.language_model import LanguageModel
from etude.model.layers import RotaryPositions


def empty_model(config: ModelConfig) -> LanguageModel:
    """The network without memory (device "meta"): its names and shapes, at any size, at no cost."""
    with torch.device("meta"):
        return config.family.network(config)


def materialise(
    model: LanguageModel, device: torch.device | str, dtype: torch.dtype = torch.float32
) -> LanguageModel:
    """Give an empty network memory on `device`: parameters unset, tables of rotary positions filled (in
    float32).
    """
    model.to_empty(device=device)
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)
    for module in model.modules():
        if isinstance(module, RotaryPositions):
            module.reset_buffers()
    return model


def build_model(
    config: ModelConfig,
    *,
    seed: int = 0,
    device: torch.device | str = "cpu",
    init: InitSettings | None = None,
) -> LanguageModel:
    """A network in float32 with its first weights: a function of (config, seed) alone.

    Raises InputError when the configuration is impossible.
    """
    model = materialise(empty_model(config), device)
    initialise(model, config, seed, init)
    return model
