"""Whether a model answers in a conversation, from the files beside its weights."""

from __future__ import annotations

from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from etude.data.conversations.template import CHATML_TOKENS, template_source
from etude.data.tokens.tokenizer import RECORD
from etude.errors import InputError
from etude.files import read_json
from etude.run.record import Stamp, stamp_of
from etude.untrusted import MAX_JSON_BYTES, read_plain

_FILES = ("chat_template.jinja", "chat_template.json", "tokenizer_config.json")
_TOKENIZER = "tokenizer.json"


def knows_turns(folder: Path) -> bool:
    """Return whether the model in ``folder`` has a chat template, or a tokenizer of Etude with the tokens of ChatML."""
    names = (*_FILES, RECORD, _TOKENIZER)
    return _knows_turns(folder, tuple(stamp_of(folder / name) for name in names))


@lru_cache(maxsize=64)
def _knows_turns(folder: Path, stamps: tuple[Stamp, ...]) -> bool:
    files = {}
    for name in _FILES:
        with suppress(OSError, InputError):
            files[name] = read_plain(folder / name, MAX_JSON_BYTES)
    try:
        if template_source(files) is not None:
            return True
        record = read_json(folder / RECORD) if (folder / RECORD).is_file() else None
        if not isinstance(record, dict) or "carried" in record:
            return False
        added = read_json(folder / _TOKENIZER).get("added_tokens") or []
        return {token["content"] for token in added} >= set(CHATML_TOKENS)
    except (InputError, AttributeError, KeyError, TypeError):  # damaged
        return False
