"""Samples of the base model that a tuning trains on as well (:mod:`etude.generate.base_samples`)."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from rich.console import Console

from etude.config import Settings, with_values
from etude.data.conversations.conversation import SAMPLED
from etude.data.files import key_of, locked
from etude.data.prepared_data import PreparedData
from etude.data.tokens.packing import num_trained, training_rows
from etude.errors import InputError
from etude.files import staged_folder, sweep_staging
from etude.generate.base_samples import base_samples
from etude.places import cache_folder
from etude.plan.plan import plan_on
from etude.pretrained.base import Base
from etude.pretrained.load_model import load_trained
from etude.run import RunFolder
from etude.show.lines import print_line

SCHEMA = 1


def with_samples(
    settings: Settings, data: PreparedData, base: Base | None, console: Console, *, knows_turns: bool = True
) -> Settings:
    """Return the settings with a file of samples among the sources, as many as ``data.replay`` names.

    The samples are kept in Etude's cache. ``knows_turns``: see :func:`base_samples`.

    Raises:
        InputError: the run has no base model, or is not trained on conversations.
        EtudeError: the disk is full or cannot be written.
    """
    share, examples = settings.data.replay, data.train.examples
    if not share:
        return settings
    if base is None or examples is None or examples.rejected is not None:
        raise InputError(
            "--replay samples the base model of a tuning: give conversations, and a model with --from, or omit it"
        )
    context = plan_on(data, settings, base=base.config).settings.train.context
    fitting = num_trained(data.train, training_rows(data.train, context).pieces)
    tokens = max(1, round(fitting * share / (1 - share)))
    cache = cache_folder() / "replay"
    folder = cache / key_of([SCHEMA, base.hash, tokens, settings.run.seed])
    with locked(cache, folder.name):
        if not (folder / SAMPLED).is_file():
            sweep_staging(cache)
            with (
                console.status(f"sampling {tokens:,} tokens from the base"),
                staged_folder(folder) as staging,
            ):
                threads = settings.device.threads
                trained = load_trained(base.folder, threads)
                seed = settings.run.seed
                rows = base_samples(trained.model, trained.tokenizer, tokens, seed, knows_turns=knows_turns)
                with (staging / SAMPLED).open("w", encoding="utf-8") as file:
                    file.writelines(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows)
    print_line(
        console, f"{tokens:,} trained tokens are samples of the base ({share:.0%}), so that it forgets less"
    )
    return with_values(settings, {"data.sources": (*settings.data.sources, str(folder / SAMPLED))})


def own_samples(settings: Settings, run: RunFolder) -> Settings:
    """Return the settings that name the samples in the folder of ``run``, where :func:`keep_samples` puts them."""
    sources = tuple(
        str(run.path.absolute() / SAMPLED) if Path(source).name == SAMPLED else source
        for source in settings.data.sources
    )
    return with_values(settings, {"data.sources": sources}) if settings.data.replay else settings


def keep_samples(settings: Settings, run: RunFolder) -> None:
    """Copy the samples of the base into the folder of ``run``: the cache may be emptied."""
    for source in settings.data.sources if settings.data.replay else ():
        if Path(source).name == SAMPLED:
            shutil.copyfile(source, run.path / SAMPLED)
