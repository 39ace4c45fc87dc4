"""Give a base model without a chat template one: ChatML, and the two tokens that it writes.

Tokens that the vocabulary lacks are added, each with a row in the embedding and in the output layer: the mean of the
rows that are there, which leaves the predictions of the other tokens nearly as they were (Hewitt 2021, "Initializing
new word embeddings for pretrained language models"). They mean nothing until they are trained.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from etude.data.conversations.template import CHATML_SOURCE, CHATML_TOKENS, template_of
from etude.data.files import key_of, locked
from etude.data.tokens.published import model_tokenizer
from etude.data.tokens.tokenizer import EtudeTokenizer
from etude.data.tokens.tokenizer_json import FILE, parse_backend, read_backend
from etude.errors import InputError
from etude.files import read_json, staged_folder, sweep_staging, write_atomic, write_json
from etude.model.config import ModelConfig
from etude.model.folder import CONFIG, GENERATION, write_tensors
from etude.model.hf_config import config_to_hf
from etude.model.weights import StoredWeights
from etude.places import cache_folder
from etude.pretrained.base import Base, open_base
from etude.pretrained.own_files import OF_TOKENIZER, ORIGIN, require_own
from etude.pretrained.resolve_source import model_folder
from etude.run.published_history import tokenizer_folder
from etude.run.weight_files import WEIGHTS
from etude.untrusted import shown

SCHEMA = 2
TABLES = ("embed_tokens", "lm_head", "wte", "embed_in", "embed_out")
"""Modules with a row for each token, in the model folders of all families."""
TEMPLATE = "chat_template.jinja"


def new_tokens(base: Base) -> list[str]:
    """Return the tokens of ChatML that the vocabulary of ``base`` lacks."""
    return [token for token in CHATML_TOKENS if base.tokenizer.backend.token_to_id(token) is None]


def with_chat_template(base: Base) -> Base:
    """Return ``base`` if it has a chat template; else the same model with ChatML, from a folder in Etude's cache.

    Raises:
        InputError: its embedding cannot get new rows.
        EtudeError: the disk is full or cannot be written.
    """
    if template_of(base.tokenizer) is not None:
        return base
    models = cache_folder() / "models"
    folder = models / key_of(["chat", SCHEMA, base.hash])
    with locked(models, folder.name):
        if not (folder / WEIGHTS).is_file():
            sweep_staging(models)
            backend = parse_backend(read_backend(base.path(FILE)), base.path(FILE))
            backend.add_special_tokens(list(CHATML_TOKENS))
            size = max(backend.get_vocab(with_added_tokens=True).values()) + 1
            config = base.config.replace(vocab_size=max(base.config.vocab_size, size))
            weights = _with_rows(base, config)
            with staged_folder(folder) as staging:
                for name in ("tokenizer_config.json", "special_tokens_map.json", "LICENSE"):
                    if base.path(name).is_file():
                        shutil.copyfile(base.path(name), staging / name)
                write_atomic(staging / FILE, backend.to_str(pretty=True))
                write_atomic(staging / TEMPLATE, CHATML_SOURCE)
                write_json(staging / CONFIG, config_to_hf(config))
                stops = {*base.tokenizer.roles.stop_ids, backend.token_to_id(CHATML_TOKENS[1])}
                write_json(staging / GENERATION, {"eos_token_id": sorted(stops)})
                write_json(staging / ORIGIN, _origin(base))
                write_tensors(staging / WEIGHTS, weights)
    return open_base(folder)


def base_tokenizer(source: str | Path, conversations: bool = False) -> EtudeTokenizer:
    """Return the tokenizer of the model that ``source`` names; for ``conversations``, with a chat template.

    Raises:
        InputError: there is no such model, or its tokenizer cannot be used.
    """
    folder = model_folder(source)
    require_own(tokenizer_folder(folder), OF_TOKENIZER)
    tokenizer = model_tokenizer(folder)
    if not conversations or template_of(tokenizer) is not None:
        return tokenizer
    return with_chat_template(open_base(source)).tokenizer


def _with_rows(base: Base, config: ModelConfig) -> dict[str, Tensor]:
    """Return the weights of ``base`` with rows for all tokens of ``config``.

    Raises:
        InputError: no matrix has one row for each token.
    """
    stored = StoredWeights.open(base.folder, base.config)
    weights = dict(stored.read(stored.places))
    rows, more = base.config.vocab_size, config.vocab_size - base.config.vocab_size
    if not more:
        return weights
    grown = [
        name
        for name, tensor in weights.items()
        if tensor.shape[:1] == (rows,) and any(part in name.split(".") for part in TABLES)
    ]
    if not grown:
        raise InputError(f"{shown(base.source)} has no embedding with {rows:,} rows: choose another base")
    for name in grown:
        mean = weights[name].float().mean(dim=0, keepdim=True).to(weights[name].dtype)
        weights[name] = torch.cat((weights[name], mean.expand(more, *mean.shape[1:])))
    return weights


def _origin(base: Base) -> Mapping[str, Any]:
    """Return the record of where the model came from, with what was added."""
    known = read_json(base.folder / ORIGIN) if (base.folder / ORIGIN).is_file() else {}
    return {
        "schema": SCHEMA,
        "format": "folder",
        "source": base.source,
        **(known if isinstance(known, dict) else {}),
        "added_tokens": new_tokens(base),
        "chat_template": "chatml",
    }
