"""The loss law of a sweep: fitted to the smaller sizes, written down before the largest is trained, then held to it."""

from __future__ import annotations

import time

from rich.console import Console

from etude.emergence.law import EndOfRun, fit_law
from etude.emergence.sweep_plan import Member, SweepPlan
from etude.errors import InputError
from etude.files import read_object, write_json
from etude.messages import command, quoted
from etude.run.record import RunRecord

FILE = "prediction.json"


def predict_largest(plan: SweepPlan, console: Console) -> None:
    """Fit the smaller sizes and write the prediction down, once; where no law can be fitted, say why not."""
    file = plan.folder / FILE
    if file.is_file() or not plan.smaller:
        return
    size = plan.largest[0].num_parameters
    runs = [_end_of(plan, member) for member in plan.smaller]
    try:
        law = fit_law(runs)
    except InputError as error:
        write_json(file, {"schema": 1, "parameters": size, "predicted": None, "why_not": str(error)})
        console.print(f"no prediction for the largest size: {error}", markup=False, highlight=False)
        return
    told = law.predict(size, plan.tokens)
    interval = {"low": told.interval.low, "high": told.interval.high}
    content = {
        "schema": 1,
        "written_at": time.time(),
        "parameters": size,
        "tokens": plan.tokens,
        "predicted": {"val_loss": told.value, **interval},
        "floor": law.floor,
        "coefficient": law.size[0],
        "exponent": law.size[1],
        "from": [{"parameters": run.parameters, "val_loss": run.loss} for run in runs],
    }
    write_json(file, content)
    console.print(
        f"before the largest size ({size:,} parameters) is trained: {law.words(size, plan.tokens)}",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )


def say_how_it_came(plan: SweepPlan, console: Console) -> None:
    """Beside what was foretold, what was measured; and what to type next."""
    file = plan.folder / FILE
    if file.is_file() and (told := read_object(file).get("predicted")):
        losses = [_end_of(plan, member).loss for member in plan.largest]
        inside = sum(told["low"] <= loss <= told["high"] for loss in losses)
        measured = ", ".join(f"{loss:.3f}" for loss in losses)
        console.print(
            f"foretold {told['val_loss']:.3f} ({told['low']:.3f} to {told['high']:.3f}) nats a token; measured "
            f"{measured}: {inside} of {len(losses)} inside",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
    console.print(
        f"how its abilities came: {command('emergence')} {quoted(plan.folder)}/*-seed* "
        f"--report {quoted(plan.folder / 'report')}",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )


def _end_of(plan: SweepPlan, member: Member) -> EndOfRun:
    evals = RunRecord.open(plan.folder / member.name).history.evals
    if not evals:
        raise InputError(f"{plan.folder / member.name} was never evaluated: train it anew")
    return EndOfRun(member.num_parameters, plan.tokens, evals[-1].val_loss)
