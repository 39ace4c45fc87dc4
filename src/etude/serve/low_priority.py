"""``python -m etude.serve.low_priority MODULE ...``: a module as a program, which lets a training beside it go first.

It ends when its standard input does.
"""

from __future__ import annotations

import os
import runpy
import sys
import threading

from etude.serve.worker import yield_to_others


def main() -> None:
    """Run the module that the first argument names, with the others."""
    yield_to_others()
    threading.Thread(target=_end_with_input, daemon=True).start()
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


def _end_with_input() -> None:
    """The other end is held by the process that wants the answer; when it is gone, nobody does."""
    while os.read(0, 1024):
        pass
    os._exit(1)


if __name__ == "__main__":
    main()
