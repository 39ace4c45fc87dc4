"""``etude eval``: measure what a model knows, and which abilities it has."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from etude.evaluate.together import TogetherRequest

Models = Annotated[
    list[Path],
    typer.Argument(
        metavar="MODEL...",
        help="A run, `RUN@STEP`, a checkpoint, a model folder, a .gguf file, or `hf:owner/name`; several are asked the "
        "same items.",
    ),
]
Suite = Annotated[
    list[str] | None,
    typer.Option(
        help="Probes to run: text, world, tasks or modular; repeat for several. Default: those that fit the text. "
        "tuning: what a run tuned on conversations gained, and what it cost."
    ),
]
Steps = Annotated[
    str | None,
    typer.Option(
        help="The `last` checkpoint, or `all`; also of a folder with step1000, step2000, ...",
        show_default="last",
    ),
]
Step = Annotated[
    list[int] | None,
    typer.Option(
        metavar="N",
        help="With --suite tuning: the checkpoint of this step; repeat for several.",
        show_default="last",
    ),
]
Items = Annotated[
    int | None,
    typer.Option(
        help="Items of each probe, at most; 16 or more.", show_default="256; 64 above 30 M parameters"
    ),
]
Processes = Annotated[int | None, typer.Option(help="Processes that share the work.", show_default="1")]
Threads = Annotated[
    int | None, typer.Option(help="Threads of all processes together.", show_default="one for each core")
]
Expect = Annotated[str, typer.Option(hidden=True)]
Json = Annotated[bool, typer.Option("--json", help="One JSON object instead of a table.")]
Tasks = Annotated[
    str | None,
    typer.Option(metavar="NAMES", help="Public suites of lm-eval instead, such as blimp,lambada_openai."),
]
Text = Annotated[
    list[str] | None,
    typer.Option(
        metavar="SOURCE",
        help="Measure this text (named as for `etude train`); with --suite text, make probes from it.",
    ),
]
Covered = Annotated[
    bool,
    typer.Option("--covered", help="With --tasks: only items whose words all occur in the run's own text."),
]
Limit = Annotated[int | None, typer.Option(help="With --tasks: only the first items of each.")]
Local = Annotated[
    Path | None,
    typer.Option(metavar="FOLDER", help="With --tasks: read files from a folder or zip instead of the Hub."),
]


def evaluate(
    models: Models,
    suite: Suite = None,
    steps: Steps = None,
    step: Step = None,
    items: Items = None,
    text: Text = None,
    processes: Processes = None,
    threads: Threads = None,
    expect: Expect = "",
    tasks: Tasks = None,
    limit: Limit = None,
    local: Local = None,
    covered: Covered = False,
    as_json: Json = False,
) -> None:
    """Measure a model on text that it has not seen, and its abilities beside chance, counting and random weights.

    Bits per byte; loss by position, frequency and document; calibration; the probes. The scores of a run are added to
    its probes.jsonl, for `etude emergence`.
    """
    from rich.console import Console

    from etude.errors import InputError
    from etude.evaluate.resumable_parts import Workers
    from etude.evaluate.together import TogetherRequest
    from etude.interop import public_command as public

    _check_numbers(items, processes, threads, limit)
    if tasks is not None:
        if suite or text or step or {steps, processes, threads} != {None} or len(models) > 1:
            raise InputError(
                "--tasks runs public suites on one model, with all cores: omit --suite, --text, --steps, "
                "--processes and --threads, and name one model"
            )
        names = [name.strip() for name in tasks.split(",") if name.strip()]
        public.public(public.PublicRequest(models[0], names, limit, local, covered, as_json), Console())
        return
    if limit is not None or local is not None or covered:
        raise InputError(
            "--limit, --local and --covered belong to --tasks: name the public suites with --tasks"
        )
    if steps not in (None, "last", "all"):
        raise InputError(f"--steps takes last or all, not '{steps}'")
    if steps is not None and step:
        raise InputError(f"--steps {steps} and --step name other checkpoints: omit one of them")
    workers = Workers(processes or 1, "auto" if threads is None else threads)
    request = TogetherRequest(models, tuple(suite or ()), items, tuple(text or ()), workers, as_json)
    _evaluate(request, steps == "all", tuple(step or ()), expect)


def _evaluate_tuning(request: TogetherRequest, every_step: bool, steps: tuple[int, ...], expect: str) -> None:
    """Report what the tuning of one run gained and cost.

    Raises:
        InputError: the options do not fit together.
    """
    from rich.console import Console

    from etude.errors import InputError
    from etude.evaluate.tuning.command import TuningRequest, evaluate_tuning

    if len(request.suites) > 1 or len(request.paths) > 1 or request.text or expect:
        raise InputError(
            "--suite tuning stands alone: name one run, and omit other suites, --text and --expect"
        )
    (path,) = request.paths
    chosen = None if every_step else steps
    evaluate_tuning(
        TuningRequest(path, chosen, request.num_items, request.workers, request.as_json), Console()
    )


def _evaluate(request: TogetherRequest, every_step: bool, steps: tuple[int, ...], expect: str) -> None:
    """Evaluate one model, several, or every saved version of one; or report on the tuning of a run.

    Raises:
        InputError: the options do not fit together.
    """
    from rich.console import Console

    from etude.errors import InputError
    from etude.evaluate import command as job
    from etude.evaluate import together
    from etude.evaluate.published_steps import evaluate_history
    from etude.evaluate.reading_together import read_together
    from etude.run.folder import is_of_run

    models, suites, text, console = request.paths, request.suites, request.text, Console()
    if "tuning" in suites:
        _evaluate_tuning(request, every_step, steps, expect)
        return
    if steps:
        raise InputError(
            "--step belongs to --suite tuning: name one checkpoint as RUN@STEP, or use --steps all"
        )
    if text and (every_step if not suites else "text" not in suites):
        raise InputError(
            "--text measures a text and runs no probes: omit --suite and --steps, or add --suite text"
        )
    alone = len(models) == 1 and not (text and suites) and (is_of_run(models[0]) or not every_step)
    if expect and not alone:
        raise InputError("--expect belongs to the evaluation of one model on its own text: omit it")
    if every_step and (len(models) > 1 or not is_of_run(models[0])):
        evaluate_history(request, console)
    elif len(models) > 1 or (text and suites):
        if every_step:
            raise InputError("--steps all puts the probes of its own text to a run: omit --text")
        if text and not suites:
            read_together(request, console)
        else:
            together.evaluate_together(request, console)
    else:
        one = job.EvaluationRequest(
            models[0], suites, every_step, request.num_items, text, expect, request.workers, request.as_json
        )
        job.evaluate(one, console)


def _check_numbers(items: int | None, processes: int | None, threads: int | None, limit: int | None) -> None:
    """Raise InputError for a number that no evaluation can have."""
    from etude.errors import InputError
    from etude.evaluate.items import FEWEST_ITEMS
    from etude.setting_types import MOST_THREADS

    for name, value, least in (
        ("--items", items, FEWEST_ITEMS),
        ("--processes", processes, 1),
        ("--threads", threads, 1),
        ("--limit", limit, 1),
    ):
        if value is not None and value < least:
            raise InputError(f"{name} takes {least} or more, not {value}: type {name} {least}, or omit it")
    if threads is not None and threads > MOST_THREADS:
        raise InputError(f"--threads takes {MOST_THREADS} at most, not {threads}: omit it to use all cores")
