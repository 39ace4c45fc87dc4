"""The loss law of a sweep: fitted to the smaller sizes, recorded before training the largest, then compared."""

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
    """Fit the smaller sizes and write the prediction once; if no law can be fitted, print why."""
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
    prediction = law.predict(size, plan.tokens)
    interval = {"low": prediction.interval.low, "high": prediction.interval.high}
    content = {
        "schema": 1,
        "written_at": time.time(),
        "parameters": size,
        "tokens": plan.tokens,
        "predicted": {"val_loss": prediction.value, **interval},
        "floor": law.floor,
        "coefficient": law.size[0],
        "exponent": law.size[1],
        "from": [{"parameters": run.parameters, "val_loss": run.loss} for run in runs],
    }
    write_json(file, content)
    console.print(
        f"predicted before training the largest size ({size:,} parameters): {law.describe(size, plan.tokens)}",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )


def print_outcome(plan: SweepPlan, console: Console) -> None:
    """Print the prediction beside the measured losses, and the command to run next."""
    file = plan.folder / FILE
    if file.is_file() and (predicted := read_object(file).get("predicted")):
        losses = [_end_of(plan, member).loss for member in plan.largest]
        inside = sum(predicted["low"] <= loss <= predicted["high"] for loss in losses)
        measured = ", ".join(f"{loss:.3f}" for loss in losses)
        console.print(
            f"predicted {predicted['val_loss']:.3f} ({predicted['low']:.3f} to {predicted['high']:.3f}) nats per "
            f"token; measured {measured}: {inside} of {len(losses)} inside",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
    console.print(
        f"to see how its abilities emerged: {command('emergence')} {quoted(plan.folder)}/*-seed* "
        f"--report {quoted(plan.folder / 'report')}",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )


def _end_of(plan: SweepPlan, member: Member) -> EndOfRun:
    evals = RunRecord.open(plan.folder / member.name).history.evals
    if not evals:
        raise InputError(f"{plan.folder / member.name} was never evaluated: train it again")
    return EndOfRun(member.num_parameters, plan.tokens, evals[-1].val_loss)
