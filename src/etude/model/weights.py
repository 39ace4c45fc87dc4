"""Read the weight files of a model folder, after checking names and shapes against those expected."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from etude.errors import InputError
from etude.model.config import ModelConfig
from etude.model.families.contract import HEAD
from etude.run.weight_files import weight_files
from etude.untrusted import readable, shown

_FLOATS = {"F64", "F32", "F16", "BF16"}
_ROTARY_TABLE = re.compile(r".*rotary_emb\.inv_freq")
_SHOWN = 3


@dataclass(frozen=True, slots=True)
class StoredWeights:
    """File, name in the file, and shape of each tensor, by the full name of its format."""

    folder: Path
    places: dict[str, tuple[Path, str]]
    shapes: dict[str, tuple[int, ...]]

    @classmethod
    def open(cls, folder: Path, config: ModelConfig) -> StoredWeights:
        """Read the headers of all weight files. Raises InputError where one is missing or damaged."""
        places: dict[str, tuple[Path, str]] = {}
        shapes: dict[str, tuple[int, ...]] = {}
        for path in weight_files(folder):
            for stored, (dtype, shape) in _read_headers(path).items():
                name = _parameter_name(stored, config)
                if name is None:
                    continue
                if dtype not in _FLOATS:
                    raise InputError(
                        f"{path}: {shown(stored)} holds {dtype} numbers; use the unquantised model"
                    )
                places[name], shapes[name] = (path, stored), shape
        return cls(folder, places, shapes)

    def require(self, expected: dict[str, tuple[int, ...]]) -> None:
        """Raise InputError that names the first tensors that are missing, unexpected or of another shape."""
        where = f"the weights in {self.folder} do not fit its config.json"
        if missing := [name for name in expected if name not in self.shapes]:
            raise InputError(f"{where}: {_some(missing)} missing; restore both files from the same model")
        if unexpected := [name for name in self.shapes if name not in expected]:
            raise InputError(
                f"{where}: {_some(unexpected)} unexpected; restore both files from the same model"
            )
        wrong = [
            f"{name} {self.shapes[name]} instead of {shape}"
            for name, shape in expected.items()
            if self.shapes[name] != shape
        ]
        if wrong:
            raise InputError(f"{where}: {_some(wrong)}; restore both files from the same model")

    def read(self, names: Iterable[str]) -> dict[str, Tensor]:
        """Read the tensors of these names: on the CPU, in their stored dtype."""
        by_file: dict[Path, list[str]] = {}
        for name in names:
            by_file.setdefault(self.places[name][0], []).append(name)
        tensors: dict[str, Tensor] = {}
        for path, members in by_file.items():
            try:
                with safe_open(path, framework="pt") as file:
                    for name in members:
                        tensors[name] = file.get_tensor(self.places[name][1])
            except (SafetensorError, OSError) as error:
                raise _damaged(path, error) from None
        return tensors

    def read_part(self, name: str, part: tuple[slice, ...]) -> Tensor:
        """Read a part of one tensor, and no other bytes of it: on the CPU, in its stored dtype."""
        path, stored = self.places[name]
        try:
            with safe_open(path, framework="pt") as file:
                return file.get_slice(stored)[part]  # type: ignore[no-any-return]
        except (SafetensorError, OSError) as error:
            raise _damaged(path, error) from None


def _read_headers(path: Path) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Return dtype and shape of every tensor in a file."""
    with readable(path):  # the library reports an unreadable file as a damaged one
        path.open("rb").close()
    try:
        with safe_open(path, framework="pt") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 - no mapping
            return {name: (part.get_dtype(), tuple(part.get_shape())) for name, part in slices.items()}
    except (SafetensorError, OSError) as error:
        raise _damaged(path, error) from None


def _parameter_name(stored: str, config: ModelConfig) -> str | None:
    """Return the full name of a stored tensor; None for one that is not a parameter of the network."""
    is_head = stored in (HEAD, config.family.head_name)
    if _ROTARY_TABLE.fullmatch(stored) or (is_head and config.tie_word_embeddings):
        return None
    return config.family.parameter_name(stored)


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{', '.join(map(shown, names[:_SHOWN]))}{more}"


def _damaged(path: Path, error: Exception) -> InputError:
    return InputError(f"{path} is damaged ({shown(str(error))}): restore it or use another checkpoint")
