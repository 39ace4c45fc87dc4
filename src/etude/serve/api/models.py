"""The served models: their names, the checkpoint that each name means now, and the memory that they take."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from etude.data.conversations.template import ChatTemplate
from etude.data.tokens.tokenizer import EtudeTokenizer
from etude.device import free_memory_bytes
from etude.errors import EtudeError, InputError
from etude.generate.chat_prompt import answer_ends, chat_template
from etude.generate.running_batch import RunningBatch, cache_bytes
from etude.generate.text import bytes_of_tokens
from etude.model.language_model import LanguageModel
from etude.pretrained.load_model import load_trained
from etude.pretrained.resolve_source import model_folder, source_at_step
from etude.run.checkpoints import list_checkpoints, step_of
from etude.run.folder import is_run
from etude.serve.api.problem import Problem
from etude.untrusted import shown

FOLLOW_SECONDS = 2.0
"""Seconds between two looks for a newer checkpoint of a run."""
SHARE_OF_FREE = 0.8
"""Most of the free memory that one model may take."""


@dataclass(eq=False)
class Served:
    """A loaded model.

    Attributes:
        name: what requests call it.
        version: name with the step of its checkpoint, where it has one.
        source: what the user typed.
    """

    name: str
    version: str
    source: str
    folder: Path
    tokenizer: EtudeTokenizer
    batch: RunningBatch
    created: int

    @property
    def context(self) -> int:
        """Most tokens of a request, prompt included."""
        return self.batch.capacity

    @property
    def vocab_size(self) -> int:
        return self.batch.model.config.vocab_size

    @cached_property
    def token_bytes(self) -> dict[int, bytes]:
        """The bytes of each ordinary token; empty where they depend on neighbours."""
        return bytes_of_tokens(self.tokenizer.backend) or {}

    @cached_property
    def template(self) -> ChatTemplate | None:
        """The chat template; None: the model continues text."""
        return chat_template(self.tokenizer)

    @cached_property
    def answer_ends(self) -> frozenset[int]:
        """The tokens that end an answer in a conversation."""
        return answer_ends(self.tokenizer)

    def require_chat(self) -> ChatTemplate:
        """Return the chat template. Raises Problem without one."""
        if self.template is None:
            raise Problem(
                f"the model '{self.name}' has no chat template, so it continues text and knows no turns: "
                "use /v1/completions",
                param="messages",
                code="model_not_supported",
            )
        return self.template


@dataclass(frozen=True)
class Limits:
    """Bounds of the memory of one model: rows that generate together, and tokens of each (None: its context)."""

    rows: int = 8
    context: int | None = None


class ServedModels:
    """The models of a server by name. A run is followed: its name means its newest checkpoint.

    Reading a checkpoint takes nothing from the training: files are opened to read, and verified.

    Raises:
        InputError: a source that is no model, two with one name, or too little memory.
    """

    def __init__(self, sources: list[str], steps: list[int], limits: Limits) -> None:
        self.limits = limits
        self._sources: dict[str, str] = {}
        self._loaded: dict[str, Served] = {}
        self._looked: dict[str, float] = {}
        self._lock = threading.Lock()
        self.problems: dict[str, str] = {}
        """For a followed run, why its newest checkpoint is not served."""
        for source in sources:
            for name, place in self._names(source, steps):
                if name in self._sources:
                    raise InputError(
                        f"two models would be called '{name}': serve one of {self._sources[name]} and {place}"
                    )
                self._sources[name] = place
        for name in self._sources:
            self._loaded[name] = self._load(name)

    @staticmethod
    def _names(source: str, steps: list[int]) -> list[tuple[str, str]]:
        name = Path(source.rstrip("/")).name.removesuffix(".gguf") or "model"
        if not steps:
            return [(name, source)]
        base = name.partition("@")[0]
        return [(f"{base}@{step}", str(source_at_step(source, step))) for step in dict.fromkeys(steps)]

    def names(self) -> list[str]:
        """Return the names, in the order in which they were given."""
        return list(self._sources)

    def current(self, name: str) -> Served:
        """Return the model that a name means now. A followed run may load a newer checkpoint, so this may take seconds.

        Raises:
            Problem: no model has this name.
        """
        if name not in self._sources:
            choice = ", ".join(self._sources)
            raise Problem(
                f"the model '{shown(name)}' does not exist: choose one of {choice}",
                404,
                param="model",
                code="model_not_found",
            )
        with self._lock:
            now = time.monotonic()
            if now - self._looked.get(name, -FOLLOW_SECONDS) >= FOLLOW_SECONDS:
                self._looked[name] = now
                self._follow(name)
            return self._loaded[name]

    def _follow(self, name: str) -> None:
        """Load the newest checkpoint of a run, if it is newer. If it cannot be read, the older one stays."""
        run = Path(self._sources[name])
        if not is_run(run):
            return
        checkpoints = list_checkpoints(run / "checkpoints")
        if not checkpoints or checkpoints[-1] == self._loaded[name].folder:
            return
        try:
            self._loaded[name] = self._load(name)
            self.problems.pop(name, None)
        except EtudeError as error:
            self.problems[name] = str(error)

    def _load(self, name: str) -> Served:
        folder = model_folder(self._sources[name])
        trained = load_trained(folder)
        config = trained.model.config
        capacity = min(self.limits.context or config.max_position_embeddings, config.max_position_embeddings)
        needed = self.predicted_bytes(trained.model, capacity)
        free = free_memory_bytes(trained.model.unembedding()[0].device.type)
        if free is not None and needed > SHARE_OF_FREE * free:
            raise InputError(
                f"'{name}' would take {needed / 2**30:,.1f} GiB for {self.limits.rows} rows of {capacity:,} tokens; "
                f"{free / 2**30:,.1f} GiB are free: use fewer --rows or a smaller --context"
            )
        step = step_of(folder) if folder.name.startswith("step-") else None
        version = name if step is None or "@" in name else f"{name}@{step}"
        batch = RunningBatch(trained.model, self.limits.rows, capacity)
        created = int((folder / "config.json").stat().st_mtime) if (folder / "config.json").exists() else 0
        return Served(name, version, self._sources[name], folder, trained.tokenizer, batch, created)

    def predicted_bytes(self, model: LanguageModel, capacity: int) -> int:
        """Return the bytes that serving takes besides the weights: fused copies of these, and the cache."""
        copies = 4 * sum(parameter.numel() for parameter in model.parameters())
        return copies + cache_bytes(model.config, self.limits.rows, capacity)
