"""``python -m etude.serve.diagnosis_process RUN``: diagnose a run in a process of low priority, for the server.

Measuring the network takes seconds and loads torch, so the server starts a process for each examination. It writes one
:class:`Answer` to standard output, and ends when its standard input does.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from dataclasses import dataclass
from pathlib import Path

from etude.diagnose.run.verdict import Verdict
from etude.errors import EtudeError
from etude.serve.low_priority import end_with_standard_input, yield_to_others


@dataclass(frozen=True)
class Answer:
    """The verdicts on a run, worst first, or the reason why there are none."""

    verdicts: tuple[Verdict, ...] = ()
    problem: str = ""

    def to_bytes(self) -> bytes:
        """Return the answer as one line of JSON; bytes of a name that are not UTF-8 survive as escapes."""
        return json.dumps(dataclasses.asdict(self)).encode("ascii") + b"\n"

    @classmethod
    def from_bytes(cls, line: bytes) -> Answer:
        """Parse the line that :meth:`to_bytes` returned.

        Raises:
            ValueError: the process ended before it wrote the whole line.
        """
        content = json.loads(line)
        return cls(tuple(Verdict(**verdict) for verdict in content["verdicts"]), content["problem"])


def answer_for(run: Path) -> Answer:
    """Diagnose the run, or the model without one, in this process."""
    from etude.diagnose.model import diagnose_model  # imports torch, which the server starts without
    from etude.diagnose.run.verdicts import diagnose

    try:
        return Answer(tuple(diagnose(run) if (run / "run.toml").is_file() else diagnose_model(run)))
    except EtudeError as error:
        return Answer(problem=str(error))
    except MemoryError:
        return Answer(problem="this machine has too little free memory for that")


def main() -> None:
    """Examine the run that the first argument names."""
    yield_to_others()
    end_with_standard_input()
    out, sys.stdout = sys.stdout, sys.stderr  # keep what a library prints out of the answer
    out.buffer.write(answer_for(Path(sys.argv[1])).to_bytes())
    out.flush()


if __name__ == "__main__":
    main()
