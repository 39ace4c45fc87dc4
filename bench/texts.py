"""The texts of the benchmarks, and the same text as tokens for a peer."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

DATA = Path(__file__).resolve().parent.parent.parent / "shared" / "data"
"""Where the texts that are not part of Etude are looked for, unless --data says otherwise."""


@dataclass(frozen=True)
class Text:
    """A text, and how Etude is told to read it."""

    title: str
    source: str  # a built-in, or a path below the folder of texts
    held_out: tuple[str, ...] = ()
    """Settings that say what is held out, where it is not by whole documents."""
    characters: bool = False
    """Whether peers read characters."""

    @property
    def overrides(self) -> tuple[str, ...]:
        """Settings with which Etude reads what peers read."""
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
    """Write what ``peers.Tokens`` reads: Etude's own tokens, or the characters as nanoGPT's script makes them.

    ``data`` is etude's prepared text. The characters held out are the same ones on both sides.
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
