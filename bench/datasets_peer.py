"""Turn raw text into tokens with ``datasets.map``, as its users write it. This module imports nothing of Etude."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from typing import Any

from memory import MemoryWatch


def mapped(
    file: str, text_bytes: int, tokenizer_file: str, eos: str, num_proc: int | None
) -> Callable[[], dict[str, Any]]:
    """Return a round that loads the .jsonl file and tokenises it in batches, with an empty cache."""
    import datasets
    from transformers import PreTrainedTokenizerFast

    datasets.disable_progress_bars()
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=tokenizer_file, eos_token=eos)

    def tokenise(batch: dict[str, list[str]]) -> dict[str, Any]:
        return {"input_ids": tokenizer(batch["text"], return_attention_mask=False)["input_ids"]}

    def one_round() -> dict[str, Any]:
        with tempfile.TemporaryDirectory(prefix="etude-datasets-") as cache, MemoryWatch() as watch:
            begin = time.perf_counter()
            data = datasets.load_dataset("json", data_files=file, split="train", cache_dir=cache)
            loaded = time.perf_counter()
            done = data.map(tokenise, batched=True, num_proc=num_proc, remove_columns=data.column_names)
            seconds = time.perf_counter() - begin
            tokens = _count(done)
        return {
            "megabytes_per_second": text_bytes / 1e6 / seconds,
            "seconds": seconds,
            "loading_seconds": loaded - begin,
            "peak_bytes": watch.peak_bytes,
            "text_tokens": tokens,
        }

    return one_round


def _count(data: Any) -> int:
    import pyarrow.compute as compute

    return int(compute.sum(compute.list_value_length(data.data.column("input_ids"))).as_py())
