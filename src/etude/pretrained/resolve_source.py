"""Resolve any name of a model to the model folder that it names.

A source is a run (its newest checkpoint), ``RUN@STEP``, a checkpoint, a model folder in Hugging Face's format, a folder
of several saved versions of a model (the last, or ``FOLDER@STEP``), a GGUF file, the folder of a LoRA adapter
(:mod:`etude.pretrained.adapter`), or ``hf:owner/name``, a model on the Hugging Face Hub (``hf:owner/name@revision`` for
one of its versions).
"""

from __future__ import annotations

from pathlib import Path

from etude.errors import InputError
from etude.places import expand_home
from etude.pretrained.gguf_file import is_gguf
from etude.pretrained.source_names import HUB, is_adapter
from etude.run.checkpoints import checkpoint_of_step, find_checkpoint, list_checkpoints, step_of
from etude.run.folder import is_run
from etude.run.published_history import PublishedHistory
from etude.untrusted import readable, shown

_HUB_FILES = ("*.json", "*.safetensors", "*.jinja", "tokenizer.model", "*.txt", "LICENSE*", "README.md")
"""The files of a model folder. Pickles may run code when they are read, so they are not even fetched."""


def model_folder(source: str | Path) -> Path:
    """Return the model folder that ``source`` names.

    A GGUF file is converted once, and an adapter merged once, into Etude's cache. A model on the Hub is downloaded by
    huggingface_hub into its own cache.

    Raises:
        InputError: there is no such model, or it is of a kind that cannot be read.
        EtudeError: the disk is full or cannot be written.
    """
    name = str(source)
    if name.startswith(HUB):
        return _from_hub(name)
    path = expand_home(name)
    if path.is_file():
        return _from_file(path)
    if not path.exists() and "@" in path.name:
        return _at_step(path)
    if is_adapter(path):
        from etude.pretrained.adapter import cached_merged_folder  # imports torch

        return cached_merged_folder(path, model_folder)
    return find_checkpoint(path)


def source_at_step(source: str | Path, step: int) -> Path:
    """Return ``RUN@STEP`` for the run, or the saved versions of a model, that ``source`` belongs to.

    Raises:
        InputError: it belongs to none: it is one model.
    """
    path = Path(str(source)) if str(source).startswith(HUB) else expand_home(source)
    if not path.exists() and "@" in path.name:
        path = path.with_name(path.name.rpartition("@")[0])
    for place in (path, path.resolve().parent.parent, path.resolve().parent):
        if is_run(place) or PublishedHistory.at(place):
            return place.with_name(f"{place.name}@{step}")
    raise InputError(f"{source} is one model without steps: give a run, or type it without a step")


def _from_file(path: Path) -> Path:
    """Return the model folder of a GGUF file. Raises InputError for any other file, with what to give instead."""
    with readable(path):  # what may not be read is not "no model"
        path.open("rb").close()
    if is_gguf(path):
        from etude.pretrained.gguf_model import cached_gguf_folder

        return cached_gguf_folder(path)
    if path.suffix == ".safetensors" or path.name == "config.json":
        raise InputError(f"{path} is one file of a model folder: give the folder {path.parent}")
    raise InputError(f"{path} is no model: give a run, a model folder, a .gguf file or hf:owner/name")


def _at_step(path: Path) -> Path:
    """Return the checkpoint that ``RUN@STEP`` names."""
    name, _, step = path.name.rpartition("@")
    run = path.with_name(name) if name else path.parent
    folders = {step_of(folder): folder for folder in list_checkpoints(run / "checkpoints")}
    if not folders and (history := PublishedHistory.at(run)):
        folders = {**history.checkpoints, **history.skipped}  # what is not read is refused with its reason
    if not folders:
        find_checkpoint(run)  # reports what is wrong with it
    return checkpoint_of_step(run, step, folders)


def _from_hub(name: str) -> Path:
    """Return the folder of a model on the Hugging Face Hub.

    Raises:
        InputError: the library is missing, or the Hub has no such model or cannot be reached.
    """
    repository, _, revision = name.removeprefix(HUB).partition("@")
    if repository.count("/") != 1:
        raise InputError(f"'{shown(name)}' does not name a model: type hf:owner/name")
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError
    except ImportError:
        raise InputError("hf: models need the library of the Hub: pip install 'etude[hub]'") from None
    try:
        folder = snapshot_download(repository, revision=revision or None, allow_patterns=list(_HUB_FILES))
    except RepositoryNotFoundError:
        raise InputError(
            f"the Hub has no model '{shown(repository)}', or it is private: log in with hf auth login"
        ) from None
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(f"{shown(name)} cannot be downloaded ({shown(reason)})") from None
    return Path(folder)
