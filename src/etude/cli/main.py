"""The ``etude`` command: its sub-commands, and how errors become messages and exit codes."""

from __future__ import annotations

import errno
import os
import sys
from contextlib import suppress
from pathlib import Path

import typer

from etude.cli import (
    chat,
    data,
    doctor,
    emergence,
    evaluate,
    generate,
    import_model,
    inspect,
    runs,
    serve,
    studio,
    sweep,
    train,
)
from etude.cli.command import Command
from etude.errors import EtudeError, InputError
from etude.files import file_errors_in_one_line
from etude.places import ensure_user_and_home
from etude.system import discard_output, make_output_safe
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
app.command("train", cls=Command, epilog=train.PLACES)(train.train)
app.command("import", cls=Command)(import_model.import_model)
app.command("generate", cls=Command)(generate.generate)
app.command("chat", cls=Command)(chat.chat)
app.command("score", cls=Command)(generate.score)
app.add_typer(data.app, name="data")
app.command("runs", cls=Command)(runs.runs)
app.command("plot", cls=Command)(runs.plot)
app.command("settings", cls=Command)(runs.settings)
app.command("inspect", cls=Command)(inspect.inspect)
app.command("serve", cls=Command)(serve.serve)
app.command("studio", cls=Command)(studio.studio)
app.command("eval", cls=Command)(evaluate.evaluate)
app.command("sweep", cls=Command)(sweep.sweep)
app.command("emergence", cls=Command)(emergence.emergence)
app.command("doctor", cls=Command)(doctor.doctor)

INTERRUPTED = 130
"""The exit code after Ctrl-C, by the shells' convention (128 + SIGINT)."""
_OUTPUT_IS_FULL = {errno.ENOSPC, errno.EIO, errno.EDQUOT}


def run() -> None:
    """Run the command line; exit with 2 for a user's mistake, 1 for a failure, 130 for Ctrl-C, and a line on stderr."""
    # Otherwise the tokenizers library warns about its threads whenever a worker process is forked to encode text.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    escapes = make_output_safe()
    code = _exit_code()
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader of the output (head, less) has ended, which is no error.
        discard_output(sys.stdout)
    except OSError as error:
        discard_output(sys.stdout)
        print(f"etude: could not write the output: {error.strerror or error}", file=sys.stderr)
        code = code or 1
    if note := escapes.report():
        print(f"etude: {note}", file=sys.stderr)
    sys.exit(code)


def _exit_code() -> int:
    """Run the command, print its error if it fails, and return the exit code."""
    try:
        ensure_user_and_home()
        with file_errors_in_one_line():
            app()
    except EtudeError as error:
        with suppress(OSError):
            sys.stdout.flush()
        print(f"etude: {error}", file=sys.stderr)
        return error.exit_code
    except PermissionError as error:
        # Readers of files report their own; this is any other, such as a search in a folder without permission.
        place = Path(os.fsdecode(error.filename)) if isinstance(error.filename, str | bytes) else None
        print(f"etude: {error if place is None else Unreadable(place, error)}", file=sys.stderr)
        return InputError.exit_code
    except MemoryError:
        print(
            "etude: this machine does not have enough free memory for that: close other programs",
            file=sys.stderr,
        )
        return 1
    except SystemExit as ending:
        if ending.code == INTERRUPTED:  # typer turns Ctrl-C into this exit code
            print("etude: interrupted", file=sys.stderr)
        if isinstance(ending.code, str):
            print(ending.code, file=sys.stderr)
            return 1
        return ending.code or 0
    except BrokenPipeError:
        discard_output(sys.stdout)
    except OSError as error:
        if error.errno not in _OUTPUT_IS_FULL or error.filename is not None:
            raise
        discard_output(sys.stdout)
        print(f"etude: could not write the output: {error.strerror}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    run()
