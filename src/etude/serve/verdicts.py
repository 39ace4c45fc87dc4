"""What ``etude doctor RUN`` finds, asked in a process of its own: it measures the network, which takes seconds."""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from etude.errors import EtudeError
from etude.messages import command

LONGEST = 600.0
_ONE_AT_A_TIME = asyncio.Lock()


async def verdicts(run: Path) -> list[dict[str, Any]]:
    """The verdicts, each with rule, severity, finding, statement and advice.

    Raises:
        EtudeError: the doctor came to no verdict; what it said instead.
    """
    words = ["-m", "etude.serve.gently", "etude", "doctor", str(run.absolute()), "--json"]
    async with _ONE_AT_A_TIME:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *words,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        try:
            out, told = await asyncio.wait_for(process.communicate(), LONGEST)
        except TimeoutError:
            raise EtudeError(
                f"the doctor took more than {LONGEST:.0f} seconds: ask `{command('doctor', run)}`"
            ) from None
        finally:
            if process.returncode is None:
                with suppress(ProcessLookupError):
                    process.kill()
    found = []
    for line in out.splitlines():
        with suppress(ValueError):
            verdict = json.loads(line)
            if isinstance(verdict, dict) and "rule" in verdict:
                found.append(verdict)
    if not found:
        last = told.decode(errors="replace").strip().splitlines()[-1:] or ["it said nothing"]
        raise EtudeError(f"the doctor came to no verdict: {last[0].removeprefix('etude: ')}")
    return found
