"""Write the results of a sweep into docs/emergence.md, and the verdicts and pictures of its report to docs/emergence/.

    etude sweep --time 40m
    python bench/emergence_page.py runs/sweep [--whole] [--typed "etude sweep --time 40m"]

--whole also keeps the page and all scores, some megabytes.

No figure is typed by hand: the tables come from the records, and from sweep.json and prediction.json, which were
written before and during the training. The tables of error rates of the verdicts come from bench/verdicts.py.
Needs Chromium and playwright for the pictures (light and dark) of the report.
"""

from __future__ import annotations

import argparse
import platform
from pathlib import Path
from shutil import which

from rich.console import Console

from etude.emergence.command import emergence
from etude.emergence.study import Ability, Study, law_of
from etude.emergence.sweep_plan import SweepPlan
from etude.emergence.words import interval_of, law_lines, score_of
from etude.evaluate.records import read_records
from etude.files import read_object
from etude.run.history import RunHistory
from etude.run.record import RunRecord
from harness import markdown_table, put_block

REPOSITORY = Path(__file__).parent.parent
PAGE, REPORT = REPOSITORY / "docs" / "emergence.md", REPOSITORY / "docs" / "emergence"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sweep", type=Path)
    parser.add_argument("--whole", action="store_true", help="keep the whole report")
    parser.add_argument("--typed", default="etude sweep", help="the command that made the sweep")
    arguments = parser.parse_args()
    sweep = arguments.sweep
    plan = SweepPlan.load(sweep)
    runs = [sweep / member.name for member in plan.members]
    study = emergence(runs, "steps", REPORT, console=Console())
    put_block(PAGE, "study", "\n\n".join(blocks(plan, study, arguments.typed, arguments.whole)))
    pictures()
    for file in () if arguments.whole else (REPORT / "index.html", REPORT / "scores.csv"):
        file.unlink()


def blocks(plan: SweepPlan, study: Study, typed: str, whole: bool) -> list[str]:
    histories = [RunRecord.open(plan.folder / member.name).history for member in plan.members]
    seconds = sum(history.steps[-1].wall_time for history in histories)
    sizes = ", ".join(f"{size:,}" for size in plan.sizes)
    seeds = len({member.seed for member in plan.members})
    commit = read_records(plan.folder / plan.members[0].name).records[0].where.commit
    page = (
        "[emergence/index.html](emergence/index.html)" if whole else "what `etude emergence --report` makes"
    )
    law = law_lines(law_of(study))[0].removeprefix("loss law: ")
    text = [
        f"`{typed}`",
        f"{len(plan.sizes)} sizes ({sizes} parameters outside the embeddings) by {seeds} seeds of `builtin:primer`, "
        f"{plan.tokens:,} tokens each, on {platform.machine()} ({cores()}); {seconds / 60:.0f} minutes of training in "
        f"all, at most {plan.num_items} items per probe, questions `{plan.probes_hash}`, "
        f"commit `{(commit or '')[:10]}`. "
        "Every verdict with its numbers: [emergence/verdicts.json](emergence/verdicts.json); the page with every curve "
        f"is {page}.",
        predicted(plan, histories) + f" The law fitted to all runs differs: {law}.",
        "At the largest size, mean over seeds at the last checkpoint. “n-gram” is what Kneser-Ney counts of the "
        "training text reach on the same items, “random” networks with random weights.",
    ]
    largest = max(ability.family.num_parameters for ability in study.abilities)
    shown = [ability for ability in study.abilities if ability.family.num_parameters == largest]
    beyond = [ability for ability in shown if ability.label == "beyond counting" and ability.last.held_out]
    text.append(table(shown))
    missing = [ability.title for ability in shown if "not there" in ability.verdict.word.value]
    text.append(
        f"Above chance and beyond counting, on what training could not contain: "
        f"**{'; '.join(ability.title for ability in beyond) or 'none'}**. Not there yet at this size and after so "
        f"little text: {len(missing)} of {len(shown)}."
        + ("" if len(beyond) >= 3 else " At least three were expected: a longer sweep may show them.")
    )
    text.append(
        '<picture>\n  <source media="(prefers-color-scheme: dark)" srcset="emergence/report-dark.png">\n'
        '  <img alt="The beginning of the report: abilities over steps, every seed" src="emergence/report.png">\n'
        "</picture>"
    )
    return text


def table(abilities: list[Ability]) -> str:
    rows = [
        [
            ability.title,
            interval_of(ability.verdict.accuracy),
            f"{ability.last.chance:.3f}",
            score_of(ability.counting),
            score_of(ability.random),
            ability.label,
            ability.verdict.word.value,
        ]
        for ability in abilities
    ]
    return markdown_table(
        ["ability", "right (95 %)", "chance", "n-gram", "random", "beside its nulls", "verdict"], rows
    )


def predicted(plan: SweepPlan, histories: list[RunHistory]) -> str:
    prediction = read_object(plan.folder / "prediction.json")
    if not prediction.get("predicted"):
        return f"The loss of the largest size was not predicted: {prediction.get('why_not')}."
    expected = prediction["predicted"]
    losses = [
        history.evals[-1].val_loss
        for history, member in zip(histories, plan.members, strict=True)
        if member in plan.largest
    ]
    inside = sum(expected["low"] <= loss <= expected["high"] for loss in losses)
    return (
        f"Before the largest size was trained, the law of the others (exponent {prediction['exponent']:.2f}) predicted "
        f"{expected['val_loss']:.3f} nats per token ({expected['low']:.3f} to {expected['high']:.3f}) for it. The runs "
        f"reached {', '.join(f'{loss:.3f}' for loss in losses)}: {inside} of {len(losses)} inside."
    )


def cores() -> str:
    """Return the number of cores of this machine, in words."""
    import os

    return f"{os.cpu_count()} cores"


def pictures() -> None:
    """Take a picture of the beginning of the report, in light and dark."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as begun:
        browser = begun.chromium.launch(
            executable_path=which("chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        for scheme, name in (("light", "report.png"), ("dark", "report-dark.png")):
            page = browser.new_page(viewport={"width": 1100, "height": 1000}, color_scheme=scheme)
            page.goto((REPORT / "index.html").absolute().as_uri())
            page.screenshot(path=REPORT / name)
        browser.close()


if __name__ == "__main__":
    main()
