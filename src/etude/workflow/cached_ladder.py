"""The n-gram ladder of a text, from the cache where it was counted before."""

from __future__ import annotations

import json

from rich.console import Console

from etude.data.files import default_cache
from etude.errors import InputError
from etude.evaluate.ladder import Ladder, build_ladder
from etude.run import read_json, write_atomic
from etude.train.plan import Plan, validation_text


def cached_ladder(plan: Plan, console: Console) -> Ladder:
    """The n-gram ladder of this text, scored on what the model is scored on: counted once, then kept in the cache."""
    wanted, scored_bytes = plan.settings.ladder, validation_text(plan).source_bytes
    key = f"{plan.data.corpus_hash}-{wanted.max_order}-{wanted.max_train_bytes}-{scored_bytes}"
    file = default_cache() / "ladders" / f"{key}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.is_file():
        try:
            return Ladder.from_json(read_json(file))
        except InputError:
            file.unlink()
    with console.status("counting n-grams"):
        ladder = build_ladder(
            plan.data.documents("train"),
            plan.data.documents("validation", scored_bytes),
            orders=range(1, wanted.max_order + 1),
            max_train_bytes=wanted.max_train_bytes,
            max_validation_bytes=scored_bytes,
        )
    assert ladder.validation_bytes == scored_bytes, "model and ladder are scored on the same bytes"
    write_atomic(file, json.dumps(ladder.to_json()))
    return ladder
