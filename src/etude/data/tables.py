"""Tables of numbers on disk (.npy), memory-mapped, and verified before any number is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from etude.errors import InputError
from etude.untrusted import shown


def load_table(path: Path, dtype: npt.DTypeLike, shape: tuple[int | None, ...]) -> npt.NDArray[Any]:
    """Open the table in ``path``, of type ``dtype`` and ``shape`` (None: any size).

    Raises:
        InputError: missing, damaged, or a different table.
    """
    if not path.is_file():
        raise InputError(f"{path} is missing: prepare the text again")
    try:
        table: npt.NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # np.load lets errors of the pickle, zip and mmap modules through
        raise InputError(f"{path} is damaged ({shown(str(error))}): prepare the text again") from None
    fits = isinstance(table, np.ndarray) and table.dtype == dtype and table.ndim == len(shape)
    if not fits or any(wanted not in (None, size) for size, wanted in zip(table.shape, shape, strict=True)):
        raise InputError(f"{path} is damaged (not the table that belongs there): prepare the text again")
    return table


def require_offsets(path: Path, offsets: npt.NDArray[Any], end: int | None = None) -> None:
    """Raise InputError unless the offsets from ``path`` start at 0, never decrease, and end at ``end``."""
    rises = len(offsets) > 0 and offsets[0] == 0 and bool((offsets[1:] >= offsets[:-1]).all())
    if not rises or (end is not None and offsets[-1] != end):
        raise InputError(f"{path} is damaged (its offsets are not in order): prepare the text again")
