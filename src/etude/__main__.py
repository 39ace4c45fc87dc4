"""``python -m etude`` is the ``etude`` command."""

from __future__ import annotations

from etude.cli.main import run

if __name__ == "__main__":
    run()
