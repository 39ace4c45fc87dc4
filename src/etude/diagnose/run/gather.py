"""Gather the evidence on a run: read its record, and measure its newest checkpoint on its own held-out text."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

from etude.config import DeviceSettings, Resolved, get_value
from etude.data.prepared_data import PreparedData, open_prepared
from etude.data.tokens.rows import evaluation_windows, training_rows
from etude.device import choose_device
from etude.diagnose.run.activations import NetworkState, look_inside
from etude.diagnose.run.evidence import Absent, Evidence, Text
from etude.diagnose.run.losses import FEWEST_CLUSTERS, LossSpread, spread
from etude.diagnose.run.overlap import HELD_OUT_BYTES, RUN_BYTES, TRAINING_BYTES, Overlap, overlap
from etude.errors import InputError
from etude.model.families import family_named
from etude.model.folder import load_model_folder
from etude.model.language_model import LanguageModel
from etude.places import cache_folder
from etude.plan.derivation import COUNTS, Facts, model_config
from etude.run import RunFolder
from etude.run.checkpoints import list_checkpoints, newest_good_checkpoint, step_of, verify_checkpoint
from etude.run.record import RunRecord
from etude.train.objectives import objective_kind
from etude.train.rules import rates_of
from etude.train.spikes import sampled_shares

LOADING_SECONDS, LOADED_BATCHES = 0.5, 20
"""Time limit and most batches for timing how batches are made."""


def gather(path: Path) -> Evidence:
    """Return everything the rules read. A measurement that cannot be made is :class:`Absent`, with the reason.

    Raises:
        InputError: there is no run at ``path``, or its settings or manifest are damaged.
    """
    record = RunRecord.open(path)
    run, settings, manifest = record.run, _settings(record), record.manifest
    train_tokens, vocab_size = _count(manifest, "train_tokens", run), _count(manifest, "vocab_size", run)
    data = open_prepared(cache_folder(), str(manifest.get("data_fingerprint")))
    network, losses = _measure_network(run, settings, data)
    return Evidence(
        path=path,
        settings=settings,
        history=record.history,
        state=record.state,
        reason=str(record.status.get("reason", "")),
        model=model_config(settings, Facts(train_tokens, vocab_size, 0)),
        text=_text(train_tokens, data),
        network=network,
        losses=losses,
        overlap=_compare_parts(data),
        seconds_per_batch=_time_loader(settings, data),
        shares=None if data is None else sampled_shares(data, settings),
    )


def _settings(record: RunRecord) -> Resolved:
    """Return the settings of a run, in which no rate of its update rules and no count of its network is ``"auto"``."""
    settings = record.settings
    unused = family_named(settings.model.preset).unused_settings
    counts = [f"model.{key}" for key in COUNTS if key not in unused]
    for key in (*rates_of(settings.train.optimizer), *counts):
        if get_value(settings, key) == "auto":
            raise InputError(
                f"{record.run.settings_file} is damaged ({key} is not resolved): restore it, or examine another run"
            )
    return settings


def _count(manifest: dict[str, Any], key: str, run: RunFolder) -> int:
    value = manifest.get(key)
    if type(value) is not int or value < 1:
        raise InputError(f"{run.manifest_file} is damaged (no {key}): restore it, or examine another run")
    return value


def _text(train_tokens: int, data: PreparedData | None) -> Text:
    if data is None:
        return Text(train_tokens)
    return Text(train_tokens, data.train.num_documents, data.validation.num_tokens)


_NO_TEXT = Absent("the run's text is no longer in the cache")


def _measure_network(
    run: RunFolder, settings: Resolved, data: PreparedData | None
) -> tuple[NetworkState | Absent, LossSpread | Absent]:
    try:
        newest, _ = newest_good_checkpoint(run.checkpoints)
    except InputError:
        absent = Absent("there is no intact checkpoint")
        return absent, absent
    if data is None:
        return _NO_TEXT, _NO_TEXT
    windows = evaluation_windows(
        data.validation,
        settings.train.context,
        settings.train.eval_tokens,
    )
    within_documents = not settings.data.cross_document_attention
    device = choose_device(DeviceSettings()).torch
    model, config = load_model_folder(newest.folder, device=device)
    if config.vocab_size < data.tokenizer.vocab_size:
        absent = Absent(f"{newest.folder.name} has another vocabulary than the run's text")
        return absent, absent
    earlier = next(_earlier_models(run, newest.step, device), None)
    scope = objective_kind(settings.train.objective).scope(data, settings)
    measured = spread((newest.step, model), earlier, windows, within_documents=within_documents, scope=scope)
    losses = measured or Absent(f"an evaluation has fewer than {FEWEST_CLUSTERS} windows")
    return look_inside(model, windows, newest.step, within_documents=within_documents), losses


def _earlier_models(run: RunFolder, newest: int, device: Any) -> Iterator[tuple[int, LanguageModel]]:
    """Yield (step, model) of the intact checkpoints before the newest, newest first."""
    for folder in reversed(list_checkpoints(run.checkpoints)):
        if step_of(folder) < newest:
            try:
                yield step_of(folder), load_model_folder(verify_checkpoint(folder).folder, device=device)[0]
            except InputError:
                continue


def _compare_parts(data: PreparedData | None) -> Overlap | Absent:
    if data is None:
        return _NO_TEXT
    shared = overlap(data.documents("validation", HELD_OUT_BYTES), data.documents("train", TRAINING_BYTES))
    return shared or Absent(f"the held-out text is shorter than {RUN_BYTES} bytes")


def _time_loader(settings: Resolved, data: PreparedData | None) -> float | Absent:
    """Return the median time in seconds to make a batch, measured now."""
    if data is None:
        return _NO_TEXT
    train = settings.train
    context, rows = train.context, train.batch_rows
    loader = training_rows(data.train, context, rows, settings.run.seed)
    within_documents = not settings.data.cross_document_attention
    seconds: list[float] = []
    while len(seconds) < LOADED_BATCHES and sum(seconds) < LOADING_SECONDS:
        began = time.perf_counter()
        loader.rows(len(seconds))
        if within_documents:
            loader.document_ids(len(seconds))
        seconds.append(time.perf_counter() - began)
    return median(seconds)
