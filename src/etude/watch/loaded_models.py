"""Models that stay loaded between looks: loading one takes seconds, and a look at it less."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from etude.data.tokens.tokenizer import EtudeTokenizer
from etude.model.cost import count_parameters
from etude.model.folder import load_config
from etude.model.language_model import LanguageModel
from etude.pretrained.load_model import load_trained
from etude.run.record import Stamp, stamp_of
from etude.run.weight_files import config_file, weight_files
from etude.watch import text_types
from etude.watch.prompts import Passage, Prompt, look
from etude.watch.proof import Proof
from etude.watch.values import induction_values

Stamps = tuple[Stamp, ...]

MOST_MODELS = 2
MEMORY_BYTES = 3 * 2**30
"""Memory of the kept models together; one that is larger is kept alone."""


@dataclass(eq=False)
class Reader:
    """A network that reads texts, with what does not depend on the text.

    Attributes:
        where: the run and step with the proof, or the name of the model.
        proof: how a replayed state compares with the run's record; None for a model without a run.
    """

    model: LanguageModel
    tokenizer: EtudeTokenizer
    where: str
    proof: Proof | None = None
    _last: tuple[Passage, Prompt] | None = None

    @cached_property
    def induction(self) -> text_types.InductionAnswer:
        """The induction scores of its heads."""
        return induction_values(self.model)

    @property
    def num_bytes(self) -> int:
        return sum(parameter.nbytes for parameter in self.model.parameters())

    def read(self, passage: Passage) -> Prompt:
        """Return a text, or tokens, as the network reads them; the last passage is kept.

        Raises:
            InputError: the passage is too long for the network.
        """
        if self._last is None or self._last[0] != passage:
            self._last = None  # its memory is needed for the next
            self._last = passage, look(self.model, self.tokenizer, passage, self.where, self.proof)
        return self._last[1]


class LoadedModels:
    """The models that were used last, by path and stamp: a changed file is loaded again."""

    def __init__(self, most: int = MOST_MODELS, memory_bytes: int = MEMORY_BYTES) -> None:
        self.most, self.memory_bytes = most, memory_bytes
        self._loaded: OrderedDict[Path, tuple[Reader, Stamps]] = OrderedDict()

    def has(self, folder: Path) -> bool:
        """Return whether the model in ``folder`` is loaded, in the present state of its files."""
        return folder in self._loaded and self._loaded[folder][1] == _stamps(folder)

    def of(self, folder: Path, name: str) -> Reader:
        """Return the model in ``folder``, loaded now or before, and called ``name``.

        Raises:
            InputError: there is no model, or it cannot be read.
        """
        if self.has(folder):
            self._loaded.move_to_end(folder)
            return self._loaded[folder][0]
        self._loaded.pop(folder, None)
        self._make_room(4 * count_parameters(load_config(folder)).total)
        stamps = _stamps(folder)
        trained = load_trained(folder)
        reader = Reader(trained.model, trained.tokenizer, f"read by {name}")
        self._loaded[folder] = reader, stamps
        return reader

    def _make_room(self, num_bytes: int) -> None:
        """Drop models, the least recently used first, until one of ``num_bytes`` fits."""
        while self._loaded and (
            len(self._loaded) >= self.most
            or num_bytes + sum(reader.num_bytes for reader, _ in self._loaded.values()) > self.memory_bytes
        ):
            self._loaded.popitem(last=False)


def _stamps(folder: Path) -> Stamps:
    """Return a value that changes with the files that a model is loaded from."""
    files = (
        config_file(folder),
        *weight_files(folder),
        folder / "tokenizer.json",
        folder / "tokenizer_config.json",
    )
    return tuple(stamp_of(file) for file in files)
