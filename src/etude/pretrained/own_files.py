"""The files of a stranger's model folder: which belong to the model, and that none is a link to elsewhere."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from etude.data.tokens.tokenizer import CARRIED, RECORD
from etude.errors import InputError
from etude.model.folder import CARD, CONFIG
from etude.run.published_history import tokenizer_folder
from etude.run.weight_files import WEIGHTS_INDEX
from etude.untrusted import MAX_JSON_BYTES, require_file_within

ORIGIN = "origin.json"
"""The record of where an imported model came from."""
_LICENCE_FILES = ("LICENSE", "LICENSE.txt", "LICENSE.md", "NOTICE")
PROSE = frozenset({CARD, ORIGIN, *_LICENCE_FILES})
"""Files that do not change what the model computes. The same weights may come with others, from another place."""
OF_TOKENIZER = (*CARRIED, RECORD)
DESCRIBED = (CONFIG, WEIGHTS_INDEX, *OF_TOKENIZER, *sorted(PROSE))
"""All files of a model but its weights."""
_MOST_PROSE_BYTES = 1 << 24
"""Size of a model card or licence; published ones have a few kilobytes."""
SNAPSHOTS, _BLOBS = "snapshots", "blobs"
"""Folders of a model in the cache of huggingface_hub. A version in the first consists of links into the second."""


def file_of_model(folder: Path, name: str) -> Path:
    """Return the path of a file of the model in ``folder``: that of the tokenizer may be in another folder."""
    return (tokenizer_folder(folder) if name in OF_TOKENIZER else folder) / name


def described_files(folder: Path) -> tuple[str, ...]:
    """Return the names of the files of the model in ``folder``, but its weights.

    Raises:
        InputError: one is a link that leads elsewhere, not a plain file, or far larger than such a file is.
    """
    beside = tokenizer_folder(folder)
    if beside == folder:
        return require_own(folder, DESCRIBED)
    own = require_own(folder, tuple(name for name in DESCRIBED if name not in OF_TOKENIZER))
    return (*own, *require_own(beside, OF_TOKENIZER))


def require_own(folder: Path, names: Sequence[str]) -> tuple[str, ...]:
    """Return the files among ``names`` that ``folder`` has.

    Raises:
        InputError: one is a link that leads elsewhere, not a plain file, or far larger than such a file is.
    """
    real = Path(os.path.realpath(folder))
    places = [real, real.parent.parent / _BLOBS] if real.parent.name == SNAPSHOTS else [real]
    present = tuple(name for name in names if os.path.lexists(folder / name))
    for name in present:
        file = folder / name
        require_file_within(file, places)
        most = _MOST_PROSE_BYTES if name in PROSE else MAX_JSON_BYTES
        if name in DESCRIBED and file.stat().st_size > most:
            raise InputError(
                f"{file} has more than {most >> 20} MiB, and is no such file: remove or shorten it"
            )
    return present
