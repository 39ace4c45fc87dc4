"""What the name of a source shows, before it is opened: its kind, and what to call the model. Needs no PyTorch."""

from __future__ import annotations

from pathlib import Path

from etude.places import expand_home
from etude.pretrained.gguf_file import is_gguf
from etude.run.checkpoints import MARKER
from etude.run.weight_files import ADAPTER_CONFIG, is_adapted

HUB = "hf:"


def source_name(source: str | Path) -> str:
    """Return a name for the model that ``source`` names: the last part of its own."""
    name = str(source)
    if name.startswith(HUB):
        return name.removeprefix(HUB).partition("@")[0].rsplit("/", 1)[-1]
    path = expand_home(name)
    return path.stem if is_gguf(path) else path.absolute().name


def is_adapter(folder: Path) -> bool:
    """Return whether a folder holds an adapter of another program: no whole model, and no checkpoint of a run."""
    other = any((folder / name).is_file() for name in ("config.json", MARKER))
    return (folder / ADAPTER_CONFIG).is_file() and not other


def is_model_source(source: str | Path) -> bool:
    """Return whether ``source`` names a model and not a run, as far as its name and files show."""
    path = expand_home(str(source))
    if str(source).startswith(HUB) or path.is_file() or is_adapted(path):
        return True
    return (path / "config.json").is_file() or (not path.exists() and "@" in path.name)
