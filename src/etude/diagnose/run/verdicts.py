"""``etude doctor RUN``: apply every rule to a run, and print the verdicts in plain language."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.text import Text

from etude.diagnose.run.curves import not_learning, overfitting, rate_too_high, rate_too_low
from etude.diagnose.run.evidence import Evidence
from etude.diagnose.run.gather import gather
from etude.diagnose.run.held_out import above_the_ladder, data_leak, validation_too_small
from etude.diagnose.run.network import attention_collapse, idle_units
from etude.diagnose.run.planned import absurd_shape, loader_bound, schedule_not_finished
from etude.diagnose.run.stability import loss_diverged, numbers_not_finite
from etude.diagnose.run.verdict import SEVERITIES, Verdict
from etude.show.lines import print_line, printable

RULES: tuple[Callable[[Evidence], Verdict], ...] = (
    numbers_not_finite,
    loss_diverged,
    rate_too_high,
    not_learning,
    rate_too_low,
    data_leak,
    overfitting,
    attention_collapse,
    idle_units,
    schedule_not_finished,
    above_the_ladder,
    validation_too_small,
    absurd_shape,
    loader_bound,
)
"""In the order of causes: what one rule finds may be caused by what an earlier one found."""
_CAUSES = RULES[:2]
_EFFECTS = {
    rate_too_high,
    not_learning,
    rate_too_low,
    overfitting,
    attention_collapse,
    idle_units,
    schedule_not_finished,
    above_the_ladder,
    validation_too_small,
}
"""In a broken run these find only its consequences, and their advice would not repair it."""
_OF_LEVELS = {loss_diverged, rate_too_high, not_learning, rate_too_low, overfitting, above_the_ladder}
"""These read the level of a loss. That of sampled answers has none, and need not lower that of the right ones."""
_STYLES = {"problem": "bold red", "notice": "yellow"}


def diagnose(run: Path) -> list[Verdict]:
    """Return the verdict of every rule, worst first; among equals, causes before effects.

    Raises:
        InputError: there is no run, or its settings, manifest or ladder are damaged.
    """
    return sorted(judged(gather(run)), key=lambda verdict: SEVERITIES.index(verdict.severity))


def judged(evidence: Evidence) -> list[Verdict]:
    """Return the verdicts in the order of causes. Effects of a cause that was found are not judged."""
    cause, verdicts = "", []
    for rule in RULES:
        verdict = rule(evidence)
        if rule in _OF_LEVELS and evidence.history.rewards:
            why = "it is trained on answers that it samples: look at the share of right ones"
            verdict = replace(verdict, severity="not judged", finding=why, advice="")
        elif cause and (rule in _EFFECTS or rule in _CAUSES):
            verdict = replace(verdict, severity="not judged", finding=f"{cause} comes first", advice="")
        elif rule in _CAUSES and verdict.severity == "problem":
            cause = verdict.rule
        verdicts.append(verdict)
    return verdicts


def show(run: Path, console: Console, *, json_lines: bool = False) -> bool:
    """Print the verdicts; return whether there is a problem.

    With ``json_lines`` each verdict, also one that found nothing, is a JSON object on its own line.

    Raises:
        InputError: as in :func:`diagnose`.
    """
    with console.status("reading the run and its text"):
        verdicts = diagnose(run)
    return print_verdicts(run, verdicts, console, json_lines=json_lines)


def print_verdicts(
    examined: str | Path,
    verdicts: Sequence[Verdict],
    console: Console,
    *,
    json_lines: bool = False,
    findings: bool = False,
) -> bool:
    """Print verdicts; return whether there is a problem. With ``findings``, also what was found to be fine."""
    if json_lines:
        for verdict in verdicts:
            line = json.dumps(dataclasses.asdict(verdict), ensure_ascii=False)
            print_line(console, line)
    else:
        for paragraph in _paragraphs(examined, verdicts, findings):
            console.print(paragraph, soft_wrap=not console.is_terminal)
    return any(verdict.severity == "problem" for verdict in verdicts)


def _paragraphs(run: str | Path, verdicts: Sequence[Verdict], findings: bool) -> list[Text]:
    by_severity = {severity: [v for v in verdicts if v.severity == severity] for severity in SEVERITIES}
    problems, notices = len(by_severity["problem"]), len(by_severity["notice"])
    counts = f"{_counted(problems, 'problem')}, {_counted(notices, 'notice')}"
    paragraphs = [Text(f"{run}: {counts}, by {len(verdicts)} rules")]
    for verdict in by_severity["problem"] + by_severity["notice"]:
        paragraphs.append(
            Text.assemble(
                (f"\n{verdict.severity}: {verdict.rule}", _STYLES[verdict.severity]),
                f"\n  {printable(verdict.finding)}",
                (f"\n  the rule: {verdict.statement}", "dim"),
                f"\n  what to do: {printable(verdict.advice)}",
            )
        )
    fine = by_severity["fine"]
    if fine and findings:
        lines = [f"\n  {verdict.rule}: {printable(verdict.finding)}" for verdict in fine]
        paragraphs.append(Text(f"\nnothing wrong:{''.join(lines)}"))
    elif fine:
        paragraphs.append(Text(f"\nnothing found: {', '.join(verdict.rule for verdict in fine)}"))
    if absent := by_severity["not judged"]:
        by_reason: dict[str, list[str]] = {}
        for verdict in absent:
            by_reason.setdefault(printable(verdict.finding), []).append(verdict.rule)
        reasons = "; ".join(f"{', '.join(rules)} ({reason})" for reason, rules in by_reason.items())
        paragraphs.append(Text(f"\ncould not be judged: {reasons}"))
    return paragraphs


def _counted(number: int, noun: str) -> str:
    return f"{number or 'no'} {noun}{'' if number == 1 else 's'}"
