"""Build a network from its configuration and initialise its weights."""

from __future__ import annotations

import torch

from etude.model.config import ModelConfig
from etude.model.init import InitSettings, initialise
from etude.model.language_model import LanguageModel
from etude.model.layers import RotaryPositions
from etude.model.lora import add_adapter


def empty_model(config: ModelConfig) -> LanguageModel:
    """Build the network on the "meta" device: parameter names and shapes without any memory."""
    with torch.device("meta"):
        model = config.family.network(config)
        add_adapter(model, config)
        return model


def materialise(
    model: LanguageModel, device: torch.device | str, dtype: torch.dtype = torch.float32
) -> LanguageModel:
    """Allocate the memory of a meta network on `device`.

    Parameters are uninitialised; the rotary tables are filled, in float32.
    """
    model.to_empty(device=device)
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)
    return fill_buffers(model, device)


def fill_buffers(model: LanguageModel, device: torch.device | str) -> LanguageModel:
    """Allocate and fill the rotary tables: no state dict holds them, since they follow from the configuration."""
    for module in model.modules():
        if isinstance(module, RotaryPositions):
            module.to_empty(device=device)
            module.reset_buffers()
    return model


def zero_model(config: ModelConfig, device: torch.device | str = "cpu") -> LanguageModel:
    """Build a network in float32 whose parameters are zeros, to be loaded."""
    model = materialise(empty_model(config), device)
    for parameter in model.parameters():
        torch.nn.init.zeros_(parameter)
    return model


def build_model(
    config: ModelConfig,
    *,
    seed: int = 0,
    device: torch.device | str = "cpu",
    init: InitSettings | None = None,
) -> LanguageModel:
    """Build a network in float32 and initialise it: a function of (config, seed, init) alone.

    Raises:
        InputError: the configuration is impossible.
    """
    model = materialise(empty_model(config), device)
    initialise(model, config, seed, init)
    return model
