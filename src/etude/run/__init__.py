"""The run folder: its layout, one reader of all that is in it, the list of runs; to create, fork and resume a run.

- :mod:`etude.run.folder` and :mod:`etude.run.checkpoints`: the layout on disk.
- :mod:`etude.run.events`: what training reports, and the form of a line of the logs.
- :mod:`etude.run.writer`: writes the record while a run trains.
- :mod:`etude.run.record`: reads everything that a run wrote (:mod:`etude.run.history`: its events;
  :mod:`etude.run.follow`: a log that is still growing).
- :mod:`etude.run.listing` and :mod:`etude.run.state`: the list of runs, and what has become of each.
- :mod:`etude.run.create`: makes the folder of a new run or a fork; :mod:`etude.run.resume`: takes an existing one up.
- :mod:`etude.run.provenance` and :mod:`etude.run.mending`: whether a run is as its checkpoints were saved with, and the
  repair of what has a good copy.

Nothing in this package needs PyTorch, and reading a run needs no numpy before numbers are drawn from it.
"""

from __future__ import annotations

from etude.run.folder import RunFolder, free_name
from etude.run.log import EVENT_SCHEMA, JsonLines, Prefix

__all__ = ["EVENT_SCHEMA", "JsonLines", "Prefix", "RunFolder", "free_name"]
