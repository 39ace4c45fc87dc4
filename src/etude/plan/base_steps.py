"""``--time`` for a run from a base model: its network is given, so only its steps and evaluations follow from the time.

The time of a step is measured, or estimated by FLOPs where a few steps would take too long. No loss is forecast: the
pilots of :mod:`etude.plan.time_budget` are networks with random weights.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from etude.config import Settings
from etude.data.prepared_data import PreparedData
from etude.model.config import ModelConfig
from etude.plan.constants import has_constants
from etude.plan.derivation import Derived
from etude.plan.forecast import Forecast
from etude.plan.measuring import Machine, ThisMachine, tokens_per_step
from etude.plan.plan import Plan, plan_on
from etude.plan.sizes import SHAPES, Size
from etude.plan.task_costs import BYTES_A_SECOND, TaskCosts
from etude.plan.time_budget import Candidate, Planning, TimedPlan, require_time_left
from etude.show.phases import Phases

READINGS = 3
"""How often the weights of the base are read before step 1: hashed, stored and loaded."""


def choose_steps(
    data: PreparedData,
    settings: Settings,
    base: ModelConfig,
    deadline: float,
    phases: Phases,
    derived: Derived | None = None,
    machine: Machine | None = None,
) -> TimedPlan:
    """Return the plan of a run from ``base`` with as many steps as fit before ``deadline`` (of the machine's clock).

    ``derived`` has settings that were derived before, with their reasons.

    Raises:
        InputError: less time than a run needs.
    """
    machine = machine or ThisMachine()
    make = partial(GivenNetwork, data, settings, machine, deadline, dict(derived or {}), base=base)
    return steps_in_time(make, deadline - machine.now(), phases)


def steps_in_time(make: Callable[[], GivenNetwork], left: float, phases: Phases) -> TimedPlan:
    """Return the plan that ``make`` comes to in the ``left`` seconds.

    Raises:
        InputError: less time than a run needs.
    """
    require_time_left(left, phases)
    with phases("timing a few steps"):
        planning = make()
        given = Candidate(SHAPES[0], planning.tokens, 0.0, None)
        return planning.fill_time(given, [given], None)


@dataclass
class GivenNetwork(Planning):
    """Planning with the network of a base: of a size it uses only the number of tokens.

    Attributes:
        whole: the plan before the time of a step is known.
    """

    base: ModelConfig = field(kw_only=True)
    whole: Plan = field(init=False)

    def __post_init__(self) -> None:
        self.whole = plan_on(self.data, self.settings, derived=self.derived, base=self.base)
        super().__post_init__()

    @property
    def tokens(self) -> int:
        """The tokens of that plan."""
        return self.whole.settings.train.steps * tokens_per_step(self.whole)

    def _plan(self, size: Size, expected: Forecast | None = None) -> Plan:
        number = max(1, size.tokens // tokens_per_step(self.whole))
        steps = {"train.steps": (number, "as many as fit the time")}
        return plan_on(self.data, self.settings, derived=self.derived | steps, base=self.base)

    def _seconds_to_start(self, plan: Plan, costs: TaskCosts) -> float:
        reading = READINGS * plan.memory.weights / BYTES_A_SECOND * self.machine.slowdown()
        if has_constants(plan):  # the base scores every pair
            tokens = self.data.train.num_tokens + self.data.validation.num_tokens
            reading += tokens * costs.evaluation / costs.evaluated_tokens
        return super()._seconds_to_start(plan, costs) + reading
