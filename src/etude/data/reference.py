"""The reference text: it has nothing to do with the training text, so its loss shows what training costs elsewhere.

The text of the package (reference.txt) was written for this purpose in November 2026, so older models cannot have read
it. It has prose of several kinds, a dialogue, questions and answers, code, a little German, French and Spanish.
A run keeps a copy of its reference text in its manifest, so that all its evaluations score the same.

The suite "tuning" scores it and a second one, reference_code.txt: source code in eight languages, written for this as
well.
"""

from __future__ import annotations

import codecs
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from etude.errors import InputError
from etude.files import json_digest
from etude.places import expand_home
from etude.untrusted import shown

NONE, BUILT_IN = "none", "builtin"
REFERENCE = "reference"
"""Key of the manifest."""
_FILE = Path(__file__).with_name("reference.txt")
_CODE_FILE = Path(__file__).with_name("reference_code.txt")
_BOUNDARY = "\n%%\n"
MOST_BYTES = 16_384
"""Most bytes of a user's file that are scored: each evaluation scores the text."""


@dataclass(frozen=True)
class ReferenceText:
    """A reference text. name: what messages call it."""

    name: str
    documents: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the entry of the manifest."""
        return {"name": self.name, "documents": list(self.documents)}

    @property
    def digest(self) -> str:
        """A short hash of the content."""
        return json_digest(self.to_json())[:16]

    @classmethod
    def from_json(cls, content: object) -> ReferenceText:
        """Return the text in an entry of a manifest.

        Raises:
            InputError: it is not as Etude writes it.
        """
        match content:
            case {"name": str(name), "documents": [*documents]} if documents:
                if all(isinstance(document, str) and document for document in documents):
                    return cls(name, tuple(documents))
        raise InputError("the reference text in the manifest is damaged: restore manifest.json")


def reference_text(source: str) -> ReferenceText | None:
    """Return the text that the setting ``train.reference`` names; None for no text.

    Raises:
        InputError: the file is missing, empty or not text in UTF-8.
    """
    if source in (NONE, "auto"):  # no dial has resolved "auto" in the settings of older runs
        return None
    if source == BUILT_IN:
        return ReferenceText("the reference text", _documents(_FILE))
    file = expand_home(source)
    try:
        if not file.is_file():  # a pipe would block
            raise InputError(f"train.reference: {shown(source)} is not a file: give a text file")
        status = file.stat()
        return _text_in(file.absolute(), source, (status.st_mtime_ns, status.st_size, status.st_ino))
    except OSError as error:
        raise InputError(
            f"train.reference: cannot read {shown(source)} ({error.strerror}): give a text file"
        ) from None


@lru_cache(1)
def _text_in(file: Path, source: str, stamp: tuple[int, ...]) -> ReferenceText:
    """Return the text in a file. A start of training needs it twice: while ``stamp`` is the same it is read once."""
    with file.open("rb") as stream:
        content = stream.read(MOST_BYTES)
    try:  # skip a character that the limit cuts; refuse any other damage
        text = (
            codecs.getincrementaldecoder("utf-8")().decode(content, final=len(content) < MOST_BYTES).strip()
        )
    except UnicodeDecodeError:
        text = ""
    if not text or "\0" in text:
        raise InputError(f"train.reference: {shown(source)} has no text in UTF-8: give a text file")
    return ReferenceText(file.name, (text,))


def built_in_texts() -> tuple[ReferenceText, ReferenceText]:
    """Return the texts of the package: general text, and source code."""
    return (
        ReferenceText("general text", _documents(_FILE)),
        ReferenceText("source code", _documents(_CODE_FILE)),
    )


def _documents(file: Path) -> tuple[str, ...]:
    return tuple(file.read_text("utf-8").strip().split(_BOUNDARY))
