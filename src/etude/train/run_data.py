"""Find the text that a run was trained on, as tokens, and check that it is the very same."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from etude.config import Settings
from etude.data.prepare import PreparedData, Progress, open_prepared, prepare
from etude.errors import InputError
from etude.model.families import family_named
from etude.places import cache_folder


def prepared(settings: Settings, progress: Progress | None = None) -> PreparedData:
    """The text that ``settings`` name, as tokens, from the cache when nothing has changed.

    Raises:
        InputError: no usable text.
    """
    return prepare(
        settings.data,
        settings.tokenizer,
        family_pattern=family_named(settings.model.preset).tokenizer_pattern,
        seed=settings.run.seed if settings.data.seed == "auto" else settings.data.seed,
        cache=cache_folder(),
        progress=progress,
    )


def own_text(
    run: Path,
    settings: Settings,
    manifest: Mapping[str, Any],
    prepare_again: Callable[[Settings], PreparedData] = prepared,
) -> PreparedData:
    """The tokens of the run with ``manifest``: from the cache, or when they are gone there, from its sources again.

    Another version of Etude may name the same prepared text otherwise, so what is prepared again is compared by its
    text and its tokenizer.

    Raises:
        InputError: the text of ``run`` has changed, or came on standard input and is gone.
    """
    found = open_prepared(cache_folder(), str(manifest.get("data_fingerprint")))
    if found is not None:
        return found
    if "-" in settings.data.sources:
        raise InputError(
            f"the text of {run} came on standard input and is gone from the cache: train it anew"
        )
    data = prepare_again(settings)
    if not is_text_of(data, manifest):
        raise InputError(
            f"the text of {run} has changed since it began: put the old text back, or start a new run"
        )
    return data


def is_text_of(data: PreparedData, manifest: Mapping[str, Any]) -> bool:
    """Whether ``data`` are the tokens that the run with this manifest was trained on."""
    return (data.corpus_hash, data.tokenizer.hash) == (
        manifest.get("corpus_hash"),
        manifest.get("tokenizer_hash"),
    )
