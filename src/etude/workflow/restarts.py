"""Find the run that an earlier attempt of the same ``torchrun`` began.

``torchrun --max-restarts`` starts the same command again when a process fails. A command that begins a run must then
continue that run. So the first process notes its run beside it, under the name of this torchrun.
"""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from pathlib import Path
from typing import Any

from etude.errors import EtudeError, InputError
from etude.files import hash_bytes, read_object, write_json
from etude.run import RunFolder
from etude.run.folder import is_run

_PREFIX = ".torchrun-"


def note_run(run: RunFolder) -> None:
    """Note the run of this torchrun, if there is one."""
    if (file := _file(run.path.parent)) is not None:
        write_json(file, {"run": run.path.name, "agent": _agent()})


def forget_run(folder: Path) -> None:
    """Remove the note in the folder of the runs, once the command has ended by itself."""
    if (file := _file(folder)) is not None:
        file.unlink(missing_ok=True)


def run_of_restart(folder: Path) -> Path | None:
    """Return the run that an earlier attempt has begun in ``folder``; None in the first attempt.

    The number of restarts does not count those after a machine has left or joined. Then the agent, torchrun's own
    process on the machine of the first process, is the one of the note.
    """
    file = _file(folder)
    if file is None or not file.is_file():
        return None
    noted: dict[str, Any] = {}
    with suppress(EtudeError, InputError):
        noted = read_object(file)
    restarted = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0"
    name = noted.get("run")
    if not isinstance(name, str) or Path(name).name != name or not is_run(folder / name):
        return None
    if restarted or noted.get("agent") == _agent():
        return folder / name
    file.unlink(missing_ok=True)  # of an older job, to which the user gave the same name
    return None


def _file(folder: Path) -> Path | None:
    """Return the path of the note; None without torchrun."""
    job = os.environ.get("TORCHELASTIC_RUN_ID")
    if job is None:
        return None
    if job == "none":  # no --rdzv-id: the address of the first machine is this job's alone
        job = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
    return folder / f"{_PREFIX}{hash_bytes(job.encode())}.json"


def _agent() -> list[Any]:
    return [socket.gethostname(), os.getppid()]
