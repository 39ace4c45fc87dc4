"""The prepared data of a run: its text as tokens ready for training, made from the sources or found in the cache.

    CACHE/corpus/KEY/    the cleaned, split text       KEY: content of the sources, settings that shape the text
    CACHE/tokens/KEY/    tokenizer, token shards       KEY: the corpus's key, settings of the tokenizer

A folder appears under its name only when it is complete. Files are verified by hash before use; damaged folders are
rebuilt. What a killed process left unfinished is removed before anything new is written.
"""

from __future__ import annotations

import multiprocessing
import re
import shutil
import tempfile
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from etude.data.conversations.shards import encode_examples, special_ids
from etude.data.corpus.corpus import EXAMPLES, Corpus, Part, build_corpus
from etude.data.corpus.cuts import pieces
from etude.data.files import damaged_file, describe_files, key_of, locked
from etude.data.reading.options import ReadingOptions
from etude.data.reading.sources import Source, has_conversations, open_sources, read_as_examples
from etude.data.report import DataReport
from etude.data.tokens import vocabulary
from etude.data.tokens.examples import open_examples
from etude.data.tokens.parts import TokenPart
from etude.data.tokens.published import existing_tokenizer
from etude.data.tokens.shards import LONGEST_STRETCH, encode_part, open_part, token_dtype
from etude.data.tokens.tokenizer import EtudeTokenizer
from etude.device import available_cores
from etude.errors import EtudeError, InputError
from etude.files import hash_bytes, hash_file, read_json, staged_folder, sweep_staging, write_json
from etude.places import cache_folder, expand_home
from etude.text_settings import DataSettings, TokenizerSettings
from etude.untrusted import inside

SCHEMA = 2
Progress = Callable[[str, int, int | None], None]
NEEDS_MODEL = (
    "these rows are conversations, which are for a model that knows language: name one with --from, such as "
    "--from hf:owner/name"
)
TokenizerOfBase = Callable[[bool], EtudeTokenizer]
"""Returns the tokenizer of the base model; for conversations (True), with a chat template."""
_NOT_TEXT = {"sources", "workers", "cross_document_attention", "seed", "mask", "replay"}
"""Settings of the data that do not change the prepared text. Sources and their seed count by content instead."""

_KEY = re.compile(r"[0-9a-f]{32}")

__all__ = ["PreparedData", "cache_folder", "open_prepared", "prepare"]


@dataclass(frozen=True, eq=False)
class PreparedData:
    """Everything that training and evaluation need from the text.

    Attributes:
        corpus_hash: the hash of every byte of the cleaned text and of the split.
        fingerprint: the name of these tokens in the cache, for :func:`open_prepared`.
    """

    tokenizer: EtudeTokenizer
    train: TokenPart
    validation: TokenPart
    report: DataReport
    corpus_hash: str
    fingerprint: str
    corpus: Corpus

    def documents(self, part: Part, max_bytes: int | None = None) -> Iterator[bytes]:
        """Yield the documents of a part as UTF-8, in the order of its tokens; at most ``max_bytes`` in all.

        Those of conversations are their texts as the chat template renders them.
        """
        examples = (self.train if part == "train" else self.validation).examples
        if examples is not None:
            return examples.all_texts(max_bytes)
        return self.corpus.documents(part, max_bytes)


def prepare(
    data: DataSettings,
    tokenizer: TokenizerSettings,
    *,
    family_pattern: str,
    seed: int,
    cache: Path,
    progress: Progress | None = None,
    published: TokenizerOfBase | None = None,
) -> PreparedData:
    """Clean, split and encode the text, or open it from ``cache``.

    Args:
        family_pattern: the pre-tokenizer expression of the model's family, used when the setting is ``auto``.
        seed: the seed of generated built-in text.
        published: returns the tokenizer of the base model, for ``tokenizer.kind`` "base". Only a run with a base reads
            rows as conversations, by the base's chat template.
        progress: called as (stage, bytes done, bytes in all or None).

    Raises:
        InputError: no usable text, a missing path, or a setting that cannot be met.
        EtudeError: the disk is full, or a worker died.
    """
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        # A worker that runs its parent's script again would wait for a lock that its parent holds.
        raise EtudeError("a script that prepares text needs `if __name__ == '__main__':` around its calls")
    report = progress or _silent
    vocabulary.check_kind(tokenizer.kind)
    spool = Path(tempfile.mkdtemp(prefix="etude-"))
    try:
        budget = None if data.max_bytes == "auto" else data.max_bytes
        options = ReadingOptions.of(data)
        sources = open_sources(data.sources, options=options, max_bytes=budget, seed=seed, spool=spool)
        examples = published is not None and has_conversations(sources)
        if examples:
            sources = read_as_examples(sources, options)
        of_base = None if published is None else published(examples)
        corpus_key = _corpus_key(data, sources)
        identity = _tokenizer_identity(tokenizer, family_pattern, of_base)
        if examples:
            identity["mask"] = data.mask
        fingerprint = key_of({"schema": SCHEMA, "corpus": corpus_key, "tokenizer": identity})
        with locked(cache, corpus_key):
            cached = _open(cache, fingerprint)
            if isinstance(cached, PreparedData):
                return cached
            for kind in ("corpus", "tokens"):
                sweep_staging(cache / kind)
            corpus = _corpus(cache / "corpus" / corpus_key, sources, data, report, published is None)
            with staged_folder(cache / "tokens" / fingerprint) as staging:
                make = partial(_tokenizer, corpus, tokenizer, family_pattern, of_base, report)
                notes = [cached] if cached else []
                _encode(staging, corpus, corpus_key, data, tokenizer, make, notes, report)
            prepared = _open(cache, fingerprint, check=False)
            assert isinstance(prepared, PreparedData)
            return prepared
    finally:
        shutil.rmtree(spool, ignore_errors=True)


def _corpus(
    folder: Path, sources: Sequence[Source], data: DataSettings, progress: Progress, only_text: bool
) -> Corpus:
    """Return the corpus in ``folder``, which is made if it is missing or damaged.

    Raises:
        InputError: no usable text; of conversations where ``only_text`` is read, what they need.
    """
    if _damage(folder, "corpus.json") != "":
        try:
            with staged_folder(folder) as staging:
                build_corpus(staging, sources, data, progress)
        except InputError:
            if only_text and has_conversations(sources):
                raise InputError(NEEDS_MODEL) from None
            raise
    return Corpus(folder)


def _corpus_key(data: DataSettings, sources: Sequence[Source]) -> str:
    """Return the hash of everything that shapes the cleaned text and its split."""
    return key_of(
        {
            "schema": SCHEMA,
            "sources": [source.identity() for source in sources],
            "settings": data.model_dump(mode="json", exclude=_NOT_TEXT),
            "unicode": unicodedata.unidata_version,
        }
    )


def open_prepared(cache: Path, fingerprint: str) -> PreparedData | None:
    """Open the prepared data named ``fingerprint``, such as for a resumed run; None when missing or damaged."""
    if not _KEY.fullmatch(fingerprint):  # the name comes from an untrusted manifest and could be any path
        return None
    prepared = _open(cache, fingerprint)
    return prepared if isinstance(prepared, PreparedData) else None


def _open(cache: Path, fingerprint: str, *, check: bool = True) -> PreparedData | str | None:
    """Return the data, None when there is none, or one line about what is damaged."""
    folder = cache / "tokens" / fingerprint
    manifest_file = folder / "manifest.json"
    if not manifest_file.is_file():
        return None
    try:
        manifest: dict[str, Any] = read_json(manifest_file)
        corpus_folder = inside(cache / "corpus", manifest["corpus_key"])
        if check:
            damage = _damage(corpus_folder, "corpus.json") or _damage(folder, "manifest.json")
            if damage:
                return f"{damage} in the cache is damaged: the text was prepared again"
        corpus = Corpus(corpus_folder)
        tokenizer = EtudeTokenizer.load(folder / "tokenizer", manifest["tokenizer_hash"])
        parts = {part: _open_part(folder, manifest, corpus, part) for part in ("train", "validation")}
        for part, tokens in parts.items():
            size = corpus.num_bytes(part)  # type: ignore[arg-type]
            if tokens.examples is None and tokens.source_bytes != size:
                raise InputError("tokens and text disagree")
            if tokens.highest() >= tokenizer.vocab_size or tokens.document_id != tokenizer.roles.document_id:
                raise InputError("tokens and tokenizer disagree")
        report = DataReport.from_facts(corpus.facts, manifest)
    except (InputError, KeyError, TypeError, ValueError, AttributeError, OSError):
        return f"{folder} in the cache is damaged: the text was prepared again"
    return PreparedData(
        tokenizer, parts["train"], parts["validation"], report, corpus.hash, fingerprint, corpus
    )


def _open_part(folder: Path, manifest: dict[str, Any], corpus: Corpus, part: Any) -> TokenPart:
    def name(number: int) -> str:
        return corpus.name(part, number)[0]

    facts = manifest["parts"][part]
    tokens = open_part(folder, part, facts, manifest["dtype"], manifest["eos_id"], name)
    if not corpus.facts.get(EXAMPLES):
        return tokens
    examples = open_examples(folder, part, tokens.num_tokens, tuple(manifest["not_text"]))
    return replace(tokens, examples=examples)


def _damage(folder: Path, index: str) -> str | None:
    """Return an empty string for an intact folder, the file that is damaged, or None when there is no folder."""
    if not (folder / index).is_file():
        return None if not folder.exists() else str(folder / index)
    try:
        name = damaged_file(folder, read_json(folder / index)["files"])
    except (InputError, KeyError, TypeError, AttributeError):
        name = index
    return "" if name is None else str(folder / name)


def _encode(
    folder: Path,
    corpus: Corpus,
    corpus_key: str,
    data: DataSettings,
    settings: TokenizerSettings,
    make_tokenizer: Callable[[], tuple[EtudeTokenizer, dict[str, Any]]],
    notes: list[str],
    progress: Progress,
) -> None:
    """Fill a new tokens folder."""
    tokenizer, how = make_tokenizer()
    tokenizer.normalization = data.normalization
    tokenizer.save(folder / "tokenizer")
    workers = available_cores() if data.workers == "auto" else data.workers
    parts: dict[str, Any] = {}
    names: tuple[Part, Part] = ("train", "validation")
    has_examples = bool(corpus.facts.get(EXAMPLES))
    for part in names:
        if has_examples:
            parts[part], dropped = encode_examples(corpus, part, tokenizer, data.mask, folder, progress)
            notes = [*notes, *dropped]
        else:
            parts[part] = encode_part(corpus, part, tokenizer, folder, workers=workers, progress=progress)
    cut_words = sum(facts["cut_words"] for facts in parts.values())
    if cut_words:
        notes = [*notes, _about_cut_words(cut_words)]
    manifest = {
        "schema": SCHEMA,
        "corpus_key": corpus_key,
        "corpus_hash": corpus.hash,
        "tokenizer_hash": tokenizer.hash,
        "tokenizer": {
            "kind": tokenizer.kind,
            "vocab_size": tokenizer.vocab_size,
            "eos": tokenizer.roles.document,
            **how,
        },
        "dtype": token_dtype(tokenizer.vocab_size).name,
        "eos_id": tokenizer.roles.document_id,
        **({"not_text": sorted(special_ids(tokenizer))} if has_examples else {}),
        "settings": {"data": data.model_dump(mode="json"), "tokenizer": settings.model_dump(mode="json")},
        "parts": parts,
        "notes": notes,
        "files": describe_files(folder),
    }
    write_json(folder / "manifest.json", manifest)


def _about_cut_words(count: int) -> str:
    size = f"{LONGEST_STRETCH / 1e6:.1f}".removesuffix(".0")
    return (
        f"text without a place to cut, such as one letter repeated, was encoded in parts of {size} MB ({count:,} "
        "cuts): other programs may produce different tokens there"
    )


def _tokenizer(
    corpus: Corpus,
    settings: TokenizerSettings,
    family_pattern: str,
    published: EtudeTokenizer | None,
    progress: Progress,
) -> tuple[EtudeTokenizer, dict[str, Any]]:
    """Return the tokenizer, and what the manifest states of how it was made."""
    if settings.kind == vocabulary.BASE:
        return _of_base(published), {}
    if settings.kind not in {"bpe", "char"}:
        return existing_tokenizer(expand_home(settings.kind)), {"path": settings.kind}
    train_bytes = corpus.num_bytes("train")
    progress("grow vocabulary", 0, None)
    sample = _sample(corpus, train_bytes)
    how: dict[str, Any] = {"sample_bytes": min(train_bytes, vocabulary.SAMPLE_BYTES)}
    if settings.kind == "char":
        return vocabulary.train_char(sample), how
    pattern = family_pattern if settings.pattern == "auto" else settings.pattern
    size = vocabulary.auto_vocab_size(train_bytes) if settings.vocab_size == "auto" else settings.vocab_size
    return vocabulary.train_bpe(sample, size, pattern), {**how, "pattern": pattern}


def _sample(corpus: Corpus, train_bytes: int) -> Iterator[str]:
    """Yield the training text in pieces; of a long text, evenly spaced pieces of :data:`SAMPLE_BYTES` in all."""
    share = min(1.0, vocabulary.SAMPLE_BYTES / max(train_bytes, 1))
    due = 0.0
    step = 1 << 16
    for first in range(0, len(corpus.ranges["train"]), 4096):
        for start, end, _ in corpus.ranges["train"][first : first + 4096].tolist():
            for position in range(start, end, step) if share < 1.0 and end - start > step else (start,):
                stop = min(position + step, end) if share < 1.0 else end
                due += (stop - position) * share
                if share == 1.0 or due >= stop - position:
                    due -= stop - position
                    yield from pieces(corpus.store.read(position, stop).decode("utf-8", "ignore"))


def _of_base(published: EtudeTokenizer | None) -> EtudeTokenizer:
    """Return the tokenizer of the base model. Raises InputError for a run without one."""
    if published is None:
        raise InputError(
            "tokenizer.kind=base is for a run that begins with a published model: give it with --from"
        )
    return published


def _tokenizer_identity(
    settings: TokenizerSettings, family_pattern: str, published: EtudeTokenizer | None
) -> dict[str, Any]:
    if settings.kind == vocabulary.BASE:
        tokenizer = _of_base(published)
        roles = tokenizer.roles
        return {
            "kind": vocabulary.BASE,
            "hash": tokenizer.hash,
            "carried": sorted(
                (name, hash_bytes(content)) for name, content in (tokenizer.carried or {}).items()
            ),
            "roles": [roles.document_id, roles.end_of_turn_id, sorted(roles.stop_ids)],
        }
    if settings.kind == "char":
        return {"kind": "char"}
    if settings.kind == "bpe":
        pattern = family_pattern if settings.pattern == "auto" else settings.pattern
        return {"kind": "bpe", "vocab_size": settings.vocab_size, "pattern": pattern}
    path = expand_home(settings.kind)
    tokenizer = existing_tokenizer(path)
    file = path / "tokenizer.json" if path.is_dir() else path
    return {"kind": "file", "hash": hash_file(file), "eos": tokenizer.roles.document}


def _silent(stage: str, done: int, total: int | None) -> None:
    pass
