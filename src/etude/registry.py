"""Named things that people choose from: the built-in ones, and those that a plugin registers.

A plugin is a Python module that registers something when it is imported. Two ways lead to it:

- ``ETUDE_PLUGINS``: names of modules, or paths that end in ``.py``, with commas between;
- an installed package with an entry point in the group ``etude.plugins``.

Plugins are imported when a name is not built in, or when all names are listed: a process that uses built-in things
only pays nothing. Processes that Etude starts (ranks, workers) inherit the variable. A run folder cannot name a
plugin: it may come from a stranger, and opening it must not run code.
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
"""Characters of an unknown name that a message shows."""
_loading = RLock()
_loaded = False


class Registry(Generic[T]):
    """Things of one kind, by name. Built-in ones are imported when they are first used.

    Args:
        kind: what one of them is called in messages, such as ``update rule``.
        builtin: the place of each built-in one, as ``module:attribute``.
        check: the place of a function that raises InputError for a thing that is incomplete.
    """

    def __init__(self, kind: str, builtin: Mapping[str, str], check: str) -> None:
        self.kind = kind
        self._builtin, self._check = dict(builtin), check
        self._known: dict[str, T] = {}

    def register(self, name: str, thing: T) -> None:
        """Add ``thing`` under ``name``, once it has been checked.

        Raises:
            InputError: it is incomplete, or the name is taken.
        """
        if name in self._builtin or self._known.get(name, thing) is not thing:
            raise InputError(
                f"the name {_shown(name)} is taken by another {self.kind}: choose one of its own"
            )
        self._known[name] = thing  # the check may ask for it by name
        try:
            _at(self._check)(thing)
        except InputError:
            del self._known[name]
            raise

    def get(self, name: str) -> T:
        """Return what is registered under ``name``.

        Raises:
            InputError: nothing is; the message has the names there are, and the nearest.
        """
        self.require(name)
        if name not in self._known:
            self._known[name] = _at(self._builtin[name])
        return self._known[name]

    def require(self, name: str) -> None:
        """Raise InputError unless ``name`` is known; a built-in thing is not imported for it."""
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
        """Return every name, the built-in ones first. Loads the plugins."""
        load_plugins()
        return [*self._builtin, *(name for name in self._known if name not in self._builtin)]


def load_plugins() -> None:
    """Import every plugin, once in a process.

    Raises:
        InputError: a plugin cannot be imported, or what it registers is refused.
    """
    from importlib.metadata import entry_points  # seldom needed, and slow to import

    global _loaded
    with _loading:
        if _loaded:
            return
        _loaded = True  # a plugin may ask for names while it is imported
        try:
            for place in filter(None, map(str.strip, os.environ.get(VARIABLE, "").split(","))):
                _load(f"{place!r} of {VARIABLE}", partial(_import, place))
            for point in entry_points(group=ENTRY_POINTS):
                _load(f"{point.value!r} of the entry points {ENTRY_POINTS}", point.load)
        except InputError:
            _loaded = False
            raise


def _load(what: str, load: Callable[[], Any]) -> None:
    try:
        load()
    except InputError as error:
        raise InputError(f"the plugin {what} is refused: {error}") from None
    except Exception as error:  # a stranger's module may raise anything
        raise InputError(
            f"the plugin {what} cannot be imported ({_in_one_line(error)}): mend it, or leave it out"
        ) from error


def _import(place: str) -> None:
    if not place.endswith(".py"):
        importlib.import_module(place)
        return
    path = Path(place).expanduser()
    name = path.stem
    if name in sys.modules:
        return
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None  # it ends in .py
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise


def _at(place: str) -> Any:
    module, _, attribute = place.partition(":")
    return getattr(importlib.import_module(module), attribute)


def _shown(name: str) -> str:
    """Return the name on one short line, whatever characters it has."""
    return repr(name[:_LONGEST_NAME])


def checked_call(what: str, function: Callable[..., T], *arguments: Any) -> T:
    """Return what ``function`` returns, for the checks of things that are registered.

    Raises:
        InputError: its own, or one that says that ``what`` failed and how: code from outside may raise anything.
    """
    try:
        return function(*arguments)
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"{what} fails ({_in_one_line(error)})") from error


def _in_one_line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())


def known_name(registry: Registry[Any], setting: str, name: str) -> str:
    """Return ``name``; raise InputError, which names the ``setting``, unless ``registry`` knows it."""
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
"""What ``train.optimizer`` may name: an :class:`etude.train.rules.UpdateRule` each."""

OBJECTIVES: Registry[Any] = Registry(
    "objective",
    {
        "next-token": "etude.train.objectives.next_token:OBJECTIVE",
        "answer-only": "etude.train.objectives.answer_only:OBJECTIVE",
    },
    "etude.train.objectives.contract:require_kind",
)
"""What ``train.objective`` may name: an :class:`etude.train.objectives.ObjectiveKind` each."""

MODEL_FAMILIES: Registry[Any] = Registry(
    "model family",
    {
        name: f"etude.model.families.{name}:FAMILY"
        for name in ("llama", "qwen3", "gpt2", "mlp", "gpt_neox", "olmo2", "qwen2", "smollm3", "gemma3_text")
    },
    "etude.model.families.trial:require_complete",
)
"""What ``model.preset`` and the ``model_type`` of a config.json may name: an
:class:`etude.model.families.Family` each."""

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
"""What the suite ``text`` asks, from any text with words: functions from
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
"""What the suite ``tasks`` asks, about exercises like those of ``builtin:tasks``: functions from a seed and a number of
items to a list of :class:`etude.evaluate.items.Probe`."""
