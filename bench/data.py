"""Compare Etude with `datasets.map` in turning raw text into tokens on disk: megabytes per second and peak memory.

    pip install datasets transformers
    python bench/data.py --megabytes 60

The text is the primer, generated and written as one .jsonl file with a document per row. Both sides read that file, use
the same tokenizer (trained beforehand, not measured) and as many processes, and begin without a cache. Etude also
cleans the text, drops near duplicates, holds out validation text and stores its text; a run that drops only exact
duplicates and one that drops none show what that costs. `datasets.map` only tokenises; with one process its tokenizer
uses its own threads. Megabytes are those of the raw text in UTF-8. Memory is that of the whole process tree, with
shared pages counted once.

Results: bench/results/data.json and .png
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from etude_side import quiet_plan, settings_of
from harness import (
    Contestant,
    Measurements,
    Spread,
    arguments_of,
    interleave,
    markdown_table,
    ratio,
    summary,
    write_result,
)
from pictures import draw_bars

PEER, PEER_THREADS = "datasets.map", "datasets.map, one process"


def main() -> None:
    parser = arguments_of(__doc__, rounds=3)
    parser.add_argument("--megabytes", type=int, default=60)
    arguments = parser.parse_args()
    size = 2_000_000 if arguments.quick else arguments.megabytes * 1_000_000
    with tempfile.TemporaryDirectory(prefix="etude-bench-data-") as folder:
        file = Path(folder) / "text.jsonl"
        documents, text_bytes = write_text(file, size)
        tokenizer = quiet_plan(settings_of(["builtin:primer"], ["data.max_bytes=4000000"])).data.tokenizer
        tokenizer.save(Path(folder) / "tokenizer")
        text = {"file": str(file), "text_bytes": text_bytes}
        contestants = contestants_for(
            text, Path(folder) / "tokenizer", tokenizer.roles.document, arguments.threads
        )
        measured = interleave(contestants, arguments.rounds, arguments.threads, fresh=True)
    ratios = {
        f"{name} / {peer}": ratio(measured, "megabytes_per_second", name, peer)
        for name in measured
        for peer in (PEER, PEER_THREADS)
        if name not in (PEER, PEER_THREADS)
    }
    content: dict[str, Any] = {
        "documents": documents,
        "text_bytes": text_bytes,
        "compared": ratios,
        "rounds": measured,
    }
    name = "quick-data" if arguments.quick else "data"
    result = write_result(name, content, threads=arguments.threads, folder=arguments.out)
    draw(result, measured)
    print(
        f"## {text_bytes / 1e6:.1f} MB in {documents:,} documents, {arguments.threads} processes\n\n{table(measured)}\n"
    )
    print("\n".join(f"- {line}: {value}" for line, value in ratios.items()), f"\n\n{result}")


def write_text(file: Path, size: int) -> tuple[int, int]:
    """Write generated stories, one per row. Returns (documents, UTF-8 bytes of text)."""
    from etude.data.primer import generator

    documents, written = 0, 0
    with file.open("w", encoding="utf-8") as rows:
        for story in generator.documents(1, size):
            rows.write(json.dumps({"text": story.text}, ensure_ascii=False) + "\n")
            documents, written = documents + 1, written + len(story.text.encode())
    return documents, written


def contestants_for(text: dict[str, Any], tokenizer: Path, eos: str, processes: int) -> list[Contestant]:
    contestants = [
        Contestant(
            name,
            "etude_side:prepared",
            {**text, "tokenizer": str(tokenizer), "workers": processes, "overrides": overrides},
        )
        for name, overrides in {
            "Etude": [],
            "Etude, exact copies": ["data.deduplicate=exact"],
            "Etude, copies kept": ["data.deduplicate=none"],
        }.items()
    ]
    peer = {**text, "tokenizer_file": str(tokenizer / "tokenizer.json"), "eos": eos}
    contestants.append(Contestant(PEER, "datasets_peer:mapped", {**peer, "num_proc": processes}))
    contestants.append(Contestant(PEER_THREADS, "datasets_peer:mapped", {**peer, "num_proc": None}))
    return contestants


def table(measured: Measurements) -> str:
    speeds, seconds = summary(measured, "megabytes_per_second"), summary(measured, "seconds")
    peaks = summary(measured, "peak_bytes")
    rows = [
        [name, speeds[name], seconds[name], _megabytes(peaks[name]), f"{rounds[0]['text_tokens']:,}"]
        for name, rounds in measured.items()
        if rounds
    ]
    return markdown_table(["", "MB per second", "seconds", "peak memory, MB", "tokens of text"], rows)


def draw(result: Path, measured: Measurements) -> None:
    speeds = summary(measured, "megabytes_per_second")
    groups = {name.replace(", ", "\n"): {"speed": spread} for name, spread in speeds.items()}
    draw_bars(result.with_suffix(".png"), "From raw text to tokens on disk", "MB of text per second", groups)


def _megabytes(spread: Spread) -> Spread:
    return Spread(*(value / 1e6 for value in (spread.median, spread.low, spread.high)))


if __name__ == "__main__":
    main()
