"""The text that a run was trained on, as tokens: the very same, or none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from etude.config import Settings
from etude.data.files import default_cache
from etude.data.prepare import PreparedData, Progress, open_prepared, prepare
from etude.errors import InputError


def prepared(settings: Settings, progress: Progress | None = None) -> PreparedData:
    """The text that ``settings`` name, as tokens, from the cache when nothing has changed.

    Raises:
        InputError: no usable text.
    """
    return prepare(
        settings.data,
        settings.tokenizer,
        family=settings.model.preset,
        seed=settings.run.seed if settings.data.seed == "auto" else settings.data.seed,
        cache=default_cache(),
        progress=progress,
    )


def own_text(
    run: Path,
    settings: Settings,
    fingerprint: str,
    prepare_again: Callable[[Settings], PreparedData] = prepared,
) -> PreparedData:
    """The tokens with ``fingerprint``: from the cache, or when they are gone there, from the sources of ``settings``.

    Raises:
        InputError: the text of ``run`` has changed, or came on standard input and is gone.
    """
    found = open_prepared(default_cache(), fingerprint)
    if found is not None:
        return found
    if "-" in settings.data.sources:
        raise InputError(
            f"the text of {run} came on standard input and is gone from the cache: train it anew"
        )
    data = prepare_again(settings)
    if data.fingerprint != fingerprint:
        raise InputError(
            f"the text of {run} has changed since it began: put the old text back, or start a new run"
        )
    return data
