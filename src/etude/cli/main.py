"""The ``etude`` command: its sub-commands, and what happens to an error."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import typer

from etude.cli import data, doctor, emergence, evaluate, inspect, runs, studio, sweep, train, use
from etude.errors import EtudeError, InputError
from etude.system import print_nowhere
from etude.untrusted import Unreadable

app = typer.Typer(
    name="etude",
    help="Grow a language model from text, and watch it learn.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("train")(train.train)
app.command("generate")(use.generate)
app.command("score")(use.score)
app.add_typer(data.app, name="data")
app.command("runs")(runs.runs)
app.command("plot")(runs.plot)
app.command("settings")(runs.settings)
app.command("inspect")(inspect.inspect)
app.command("studio")(studio.studio)
app.command("eval")(evaluate.evaluate)
app.command("sweep")(sweep.sweep)
app.command("emergence")(emergence.emergence)
app.command("doctor")(doctor.doctor)

INTERRUPTED = 130


def run() -> None:
    """Entry point. Exit code 2 for a person's mistake, 1 for a failure, 130 for Ctrl-C; one line on stderr."""
    # Workers are forked for encoding; the tokenizer's own threads would only warn about it.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        app()
    except EtudeError as error:
        sys.stdout.flush()
        print(f"etude: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except PermissionError as error:
        # What a reader of files did not name itself: looking for a file in a folder that may not be entered, say.
        place = Path(os.fsdecode(error.filename)) if isinstance(error.filename, str | bytes) else None
        print(f"etude: {error if place is None else Unreadable(place, error)}", file=sys.stderr)
        sys.exit(InputError.exit_code)
    except MemoryError:
        print(
            "etude: this machine has not enough memory free for that: close other programs", file=sys.stderr
        )
        sys.exit(1)
    except SystemExit as ending:
        if ending.code == INTERRUPTED:  # what typer makes of Ctrl-C
            print("etude: interrupted", file=sys.stderr)
        raise
    except BrokenPipeError:
        # The reader of our output (head, less) went away; that is its right.
        print_nowhere(sys.stdout)
        sys.exit(0)


if __name__ == "__main__":
    run()
