"""A user's script that forgets the main guard gets an error instead of a process that waits for itself."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from waiting import PATIENCE

SCRIPT = """
import sys
from pathlib import Path
from etude.config import load_settings
from etude.data.prepared_data import prepare
from etude.places import cache_folder

settings = load_settings(values={"data.sources": ("builtin:primer",), "data.max_bytes": 9_000_000, "data.workers": 2})
prepare(settings.data, settings.tokenizer, family_pattern="llama3", seed=0, cache=cache_folder())
"""


def test_a_script_without_a_main_guard_ends_with_advice(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    environment = {**os.environ, "ETUDE_CACHE": str(tmp_path / "cache")}
    result = subprocess.run(
        [sys.executable, str(script)], env=environment, capture_output=True, text=True, timeout=PATIENCE
    )
    assert result.returncode != 0
    assert "if __name__ == '__main__':" in result.stderr.strip().splitlines()[-1]
