"""``torch.compile`` where it works, eager otherwise: probed once, on the real step, before step 1."""

from __future__ import annotations

from typing import Literal

from etude.device import Device
from etude.errors import EtudeError
from etude.train.objectives import NextToken
from etude.train.parallel import ALONE, Ranks


def compile_objective(
    objective: NextToken, device: Device, wanted: bool | Literal["auto"], ranks: Ranks = ALONE
) -> str | None:
    """Compile the objective's loss if ``wanted`` and possible; returns one line on why it was not.

    The graph is made by one forward and backward pass over a real micro-batch, so that a compiler that is
    missing or broken shows itself here and not in the middle of a run. The gradients of that pass are dropped.
    All ranks compile, or none.

    Raises:
        EtudeError: compilation was asked for (``wanted`` is True) and failed.
    """
    if wanted is False:
        return "switched off by device.compile"
    objective.compile()
    reason = _failure(objective, device)
    if ranks.any(reason is not None):
        objective.use_eager()
        reason = reason or "it failed in another process"
        if wanted is True:
            raise EtudeError(
                f"torch.compile, which this run is to be compiled by, failed here ({reason}): "
                "mend the compiler, or begin a run with --set device.compile=false"
            )
    return reason


def _failure(objective: NextToken, device: Device) -> str | None:
    """One line on why a compiled pass over a micro-batch fails; None when it does not."""
    try:
        with device.autocast():
            loss = objective.loss(objective.batch(1)[0])
        loss.backward()  # type: ignore[no-untyped-call]
        return None
    except Exception as error:  # the compiler's failures have no common type
        lines = str(error).strip().splitlines()
        return f"{type(error).__name__}: {lines[0][:120] if lines else 'no message'}"
    finally:
        objective.model.zero_grad(set_to_none=True)
