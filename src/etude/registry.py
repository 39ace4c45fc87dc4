"""Registries of named implementations (model families, update rules, ...): built-in ones, and those of plugins.

A plugin is a Python module that registers implementations when it is imported. Etude finds plugins in two ways:

- ``ETUDE_PLUGINS``: names of modules, or paths that end in ``.py``, separated by commas;
- an installed package with an entry point in the group ``etude.plugins``.

Plugins are imported when a name is not built in, or when all names are listed, so a process that uses only built-in
implementations pays nothing. Processes that Etude starts (ranks, workers) inherit the variable. A run folder cannot
name a plugin: it may come from a stranger, and opening it must not run code.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from threading import RLock
from typing import Any, Generic, TypeVar

from etude.errors import InputError
from etude.messages import either, nearest_key

T = TypeVar("T")
VARIABLE = "ETUDE_PLUGINS"
ENTRY_POINTS = "etude.plugins"
_LONGEST_NAME = 60
"""Most characters of an unknown name in a message."""
_loading = RLock()
_loaded = False


class Registry(Generic[T]):
    """Implementations of one kind, by name. Built-in ones are imported at their first use.

    Args:
        kind: the name of the kind in messages, such as ``update rule``.
        builtin: the location of each built-in implementation, as ``module:attribute``.
        check: the location of a function that raises InputError for an incomplete implementation.
    """

    def __init__(self, kind: str, builtin: Mapping[str, str], check: str) -> None:
        self.kind = kind
        self._builtin, self._check = dict(builtin), check
        self._known: dict[str, T] = {}

    def register(self, name: str, implementation: T) -> None:
        """Check ``implementation``, and add it under ``name``.

        Raises:
            InputError: it is incomplete, or the name is taken.
        """
        if name in self._builtin or self._known.get(name, implementation) is not implementation:
            raise InputError(f"the name {_shown(name)} is taken by another {self.kind}: choose another name")
        self._known[name] = implementation  # before the check, which may get it by name
        try:
            _load_object(self._check)(implementation)
        except InputError:
            del self._known[name]
            raise

    def get(self, name: str) -> T:
        """Return the implementation with this ``name``.

        Raises:
            InputError: the name is unknown; the message lists the known names, and suggests the most similar.
        """
        self.require(name)
        if name not in self._known:
            self._known[name] = _load_object(self._builtin[name])
        return self._known[name]

    def require(self, name: str) -> None:
        """Raise InputError unless ``name`` is known, without importing a built-in implementation."""
        if name in self._known or name in self._builtin or name in self.names():
            return
        names = self.names()
        nearest = nearest_key(name, names)
        meant = "" if nearest is None else f"did you mean '{nearest}'? "
        raise InputError(
            f"there is no {self.kind} {_shown(name)}: {meant}choose {either(names)}, or name the module that "
            f"registers another in {VARIABLE}"
        )

    def names(self) -> list[str]:
        """Load the plugins, and return all names, the built-in ones first."""
        load_plugins()
        return [*self._builtin, *(name for name in self._known if name not in self._builtin)]


def load_plugins() -> None:
    """Import all plugins, at the first call in a process.

    Raises:
        InputError: a plugin cannot be imported, or registers an incomplete implementation.
    """
    from importlib.metadata import entry_points  # rarely needed, and slow to import

    global _loaded
    with _loading:
        if _loaded:
            return
        _loaded = True  # first: a plugin may list names while it is imported
        try:
            for location in filter(None, map(str.strip, os.environ.get(VARIABLE, "").split(","))):
                _load(f"{location!r} of {VARIABLE}", partial(_import, location))
            for point in entry_points(group=ENTRY_POINTS):
                _load(f"{point.value!r} of the entry points {ENTRY_POINTS}", point.load)
        except InputError:
            _loaded = False  # the next call reports the error again
            raise


def _load(description: str, load: Callable[[], Any]) -> None:
    """Import a plugin with ``load``, and convert its errors into InputError."""
    try:
        load()
    except InputError as error:
        raise InputError(f"the plugin {description} is refused: {error}") from None
    except Exception as error:  # a plugin may raise anything
        raise InputError(
            f"the plugin {description} cannot be imported ({_in_one_line(error)}): repair it, or do not load it"
        ) from error


def _import(location: str) -> None:
    """Import a plugin by the name of its module, or by the path of its file."""
    if not location.endswith(".py"):
        importlib.import_module(location)
        return
    path = Path(location).expanduser()
    name = path.stem
    if name in sys.modules:
        return
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None  # the path ends in .py
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise


def _load_object(location: str) -> Any:
    """Import and return the object at ``module:attribute``."""
    module, _, attribute = location.partition(":")
    return getattr(importlib.import_module(module), attribute)


def _shown(name: str) -> str:
    """Return a name in quotes, shortened, with its control characters escaped."""
    return repr(name[:_LONGEST_NAME])


def checked_call(description: str, function: Callable[..., T], *arguments: Any) -> T:
    """Call a function of an implementation that is being checked, and return its result.

    Raises:
        InputError: the function raised it, or any other error, which the message reports after ``description``.
    """
    try:
        return function(*arguments)
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"{description} fails ({_in_one_line(error)})") from error


def _in_one_line(error: Exception) -> str:
    """Return the type and the message of an error, on one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())


def known_name(registry: Registry[Any], setting: str, name: str) -> str:
    """Return ``name`` if ``registry`` knows it. Otherwise raise InputError with the name of the ``setting``."""
    try:
        registry.require(name)
    except InputError as error:
        raise InputError(f"setting '{setting}': {error}") from None
    return name


UPDATE_RULES: Registry[Any] = Registry(
    "update rule",
    {"muon": "etude.train.rules.muon:RULE", "adamw": "etude.train.rules.adamw:RULE"},
    "etude.train.rules.trial:require_complete",
)
"""Values of ``train.optimizer``. Each is an :class:`etude.train.rules.UpdateRule`."""

OBJECTIVES: Registry[Any] = Registry(
    "objective",
    {
        "next-token": "etude.train.objectives.next_token:OBJECTIVE",
        "answer-only": "etude.train.objectives.answer_only:OBJECTIVE",
        "conversation": "etude.train.objectives.conversation:OBJECTIVE",
        "preference": "etude.train.objectives.preference:OBJECTIVE",
        "reward": "etude.generate.reward:OBJECTIVE",
    },
    "etude.train.objectives.contract:require_kind",
)
"""Values of ``train.objective``. Each is an :class:`etude.train.objectives.ObjectiveKind`."""

MODEL_FAMILIES: Registry[Any] = Registry(
    "model family",
    {
        name: f"etude.model.families.{name}:FAMILY"
        for name in ("llama", "qwen3", "gpt2", "mlp", "gpt_neox", "olmo2", "qwen2", "smollm3", "gemma3_text")
    },
    "etude.model.families.trial:require_complete",
)
"""Values of ``model.preset``, and of ``model_type`` in a config.json. Each is an
:class:`etude.model.families.Family`."""

TEXT_PROBES: Registry[Any] = Registry(
    "probe from text",
    {
        "wordness": "etude.evaluate.text_probes.words:wordness",
        "word-order": "etude.evaluate.text_probes.order:word_order",
        "far-context": "etude.evaluate.text_probes.far_context:far_context",
        "induction": "etude.evaluate.text_probes.induction:induction",
        "entity-recall": "etude.evaluate.text_probes.entities:entity_recall",
        "closure": "etude.evaluate.text_probes.closure:closure",
    },
    "etude.evaluate.text_probes.trial:require_complete",
)
"""Probes of the suite ``text``, which are built from any text with words. Each is a function from
:class:`etude.evaluate.text_probes.passages.Material` to a list of
:class:`etude.evaluate.text_probes.proposal.Proposal`."""

TASK_PROBES: Registry[Any] = Registry(
    "probe of tasks",
    {
        "strings": "etude.evaluate.task_probes.strings:string_probes",
        "lookups": "etude.evaluate.task_probes.lookups:lookup_probes",
        "facts": "etude.evaluate.task_probes.facts:fact_probes",
    },
    "etude.evaluate.task_probes.trial:require_complete",
)
"""Probes of the suite ``tasks``: exercises like those of ``builtin:tasks``. Each is a function from a seed and a number
of items to a list of :class:`etude.evaluate.items.Probe`."""
