"""The weight files of a model folder, from its index. Needs no PyTorch."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from etude.errors import InputError
from etude.files import read_json
from etude.untrusted import shown

WEIGHTS = "model.safetensors"
WEIGHTS_INDEX = "model.safetensors.index.json"
OPTIMIZER_FILE = "optimizer.safetensors"
OPTIMIZER_INDEX = "optimizer.safetensors.index.json"
ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
FIRST_CHECKPOINT, BASE_FOLDER, _MARKER = "step-00000000", "base", "train_state.json"
"""Where the checkpoints of a run with an adapter have their base: the checkpoint of step 0, or, in a fork from a later
step, a copy of it beside the checkpoints."""
_PICKLED = ("pytorch_model.bin", "pytorch_model.bin.index.json", "model.pt", "model.pth")


def weight_files(folder: Path) -> list[Path]:
    """Return the weight files of a model folder; of an adapted network, its own and those of the base.

    Raises:
        InputError: one is missing, or only pickles are there.
    """
    if is_adapted(folder):
        return [folder / ADAPTER_WEIGHTS, *weight_files(base_folder(folder))]
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    index = folder / WEIGHTS_INDEX
    if not index.is_file():
        if reason := only_pickles(folder):
            raise InputError(reason)
        raise InputError(f"{folder} holds no {WEIGHTS}: give a model folder, or restore the file")
    return files_of_index(index)


def optimizer_files(folder: Path) -> list[Path]:
    """Return the files with the optimizer's state of a checkpoint.

    Raises:
        InputError: one is missing.
    """
    index = folder / OPTIMIZER_INDEX
    return files_of_index(index) if index.is_file() else [folder / OPTIMIZER_FILE]


def files_of_index(index: Path) -> list[Path]:
    """Return the files that the index of a sharded model names.

    Raises:
        InputError: one is missing, or the index is damaged.
    """
    folder = index.parent
    content = read_json(index)
    table = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(table, dict) or not table or not all(isinstance(name, str) for name in table.values()):
        raise InputError(f"{index} is damaged: it has no weight_map; restore it")
    files = []
    for name in sorted(set(table.values())):
        # Only files in this folder: an index written by a stranger must not point elsewhere.
        if Path(name).name != name or "\0" in name or not name.endswith(".safetensors"):
            raise InputError(
                f"{index} names {shown(repr(name))}, which is not a .safetensors file of its folder"
            )
        if not (folder / name).is_file():
            raise InputError(f"{folder / name} is missing, though {index.name} names it: restore the file")
        files.append(folder / name)
    return files


def only_pickles(folder: Path) -> str:
    """Return why the weights of a model folder are not read, in one line, if they are pickles alone; else ""."""
    if (folder / WEIGHTS).is_file() or (folder / WEIGHTS_INDEX).is_file() or is_adapted(folder):
        return ""
    pickled = next((name for name in _PICKLED if (folder / name).is_file()), None)
    if pickled is None:
        return ""
    return (
        f"{folder / pickled} is a pickle, which may run code when it is read: "
        "save the model again with safetensors"
    )


def is_adapted(folder: Path) -> bool:
    """Return whether a model folder holds an adapter in place of weights."""
    whole = (folder / WEIGHTS).is_file() or (folder / WEIGHTS_INDEX).is_file()
    return not whole and (folder / ADAPTER_CONFIG).is_file()


def config_file(folder: Path) -> Path:
    """Return the config.json of a model folder; of an adapted network, that of its base.

    Raises:
        InputError: the base is not where it should be.
    """
    return (base_folder(folder) if is_adapted(folder) else folder) / "config.json"


def base_folder(folder: Path) -> Path:
    """Return the model folder of the base of an adapted network.

    Raises:
        InputError: adapter_config.json is damaged, or the base is not where it should be.
    """
    values = read_json(folder / ADAPTER_CONFIG)
    named = values.get("base_model_name_or_path") if isinstance(values, dict) else None
    base = base_of_adapter(folder, named if isinstance(named, str) else "")
    if base is None or not base.is_dir() or is_adapted(base):
        raise InputError(no_base(folder, named))
    return base


def base_of_adapter(folder: Path, named: str) -> Path | None:
    """Return the model folder or file of an adapter's base; None if it is not on this disk.

    A checkpoint's is in its own run, which may have been moved; another is at ``named``, from the working directory or
    from the adapter's folder.
    """
    places: list[Path] = [Path(named), folder / named] if named else []
    if (folder / _MARKER).is_file():
        places = [folder.parent / FIRST_CHECKPOINT, folder.parent / BASE_FOLDER, *places]
    for path in places:
        with suppress(OSError, ValueError):  # no possible path
            if (path / "config.json").is_file() or path.is_file():
                return path
    return None


def no_base(folder: Path, named: object) -> str:
    """Return the message that the base of an adapter is missing."""
    return (
        f"the base model of the adapter {folder} is not at {shown(named)}: set base_model_name_or_path in its "
        f"{ADAPTER_CONFIG} to the model's folder"
    )
