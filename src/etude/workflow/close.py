"""Close a session: report how it ended, how good the model is, samples of its text, and what to type next."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import fmean

import torch
from rich.console import Console
from rich.panel import Panel
from rich.text import Text

from etude.config import ResolvedTrain
from etude.device import return_free_pages
from etude.diagnose.run.advice import lowered, rerun_command
from etude.diagnose.run.course import held_out_rise
from etude.diagnose.run.stability import broken_sentence, untrained
from etude.errors import EtudeError
from etude.evaluate.tuning.examined import MOST_QUESTIONS
from etude.evaluate.tuning.report import tuning_report
from etude.evaluate.tuning.tables import print_reports
from etude.generate.language import Language
from etude.generate.sampling import USUAL_SAMPLING, NotFinite
from etude.messages import command
from etude.plan.cadence import CLOSING_SAMPLE_TOKENS, CLOSING_SAMPLES
from etude.plan.pace import Deadline
from etude.plan.plan import Plan
from etude.pretrained.load_model import load_trained
from etude.run import RunFolder
from etude.run.checkpoints import list_checkpoints, step_of
from etude.run.gain_and_cost import balances_of, least
from etude.run.history import RunHistory
from etude.run.ladder import Ladder
from etude.run.record import RunRecord
from etude.run.settings import read_settings
from etude.show.lines import format_duration, printable, say
from etude.train.objectives.conversation import CONVERSATION
from etude.train.objectives.preference import PREFERENCE, ROUNDING
from etude.train.objectives.reward import REWARD
from etude.workflow.fit import Outcome

FORGOTTEN = 0.01
"""Relative rise of the loss on the reference text from which it counts as forgetting."""
HARDLY_MOVED = 0.01
"""Nats per pair; a smaller fall of the loss of held-out pairs is hardly a change."""
TUNING_SECONDS = 120.0
"""Seconds for the held-out questions at the end of a run; `etude eval --suite tuning` asks up to a hundred."""
FIRST_AND_LAST = 10
"""The share of right answers is compared between the first and the last of so many parts of a run."""
BROKEN_RATE = 4
"""Factor by which the learning rates of a run are lowered in the suggested next one, after its loss diverged."""


def close(outcome: Outcome, console: Console, deadline: Deadline | None = None) -> None:
    """Report how the session ended. A run with a ``deadline`` shows as many samples, or asks as much, as fits."""
    until = math.inf if deadline is None else deadline.samples_until
    if outcome.reason == "stopped":
        say(
            console,
            f"stopped and saved at step {outcome.step}; "
            f"continue with:  {command('train', '--resume', outcome.run.path)}",
        )
        return
    history = RunRecord.open(outcome.run.path).history
    say(console, "\n".join([*_figures(history), *about_pairs(history), *about_rewards(history)]))
    broken = broken_sentence(history)
    if broken:
        say(console, broken)
    elif history.ladder is not None and not (history.preferences or history.rewards):
        say(console, ladder_sentence(history.ladder, history))
    train = read_settings(outcome.run.settings_file).train
    tuned, best = train.objective in (CONVERSATION, PREFERENCE, REWARD), None
    if train.stop_early:
        best = least(balances_of(history.evals, history.references))
        say(console, "\n".join(about_best_step(outcome.run.path, history, train)))
    try:
        if outcome.divided:
            say(console, "\nNo samples are printed here: one process may have no room for the whole network.")
        elif tuned:
            _print_tuning(outcome.run.path, console, deadline, None if best is None else best.step)
        else:
            _print_samples(outcome.run.path, console, until)
    except MemoryError:  # the run is finished and saved: it must not be reported as failed
        say(console, "\nToo little memory is free to try the model out; the run is saved.")
    if broken:
        following = what_to_change(outcome.run)
    elif tuned:
        following = what_next_with_answers(outcome.run.path)
    else:
        following = what_next(outcome.run.path)
    say(console, f"\nnext:\n{following}")


def ladder_sentence(ladder: Ladder, history: RunHistory) -> str:
    """Compare the model with the n-gram models of its text, in a sentence."""
    passed, final = history.passed_at, history.evals[-1].bits_per_byte
    if passed and ladder.passed(final) < max(passed):
        return _fallen_behind(f"It passed the {max(passed)}-gram at step {passed[max(passed)]}", history)
    if not passed:
        lowest = ladder.rungs[0]
        return f"It has not passed any n-gram model yet (the {lowest.order}-gram is at {lowest.bits_per_byte:.3f})."
    highest = max(passed)
    text = f"It passed the {highest}-gram at step {passed[highest]}"
    best = min(ladder.rungs, key=lambda rung: rung.bits_per_byte)
    if highest == ladder.rungs[-1].order:
        return (
            f"{text}, the top of the ladder: it predicts better than any count of up to {highest} bytes does."
        )
    following = next(rung for rung in ladder.rungs if rung.order > highest)
    return (
        f"{text}; the {following.order}-gram ({following.bits_per_byte:.3f} bits per byte) still predicts better"
        f" (the best count: {best.order}-gram, {best.bits_per_byte:.3f})."
    )


def _fallen_behind(passed: str, history: RunHistory) -> str:
    """Explain why the model predicts worse than before.

    Memorising is a cause only where the training loss fell while the held-out loss rose.
    """
    steps = [event for event in history.steps if math.isfinite(event.loss)]
    evals = [event for event in history.evals if math.isfinite(event.val_loss)]
    rise = held_out_rise(steps, evals, untrained(history)) if steps else None
    if rise is not None and rise.by_heart:
        return (
            f"{passed} and has fallen behind it since: it is learning its text by heart (since step "
            f"{rise.best.step:,} the training loss fell from {rise.training_then:.3f} to {rise.training_now:.3f} and "
            f"the held-out loss rose from {rise.best.val_loss:.3f} to {rise.last.val_loss:.3f}); fewer --steps or "
            "more text will help."
        )
    return (
        f"{passed} and has fallen behind it since, though its training loss did not fall meanwhile: "
        f"{command('doctor', history.folder)} looks for the cause."
    )


def what_to_change(run: RunFolder) -> str:
    """Return the commands for a run that diverged, in two columns."""
    settings = read_settings(run.settings_file)
    changes = lowered(settings, BROKEN_RATE)
    commands = {command("doctor", run.path): "what is wrong with it, and what to do"}
    if changes:
        commands = {
            rerun_command(run.path, run.path.name, settings, changes): "again, with lower learning rates"
        } | commands
    return _in_columns(commands)


def promise_sentence(plan: Plan, run: RunFolder, requested: float, seconds: float) -> str:
    """Compare the time and the loss of the run with those that were promised, in a sentence."""
    times = f"\nAsked for {format_duration(requested)}, took {format_duration(seconds)}."
    if plan.base is not None:
        return f"{times} No loss is forecast for a base model."
    if plan.expected is None:
        return f"{times} There was no time to find out which loss to expect."
    reached = RunRecord.open(run.path).history.evals[-1].bits_per_byte
    low, high = plan.expected.low, plan.expected.high
    verdict = "as expected" if plan.expected.holds(reached) else "not as expected"
    return f"{times} Expected {low:.3f} to {high:.3f} bits per byte, reached {reached:.3f}: {verdict}."


def what_next(path: Path) -> str:
    """Return the commands for a finished run, in two columns."""
    commands = {
        command("generate", path, "One day"): "continue a text of yours",
        command("score", path, "FILE"): "measure how probable a text is to it",
        command("plot", path): "draw its loss curve beside the n-gram models",
        command("train", "YOUR-FILE-OR-FOLDER"): "train on your own text",
    }
    return _in_columns(commands)


def what_next_with_answers(path: Path) -> str:
    """Return the commands for a finished run that was tuned on conversations or pairs, in two columns."""
    commands = {
        command("chat", path): "talk with it",
        command("eval", path, "--suite", "tuning", "--steps", "all"): "what each checkpoint gained and cost",
        command("plot", path): "draw its loss curve beside the n-gram models",
        command("import", path, "NAME"): "make a model folder that other programs open",
    }
    return _in_columns(commands)


def _in_columns(commands: Mapping[str, str]) -> str:
    width = max(map(len, commands))
    return "\n".join(f"  {command:<{width}}   {what}" for command, what in commands.items())


def _figures(history: RunHistory) -> list[str]:
    final, first = history.evals[-1], history.evals[0]
    duration = format_duration(history.steps[-1].wall_time) if history.steps else "0:00"
    text = "chosen answers" if history.preferences else "text"
    lines = [
        "",
        f"Trained {final.step:,} steps on {final.tokens_seen:,} tokens in {duration}.",
        f"On {text} that it has not seen it went from {first.bits_per_byte:.3f} to {final.bits_per_byte:.3f} "
        f"bits per byte ({final.val_loss:.3f} nats per token).",
    ]
    if history.references:
        lines.append(_on_reference(history.references[0].bits_per_byte, history.references[-1].bits_per_byte))
    return lines


def about_pairs(history: RunHistory) -> list[str]:
    """Return what became of the held-out pairs, in lines; none for a run on other data."""
    if not history.preferences:
        return []
    first, last = history.preferences[0], history.preferences[-1]
    lines = [
        f"Of {last.num_pairs:,} held-out pairs it has moved towards the chosen answer in {last.accuracy:.0%}; their "
        f"loss went from {first.loss:.3f} to {last.loss:.3f} (0.693 is that of the base).",
        f"Mean log-probability of an answer: chosen {first.chosen:.2f} to {last.chosen:.2f}, rejected "
        f"{first.rejected:.2f} to {last.rejected:.2f} nats.",
    ]
    if first.loss - last.loss < HARDLY_MOVED:
        lines.append(
            "That is hardly a change: more --steps or a higher --set train.lr would take it further."
        )
    if last.chosen < first.chosen - ROUNDING:
        too = " too" if last.rejected < first.rejected - ROUNDING else ""
        lines.append(
            f"The chosen answers became less probable{too}: the loss counts only the difference of the two. A larger "
            "--beta, a lower --set train.lr or fewer --steps keep the model closer to its base."
        )
    return lines


def about_rewards(history: RunHistory) -> list[str]:
    """Return what became of the sampled answers, in lines; none for a run without."""
    rewards = history.rewards
    if not rewards:
        return []
    part = max(1, len(rewards) // FIRST_AND_LAST)
    first, last = (fmean(event.right for event in events) for events in (rewards[:part], rewards[-part:]))
    mixed = fmean(event.mixed for event in rewards)
    lines = [
        f"Of the answers that it sampled, {first:.0%} were right in the first {part:,} steps and {last:.0%} in the "
        f"last {part:,}; {mixed:.0%} of the questions had answers of both kinds, which alone teach."
    ]
    if not any(event.right for event in rewards):
        lines.append(
            "None was ever right, so nothing was learned: train on the same questions without --reward first, and "
            "begin with that run (--from)."
        )
    return lines


def about_best_step(path: Path, history: RunHistory, train: ResolvedTrain) -> list[str]:
    """Return why a run with ``train.stop_early`` ended, and which step gained most for its cost, in lines."""
    balances = balances_of(history.evals, history.references)
    best, lines = least(balances), []
    if best is None:
        return []
    if any(event.num_steps == event.step for event in history.lengths[-1:]):
        lines.append(
            f"It ended early, at step {history.evals[-1].step:,}: in {train.patience} evaluations the sum of what it "
            "gains and what it costs has not fallen."
        )
    if best.step == balances[0].step:
        return [*lines, f"No step gained more than it cost: the best step is {best.step:,}, where it began."]
    talks = train.objective == CONVERSATION
    use = command("chat", path, "--step", best.step) if talks else command("generate", f"{path}@{best.step}")
    lines.append(f"The best step is {best.step:,}: {use}")
    return [*lines, f"Since step {balances[0].step:,}, that step changed the loss by {best}."]


def _on_reference(first: float, final: float) -> str:
    """Say how the loss on the reference text changed, which the training text has nothing to do with."""
    change = final / first - 1
    if not math.isfinite(change):
        return f"On the reference text it went from {first:.3f} to {final:.3f}."
    verdict = "it has forgotten some of what it knew" if change > FORGOTTEN else "it has forgotten little"
    if change <= 0:
        verdict = "nothing that this text measures is forgotten"
    return (
        f"On the reference text, which has nothing to do with yours, it went from {first:.3f} to {final:.3f} "
        f"({change:+.1%}): {verdict}."
    )


def _print_tuning(path: Path, console: Console, deadline: Deadline | None, step: int | None = None) -> None:
    """Ask the base and the tuned model what was held out, and print what the tuning gained and cost.

    The tuned model is that of ``step`` if a checkpoint of it exists, else the newest.
    """
    seconds, questions = TUNING_SECONDS, MOST_QUESTIONS
    if deadline is not None:
        seconds, questions = deadline.samples_until - time.monotonic(), deadline.questions or MOST_QUESTIONS
    if seconds <= 0:
        say(console, "\nNo time was left to measure what the tuning gained and cost.")
        return
    return_free_pages()  # those of the training, which is over
    say(console, "\nmeasuring the base and the tuned model on what was held out ...")
    try:
        steps = map(step_of, list_checkpoints(path / "checkpoints"))
        known = step if step and step in steps else None  # step 0 is the base
        report = tuning_report(
            path,
            step=known,
            most_questions=questions,
            seconds=seconds,
            threads=torch.get_num_threads(),
        )
    except (EtudeError, NotFinite) as error:
        say(console, f"\nwhat the tuning gained is not known: {error}")
        return
    except KeyboardInterrupt:  # the run is finished and saved
        say(console, f"\nleft for later:  {command('eval', path, '--suite', 'tuning')}")
        return
    print_reports([report], as_json=False, console=console)


def _print_samples(path: Path, console: Console, until: float) -> None:
    """Print samples of the finished model, in panels; stop within a sample when the time is over."""
    if time.monotonic() >= until:
        say(console, "\nNo time was left for samples.")
        return
    return_free_pages()  # those of the training, which is over
    # Use as many threads as the training did: it may have left cores to other programs.
    trained = load_trained(path, torch.get_num_threads())
    language = Language(trained.folder, trained.model, trained.tokenizer)
    settings = dataclasses.replace(USUAL_SAMPLING, max_new_tokens=CLOSING_SAMPLE_TOKENS)
    for seed in range(CLOSING_SAMPLES):
        try:
            text = printable(_until(language.stream("", settings, seed), until).strip())
        except NotFinite as error:
            say(console, f"\nno sample: {error}")
            return
        title = f"sample {seed + 1}, without a prompt"
        console.print(Panel(Text(text), title=title, title_align="left", border_style="blue"))
        if time.monotonic() >= until:
            return


def _until(pieces: Iterator[str], until: float) -> str:
    """Join the pieces up to the one at which the time is over, then add an ellipsis."""
    text = ""
    for piece in pieces:
        text += piece
        if time.monotonic() >= until:
            return text + "…"
    return text
