"""``python -m etude.serve RUNS [SECONDS [PARENT]]``: the server beside a training; its address is the first line.

It ends with the training (``PARENT`` is its process), or ``SECONDS`` after the last look of somebody who has the page
open; then it says so first.
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
"""The training comes first: an answer may wait for some milliseconds."""


def main() -> None:
    """Serve on this machine until standard input ends."""
    if hasattr(os, "nice"):
        os.nice(NICENESS)

    def announce(address: str) -> None:
        print(json.dumps({"address": address}), flush=True)

    def stays() -> None:
        try:
            print(json.dumps({"stays": True}), flush=True)
        finally:
            for stream in (sys.stdout, sys.stderr):  # whoever reads them must not wait for this process
                discard_output(stream)

    stay = float(sys.argv[2]) if len(sys.argv) > 2 else 0.0
    parent = int(sys.argv[3]) if len(sys.argv) > 3 else None
    try:
        serve(Path(sys.argv[1]), "127.0.0.1", 0, announce=announce, beside=Beside(stay, stays, parent))
    except EtudeError as error:
        sys.exit(f"etude studio: {error}")


if __name__ == "__main__":
    main()
