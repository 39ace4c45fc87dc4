"""The run folder: its layout, its one reader, the list of runs, and how a run is created, forked and resumed.

- :mod:`etude.run.folder` and :mod:`etude.run.checkpoints`: the layout on disk.
- :mod:`etude.run.events`: the events of training, and their form as lines of the logs.
- :mod:`etude.run.writer`: writes the record while a run trains.
- :mod:`etude.run.record`: reads everything that a run wrote (:mod:`etude.run.history`: its events;
  :mod:`etude.run.follow`: a log that is still growing).
- :mod:`etude.run.listing` and :mod:`etude.run.state`: the list of runs, and the state of each.
- :mod:`etude.run.create`: creates the folder of a new run or a fork; :mod:`etude.run.resume`: prepares a resume.
- :mod:`etude.run.provenance` and :mod:`etude.run.repair`: compare a run with what its checkpoints were saved with, and
  restore files from good copies.

This package needs no PyTorch, and imports numpy only for the methods that return arrays.
"""

from __future__ import annotations

from etude.run.folder import RunFolder, free_name
from etude.run.log import EVENT_SCHEMA, JsonLines, Prefix

__all__ = ["EVENT_SCHEMA", "JsonLines", "Prefix", "RunFolder", "free_name"]
