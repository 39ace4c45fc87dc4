"""``etude import``: make a model folder of any source, once, and report what it is."""

from __future__ import annotations

import os
from pathlib import Path

from rich.console import Console

from etude.data.tokens.published import model_tokenizer
from etude.data.tokens.roles import Roles
from etude.errors import InputError
from etude.files import staged_folder, write_json
from etude.messages import command
from etude.model.cost import count_parameters
from etude.places import expand_home
from etude.pretrained.base import Base, open_base
from etude.pretrained.facts import licence_of, origin_of, rounding_of
from etude.pretrained.gguf_file import is_gguf
from etude.pretrained.gguf_model import folder_from_gguf
from etude.pretrained.own_files import ORIGIN
from etude.pretrained.source_names import HUB, source_name
from etude.pretrained.store import copy_files
from etude.show.lines import print_line
from etude.untrusted import one_line, shown


def import_model(source: str, name: str | None, console: Console) -> Path:
    """Write the model that ``source`` names as the model folder ``name``, and print what it is.

    Raises:
        InputError: the folder exists, or there is no such model, or it is of a kind that cannot be read.
        EtudeError: the disk is full or cannot be written.
    """
    folder = expand_home(name or source_name(source))
    if os.path.lexists(folder):
        raise InputError(
            f"{folder} exists already: give another name, such as {command('import', source, 'NAME')}"
        )
    path = expand_home(source)
    if not source.startswith(HUB) and is_gguf(path):
        folder_from_gguf(path, folder)
    else:
        base = open_base(source)
        model_tokenizer(base.folder)  # a model without a usable one is refused before gigabytes are copied
        _copy(base, folder)
    for line in _facts(open_base(folder)):
        print_line(console, line)
    return folder


def _copy(base: Base, folder: Path) -> None:
    """Copy the files of ``base``, with a record of where they came from."""
    with staged_folder(folder, replace=False) as staging:
        copy_files(base, staging)
        if ORIGIN not in base.files:
            facts = {"source": base.source, "hash": base.hash, "license": licence_of(base.folder)}
            facts["rounding"] = rounding_of(base.folder)
            write_json(
                staging / ORIGIN, {"schema": 1, "format": "folder", **facts, "files": dict(base.files)}
            )


def _facts(base: Base) -> list[str]:
    """Return what the user should know of an imported model."""
    config, folder = base.config, base.folder
    rounding = rounding_of(folder)
    return [
        f"{one_line(str(folder))}: {config.model_type}, {count_parameters(config).total:,} parameters, vocabulary of "
        f"{config.vocab_size:,} tokens, up to {config.max_position_embeddings:,} positions",
        f"licence: {licence_of(folder) or 'not stated'}",
        f"rounded when the file was made: {rounding}" if rounding else "weights as published, not rounded",
        *_merged(folder),
        _roles(base.tokenizer.roles, base),
        f"next: {command('generate', folder, 'One day')}  or  {command('train', 'TEXT', '--from', folder)}",
    ]


def _merged(folder: Path) -> list[str]:
    """Return a line on the adapter that a model was made from, if it was."""
    match origin_of(folder).get("adapter"):
        case {"folder": name, "base": base, "rank": rank}:
            return [
                f"made of the adapter {shown(name)} (LoRA, rank {shown(rank)}) and its base {shown(base)}"
            ]
    return []


def _roles(roles: Roles, base: Base) -> str:
    stops = ", ".join(shown(base.tokenizer.token(token_id)) for token_id in sorted(roles.stop_ids))
    turn = f"{shown(roles.end_of_turn)} ends a turn" if roles.end_of_turn else "no chat template, so no turns"
    return f"tokens: {shown(roles.document)} begins a document; {turn}; generation stops at {stops}"
