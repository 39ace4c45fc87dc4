"""Induction: the second copy of a random string, after its first copy or after an anagram of it.

The scored part begins after characters that are the same in both, more than counting reads. The anagram has the same
characters in another order, so a model that only prefers characters seen before scores one half.
"""

from __future__ import annotations

from collections import Counter

from etude.data.primer.rng import Rng
from etude.evaluate.items import Candidate, Item
from etude.evaluate.text_probes.passages import Material
from etude.evaluate.text_probes.proposal import Draft, Proposal, ready

COPY_CHARS = 24
MATCHED_CHARS = 8
"""Characters of the second copy that are given; the rest is scored."""

_MOST_LETTERS = 64
_FEWEST_LETTERS = 8


def induction(material: Material) -> list[Proposal]:
    """Propose two items from a string and its anagram: each is the wrong first copy of the other."""
    rng = material.rng("induction")
    letters = alphabet(material)
    drafts = []
    if len(letters) >= _FEWEST_LETTERS:
        between = _separator(material)
        for number in range(material.enough // 2):
            one, other = _string_and_anagram(letters, rng)
            items = (_item(one, other, between, str(number)), _item(other, one, between, str(number)))
            drafts.append(Draft(items, (one, other)))
    make, known_by = ready(drafts)
    return [
        Proposal(
            "induction",
            "",
            "Does the rest of a string's second copy come after its first copy, or after an anagram of it? The last "
            f"{MATCHED_CHARS} characters are the same.",
            "random letters: the training text contains neither string",
            make,
            f"the text has fewer than {_FEWEST_LETTERS} different letters",
            known_by=known_by,
        )
    ]


def alphabet(material: Material) -> list[str]:
    """Return the most frequent letters of the text, in lower case if the script has both cases."""
    counts: Counter[str] = Counter()
    for passage in material.passages[:256]:
        counts.update(passage.text)
    letters = [char for char in counts if char.isalpha() and not char.isupper() and not char.istitle()]
    return sorted(sorted(letters, key=lambda char: (-counts[char], char))[:_MOST_LETTERS])


def _separator(material: Material) -> str:
    """Return a line end, or another character of the text that is not a letter."""
    text = "".join(passage.text for passage in material.passages[:256])
    return next((char for char in ("\n", " ", ".", "。") if char in text), "\n")


def _string_and_anagram(letters: list[str], rng: Rng) -> tuple[str, str]:
    one = [rng.pick(letters) for _ in range(COPY_CHARS)]
    while (other := rng.some(one, COPY_CHARS)) == one:
        pass
    return "".join(one), "".join(other)


def _item(copied: str, anagram: str, between: str, group: str) -> Item:
    matched, said = copied[:MATCHED_CHARS], copied[MATCHED_CHARS:]
    after = [Candidate(f"{between}{first}{between}{matched}", said) for first in (copied, anagram)]
    return Item(tuple(after), 0, group)
