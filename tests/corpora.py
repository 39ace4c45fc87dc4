"""Small corpora for the tests of this folder."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from etude.data.prepared_data import PreparedData, prepare
from etude.text_settings import DataSettings, TokenizerSettings

WORDS = [
    f"{a}{b}"
    for a in ("al", "be", "cor", "dim", "ed", "fa", "gre", "hu")
    for b in ("n", "ro", "ta", "sil", "vex", "mo")
]


def line(rng: random.Random, words: int = 14) -> str:
    """Return a line of more than 64 characters."""
    return " ".join(rng.choice(WORDS) + str(rng.randrange(100)) for _ in range(words)) + "."


def write_documents(folder: Path, count: int, *, seed: int = 1, lines: int = 12) -> None:
    """Write ``count`` different text files."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        rng = random.Random(f"{seed} {number}")
        text = "\n".join(line(rng) for _ in range(rng.randrange(1, lines))) + "\n"
        (folder / f"{seed}-{number:04d}.txt").write_text(text, encoding="utf-8")


def prepared(
    source: Path | str, cache: Path, *, tokenizer: dict[str, Any] | None = None, seed: int = 1, **data: Any
) -> PreparedData:
    """Prepare one source."""
    settings = DataSettings(sources=(str(source),), **data)
    return prepare(
        settings, TokenizerSettings(**(tokenizer or {})), family_pattern="llama3", seed=seed, cache=cache
    )
