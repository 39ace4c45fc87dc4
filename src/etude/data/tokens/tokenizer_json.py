"""A tokenizer.json: reading it within bounds, and the form in which Etude saves it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from etude.data.corpus.clean import Form
from etude.data.tokens.growth import MOST_GROWTH, growth_of
from etude.data.tokens.normalisation import add_normaliser
from etude.errors import InputError
from etude.untrusted import MAX_JSON_BYTES, read_plain, shown

if TYPE_CHECKING:
    from tokenizers import Tokenizer

FILE = "tokenizer.json"


def read_backend(path: Path) -> str:
    """Return the text of a tokenizer.json. Raises InputError where it cannot be read."""
    try:
        return read_plain(path, MAX_JSON_BYTES).decode("utf-8")
    except FileNotFoundError:
        if path.with_name("tokenizer.model").is_file():
            raise InputError(
                f"{path.parent} has a tokenizer.model and no {path.name}: write it once, with transformers and "
                f"sentencepiece: AutoTokenizer.from_pretrained({str(path.parent)!r}).save_pretrained(...)"
            ) from None
        raise InputError(
            f"{path} is missing: put the tokenizer.json that belongs there back, or name another"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read as a tokenizer: {error}") from None


def parse_backend(text: str, path: Path) -> Tokenizer:
    """Return the tokenizer that ``text``, the content of ``path``, describes.

    Raises:
        InputError: it describes none, or its rules could exhaust the memory.
    """
    try:
        return usable_backend(text)
    except ValueError as error:
        raise InputError(
            f"{path} is not a usable tokenizer.json ({error}): restore it or train a new one"
        ) from None


def usable_backend(text: str) -> Tokenizer:
    """Return the tokenizer that the text of a tokenizer.json describes.

    Raises:
        ValueError: it describes none, or its rules could exhaust the memory; the message is one line.
    """
    from tokenizers import Tokenizer

    try:
        backend = Tokenizer.from_str(text)
        if not backend.get_vocab_size(with_added_tokens=True):
            raise ValueError("it has no tokens")
        for part in (backend.normalizer, backend.pre_tokenizer, backend.decoder):
            if part is not None and growth_of(json.loads(part.__getstate__())) > MOST_GROWTH:
                raise ValueError("its rules turn one character into more than a thousand")
        return backend
    except BaseException as error:  # the library raises plain Exception, or a BaseException when it panics
        if isinstance(error, KeyboardInterrupt | SystemExit):
            raise
        raise ValueError(shown((str(error).splitlines() or ["not a tokenizer"])[0])) from None


def begins_with(document: str, document_id: int) -> dict[str, Any]:
    """Return the post-processor that puts a token before a text, and before each text of a pair."""
    begin = [{"SpecialToken": {"id": document, "type_id": number}} for number in range(2)]
    texts = [{"Sequence": {"id": name, "type_id": number}} for number, name in enumerate("AB")]
    return {
        "type": "TemplateProcessing",
        "single": [begin[0], texts[0]],
        "pair": [begin[0], texts[0], begin[1], texts[1]],
        "special_tokens": {document: {"id": document, "ids": [document_id], "tokens": [document]}},
    }


def as_saved(text: str, document: str, document_id: int, normalization: Form | None) -> str:
    """Return a tokenizer.json that normalises a text and puts ``document`` before it, and before each text of a pair.

    An existing normaliser stays. Other tokens that the tokenizer put before a text are removed. GPT-2's ``ByteLevel``
    post-processor, which concerns only offsets, stays.
    """
    from tokenizers import Tokenizer

    stated = json.loads(text)
    template = begins_with(document, document_id)
    current = stated.get("post_processor") or {}
    offsets = [step for step in current.get("processors", [current]) if step.get("type") == "ByteLevel"]
    stated["post_processor"] = (
        {"type": "Sequence", "processors": [*offsets, template]} if offsets else template
    )
    backend = Tokenizer.from_str(json.dumps(stated))
    if normalization is not None:
        add_normaliser(backend, normalization)
    return str(backend.to_str(pretty=True))


def encodable(text: str) -> str:
    """Replace half surrogate pairs, which cannot be written as UTF-8, by U+FFFD."""
    if text.isascii():
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


@contextmanager
def failures_in_one_line() -> Iterator[None]:
    """Turn a failure of the library, caused by the rules of an untrusted tokenizer, into one clear line.

    Raises:
        InputError: the library failed on this text.
    """
    try:
        yield
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # a BaseException, from a module that cannot be imported
            raise
        raise InputError(
            f"the rules of this tokenizer fail on this text ({shown(str(error))}): use another tokenizer"
        ) from None


def hash_text(text: str) -> str:
    """Return BLAKE2b-128 of a text."""
    return hashlib.blake2b(text.encode("utf-8"), digest_size=16).hexdigest()
