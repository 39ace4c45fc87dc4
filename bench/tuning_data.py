"""Write conversations for the comparisons of tuning settings (tuning_rates.py), besides examples/faq.

    python bench/tuning_data.py eras SPEECHES FOLDER      # was a passage of an inaugural address spoken before 1900?
    python bench/tuning_data.py replies PLAYS FOLDER      # a speech of a play, and the next one as its answer

SPEECHES holds files inaugural-YEAR-NAME.txt (the NLTK data), PLAYS is a file with blocks of "NAME:" and lines (the Tiny
Shakespeare file). FOLDER gets train.jsonl and valid.jsonl; no address is in both.
"""

from __future__ import annotations

import itertools
import json
import random
import sys
from pathlib import Path

WORDS, PASSAGES, EVERY = 40, 4, 4
"""Words of a passage, passages of an address, and which addresses are held out: one of so many."""
TRAINED, HELD_OUT = 120, 40
"""Passages that are kept."""
SHORTEST, LONGEST = 40, 240
"""Characters of a speech."""
SPEECHES_TRAINED, SPEECHES_HELD_OUT = 150, 30
Rows = dict[str, list[tuple[str, str]]]


def eras(folder: Path) -> Rows:
    """Return questions on the time of a passage."""
    rng = random.Random(1)
    rows: Rows = {"train": [], "valid": []}
    for number, file in enumerate(sorted(folder.glob("inaugural-*.txt"))):
        words = file.read_text(encoding="utf-8").split()
        count = min(PASSAGES, len(words) // WORDS - 1)
        label = "before 1900" if file.name.split("-")[1] < "1900" else "after 1900"
        part = rows["valid" if number % EVERY == EVERY - 1 else "train"]
        for start in rng.sample(range(0, len(words) - WORDS, WORDS), count):
            passage = " ".join(words[start : start + WORDS])
            part.append((f'Was this spoken before or after 1900? "{passage}"', label))
    for name, most in (("train", TRAINED), ("valid", HELD_OUT)):
        random.Random(3).shuffle(rows[name])
        del rows[name][most:]
    return rows


def speeches_with_next(file: Path) -> list[tuple[str, str]]:
    """Return speeches of a play with the next one, of those that are neither short nor long."""
    blocks = [block.strip().partition("\n") for block in file.read_text(encoding="utf-8").split("\n\n")]
    speeches = [" ".join(text.split()) for name, _, text in blocks if name.endswith(":")]
    return [
        pair
        for pair in itertools.pairwise(speeches)
        if all(SHORTEST <= len(speech) <= LONGEST for speech in pair)
    ]


def replies(file: Path) -> Rows:
    """Return speeches with the next one."""
    pairs = speeches_with_next(file)
    end = SPEECHES_TRAINED + SPEECHES_HELD_OUT
    return {"train": pairs[:SPEECHES_TRAINED], "valid": pairs[SPEECHES_TRAINED:end]}


def main(kind: str, source: Path, folder: Path) -> None:
    rows = {"eras": eras, "replies": replies}[kind](source)
    folder.mkdir(parents=True, exist_ok=True)
    for name, pairs in rows.items():
        lines = [
            json.dumps({"messages": [{"role": "user", "content": q}, {"role": "assistant", "content": a}]})
            for q, a in pairs
        ]
        (folder / f"{name}.jsonl").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        print(f"{folder / name}.jsonl: {len(lines)} conversations")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
