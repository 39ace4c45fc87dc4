"""Our own minimal pairs, in BLiMP's format: the right sentence is sometimes longer, sometimes shorter."""

from __future__ import annotations

import json
from pathlib import Path

from etude.evaluate.blimp import Paradigm

_NOUNS = ("fox", "miller", "otter", "girl", "baker")
_VERBS = ("run", "sing", "sleep", "dig")

OURS = [
    Paradigm(
        "agreement",
        "subject_verb_agreement",
        tuple((f"The {noun} {verb}s.", f"The {noun} {verb}.") for noun in _NOUNS for verb in _VERBS),
    ),
    Paradigm(
        "order",
        "word_order",
        tuple((f"The {noun} can {verb}.", f"{noun} the {verb} can.") for noun in _NOUNS for verb in _VERBS),
    ),
    Paradigm(
        "plural",
        "subject_verb_agreement",
        tuple((f"Two {noun}s {verb}.", f"Two {noun}s {verb}s.") for noun in _NOUNS for verb in _VERBS),
    ),
]


def write_paradigms(folder: Path, paradigms: list[Paradigm]) -> Path:
    """Write a .jsonl file for each."""
    folder.mkdir(parents=True, exist_ok=True)
    for one in paradigms:
        rows = [
            {
                "sentence_good": good,
                "sentence_bad": bad,
                "field": "syntax",
                "linguistics_term": one.phenomenon,
                "UID": one.name,
                "pairID": str(number),
            }
            for number, (good, bad) in enumerate(one.pairs)
        ]
        (folder / f"{one.name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder
