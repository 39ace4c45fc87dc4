"""The weight files of a model folder, from its index. Needs no PyTorch."""

from __future__ import annotations

from pathlib import Path

from etude.errors import InputError
from etude.files import read_json
from etude.untrusted import shown

WEIGHTS = "model.safetensors"
WEIGHTS_INDEX = "model.safetensors.index.json"
_PICKLED = ("pytorch_model.bin", "pytorch_model.bin.index.json", "model.pt", "model.pth")


def weight_files(folder: Path) -> list[Path]:
    """Return the weight files of a model folder. Raises InputError where one is missing or only pickles are there."""
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    index = folder / WEIGHTS_INDEX
    if not index.is_file():
        pickled = [name for name in _PICKLED if (folder / name).is_file()]
        if pickled:
            raise InputError(
                f"{folder / pickled[0]} is a pickle, which may run code when it is read: "
                f"save the model again with safetensors"
            )
        raise InputError(f"{folder} holds no {WEIGHTS}: give a model folder, or restore the file")
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
