"""``python -m etude.serve RUNS [SECONDS [PARENT]]``: the server beside a training run. It first prints its address.

It ends with the training process (``PARENT`` is its process id). If the page is open then, it reports that it stays,
and ends ``SECONDS`` after the last request.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from etude.errors import EtudeError
from etude.serve.server import Beside, serve
from etude.system import discard_output

NICENESS = 5
"""Training has priority: an answer can wait for some milliseconds."""


def main() -> None:
    """Serve on this machine until standard input ends."""
    if hasattr(os, "nice"):
        os.nice(NICENESS)

    def announce(address: str) -> None:
        print(json.dumps({"address": address}), flush=True)

    def report_stay() -> None:
        try:
            print(json.dumps({"stays": True}), flush=True)
        finally:
            # Let go of both, so that a process that reads them does not wait for this one.
            for stream in (sys.stdout, sys.stderr):
                discard_output(stream)

    stay = float(sys.argv[2]) if len(sys.argv) > 2 else 0.0
    parent = int(sys.argv[3]) if len(sys.argv) > 3 else None
    try:
        serve(Path(sys.argv[1]), "127.0.0.1", 0, announce=announce, beside=Beside(stay, report_stay, parent))
    except EtudeError as error:
        sys.exit(f"etude studio: {error}")


if __name__ == "__main__":
    main()
