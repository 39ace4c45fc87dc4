"""Write the table of docs/tuning.md: right answers of a story model that was tuned to follow instructions, by kind.

    python bench/instructions.py runs/answers

The page has the commands that make the run. Reads the answers that the newest report on it has kept. No figure is typed
by hand. The column "last taker" is what naming the person who took anything last gets right.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from etude.data.instructions.generator import INSTRUCTIONS, KINDS, Kind
from etude.data.primer.lexicon import NAMES
from etude.evaluate.statistics import proportion
from etude.evaluate.tuning.prompting import is_right
from etude.files import read_object
from harness import markdown_table, put_block

PAGE = Path(__file__).resolve().parent.parent / "docs" / "tuning.md"
Answer = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    newest = max((parser.parse_args().run / "derived" / "tuning").glob("step-*.json"))
    report = read_object(newest)
    table = table_of(report["answers"], report["best_examples"])
    print(table)
    put_block(PAGE, "instructions", table)


def table_of(answers: Sequence[Answer], best: int) -> str:
    """Return a row for each kind of instruction: the share of right answers of each system, with 95 % intervals."""
    systems = {
        "base": "base 0",
        **({f"base, {best} examples": f"base {best}"} if best else {}),
        "tuned": "tuned",
    }
    rows = []
    for kind in KINDS:
        own = [answer for answer in answers if kind_of(answer["question"]) == kind]
        last = proportion([_by_last_taker(answer) for answer in own]).value if kind == "who has it" else None
        shares = [_share([_is_right(answer, system) for answer in own]) for system in systems.values()]
        rows.append([kind, len(own), *shares, last])
    return markdown_table(["instruction", "questions", *systems, "last taker"], rows)


def kind_of(question: str) -> Kind:
    """Return what a question asks for, by its wording."""
    for kind in KINDS:
        for form in INSTRUCTIONS[kind]:
            if form.replace("{story}", "").split("{")[0].strip() in question:
                return kind
    raise ValueError(question)


def _is_right(answer: Answer, system: str) -> bool:
    written = answer["systems"][system]["answer"]
    return written is not None and is_right(written, answer["reference"])


def _by_last_taker(answer: Answer) -> bool:
    """Return whether the person who took anything last has the thing in question."""
    taker = ""
    for sentence in answer["question"].split("."):
        names = [word for word in re.findall(r"\w+", sentence) if word in NAMES]
        if len(names) == 2:
            taker = names[1] if re.search(r" (gives|gave|hands|handed) the ", sentence) else names[0]
    return answer["reference"].startswith(f"{taker} ")


def _share(right: Sequence[bool]) -> str:
    estimate = proportion(list(map(float, right)))
    return f"{estimate.value:.2f} ({estimate.interval.low:.2f} to {estimate.interval.high:.2f})"


if __name__ == "__main__":
    main()
