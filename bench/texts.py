"""The texts of the benchmarks, for Etude and as tokens for its peers."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

DATA = Path(__file__).resolve().parent.parent.parent / "shared" / "data"
"""Default folder (option --data) of the texts that are not part of Etude."""


@dataclass(frozen=True)
class Text:
    """A text, and the settings with which Etude reads it."""

    title: str
    source: str  # a built-in, or a path below the folder of texts
    held_out: tuple[str, ...] = ()
    """Settings that choose the held-out part, unless whole documents are held out."""
    characters: bool = False
    """Whether the tokens of peers are characters."""

    @property
    def overrides(self) -> tuple[str, ...]:
        """Return the settings with which Etude reads the same tokens as its peers."""
        return (*(("tokenizer.kind=char",) if self.characters else ()), *self.held_out)

    def sources(self, folder: Path) -> list[str]:
        return [self.source if self.source.startswith("builtin:") else str(folder / self.source)]

    def is_there(self, folder: Path) -> bool:
        return self.source.startswith("builtin:") or (folder / self.source).exists()


TEXTS = {
    "shakespeare": Text(
        "Tiny Shakespeare, last 10 % held out",
        "tinyshakespeare.txt",
        ("data.split=tail", "data.validation_fraction=0.1"),
        characters=True,
    ),
    "speeches": Text("Speeches of US presidents, BPE", "speeches"),
    "primer": Text("builtin:primer, BPE", "builtin:primer"),
}


def save_tokens(text: Text, data: Any, sources: list[str], folder: Path) -> None:
    """Write the files of ``peers.Tokens``: Etude's own tokens, or characters as nanoGPT's script makes them.

    ``data`` is Etude's prepared text. Both sides hold out the same characters.
    """
    folder.mkdir(parents=True, exist_ok=True)
    facts: dict[str, Any] = {}
    if text.characters:
        whole = Path(sources[0]).read_text(encoding="utf-8")
        held_out = len(whole) - int(0.9 * len(whole))
        number = {character: index for index, character in enumerate(sorted(set(whole)))}
        ids = np.array([number[character] for character in whole], np.uint16)
        parts = {"train": ids[:-held_out], "validation": ids[-held_out:]}
        unpredicted = len(whole[-held_out].encode())  # nothing stands before the first one
        validation_bytes = len(whole[-held_out:].encode()) - unpredicted
        assert validation_bytes + unpredicted == data.validation.source_bytes, "both hold out the same text"
        facts |= {"vocab_size": len(number), "eos_id": None, "validation_bytes": validation_bytes}
    else:
        parts = {
            name: np.concatenate(part.shards)
            for name, part in (("train", data.train), ("validation", data.validation))
        }
        facts |= {"vocab_size": data.tokenizer.vocab_size, "eos_id": data.tokenizer.roles.document_id}
        facts["validation_bytes"] = data.validation.source_bytes
    for name, ids in parts.items():
        np.save(folder / f"{name}.npy", ids)
    (folder / "facts.json").write_text(json.dumps(facts))
