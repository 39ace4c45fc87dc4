"""Etude: grow a language model from text, and watch it learn.

The public names, each loaded when it is first used, so that ``import etude`` stays quick::

    import etude

    outcome = etude.grow(etude.load_settings(overrides=["train.steps=200"]))
    language = etude.load(outcome.run.path)
    print(language.generate("One day"))
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from etude.config import Settings, load_settings
    from etude.errors import EtudeError, InputError
    from etude.evaluate.loss_plot.plot import plot_runs
    from etude.generate.language import Language, load
    from etude.generate.sampling import SamplingSettings
    from etude.workflow.jobs import grow, resume

__version__ = "0.1.0"
__all__ = [
    "EtudeError",
    "InputError",
    "Language",
    "SamplingSettings",
    "Settings",
    "grow",
    "load",
    "load_settings",
    "plot_runs",
    "resume",
]

_HOMES = {
    "EtudeError": "etude.errors",
    "InputError": "etude.errors",
    "Language": "etude.generate.language",
    "SamplingSettings": "etude.generate.sampling",
    "Settings": "etude.config",
    "load": "etude.generate.language",
    "load_settings": "etude.config",
    "plot_runs": "etude.evaluate.loss_plot.plot",
    "resume": "etude.workflow.jobs",
    "grow": "etude.workflow.jobs",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'etude' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOMES[name]), name)
