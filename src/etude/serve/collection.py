"""What the studio shows, by name: the runs of a folder, and beside them models, some in several saved versions."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from etude.errors import InputError
from etude.files import read_json
from etude.messages import command
from etude.run.folder import is_run
from etude.run.published_history import is_history
from etude.untrusted import Unreadable, inside, readable, shown

CONFIG = "config.json"


@dataclass(frozen=True)
class Collection:
    """A folder of runs and models, and further models by name.

    A model is a model folder, or a folder with several saved versions of one, a history that Etude did not record.

    Attributes:
        folder: its runs and its models are shown; new runs are written there.
        models: models elsewhere, by the name under which they are shown.
    """

    folder: Path
    models: tuple[tuple[str, Path], ...] = ()

    @classmethod
    def of(cls, folder: Path, models: Sequence[tuple[str, Path]]) -> Collection:
        """Give each model a name of its own: a second one of a name, or of a run's name, gets a number."""
        named: dict[str, Path] = {}
        for name, path in models:
            chosen, number = name, 2
            while chosen in named or (
                os.path.lexists(folder / chosen) and not _is_same(folder / chosen, path)
            ):
                chosen, number = f"{name}-{number}", number + 1
            named[chosen] = path
        return cls(folder, tuple(named.items()))

    def path(self, name: str) -> Path:
        """Return the folder of the run or model called ``name``.

        Raises:
            InputError: nothing has that name.
        """
        path = dict(self.models).get(name) or inside(self.folder, name)
        if not (path / "run.toml").is_file() and not is_published(path):
            raise InputError(f"no run is called '{shown(name)}', and no model")
        return path

    def model_folders(self) -> dict[str, Path]:
        """Return the models by name: the named ones first, then those in the folder.

        Raises:
            Unreadable: this account may not read the folder.
        """
        found = dict(self.models)
        known = {path.resolve() for path in found.values()}
        with readable(self.folder):
            names = sorted(os.listdir(self.folder)) if self.folder.is_dir() else []
        for name in names:
            path = self.folder / name
            if not name.startswith(".") and is_published(path) and path.resolve() not in known:
                found.setdefault(name, path)
        return found

    def to_argument(self) -> str:
        """Return it as one argument of a process."""
        return json.dumps([str(self.folder), [[name, str(path)] for name, path in self.models]])

    @classmethod
    def from_argument(cls, argument: str) -> Collection:
        """Parse what :meth:`to_argument` returned."""
        folder, models = json.loads(argument)
        return cls(Path(folder), tuple((name, Path(path)) for name, path in models))


def is_model(path: Path) -> bool:
    """Return whether ``path`` is a model folder: it has a config.json that names a family, and it is no run."""
    with suppress(OSError, InputError):
        if (path / CONFIG).is_file() and not is_run(path):
            config = read_json(path / CONFIG)
            return isinstance(config, dict) and isinstance(config.get("model_type"), str)
    return False


def is_published(path: Path) -> bool:
    """Return whether ``path`` is a model folder, or a folder with several saved versions of a model."""
    with suppress(OSError, Unreadable):
        return is_model(path) or is_history(path)
    return False


def collection_of(arguments: Sequence[Path]) -> Collection:
    """Return what ``etude studio ARGUMENTS`` shows.

    An argument is a folder of runs or models, a model folder, a folder with several versions of a model, a .gguf file,
    or ``hf:owner/name``. Without one it is the folder ``runs``, and the models in the current folder; where there is no
    such folder, the current folder. In a folder with versions of a model it is that history.

    Raises:
        InputError: an argument is none of these, there is nothing to show, or there are two folders of runs.
    """
    from etude.pretrained.source_names import is_adapter, source_name  # imports numpy

    if not arguments and is_history(Path()):
        arguments = [Path().absolute()]
    folders = [
        argument
        for argument in arguments
        if argument.is_dir() and not is_published(argument) and not is_adapter(argument)
    ]
    if len(folders) > 1:
        raise InputError(
            f"{folders[0]} and {folders[1]} are two folders of runs: the studio shows one, and any number of models"
        )
    for run in folders:
        if (run / "run.toml").is_file():
            raise InputError(f"{run} is one run: give the folder that it is in, {run.absolute().parent}")
    named = [
        (source_name(argument), _model_folder(argument)) for argument in arguments if argument not in folders
    ]
    if folders:
        return Collection.of(folders[0], named)
    here, runs = Path(), Path("runs")
    if not arguments:
        named = list(Collection(here).model_folders().items())
    if runs.is_dir():
        return Collection.of(runs, named)
    if not named:
        raise InputError(
            f"no folder {runs}, and no model in {here.absolute()}: train something first with `etude train`, get a "
            f"published model with `{command('import', 'MODEL')}`, or name another folder"
        )
    return Collection.of(runs, named)


def _model_folder(argument: Path) -> Path:
    """Return the folder of a source of a model; a GGUF file is converted into Etude's cache."""
    from etude.pretrained.resolve_source import model_folder
    from etude.pretrained.source_names import is_model_source

    if not argument.exists() and not is_model_source(argument):
        raise InputError(
            f"no folder {argument}: train something first with `etude train`, or name another folder"
        )
    return argument if is_history(argument) else model_folder(argument)


def _is_same(one: Path, other: Path) -> bool:
    with suppress(OSError):
        return one.resolve() == other.resolve()
    return False
