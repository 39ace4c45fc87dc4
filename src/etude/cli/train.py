"""``etude train``: train a language model from text, resume a run, or fork it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from etude.cli.options import SOURCES_HELP, ConfigFile, Overrides, parse_duration

if TYPE_CHECKING:
    from etude.config import Settings

Sources = Annotated[list[str] | None, typer.Argument(help=SOURCES_HELP, show_default="builtin:primer")]
Size = Annotated[str | None, typer.Option(help="Size of the model: nano, tiny, small, medium or large.")]
Time = Annotated[
    str | None,
    typer.Option(
        help="Time for the whole run, such as 90s, 10m or 2h; size and steps follow from it (--from: steps)."
    ),
]
Tokenizer = Annotated[str | None, typer.Option(help="`bpe`, `char`, or a path to a tokenizer.json.")]
Family = Annotated[
    str | None,
    typer.Option(
        "--model",
        help="The family: llama, qwen3, qwen2, smollm3, gemma3_text, gpt2, gpt_neox, olmo2 or mlp.",
    ),
]
Steps = Annotated[int | None, typer.Option(help="Updates of the weights.")]
Seed = Annotated[int | None, typer.Option(help="Seed of the initial weights and the order of the text.")]
Name = Annotated[str | None, typer.Option(help="The run's folder below `runs`.")]
Recipe = Annotated[
    str | None,
    typer.Option(help="A study with its own text and settings: induction or grokking. See docs/studies.md."),
]
Resume = Annotated[Path | None, typer.Option(metavar="RUN", help="Continue a run that was stopped.")]
Fork = Annotated[
    str | None,
    typer.Option(metavar="RUN@STEP", help="Start a new run from the weights of another run at a step."),
]
From = Annotated[
    str | None,
    typer.Option(
        "--from",
        metavar="MODEL",
        help="Begin with the weights of a published model: a model folder, a .gguf file, hf:owner/name, or a run.",
    ),
]
Only = Annotated[
    str | None,
    typer.Option(
        "--train",
        metavar="PATTERN",
        help="Train only parameters whose name has this pattern in it, such as 'layers.2[0-9]'.",
    ),
]
Lora = Annotated[
    bool | None,
    typer.Option(
        "--lora/--no-lora",
        help="With --from: train a low-rank adapter (LoRA) instead of the model's weights; usual with --time.",
    ),
]
LoraRank = Annotated[int | None, typer.Option("--lora-r", help="Rank of the adapter; --lora alone: 16.")]
LoraAlpha = Annotated[
    float | None,
    typer.Option("--lora-alpha", help="The adapter counts alpha / rank times; usual: twice the rank."),
]
Replay = Annotated[
    float | None,
    typer.Option(
        metavar="SHARE",
        help="Of the trained tokens, the share to sample from the base, such as 0.5, so that it forgets less.",
    ),
]
Beta = Annotated[
    float | None,
    typer.Option(
        help="For pairs of a chosen and a rejected answer (DPO): a smaller one lets the model move further; usual: 0.1."
    ),
]
Reward = Annotated[
    bool,
    typer.Option(
        "--reward",
        help="With --from: sample answers to builtin:sums, builtin:copying or builtin:format, and let right ones gain.",
    ),
]
ShuffleRewards = Annotated[
    bool,
    typer.Option("--shuffle-rewards", help="With --reward: its null, which can learn nothing."),
]
StopEarly = Annotated[
    bool,
    typer.Option(
        "--stop-early", help="End the run once it gains no more than it costs, and keep its best checkpoint."
    ),
]
StopAfter = Annotated[
    str | None,
    typer.Option(
        metavar="TIME",
        help="Stop and save after this time, such as 55m, with exit code 75; continue with --resume.",
    ),
]
AcceptRecord = Annotated[
    bool,
    typer.Option(
        "--accept-damaged-record",
        help="With --resume or --fork: accept a damaged metrics.jsonl or samples.jsonl. The damaged file is kept.",
    ),
]
Studio = Annotated[bool, typer.Option("--studio/--no-studio", help="Serve the page that shows the run.")]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Print the settings with their reasons and the cost, and stop.")
]
PLACES = (
    "Runs are written below `runs` (`--set run.folder=FOLDER` for another place). Prepared text is kept in "
    "`~/.cache/etude`; the environment variable `ETUDE_CACHE` names another folder."
)
ACCEPTED = "--accept-damaged-record is for an existing run: add --resume RUN or --fork RUN@STEP"
USUAL_RANK = 16
"""Rank of an adapter with --lora alone."""
Job = Callable[[Any], Any]
"""Runs the requested job, given the module :mod:`etude.workflow.jobs`, imported late because it loads torch."""


def train(
    sources: Sources = None,
    time: Time = None,
    size: Size = None,
    tokenizer: Tokenizer = None,
    family: Family = None,
    steps: Steps = None,
    seed: Seed = None,
    name: Name = None,
    config: ConfigFile = None,
    recipe: Recipe = None,
    overrides: Overrides = None,
    resume: Resume = None,
    fork: Fork = None,
    base: From = None,
    only: Only = None,
    lora: Lora = None,
    lora_r: LoraRank = None,
    lora_alpha: LoraAlpha = None,
    replay: Replay = None,
    beta: Beta = None,
    reward: Reward = False,
    shuffle_rewards: ShuffleRewards = False,
    stop_early: StopEarly = False,
    stop_after: StopAfter = None,
    accept_record: AcceptRecord = False,
    studio: Studio = True,
    dry_run: DryRun = False,
) -> None:
    """Grow a language model from text. Without arguments: from Etude's own stories, in minutes."""
    from etude.config import load_settings

    named = {
        "data.sources": tuple(sources) if sources else None,
        "train.seconds": None if time is None else parse_duration(time),
        "model.size": size,
        "model.preset": family,
        "tokenizer.kind": tokenizer,
        "train.steps": steps,
        "train.only": only,
        "model.base": base,
        **_tuning(lora, lora_r, lora_alpha, beta, replay, stop_early, reward, shuffle_rewards),
        "run.seed": seed,
        "run.name": name,
    }
    config, changes = _settings_file(recipe, config), overrides or []
    values = {key: value for key, value in named.items() if value is not None}
    limit = None if stop_after is None else parse_duration(stop_after)
    options = {"overrides": changes, "stop_after": limit, "accept_record": accept_record}
    if resume is not None:
        changed = bool(values or config or dry_run or fork)
        _refuse(changed, "--resume continues with the run's own settings: change one of them with --set")
        _watched(lambda jobs: jobs.resume(resume, **options), resume.absolute().parent, studio)
    elif fork is not None:
        changed = bool(config or dry_run or time)
        _refuse(changed, "--fork has its parent's settings: change some with --set, --steps or --name")
        _watched(lambda jobs: jobs.fork(fork, values=values, **options), Path(fork).absolute().parent, studio)
    else:
        _refuse(accept_record, ACCEPTED)
        _grow(load_settings(config, changes, values), limit, studio, dry_run)


def _refuse(wrong: bool, why: str) -> None:
    """Raise InputError with ``why`` if the options are ``wrong``."""
    from etude.errors import InputError

    if wrong:
        raise InputError(why)


def _tuning(
    lora: bool | None,
    rank: int | None,
    alpha: float | None,
    beta: float | None,
    replay: float | None,
    stop_early: bool,
    reward: bool,
    shuffle_rewards: bool,
) -> dict[str, Any]:
    """Return the settings that only a tuning has, by key; None for those that the user did not name."""
    _refuse(bool(lora and rank == 0), "--lora-r 0 is no adapter: give a rank of at least 1, or omit --lora")
    named = rank is not None or alpha is not None
    _refuse(lora is False and named, "--no-lora trains all weights: omit --lora-r and --lora-alpha")
    if lora is False:
        rank = 0
    elif rank is None and (lora or named):
        rank = USUAL_RANK
    return {
        "train.lora_rank": rank,
        "train.lora_alpha": alpha,
        "train.beta": beta,
        "train.stop_early": stop_early or None,
        "train.objective": "reward" if reward else None,
        "train.shuffle_rewards": shuffle_rewards or None,
        "data.replay": replay,
    }


def _grow(settings: Settings, limit: float | None, studio: bool, dry_run: bool) -> None:
    """Train a new run, or print its plan if ``dry_run``."""
    from etude.setting_declarations import require_model_to_adapt, require_text_to_forget

    timed = settings.train.seconds != "auto" and settings.train.steps != "auto"
    _refuse(timed, "--time chooses the number of steps: give --time or --steps, not both")
    for require in (require_model_to_adapt, require_text_to_forget):  # before the text is prepared
        require(settings)
    if dry_run:
        from etude.workflow import jobs

        jobs.explain(settings)
        return
    _watched(_growing(settings, limit), Path(settings.run.folder), studio)


def _growing(settings: Settings, limit: float | None) -> Job:
    """Return the job of a new run. A time budget begins when the command was typed."""
    began = _typed_at(settings.train.seconds)
    return lambda jobs: jobs.grow(settings, stop_after=limit, began=began)


def _typed_at(seconds: float | Literal["auto"]) -> float | None:
    """Return when the command was typed (of ``time.monotonic``) for a run with a time budget, else None.

    Also prints the first line of such a run, because loading PyTorch takes seconds.
    """
    import time

    from rich.console import Console

    from etude.show.phases import Phases
    from etude.system import process_age

    if seconds == "auto":
        return None
    began = time.monotonic() - process_age()
    Phases(Console(), began, seconds).note("loading PyTorch")
    return began


def _settings_file(recipe: str | None, config: Path | None) -> Path | None:
    from etude.errors import InputError
    from etude.settings_file import recipe_file

    if recipe is not None and config is not None:
        raise InputError("--recipe is a settings file of its own: give --recipe or --config, not both")
    return config if recipe is None else recipe_file(recipe)


def _watched(job: Job, runs: Path, studio: bool) -> None:
    """Run the job, and serve the page beside it if ``studio``.

    Raises:
        typer.Exit: the run was stopped before its end.
    """
    from etude.cli.broken_pipe import outlive_reader
    from etude.device import place_in_run
    from etude.serve.studio_beside import studio_beside
    from etude.train.stop_requests import STOPPED

    outlive_reader()
    place, count = place_in_run()
    with studio_beside(runs, studio and place == 0) as beside:
        from etude.workflow import jobs  # takes seconds, while the studio's process starts

        if beside is not None and beside.address():
            print(f"watch it learn: {beside.address()}", flush=True)
        outcome = job(jobs)
    if outcome.reason == "stopped" and count == 1:
        raise typer.Exit(STOPPED)  # not under torchrun, which reports any other code than 0 as a failure
