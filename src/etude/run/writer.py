"""Write the record of a run while it trains."""

from __future__ import annotations

from etude.run.events import CheckpointEvent, EvalEvent, Event, SampleEvent
from etude.run.folder import RunFolder


class RecordWriter:
    """Write events to the logs of a run, and keep its status fresh. It is a listener of the loop.

    The line of a checkpoint is written by :meth:`commit`, not when the loop emits its event: the checkpoint vouches for
    the logs up to and with that line, so the line must be there before the checkpoint is saved, whatever the order in
    which the loop's listeners are called.
    """

    def __init__(self, run: RunFolder) -> None:
        self.run = run
        self.logs = run.logs
        self._status_step = -1

    def __call__(self, event: Event) -> None:
        """Log an event, except those that :meth:`commit` has logged."""
        if not isinstance(event, CheckpointEvent):
            self._log(event)

    def commit(self, event: CheckpointEvent) -> None:
        """Log that a checkpoint follows. From here until the next event the logs are what it vouches for."""
        self._log(event)

    def _log(self, event: Event) -> None:
        name = "samples.jsonl" if isinstance(event, SampleEvent) else "metrics.jsonl"
        self.logs[name].append(event.record())
        if isinstance(event, EvalEvent | CheckpointEvent) and event.step != self._status_step:
            self._status_step = event.step
            self.run.write_status("running", event.step)
