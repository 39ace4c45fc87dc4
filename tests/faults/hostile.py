"""Give damaged files to every reader, and classify the outcomes.

    python tests/faults/hostile.py [COUNT [SEED]]     # COUNT bad inputs for each reader, and a table

Each input is one damage (:mod:`damage`) to one file of an intact run, its cache, a model folder or a settings file. The
process that reads it has little spare memory, is killed if it takes too long, and is checked for changes outside its
folder. A reader may read the file, or refuse it with one line that names it; anything else is a defect.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from damage import BYTES, STRUCTURED, replace_by_other
from targets import SECRET, Reader, World, readers

READ, REFUSED, DEFECT = "read", "refused", "defect"
SPARE_BYTES = 1 << 30
"""Address space that a reader may use in addition to that of the process before."""
CPU_SECONDS, WALL_SECONDS = 10, 30
LONGEST_MESSAGE = 700


@dataclass(frozen=True)
class Attempt:
    """One bad input with its outcome: read, refused (``detail`` is the error) or defect."""

    reader: str
    number: int
    damage: str
    file: str
    outcome: str
    detail: str


def attack(reader: str, seed: int, count: int) -> list[Attempt]:
    """Try ``count`` bad inputs on one reader (a key of :func:`readers`). They depend only on the ``seed``."""
    return attack_all({reader: count}, seed)


def attack_all(counts: Mapping[str, int], seed: int) -> list[Attempt]:
    """Do the same as :func:`attack` for several readers in one process. If it dies, another process continues."""
    left = [(reader, number) for reader, count in counts.items() for number in range(count)]
    attempts: list[Attempt] = []
    while left:
        attempts += _attempts_of_one_process(left, seed)
        done = {(attempt.reader, attempt.number) for attempt in attempts}
        left = [case for case in left if case not in done]
    return attempts


def _attempts_of_one_process(cases: Sequence[tuple[str, int]], seed: int) -> list[Attempt]:
    with tempfile.TemporaryDirectory(prefix="etude-hostile-") as folder:
        command = [sys.executable, __file__, "--child", folder, str(seed)]
        ended = subprocess.run(command, input=json.dumps(cases), capture_output=True, text=True)
    attempts: dict[tuple[str, int], Attempt] = {}
    for line in ended.stdout.splitlines():
        attempt = Attempt(**json.loads(line))
        attempts[attempt.reader, attempt.number] = attempt
    if not attempts:
        raise RuntimeError(f"the process that reads did not start: {ended.stderr[-2000:]}")
    if ended.returncode:  # the process died during the last attempt
        died = list(attempts.values())[-1]
        how = signal.Signals(-ended.returncode).name if ended.returncode < 0 else f"code {ended.returncode}"
        slow = {"SIGPROF": " (processor time)", "SIGALRM": " (time)"}.get(how, "")
        lost = Attempt(**{**asdict(died), "detail": f"process ended by {how}{slow}: {ended.stderr[-300:]}"})
        attempts[died.reader, died.number] = lost
    return list(attempts.values())


# The following functions run in the process that reads.


def _damage(reader: Reader, world: World, seed: random.Random) -> tuple[str, str]:
    """Damage one file. Returns (kind of damage, file)."""
    folder = world.case / reader.folder
    files = sorted({path for pattern in reader.files for path in folder.glob(pattern) if path.is_file()})
    path = seed.choice(files)
    structured = STRUCTURED.get(path.suffix)
    if seed.random() < 0.1 and reader.names_file:
        kind = replace_by_other(path, world.outside, seed)
    elif structured is not None and seed.random() < 0.5:
        kind = "structure"
        path.write_bytes(structured(path.read_bytes(), seed))
        if reader.reseal is not None and seed.random() < 0.8:
            kind = "structure, checksums made to agree"
            with contextlib.suppress(Exception):  # the damaged file may be one that resealing must read
                reader.reseal(folder)
    else:
        kind = seed.choice(list(BYTES))
        path.write_bytes(BYTES[kind](path.read_bytes(), seed))
        if reader.reseal is not None and path.suffix != ".toml" and seed.random() < 0.5:
            kind += ", checksums made to agree"
            with contextlib.suppress(Exception):
                reader.reseal(folder)
    return kind, str(path.relative_to(world.case))


def _try(reader: Reader, world: World) -> tuple[str, str]:
    """Read the current files. Returns (outcome, detail)."""
    from etude.errors import EtudeError

    folder = world.case / reader.folder
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            reader.read(folder)
        outcome, detail = READ, ""
    except EtudeError as error:
        detail = str(error)
        fault = _unclear(detail, world, reader)
        outcome, detail = (DEFECT, f"{fault}: {detail[:1000]!r}") if fault else (REFUSED, detail)
    except BaseException as error:
        import traceback

        where = traceback.extract_tb(error.__traceback__)[-3:]
        calls = " < ".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in reversed(where))
        outcome, detail = DEFECT, f"{type(error).__name__}: {str(error)[:200]} ({calls})"
    if not world.outside_is_as_it_was():
        outcome, detail = DEFECT, f"changed a file outside; {detail}"
    return outcome, detail


def _unclear(message: str, world: World, reader: Reader) -> str:
    """Return what is wrong with an error message; empty if nothing is."""
    if any(unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") for c in message):
        return "not one line of text"
    if len(message.replace(str(world.case), "")) > LONGEST_MESSAGE:
        return "too long"
    if SECRET in message:
        return "shows a file outside"
    if reader.names_file and str(world.case / reader.folder) not in message:
        return "does not name the file"
    return ""


def _run_child(root: Path, seed: int) -> None:
    """Try the cases named on standard input. Prints a line of JSON before each attempt and after it."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    cases = json.load(sys.stdin)
    output = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    import torch

    torch.set_num_threads(1)
    world, known = World(root), readers()
    for name in dict.fromkeys(name for name, _ in cases):
        outcome, detail = _try(known[name], world)
        if outcome != READ:
            raise RuntimeError(f"{name} cannot read what is intact: {detail}")
        world.restore()
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + SPARE_BYTES, resource.RLIM_INFINITY))
    for name, number in cases:
        how, file = _damage(known[name], world, random.Random(f"{seed} {name} {number}"))
        begun = Attempt(name, number, how, file, DEFECT, "begun")
        print(json.dumps(asdict(begun)), file=output, flush=True)
        # No handler is set for the signals of these timers, so they end the process.
        signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
        signal.setitimer(signal.ITIMER_REAL, WALL_SECONDS)
        outcome, detail = _try(known[name], world)
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        ended = Attempt(name, number, how, file, outcome, detail)
        print(json.dumps(asdict(ended)), file=output, flush=True)
        world.restore()


def table(attempts: Sequence[Attempt]) -> str:
    """Return a table of counts by reader and outcome."""
    counts = Counter((attempt.reader, attempt.outcome) for attempt in attempts)
    lines = [f"{'reader':<16}{'tried':>8}{READ:>8}{REFUSED:>9}{DEFECT:>8}"]
    for name in dict.fromkeys(attempt.reader for attempt in attempts):
        read, refused, defect = (counts[name, outcome] for outcome in (READ, REFUSED, DEFECT))
        lines.append(f"{name:<16}{read + refused + defect:>8}{read:>8}{refused:>9}{defect:>8}")
    return "\n".join(lines)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        _run_child(Path(sys.argv[2]), int(sys.argv[3]))
        sys.stdout.flush()
        os._exit(0)  # skip the exit handlers of libraries, which may need more memory than the limit allows
    per_reader = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    first_seed = int(sys.argv[2]) if len(sys.argv) > 2 else 1
    everything = []
    for reader_name in readers():
        everything += attack(reader_name, first_seed, per_reader)
        for attempt in everything[-per_reader:]:
            if attempt.outcome == DEFECT:
                print(
                    f"{attempt.reader} {attempt.number}: {attempt.damage}, {attempt.file}: {attempt.detail}",
                    flush=True,
                )
    print(table(everything))
