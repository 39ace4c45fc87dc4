"""End a run at the evaluation from which it costs more than it gains (``train.stop_early``)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from etude.run.events import EvalEvent, Event, LengthEvent, ReferenceEvent
from etude.run.gain_and_cost import Balance, balances_of, has_stalled, least
from etude.run.history import RunHistory
from etude.train.loop import TrainState
from etude.train.schedule import last_step


@dataclass
class StopEarly:
    """The task that evaluates, and ends the run if the sum of gain and cost has not fallen for ``patience`` times.

    It ends the run by a last revision of its length, to the current step. The decision depends on the recorded
    evaluations alone.

    Attributes:
        evaluate: the task that scores held-out and reference text.
        num_steps: planned number of steps of the run.
        digest: of the reference text.
    """

    evaluate: Callable[[TrainState], Sequence[Event]]
    num_steps: int
    patience: int
    digest: str
    _evals: dict[int, EvalEvent] = field(default_factory=dict)
    _references: dict[int, ReferenceEvent] = field(default_factory=dict)

    def read(self, history: RunHistory) -> None:
        """Take the evaluations of earlier sessions."""
        for event in (*history.evals, *history.references):
            self._take(event)

    def __call__(self, state: TrainState) -> Sequence[Event]:
        """Evaluate, and return the events; the last one is the new length of a run that ends here."""
        events = list(self.evaluate(state))
        for event in events:
            self._take(event)
        if self.is_over and state.step < last_step(self.num_steps, state.revisions):
            state.revisions = (*state.revisions, (state.step, state.step))
            events.append(LengthEvent(state.step, state.tokens_seen, state.wall_time, state.step))
        return events

    @property
    def balances(self) -> list[Balance]:
        """Gain and cost at every evaluation so far."""
        return balances_of(self._evals.values(), self._references.values(), self.digest)

    @property
    def best(self) -> Balance | None:
        """The evaluation with the least sum so far."""
        return least(self.balances)

    @property
    def is_over(self) -> bool:
        """Whether the run is to end."""
        return has_stalled(self.balances, self.patience)

    def is_best(self, step: int) -> bool:
        """Return whether ``step`` has the least sum so far."""
        best = self.best
        return best is not None and best.step == step

    def _take(self, event: Event) -> None:
        if isinstance(event, EvalEvent):
            self._evals[event.step] = event
        elif isinstance(event, ReferenceEvent):
            self._references[event.step] = event


def drop_early_end(state: TrainState, stop_early: StopEarly | None) -> None:
    """Let a run continue that ended early, if it would not under its current settings.

    ``stop_early`` has read the evaluations up to the current step; None: the settings do not ask for it.
    """
    ends_here = state.revisions[-1:] == ((state.step, state.step),)
    if ends_here and not (stop_early is not None and stop_early.is_over):
        state.revisions = state.revisions[:-1]
