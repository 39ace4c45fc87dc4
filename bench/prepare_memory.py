"""Prepare a large text, and check that memory does not grow with its size.

    python bench/prepare_memory.py --megabytes 1000

Writes generated text to a temporary folder, prepares it with the default settings in a fresh process, and prints JSON:
the peak resident memory of the main process, of the largest worker and of all together, and the seconds taken. The exit
code is 1 if any peak exceeds the limit (1 GiB).
"""

from __future__ import annotations

import argparse
import contextlib
import glob
import json
import multiprocessing
import os
import resource
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

LIMIT_BYTES = 1 << 30
WORDS = 400_000
"""Number of distinct words, distributed by Zipf's law. A book has fewer; so many make large tables of words visible."""


def stories(seed: int) -> Iterator[str]:
    """Yield documents without end, 200 to 4,000 bytes each, of sentences of invented words; no two are alike."""
    rng = np.random.default_rng(seed)
    letters = np.array(list("etaoinshrdlucmfwypvbgkjqxz"))
    weights = 1 / np.arange(1, 27) ** 0.8
    pool = rng.choice(letters, size=(WORDS, 12), p=weights / weights.sum())
    lengths = np.clip(rng.poisson(3 + np.log10(np.arange(1, WORDS + 1))), 1, 12)
    words = np.array(["".join(row[:length]) for row, length in zip(pool, lengths, strict=True)], object)
    shares = np.cumsum(1 / np.arange(1, WORDS + 1))
    shares /= shares[-1]
    while True:
        drawn = words[np.searchsorted(shares, rng.random(200_000))].tolist()
        position = 0
        while position < len(drawn):
            count = int(rng.integers(40, 800))
            part = drawn[position : position + count]
            position += count
            sentences = [
                " ".join(part[first : first + 16]).capitalize() + "." for first in range(0, len(part), 16)
            ]
            yield "\n".join(sentences)


def write_text(folder: Path, size: int, layout: str) -> None:
    """Write the text in a layout: ``one`` is a single .txt file; ``rows`` is a .jsonl file with a story per row."""
    written = 0
    name = "text.txt" if layout == "one" else "text.jsonl"
    with (folder / name).open("w", encoding="utf-8") as file:
        for story in stories(1):
            file.write(story + "\n\n" if layout == "one" else json.dumps({"text": story}) + "\n")
            written += len(story.encode("utf-8"))
            if written >= size:
                return


class Watch(threading.Thread):
    """Samples the memory of this process and its workers ten times per second (Linux; elsewhere it reads 0).

    The system's peak of ended children is of no use here: that of a worker begins at the size of its parent.
    """

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.worker_peak = 0
        self.together_peak = 0

    def run(self) -> None:
        while True:
            own = _memory(os.getpid(), "VmRSS")
            workers = [_memory(pid, "VmRSS") for pid in _children(os.getpid())]
            self.worker_peak = max(
                self.worker_peak, *(_memory(pid, "VmHWM") for pid in _children(os.getpid())), 0
            )
            self.together_peak = max(self.together_peak, own + sum(workers))
            time.sleep(0.1)


def _children(pid: int) -> list[int]:
    pids: list[int] = []
    for file in glob.glob(f"/proc/{pid}/task/*/children"):
        with contextlib.suppress(OSError):
            pids += [int(child) for child in Path(file).read_text().split()]
    return pids


def _memory(pid: int, field: str) -> int:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith(field):
                return int(line.split()[1]) * 1024
    return 0


def measure(folder: str, workers: int | None, results: Any) -> None:
    """Prepare the text and put the figures into ``results``. Runs in a process of its own, so only this is counted."""
    from etude.data.prepared_data import prepare
    from etude.text_settings import DataSettings, TokenizerSettings

    data = DataSettings(sources=(f"{folder}/text",), workers=workers or "auto")
    stages: dict[str, float] = {}
    watch = Watch()
    watch.start()
    began = time.perf_counter()

    def note_stage(stage: str, done: int, total: int | None) -> None:
        stages.setdefault(stage, round(time.perf_counter() - began, 1))

    kept = prepare(
        data,
        TokenizerSettings(),
        family_pattern="llama3",
        seed=1,
        cache=Path(folder) / "cache",
        progress=note_stage,
    )
    seconds = time.perf_counter() - began
    again = time.perf_counter()
    prepare(data, TokenizerSettings(), family_pattern="llama3", seed=1, cache=Path(folder) / "cache")
    facts = kept.report.as_json()
    results.put(
        {
            "read_bytes": facts["read"]["bytes"],
            "documents": facts["kept"]["documents"],
            "tokens": kept.train.num_tokens + kept.validation.num_tokens,
            "vocab_size": kept.tokenizer.vocab_size,
            "validation_bytes": kept.validation.source_bytes,
            "moved_to_training": facts["split"].get("moved_to_training"),
            "seconds": round(seconds, 1),
            "stage_began_at_seconds": stages,
            "seconds_from_cache": round(time.perf_counter() - again, 2),
            "peak_rss_main_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
            "peak_rss_worker_bytes": watch.worker_peak,
            "peak_rss_all_processes_together_bytes": watch.together_peak,
        }
    )


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--megabytes", type=int, default=200)
    parser.add_argument("--layout", choices=("one", "rows"), default="rows")
    parser.add_argument("--workers", type=int)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="etude-memory-") as folder:
        (Path(folder) / "text").mkdir()
        write_text(Path(folder) / "text", arguments.megabytes * 1_000_000, arguments.layout)
        context = multiprocessing.get_context("spawn")
        results = context.Queue()
        process = context.Process(target=measure, args=(folder, arguments.workers, results))
        process.start()
        process.join()
        if process.exitcode:
            return 1
        measured = results.get()
    worst = max(value for name, value in measured.items() if name.startswith("peak_rss"))
    within = worst <= LIMIT_BYTES
    print(
        json.dumps(
            {"layout": arguments.layout, **measured, "limit_bytes": LIMIT_BYTES, "within": within}, indent=2
        )
    )
    return 0 if within else 1


if __name__ == "__main__":
    sys.exit(main())
