"""``--time`` for a run tuned on conversations: rank, rate, passes, batch, evaluations, and the questions at the end.

1. Time a few steps of the adapter on this machine. They give the tokens that fit the time, beside the start, the
   evaluations, and the report at the end, of which at least a few questions are part of the promise.
2. Make as many passes as fit, up to the usual number. Where not even one fits, fewer conversations are read.
3. Refuse a time in which hardly an update would fit, before the run folder exists.

The numbers of these rules are in :mod:`etude.plan.tuning_values`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from etude.config import Settings
from etude.data.prepared_data import PreparedData
from etude.errors import InputError
from etude.model.config import ModelConfig
from etude.plan.base_steps import READINGS, GivenNetwork, steps_in_time
from etude.plan.base_values import (
    CONVERSATION_UPDATES,
    EVALUATIONS,
    EVALUATIONS_TO_STOP,
    base_epochs,
    batch_tokens_of,
)
from etude.plan.derivation import Derived
from etude.plan.forecast import Forecast
from etude.plan.measuring import Machine, ThisMachine
from etude.plan.plan import Plan, plan_on
from etude.plan.report_costs import ReportWork
from etude.plan.sizes import SHAPES, Size
from etude.plan.task_costs import BYTES_A_SECOND, TaskCosts
from etude.plan.time_budget import EVALUATION_SHARE as EVALUATION
from etude.plan.time_budget import MARGIN, SHARE, TimedPlan
from etude.plan.tuning_values import (
    CHOICES,
    EVALUATION_SHARE,
    LEAST_UPDATES,
    REPORT_SHARE,
    WHY_ADAPTER,
    choice_for,
)
from etude.show.lines import format_duration
from etude.show.phases import Phases

LONGER = 1.1
"""Factor of the time that is named as enough: the next attempt is measured anew."""
SETTLING = 50
"""Rounds in which that time settles."""
EVALUATIONS_AT_LEAST = 3
"""Evaluations of any run: at step 0, in between, and at the end."""
CHOSEN = ("train.lora_rank", "train.lr", "train.steps", "train.batch_rows", "train.eval_every")
"""The settings whose values are printed with their reasons, in this order."""


def choose_tuning(
    data: PreparedData,
    settings: Settings,
    base: ModelConfig,
    deadline: float,
    phases: Phases,
    report: ReportWork,
    derived: Derived | None = None,
    machine: Machine | None = None,
) -> TimedPlan:
    """Return the plan of a run that ends, with its report, before ``deadline`` (of the machine's clock).

    ``derived`` has settings that were derived before, with their reasons.

    Raises:
        InputError: less time than a run needs.
    """
    machine = machine or ThisMachine()
    given = (data, settings, machine, deadline, dict(derived or {}))
    make = partial(TunedPlanning, *given, base=base, report=report)
    return steps_in_time(make, deadline - machine.now(), phases)


@dataclass
class TunedPlanning(GivenNetwork):
    """Planning of a run on conversations.

    Attributes:
        report: the work of the report at the end.
    """

    report: ReportWork = field(kw_only=True)
    _evaluations: int = 0  # besides that of step 0; 0: as usual

    def __post_init__(self) -> None:
        if self._chooses_rank:
            self.derived["train.lora_rank"] = (CHOICES[-1].rank, WHY_ADAPTER)
        super().__post_init__()

    @property
    def _chooses_rank(self) -> bool:
        """Whether the user left open what is trained: neither a rank, nor --no-lora, nor --train."""
        return self.settings.train.lora_rank == "auto" and not self.settings.train.only

    def _plan(self, size: Size, expected: Forecast | None = None) -> Plan:
        """Plan the steps that read the tokens of ``size``."""
        passes, context = size.tokens / self.whole.pass_tokens, self.whole.settings.train.context
        choice, rows = choice_for(passes), self.settings.train.batch_rows
        usual = batch_tokens_of(size.tokens, context, CONVERSATION_UPDATES)
        batch = usual if rows == "auto" else rows * context
        steps = max(1, size.tokens // batch)
        derived: dict[str, tuple[Any, str]] = {
            "train.batch_rows": (batch // context, f"{batch:,} tokens per step"),
            "train.steps": (steps, self._why(passes)),
        }
        if self._chooses_rank:
            derived["train.lora_rank"] = (choice.rank, f"{choice.why}; {WHY_ADAPTER}")
        if self._evaluations:
            reason = (
                f"{self._evaluations} evaluations: more would take over {EVALUATION_SHARE:.0%} of the time"
            )
            derived["train.eval_every"] = (-(-steps // self._evaluations), reason)
        plan = plan_on(self.data, self.settings, derived=self.derived | derived, base=self.base)
        if choice.rate == 1:
            return plan
        because = f"{choice.rate:g} times the usual rate, for the passes that fit the time"
        derived["train.lr"] = (choice.rate * plan.settings.train.lr, because)
        return plan_on(self.data, self.settings, derived=self.derived | derived, base=self.base)

    def _step_seconds(self, plan: Plan, allowed: float) -> float:
        """Time at least one step, of one row: a time is not refused for an estimate."""
        if not self._timed:
            smallest = self._plan(Size(SHAPES[0], 1))
            end = self.machine.now() + allowed
            self._note(smallest, self._time(self.machine.trial(smallest), end))
        return super()._step_seconds(plan, allowed)

    def _why(self, passes: float) -> str:
        count, usual = self.data.train.num_documents, base_epochs(True, False)
        if passes < 1:
            seen = max(1, int(passes * count))
            return f"about {seen:,} of {count:,} conversations fit the time, each read once"
        if round(passes, 1) >= usual:  # whole steps are a little less
            return f"{usual} passes over {count:,} conversations, the usual number: facts need several"
        return f"{passes:.1f} of the usual {usual} passes over {count:,} conversations fit the time"

    def _costs(self, plan: Plan, step: float) -> TaskCosts:
        costs = super()._costs(plan, step)
        costs.most_closing = REPORT_SHARE * (self.ends_at - self._began)
        costs.report = _with_loading(self.report, plan)
        return costs

    def _affordable(self, plan: Plan, size: Size, step: float) -> Plan:
        """Plan with short evaluations, and with fewer of them where they would take too much of the time."""
        plan = super()._affordable(plan, size, step)
        cost = TaskCosts.estimated(plan, step, self.machine.slowdown).evaluation
        most = EVALUATIONS_TO_STOP if plan.settings.train.stop_early else EVALUATIONS
        fitting = int(EVALUATION_SHARE * self.left / cost) - 1  # that of step 0 besides
        self._evaluations = 0 if fitting >= most else max(1, fitting)
        return self._plan(size)

    def _require_updates(self, left: float, step: float, besides: float, costs: TaskCosts) -> None:
        if LEAST_UPDATES * step <= left:
            return
        seconds = self.settings.train.seconds
        assert seconds != "auto"
        enough = math.ceil(LONGER * self._enough(seconds, LEAST_UPDATES * step + besides, costs))
        raise InputError(
            f"--time {seconds:.0f}s is too short for this model on this machine: the start, {LEAST_UPDATES} updates "
            f"and the report at the end take up to {format_duration(enough)}: give --time {enough}s or more"
        )

    def _enough(self, seconds: float, work: float, costs: TaskCosts) -> float:
        """Return a time that is enough for ``work`` (in seconds), which is that of a run in the given time.

        In a longer time, planning, evaluations and report may take longer too.
        """
        prepared = seconds - (self.ends_at - self._began)
        report, enough = costs.closing, seconds
        for _ in range(SETTLING):
            costs.most_closing = REPORT_SHARE * enough
            longer = costs.closing - report + EVALUATIONS_AT_LEAST * EVALUATION * (enough - seconds)
            enough = (prepared + work + longer) / (1 - SHARE - MARGIN)
        return enough


def _with_loading(report: ReportWork, plan: Plan) -> ReportWork:
    loading = READINGS * plan.memory.weights / BYTES_A_SECOND
    return replace(report, preparing=report.preparing + loading)


def seconds_besides(plan: Plan, step: float, report: ReportWork, most_report: float) -> float:
    """Predict the seconds of a tuned run besides its steps of ``step`` seconds, with its report."""
    costs = TaskCosts.estimated(plan, step, lambda: 1.0)
    costs.report, costs.most_closing = _with_loading(report, plan), most_report
    return costs.each_once + costs.between(plan, 0, plan.settings.train.steps) + costs.at_the_end


def describe_choices(promise: TimedPlan) -> list[str]:
    """Return what was chosen for the time and why, a line each."""
    settings, reasons = promise.plan.settings, promise.plan.resolution.reasons
    lines = [
        f"{key} = {getattr(settings.train, key.removeprefix('train.'))}: {reasons[key]}"
        for key in CHOSEN
        if key in reasons
    ]
    costs = promise.deadline.costs
    if costs.report is not None:
        asked = costs.questions_in(costs.most_closing)
        lines.append(
            f"report at the end: {asked:,} held-out questions of {costs.report.questions:,} to the base, to the base "
            f"with examples and to the tuned model, about {format_duration(costs.closing)}"
        )
    return lines
