"""The numbers of the network at step 0 that the loss of a run needs: computed once, and stored with the run.

Resumed and replayed steps read the same numbers. If the file is lost it is computed again from the first checkpoint,
and must have the hash that the manifest has of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from etude.device import return_free_pages
from etude.errors import InputError
from etude.files import hash_bytes, hash_file, write_atomic
from etude.model.folder import load_model_folder
from etude.plan.plan import Plan, initial_state
from etude.run import RunFolder
from etude.run.checkpoints import list_checkpoints
from etude.run.provenance import expected_files
from etude.train.objectives import objective_kind
from etude.untrusted import readable, shown


def has_constants(plan: Plan) -> bool:
    """Return whether the objective of a run needs numbers of the network at step 0."""
    return objective_kind(plan.settings.train.objective).constants is not None


def write_constants(plan: Plan, run: RunFolder, folder: Path | None) -> None:
    """Compute the numbers from the network in ``folder`` (None: the one of random weights) and write them into ``run``.

    Raises:
        InputError: the folder is damaged, or no pair of the data fits into a row.
        EtudeError: the file cannot be written.
    """
    write_atomic(run.constants_file, _computed(plan, folder))


def read_constants(
    plan: Plan, run: RunFolder, manifest: Mapping[str, Any], *, restore: bool = False
) -> Mapping[str, Tensor] | None:
    """Return the numbers of a run with this manifest; None for an objective that needs none.

    With ``restore``, a file that was lost or damaged is written again.

    Raises:
        InputError: the file is lost or damaged, and what the first checkpoint gives is something else.
    """
    if not has_constants(plan):
        return None
    file = run.constants_file
    expected = expected_files(None, manifest).get(file.name)
    with readable(file):
        content = file.read_bytes() if file.is_file() and hash_file(file) == expected else None
    if content is None:
        problem = "is damaged or was edited" if file.exists() else "is missing"
        folders = list_checkpoints(run.checkpoints)
        content = _computed(plan, folders[0]) if folders else b""
        if hash_bytes(content) != expected:
            raise InputError(
                f"{file} {problem}, and the first checkpoint of the run gives other numbers: put the file back, or "
                "begin a new run"
            )
        if restore:
            if file.exists():
                run.set_aside(file)
            write_atomic(file, content)
    try:
        tensors: dict[str, Tensor] = load(content)
    except SafetensorError as error:
        raise InputError(
            f"{file} is damaged ({shown(str(error))}): put it back, or begin a new run"
        ) from None
    return tensors


def _computed(plan: Plan, folder: Path | None) -> bytes:
    compute = objective_kind(plan.settings.train.objective).constants
    assert compute is not None
    if folder is None:
        model = initial_state(plan).model
    else:
        model, _ = load_model_folder(folder, device=plan.device.torch)
    content = save(dict(compute(model, plan.data, plan.settings, plan.device)))
    del model
    return_free_pages()  # those of a network, which the training needs
    return content
