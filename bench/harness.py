"""Fair comparisons: named contestants, each in a process of its own, take turns in every round.

A contestant is a function ``make(**arguments)`` in a module of this folder. It prepares what is not measured and
returns a function without arguments that runs one round and returns its measurements. The rounds are interleaved
(A B C A B C), so that a machine that grows warm or busy affects all alike, and ratios are taken within each round.
Every process has the same number of threads and its own compiler cache, empty at first: round 1 compiles, later rounds
load the compiled code. ``busy_elsewhere`` of a round is the number of cores that other programs kept busy meanwhile.
Figures of a busy machine are worthless.

    contestants = [Contestant("ours", "throughput:etude_side", {"width": 256}), Contestant("theirs", ...)]
    measured = interleave(contestants, rounds=3, threads=2)
    print(summary(measured, "tokens_per_second"), ratio(measured, "tokens_per_second", "ours", "theirs"))

``write_result`` writes the measurements with date, command, commit, machine and versions.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import gc
import importlib
import importlib.metadata
import json
import os
import re
import shlex
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent
RESULTS = FOLDER / "results"
PEERS = ("transformers", "accelerate", "datasets", "litgpt")
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
TOLERATED = 0.2
"""Cores that other programs may keep busy during a round."""
Measurements = dict[str, list[dict[str, Any]]]
"""The measurements of each round, by contestant."""


@dataclass(frozen=True)
class Contestant:
    """One side of a comparison. ``make`` is ``module:function``; ``arguments`` are JSON values."""

    name: str
    make: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    python: str = sys.executable


@dataclass(frozen=True)
class Spread:
    """The median of some rounds, with the lowest and the highest value."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread:
        """Return the spread of ``values``. Raises ValueError if there are none."""
        known = sorted(values)
        if not known:
            raise ValueError("no round measured this")
        return cls(statistics.median(known), known[0], known[-1])

    def __str__(self) -> str:
        if self.low == self.high:
            return number(self.median)
        return f"{number(self.median)} ({number(self.low)}..{number(self.high)})"


def number(value: float) -> str:
    """Format a number with three to four digits, for a table."""
    size = abs(value)
    if size >= 1000:
        return f"{value:,.0f}"
    return f"{value:.{4 if size < 0.1 else 3 if size < 10 else 1 if size < 1000 else 0}f}"


class Worker:
    """The process of a contestant. A line on its standard input starts a round."""

    def __init__(self, contestant: Contestant, threads: int, compiled: Path) -> None:
        environment = {**os.environ, "TORCHINDUCTOR_CACHE_DIR": str(compiled)}
        environment |= dict.fromkeys(THREAD_VARIABLES, str(threads))
        command = [contestant.python, str(Path(__file__).resolve()), contestant.make]
        self.name = contestant.name
        self._process = subprocess.Popen(
            [*command, json.dumps(dict(contestant.arguments))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        self._answer()  # wait until it is ready, so that its preparation does not disturb other contestants

    def round(self) -> dict[str, Any]:
        """Run one round."""
        assert self._process.stdin is not None
        print("round", file=self._process.stdin, flush=True)
        return self._answer()

    def close(self) -> None:
        """End the process, in the middle of a round if need be."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            sys.exit(f"{self.name} ended with {self._process.wait()}: see its message above")
        answer: dict[str, Any] = json.loads(line)
        return answer


def interleave(
    contestants: Sequence[Contestant],
    rounds: int,
    threads: int,
    *,
    fresh: bool = False,
    report: Callable[[str], None] = lambda line: print(line, file=sys.stderr, flush=True),
) -> Measurements:
    """Let the contestants take turns.

    Args:
        threads: number of threads of each.
        fresh: use a new process for every round, for rounds that leave something behind. Otherwise a process prepares
            once, stays in memory, and waits for its turns.
        report: receives a line for each round.

    After Ctrl-C or SIGTERM it returns what was measured so far.
    """
    measured: Measurements = {contestant.name: [] for contestant in contestants}
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    scratch = Path(tempfile.mkdtemp(prefix="etude-bench-"))
    workers: dict[str, Worker] = {}
    try:
        for count in range(1, rounds + 1):
            for place, contestant in enumerate(contestants):
                name = contestant.name
                if name not in workers:
                    workers[name] = Worker(contestant, threads, scratch / str(place))
                measured[name].append(workers[name].round())
                report(f"round {count}, {name}: {_shown(measured[name][-1])}")
                if fresh:
                    workers.pop(name).close()
    except KeyboardInterrupt:
        if not any(measured.values()):
            raise
        report("stopped: what was measured so far is kept")
    finally:
        for worker in workers.values():
            worker.close()
        shutil.rmtree(scratch, ignore_errors=True)
    worst = max((result["busy_elsewhere"] for taken in measured.values() for result in taken), default=0.0)
    if worst > TOLERATED:
        report(
            f"other programs kept up to {worst:.1f} cores busy: measure again when the machine has nothing else to do"
        )
    return measured


def summary(measured: Measurements, what: str) -> dict[str, Spread]:
    """Return the median and spread of one measurement, for every contestant that has it."""
    values_by_name = {
        name: [float(result[what]) for result in rounds if result.get(what) is not None]
        for name, rounds in measured.items()
    }
    return {name: Spread.of(values) for name, values in values_by_name.items() if values}


def ratio(measured: Measurements, what: str, above: str, below: str) -> Spread | None:
    """Return the ratio ``above`` / ``below`` within each round; None if no round has both."""
    pairs = zip(measured[above], measured[below], strict=False)
    ratios = [a[what] / b[what] for a, b in pairs if a.get(what) is not None and b.get(what)]
    return Spread.of(ratios) if ratios else None


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a markdown table. Floats are formatted by :func:`number`, None is a dash."""
    lines = [
        list(header),
        ["---"] + ["---:"] * (len(header) - 1),
        *([_cell(cell) for cell in row] for row in rows),
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def write_result(name: str, content: Mapping[str, Any], *, threads: int, folder: Path = RESULTS) -> Path:
    """Write ``content`` to ``folder/name.json``, with date, command, commit, machine and versions."""
    from etude.config import DeviceSettings
    from etude.device import choose_device, describe_machine

    machine = describe_machine(choose_device(DeviceSettings(threads=threads)))
    known = {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "command": shlex.join(["python", f"bench/{Path(sys.argv[0]).name}", *sys.argv[1:]]),
        "commit": machine.pop("git_commit"),
        "versions": machine.pop("versions") | installed(PEERS),
        "machine": machine,
    }
    file = folder / f"{name}.json"
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps({**known, **content}, indent=1, default=_plain)
    file.write_text(_short_lists(text) + "\n", encoding="utf-8")
    return file


def put_block(page: Path, name: str, text: str) -> None:
    """Replace the text between two markers of a document."""
    markers = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
    whole, count = markers.subn(lambda match: f"{match[1]}{text}\n{match[2]}", page.read_text())
    assert count == 1, f"{page} has lost its markers of {name}"
    page.write_text(whole)


def installed(libraries: Iterable[str]) -> dict[str, str]:
    """Return the versions of those libraries that are installed."""
    versions = {}
    for library in libraries:
        try:
            versions[library] = importlib.metadata.version(library)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def arguments_of(description: str | None, *, rounds: int) -> argparse.ArgumentParser:
    """Return a parser with the options that every benchmark has."""
    from etude.device import available_cores

    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--rounds", type=int, default=rounds, help="rounds of every contestant (default %(default)s)"
    )
    parser.add_argument(
        "--threads", type=int, default=available_cores(), help="threads of every process (default: all cores)"
    )
    parser.add_argument(
        "--quick", action="store_true", help="only check that the benchmark works; the figures mean nothing"
    )
    parser.add_argument(
        "--out", type=Path, default=RESULTS, help="folder of the results (default bench/results)"
    )
    return parser


def earlier_rounds(file: Path) -> dict[str, Any]:
    """Return the result of an earlier call, to add to; empty if there is none."""
    if not file.is_file():
        return {}
    content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return content


def _shown(result: Mapping[str, Any]) -> str:
    plain = {key: value for key, value in result.items() if isinstance(value, int | float)}
    return ", ".join(f"{key} {_cell(value)}" for key, value in plain.items())


def _cell(cell: object) -> str:
    if cell is None:
        return "-"
    return number(cell) if isinstance(cell, float) else str(cell)


def _plain(value: object) -> object:
    return asdict(value) if isinstance(value, Spread) else str(value)


def _short_lists(text: str) -> str:
    """Put every list of plain numbers in a JSON text on one line."""
    return re.sub(
        r"\[[^\[\]{}\"]*\]",
        lambda match: " ".join(match[0].split()).replace("[ ", "[").replace(" ]", "]"),
        text,
    )


def _serve() -> None:
    """Run the rounds that a :class:`Worker` requests, in its process."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # redirect the output of libraries, which must not be mistaken for an answer
    module, _, function = sys.argv[1].partition(":")
    sys.path.insert(0, str(FOLDER))
    one_round = getattr(importlib.import_module(module), function)(**json.loads(sys.argv[2]))
    print("{}", file=answers, flush=True)
    for _ in sys.stdin:
        gc.collect()
        begin, own, total = time.perf_counter(), _own_cpu_seconds(), _cpu_seconds()
        result = one_round()
        elsewhere = (_cpu_seconds() - total) - (_own_cpu_seconds() - own)
        result["busy_elsewhere"] = round(max(0.0, elsewhere) / (time.perf_counter() - begin), 2)
        print(json.dumps(result), file=answers, flush=True)


def _own_cpu_seconds() -> float:
    """Return the processor seconds of this process and its descendants, including those that have ended."""
    from memory import family

    ticks = 0
    for pid in family(os.getpid()):
        with contextlib.suppress(OSError, ValueError):
            fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
            ticks += sum(int(field) for field in fields[11:15])  # utime, stime, cutime, cstime
    return ticks / os.sysconf("SC_CLK_TCK")


def _cpu_seconds() -> float:
    """Return the processor seconds of all processes of this machine, with those stolen by a hypervisor.

    On systems other than Linux only this process is counted.
    """
    try:
        fields = [int(field) for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    except (OSError, ValueError):
        return _own_cpu_seconds()
    idle = fields[3] + fields[4]
    return (sum(fields) - idle) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    _serve()
