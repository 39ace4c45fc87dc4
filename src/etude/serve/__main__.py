"""``python -m etude.serve RUNS``: the server beside a training, which ends with it; its address is the first line."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from etude.errors import EtudeError
from etude.serve.server import serve

NICENESS = 5
"""The training comes first: an answer may wait for some milliseconds."""


def main() -> None:
    """Serve on this machine until standard input ends."""

    if hasattr(os, "nice"):
        os.nice(NICENESS)

    def announce(address: str) -> None:
        print(json.dumps({"address": address}), flush=True)

    try:
        serve(Path(sys.argv[1]), "127.0.0.1", 0, announce=announce, with_parent=True)
    except EtudeError as error:
        sys.exit(f"etude studio: {error}")


if __name__ == "__main__":
    main()
