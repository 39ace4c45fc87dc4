"""Write the table of docs/tuning.md: right answers of a story model that was tuned to follow instructions, by kind.

    python bench/instructions.py runs/answers

The page has the commands that make the run. Reads the answers that the newest report on it has kept. No figure is typed
by hand. The last column is the best of the simple rules in RULES, which know the sentences of the story by their words.
"""

from __future__ import annotations

import argparse
import re
from collections import Counter
from collections.abc import Callable, Sequence
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
Rule = Callable[[Sequence[str], str], str]
"""From the sentences of a story that name people, and a thing, to the person who may have it."""


def people_in(text: str) -> list[str]:
    return [word for word in re.findall(r"\w+", text) if word in NAMES]


def about(story: Sequence[str], thing: str) -> list[str]:
    return [sentence for sentence in story if thing in re.findall(r"\w+", sentence)]


def last_taker(story: Sequence[str], _: str) -> str:
    """Return who took anything last."""
    passed = next(sentence for sentence in reversed(story) if len(people_in(sentence)) == 2)
    return people_in(passed)[1 if re.search(r" (gives|gave|hands|handed) the ", passed) else 0]


RULES: dict[str, Rule] = {
    "last taker": last_taker,
    "named last": lambda story, _: people_in(story[-1])[-1],
    "named most": lambda story, _: Counter(people_in(" ".join(story))).most_common(1)[0][0],
    "first owner": lambda story, thing: people_in(about(story, thing)[0])[0],
    "named first in the thing's last sentence": lambda story, thing: people_in(about(story, thing)[-1])[0],
    "named last in the thing's last sentence": lambda story, thing: people_in(about(story, thing)[-1])[-1],
}


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
        shares = [_share([_is_right(answer, system) for answer in own]) for system in systems.values()]
        rows.append([kind, len(own), *shares, best_rule(own) if kind == "who has it" else None])
    return markdown_table(["instruction", "questions", *systems, "best simple rule"], rows)


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


def best_rule(answers: Sequence[Answer]) -> str:
    """Return the rule that answers most of the questions who has a thing, and its share of right answers."""
    right = {name: [_by_rule(rule, answer) for answer in answers] for name, rule in RULES.items()}
    best = max(right, key=lambda name: sum(right[name]))
    return f"{proportion(right[best]).value:.2f}, {best}"


def _by_rule(rule: Rule, answer: Answer) -> float:
    holder, thing = re.findall(r"\w+", answer["reference"])[::3]
    story = re.sub(r"Who has [^?]*\?", "", answer["question"])
    return float(rule([sentence for sentence in story.split(".") if people_in(sentence)], thing) == holder)


def _share(right: Sequence[bool]) -> str:
    estimate = proportion(list(map(float, right)))
    return f"{estimate.value:.2f} ({estimate.interval.low:.2f} to {estimate.interval.high:.2f})"


if __name__ == "__main__":
    main()
