"""The settings of the text: its sources, its cleaning, its held-out part, and the tokenizer.

The docstring below a setting is its help text, as in :mod:`etude.config`.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from etude.setting_types import (
    Auto,
    ByteVocabulary,
    Change,
    Count,
    Delimiter,
    MayDiffer,
    Names,
    Rules,
    Section,
    Seed,
    Threads,
)


class DataSettings(Section):
    """The text: its sources, its cleaning, and the held-out part."""

    sources: tuple[str, ...] = ("builtin:primer",)
    """Files, folders, ``-`` (stdin), ``hf:owner/name``, or ``builtin:`` and primer, python, tasks, repeats, modular."""
    text_field: Names = "text"
    """The field or column that holds the text in JSON, tables, Parquet and Hub data sets: a name, a path such as
    messages.content, or several separated by commas, whose texts become paragraphs."""
    encoding: Rules = ("auto",)
    """Encoding of text files: auto (UTF-8, else detected and reported), a name such as windows-1252, or FILE=NAME for
    single files."""
    csv_delimiter: Delimiter = "auto"
    """Delimiter of table cells: comma, semicolon, tab, pipe, or a character. Auto: detected from the first rows."""
    csv_header: bool | Auto = "auto"
    """Whether the first row of a table names its columns; otherwise they are named 1, 2, 3 ..."""
    max_bytes: Count | Auto = "auto"
    """Read at most this many bytes of text (UTF-8). Auto: everything, or the usual amount of a built-in."""
    normalization: Literal["NFC", "NFKC", "none"] = "NFC"
    """Unicode normalisation of every document."""
    seed: Seed | Auto = "auto"
    """Seed of a generated built-in text. Auto: the run's seed, except that runs compared over seeds share one text."""
    min_chars: Count = 1
    """Drop documents with fewer characters."""
    deduplicate: Literal["near", "exact", "none"] = "near"
    """Drop repeated documents: near copies (MinHash), exact copies only, or none."""
    split: Literal["hash", "tail"] = "hash"
    """Hold out whole documents, chosen by a hash of their content, or the last part of the whole text."""
    validation_fraction: float = Field(0.05, gt=0.0, lt=1.0)
    """Share of the text held out for validation."""
    section_bytes: int = Field(8192, ge=256, le=2**48)
    """Size of the sections, in bytes, into which a corpus of one or a few long documents is cut first."""
    cross_document_attention: bool = True
    """Whether attention crosses the boundaries between the documents of a row."""
    mask: Literal["assistant", "last", "all"] = "assistant"
    """The tokens of conversations that the loss counts: all answers, the last answer of each, or everything."""
    replay: float = Field(0.0, ge=0.0, lt=1.0)
    """Share of the trained tokens that are samples of the base model, against forgetting; for conversations."""
    workers: MayDiffer[Threads | Auto] = "auto"
    """Processes that encode text. Auto: one per core."""


class TokenizerSettings(Section):
    """The tokenizer, which converts text to tokens."""

    change = Change.NEVER

    kind: str = "bpe"
    """``bpe`` (byte-level, trained on the training part), ``char``, or a path to a tokenizer.json; ``base`` is that of
    the base model, which a run from one always has."""
    vocab_size: ByteVocabulary | Auto = "auto"
    """Vocabulary size of a trained BPE. Auto: from the size of the training text."""
    pattern: Literal["auto", "gpt2", "llama3", "qwen2"] = "auto"
    """Regular expression of the pre-tokenizer. Auto: the one that programs such as llama.cpp expect of the family."""
