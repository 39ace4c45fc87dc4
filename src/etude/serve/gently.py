"""``python -m etude.serve.gently MODULE ...``: a module as a program, which lets a training beside it go first."""

from __future__ import annotations

import runpy
import sys

from etude.serve.worker import yield_to_others


def main() -> None:
    """Run the module that the first argument names, with the others."""
    yield_to_others()
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
