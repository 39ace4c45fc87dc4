"""Keep the scores of models that Etude did not train, and whose folders it must not change: in its cache.

Each model has a folder ``scores/KEY`` there with a probes.jsonl, as a run has, and a model.json that says what it was.
The key is a hash of its content: weights, configuration and tokenizer. So a copy of the model in another place has the
same scores, and a changed one has none.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from etude.data.files import key_of
from etude.data.tokens.tokenizer import CARRIED, RECORD
from etude.device import git_commit
from etude.errors import InputError
from etude.evaluate.questions import Questions
from etude.evaluate.records import FILE, ProbeRecord, Where, read_records, write_records
from etude.evaluate.results import ProbeResult
from etude.files import hash_file, read_json, read_object, write_failure, write_json
from etude.model.cost import count_parameters
from etude.model.hf_config import config_from_hf, config_to_hf
from etude.places import cache_folder
from etude.run.published_history import CONFIG, PublishedHistory, tokenizer_folder
from etude.run.weights_hash import known_weights_hash, sampled_hash

MODEL = "model.json"
NO_SEED = 0
"""The seed in a record, where the real one is not known."""


def scores_folder(model: Path) -> Path:
    """Return the folder of the scores of the model in a model folder. It need not exist.

    Raises:
        InputError: its config.json or its weights are damaged.
    """
    beside = tokenizer_folder(model)
    content = {
        "weights": known_weights_hash(model),
        "config": config_to_hf(config_from_hf(read_json(model / CONFIG))),
        "tokenizer": {
            name: hash_file(beside / name) for name in (*CARRIED, RECORD) if (beside / name).is_file()
        },
    }
    return cache_folder() / "scores" / key_of(content)


def write_scores(model: Path, step: int, questions: Questions, results: Sequence[ProbeResult]) -> None:
    """Append the scores of a version of a model to its records.

    Raises:
        EtudeError: the cache cannot be written.
    """
    folder, config = scores_folder(model), config_from_hf(read_json(model / CONFIG))
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise write_failure(folder, error) from error
    hashes = {"weights": known_weights_hash(model), "sample": sampled_hash(model)}
    write_json(folder / MODEL, {"schema": 1, "folder": str(model.resolve()), **hashes})
    by_probe = {id(result.probe): result for result in results}
    size, commit = count_parameters(config).non_embedding, git_commit()
    for suite, probes in questions.by_suite.items():
        where = Where(NO_SEED, step, 0, 0.0, size, None, suite, commit)
        write_records(folder, [by_probe[id(probe)] for probe in probes], where)


def read_scores(history: PublishedHistory) -> list[ProbeRecord]:
    """Return the recorded scores of the versions of a model, in the order of steps; empty if there are none.

    Raises:
        InputError: the weights of a version are damaged, or a newer Etude wrote the records.
    """
    samples = _known_samples()
    found: list[ProbeRecord] = []
    for step, model in history.checkpoints.items():
        if not samples or sampled_hash(model) not in samples:  # spares the reading of all its weights
            continue
        folder = scores_folder(model)
        if not (folder / FILE).is_file():
            continue
        newest: dict[tuple[str, str, str], ProbeRecord] = {}
        for record in read_records(folder, allow_none=True).records:
            key = record.probe, record.condition, record.items
            newest.pop(key, None)  # the later comes last
            newest[key] = replace(record, where=replace(record.where, step=step))
        found += newest.values()
    return found


def _known_samples() -> set[str]:
    """Return the sampled hashes of the models with scores."""
    samples = set()
    for file in (cache_folder() / "scores").glob(f"*/{MODEL}"):
        with suppress(InputError):
            samples.add(str(read_object(file).get("sample")))
    return samples
