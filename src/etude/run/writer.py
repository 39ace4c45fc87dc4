"""Write the record of a run while it trains."""

from __future__ import annotations

from etude.run.events import CheckpointEvent, EvalEvent, Event, SampleEvent
from etude.run.folder import RunFolder


class RecordWriter:
    """A listener of the loop that writes its events to the logs of a run, and updates the status.

    :meth:`commit` writes the line of a checkpoint, not the listener itself: the checkpoint stores the hashes of the
    logs up to and including that line, so it must be written before the checkpoint is saved, whatever the order of the
    loop's listeners.
    """

    def __init__(self, run: RunFolder) -> None:
        self.run = run
        self.logs = run.logs
        self._status_step = -1

    def __call__(self, event: Event) -> None:
        """Log an event, unless it is a checkpoint's, which :meth:`commit` has logged."""
        if not isinstance(event, CheckpointEvent):
            self._log(event)

    def commit(self, event: CheckpointEvent) -> None:
        """Log the event of a checkpoint. Take the hashes of the logs for the checkpoint before the next event."""
        self._log(event)

    def _log(self, event: Event) -> None:
        name = "samples.jsonl" if isinstance(event, SampleEvent) else "metrics.jsonl"
        self.logs[name].append(event.record())
        if isinstance(event, EvalEvent | CheckpointEvent) and event.step != self._status_step:
            self._status_step = event.step
            self.run.write_status("running", event.step)
