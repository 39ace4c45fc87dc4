"""Measure what a run survives: the fault programme at length, bad inputs; and the gain of saving in the background.

    python bench/faults.py --kills 240

It disturbs the six short runs of tests/faults/programme.py with every kind of fault, damages every file that Etude
reads (tests/faults/hostile.py), and trains one larger network whose checkpoints are written in the background and in
the foreground in turn. Mounting a small file system needs privileges; without them a limit on the size of files stands
in for a full disk, and the fault "read-only" is skipped.

Results: bench/results/faults.json and docs/reliability.md
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from etude.plan.plan import initial_state, make_objective
from etude.train.loop import Loop
from etude.train.saving import Save
from etude.workflow.start import start
from etude_side import quiet_plan, settings_of
from harness import Spread, markdown_table, write_result

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "faults")]
from hostile import attack  # noqa: E402
from kinds import KINDS, tried_out  # noqa: E402
from programme import RUNS, Result  # noqa: E402
from targets import readers  # noqa: E402

ONE_AT_A_TIME = ("refused_operations", "crashes", "damaged_files")
"""Kinds with hundreds of faults in a single run: each operation on a file, each state after a crash, each file."""
PAGE = ROOT / "docs" / "reliability.md"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=240, help="at random moments")
    parser.add_argument("--others", type=int, default=24, help="faults of each other kind")
    parser.add_argument(
        "--operations",
        type=int,
        default=300,
        help="number of refused operations, of replayed crashes and of damaged files",
    )
    parser.add_argument("--inputs", type=int, default=200, help="bad inputs for each reader")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=ROOT / "bench" / "results")
    arguments = parser.parse_args()
    faults = inject(arguments)
    inputs = {name: outcomes(attack(name, arguments.seed, arguments.inputs)) for name in readers()}
    saving = cost_of_saving()
    measured = {"faults": [asdict(result) for result in faults], "inputs": inputs, "saving": saving}
    file = write_result("faults", measured, threads=1, folder=arguments.out)
    PAGE.write_text(page(faults, inputs, saving), encoding="utf-8")
    print(page(faults, inputs, saving), file, sep="\n")
    if not all(result.is_clean for result in faults) or any(counts["defect"] for counts in inputs.values()):
        sys.exit("something was lost")


def inject(arguments: argparse.Namespace) -> list[Result]:
    """Inject every kind of fault, distributed over the runs."""
    results = []
    for number, (key, kind) in enumerate(KINDS.items()):
        count = {"kills": arguments.kills, **dict.fromkeys(ONE_AT_A_TIME, arguments.operations)}.get(
            key, arguments.others
        )
        total = Result(kind.title)
        for share, name in zip(shares(count, len(kind.runs)), kind.runs, strict=True):
            with tempfile.TemporaryDirectory(prefix="etude-faults-") as folder:
                result = tried_out(Path(folder), key, name, share, arguments.seed + number)
            print(kind.title, name, result.injected, result.recovered, result.problems, flush=True)
            total = replace(
                result,
                injected=total.injected + result.injected,
                recovered=total.recovered + result.recovered,
                bitwise_equal=total.bitwise_equal + result.bitwise_equal,
                steps_lost=total.steps_lost + result.steps_lost,
                problems=total.problems + result.problems,
            )
        results.append(total)
    return results


def shares(count: int, parts: int) -> list[int]:
    return [count // parts + (part < count % parts) for part in range(parts)]


def outcomes(attempts: Sequence[Any]) -> dict[str, int]:
    """Count the inputs that were read, refused, and neither."""
    counts = Counter(attempt.outcome for attempt in attempts)
    return {name: counts[name] for name in ("read", "refused", "defect")}


def cost_of_saving(checkpoints: int = 10) -> dict[str, Any]:
    """Measure how long a checkpoint delays the steps, written in the background and in the foreground in turn."""
    held: dict[bool, list[float]] = {True: [], False: []}
    with tempfile.TemporaryDirectory(prefix="etude-saving-") as folder:
        overrides = ["data.max_bytes=2000000", "model.hidden_size=256", "model.num_hidden_layers=4"]
        overrides += [
            "train.steps=1000",
            f"run.folder={folder}",
            "device.compile=false",
            "ladder.max_order=1",
        ]
        plan = quiet_plan(settings_of(["builtin:primer"], overrides))
        from rich.console import Console

        run = start(plan, Console(quiet=True))
        state = initial_state(plan)
        loop = Loop(state, make_objective(plan, state), plan.settings.train, plan.device)
        save = Save(run, plan.model, 2, lambda step: "")
        for number in range(2 * checkpoints + 2):
            for _ in range(4):  # the disk has time to finish, as between the checkpoints of a run
                loop.one_step()
            save.finish()
            save.in_background = number % 2 == 0
            begin = time.perf_counter()
            save(state)
            if number > 1:  # the first of each also allocates its memory
                held[save.in_background].append(time.perf_counter() - begin)
        save.finish()
        size = sum(file.stat().st_size for file in next(run.checkpoints.glob("step-*")).iterdir())
    return {
        "checkpoint_bytes": size,
        "seconds_beside": held[True],
        "seconds_between": held[False],
        "ratio": asdict(Spread.of(b / a for a, b in zip(held[True], held[False], strict=True))),
    }


def page(faults: Sequence[Result], inputs: dict[str, dict[str, int]], saving: dict[str, Any]) -> str:
    """Return the text of docs/reliability.md."""
    rows: list[list[object]] = [
        [
            result.kind,
            result.injected,
            result.recovered,
            result.bitwise_equal,
            len(result.problems),
            f"{statistics.mean(result.steps_lost):.1f}" if result.steps_lost else "-",
            max(result.steps_lost, default=0),
        ]
        for result in faults
    ]
    header = ["fault", "injected", "runs that continued", "of them bit for bit equal", "lost", "mean", "most"]
    tried: list[list[object]] = [
        [name, sum(counts.values()), counts["read"], counts["refused"], counts["defect"]]
        for name, counts in inputs.items()
    ]
    beside, between = (Spread.of(1000 * s for s in saving[f"seconds_{how}"]) for how in ("beside", "between"))
    ratio = Spread(**saving["ratio"])
    return f"""# What a run survives

Written by `bench/faults.py`; the figures are in `bench/results/faults.json`. CI runs a shorter tier of the same
programme (`tests/faults/`).

## Faults
Short runs of {len(RUNS)} kinds ({"; ".join(RUNS)}) are disturbed and continue
with `--resume` until they are finished; a run may be disturbed several times. It must end with the weights, the
optimizer's state, the record and the samples of an undisturbed run, bit for bit. The last two columns: steps that had
to be repeated, with a checkpoint every 4 steps.

Three kinds are tried on one run of ten steps. *One operation refused*: every open, write, fsync, rename, mkdir and
unlink below the run folder in turn, in a new or a resumed run, fails with one of three errors; the run ends with a
one-line error, or continues without the operation. *Crash*: all file operations of a run are recorded, and replayed up
to every point; of the operations that no fsync guarantees at that point, the replay makes none, all, all but one, only
one, every subset where they are few, and a partial last write. *A file damaged*: the commit marker, the record, the
n-gram ladder, the settings, the manifest, a file of the tokenizer or the weights is removed, emptied, truncated or
changed; the run names it, and is restored from a good copy, resumes from the previous checkpoint, or is refused until
the file is restored.

{markdown_table(header, rows)}

## Bad inputs
Damaged and invented files for everything that Etude reads, with a limit on memory and time. Each must be read
correctly, or refused with one line that names the file.

{markdown_table(["reader", "inputs", "read", "refused in one line", "anything else"], tried)}

## Saving in the background
A checkpoint of {saving["checkpoint_bytes"] / 1e6:.0f} MB delays the next step by {beside} ms if a thread writes it, and
by {between} ms if it is written between the steps: {ratio} times as long (measured in turn, in one training).
"""


if __name__ == "__main__":
    main()
