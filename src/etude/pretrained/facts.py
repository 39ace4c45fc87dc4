"""What is known of a model besides its weights: its licence, and how its weights were rounded.

Strangers wrote these texts, into origin.json, into model cards and into manifests of runs. They are printed to the
terminal and written to the head of new model cards, which is YAML. So they are read in this module alone, from files of
limited size, and each becomes a single line of limited length without control characters.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from etude.errors import InputError
from etude.files import read_json
from etude.model.folder import CARD
from etude.pretrained.gguf_weights import PLAIN
from etude.pretrained.own_files import ORIGIN
from etude.run.checkpoints import MARKER
from etude.run.folder import RunFolder, is_run
from etude.untrusted import open_plain, shown

OTHER_LICENCE = "other"
"""The Hub's identifier of a licence that has none."""
_IDENTIFIER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,60}")
_HEAD_OF_CARD = re.compile(r"\A---[ \t]*\r?\n(.*?)^---[ \t]*\r?$", re.DOTALL | re.MULTILINE)
_LICENCE = re.compile(r"^license:(.*)$", re.MULTILINE)
_CARD_BYTES = 20_000
"""Bytes of a model card in which its licence is looked for."""


@dataclass(frozen=True)
class BaseFacts:
    """What a model card says of the base of a run; every text is a single line without control characters.

    Attributes:
        source: how the user named the base.
        hash: hash of its content.
        licence: what its publisher calls the licence; None if they name none.
        rounding: see :func:`rounding_of`.
        step: its step, if Etude trained it.
    """

    source: str
    hash: str
    licence: str | None
    rounding: str | None
    step: int | None

    @property
    def licence_identifier(self) -> str:
        """The licence as the head of a model card can state it."""
        return self.licence if self.licence and _IDENTIFIER.fullmatch(self.licence) else OTHER_LICENCE


def recorded_facts(manifest: Mapping[str, Any]) -> BaseFacts | None:
    """Return the facts in the entry of the base in a run's manifest; None for a run without one."""
    entry = manifest.get("base")
    if not isinstance(entry, dict):
        return None
    step = entry.get("step")
    return BaseFacts(
        shown(str(entry.get("source"))),
        shown(str(entry.get("hash"))),
        _text(entry.get("licence")),
        _text(entry.get("rounding")),
        step if type(step) is int else None,
    )


def licence_of(folder: Path) -> str | None:
    """Return the licence that a model folder states; None if it states none.

    It is looked for in origin.json; then, for a checkpoint of a run with a base, in the run's manifest; and for other
    folders in the head of the model card.
    """
    base = _base_of_run(folder)
    return _text(origin_of(folder).get("license")) or (
        _text(base.get("licence")) if base else _licence_of_card(folder / CARD)
    )


def rounding_of(folder: Path) -> str | None:
    """Return how the weights of an imported model were rounded, such as "Q4_1, Q8_0"; None if they were not.

    Of a run's checkpoint it is how the weights of its base were rounded.
    """
    origin = origin_of(folder)
    if not origin.get("rounded"):
        return _text(origin.get("rounding")) or _text(_base_of_run(folder).get("rounding"))
    formats = origin.get("quantisation")
    kinds = [kind for kind in formats if kind not in PLAIN] if isinstance(formats, dict) else []
    return _text(", ".join(kinds)) or "quantised"


def origin_of(folder: Path) -> dict[str, Any]:
    """Return the record of where an imported model came from, as its writer left it; empty for others."""
    if not (folder / ORIGIN).is_file():
        return {}
    try:
        origin = read_json(folder / ORIGIN)
    except InputError:
        return {}
    return origin if isinstance(origin, dict) else {}


def _base_of_run(checkpoint: Path) -> dict[str, Any]:
    """Return what the manifest of the run with this checkpoint states of its base; empty where there is none."""
    run = RunFolder(checkpoint.absolute().parent.parent)
    if not (checkpoint / MARKER).is_file() or not is_run(run.path):
        return {}
    try:
        entry = run.read_manifest().get("base")
    except InputError:
        return {}
    return entry if isinstance(entry, dict) else {}


def _licence_of_card(card: Path) -> str | None:
    try:
        with open_plain(card) as file:
            text = file.read(_CARD_BYTES).decode("utf-8", "replace")
    except (OSError, InputError):
        return None
    head = _HEAD_OF_CARD.match(text)
    stated = head and _LICENCE.search(head.group(1))
    return _text(stated.group(1).partition(" #")[0].strip().strip("\"'")) if stated else None


def _text(value: Any) -> str | None:
    """Return a stranger's text as :func:`~etude.untrusted.shown` shows it; None for anything else, and an empty one."""
    return shown(value.strip()) or None if isinstance(value, str) else None
