"""The n-gram ladder of a run's text: counted once, kept in the cache and in the run, recounted if lost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rich.console import Console

from etude.errors import InputError
from etude.evaluate.ladder import build_ladder
from etude.files import hash_bytes, hash_file, json_text, read_json, write_atomic, write_failure, write_json
from etude.places import cache_folder
from etude.plan.plan import Plan, validation_text
from etude.run import RunFolder
from etude.run.ladder import Ladder
from etude.run.provenance import ACCEPTED, expected_files, recomputed_entry
from etude.show.lines import print_line


def cached_ladder(plan: Plan, console: Console, *, recount: bool = False) -> Ladder:
    """Return the n-gram ladder of this text, scored on the model's validation text, from the cache if possible.

    With ``recount``, the cache is ignored and overwritten.
    """
    settings, text = plan.settings.ladder, validation_text(plan)
    key = f"{plan.data.corpus_hash}-{settings.max_order}-{settings.max_train_bytes}-{text.covered_bytes}"
    if text.scope is not None:
        key += f"-{hash_bytes(text.scope.name.encode())}"
    if plan.data.validation.examples is not None:  # their text follows from the template too
        key += f"-{plan.data.fingerprint}"
    file = cache_folder() / "ladders" / f"{key}.json"
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise write_failure(file.parent, error) from error
    if file.is_file() and not recount:
        try:
            return Ladder.from_json(read_json(file))
        except InputError:
            file.unlink()
    with console.status("counting n-grams"):
        ladder = build_ladder(
            plan.data.documents("train"),
            text.texts(),
            orders=range(1, settings.max_order + 1),
            max_train_bytes=settings.max_train_bytes,
            max_validation_bytes=text.covered_bytes,
            bytes_counted=None if text.scope is None else text.scope.bytes_counted,
        )
    assert ladder.validation_bytes == text.source_bytes, "model and ladder are scored on the same bytes"
    write_atomic(file, json.dumps(ladder.to_json()))
    return ladder


def mend_ladder(plan: Plan, run: RunFolder, manifest: dict[str, Any], console: Console) -> None:
    """Recount the run's n-gram ladder if it is lost or damaged. Call only from the process that holds the run.

    Raises:
        EtudeError: the file cannot be written.
    """
    name = run.ladder_file.name
    expected = expected_files(None, manifest).get(name)
    problem = _problem(run.ladder_file, expected)
    if problem is None:
        return
    set_aside = ""
    if run.ladder_file.exists():
        set_aside = f"; the previous file is kept as {run.set_aside(run.ladder_file)}"
    ladder = cached_ladder(plan, console)
    if expected is not None and _hash(ladder) != expected:  # the copy in the cache may be damaged as well
        ladder = cached_ladder(plan, console, recount=True)
    write_json(run.ladder_file, ladder.to_json())
    outcome = "counted again"
    if expected is not None and _hash(ladder) != expected:
        manifest.setdefault(ACCEPTED, []).append(recomputed_entry(name, _hash(ladder)))
        run.write_manifest(manifest)
        outcome = "counted again, and its scores differ from the previous ones in the last digits"
    print_line(console, f"{run.ladder_file} {problem}: it was {outcome}{set_aside}")


def _problem(file: Path, expected: str | None) -> str | None:
    """Return what is wrong with a run's ladder.json, as the end of a sentence; None if nothing is."""
    if not file.is_file():
        return "is missing"
    if expected is not None:
        return None if hash_file(file) == expected else "is damaged or was edited"
    try:
        return None if Ladder.from_json(read_json(file)).rungs else "is damaged"
    except InputError:
        return "is damaged"


def _hash(ladder: Ladder) -> str:
    """Return the hash of the ladder.json with this ladder."""
    return hash_bytes(json_text(ladder.to_json()).encode())
