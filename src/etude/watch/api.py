"""Answer questions about runs that are given by path and plain values; opened runs stay open for the next one."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

from etude.run import RunFolder
from etude.train.load import load_trained
from etude.watch import forking, knobs, prompts
from etude.watch.knobs import Comparison, Knob
from etude.watch.one_node import Node, look_at_node
from etude.watch.one_weight import WeightHistory, look_at_weight
from etude.watch.opened_step import OpenedStep, model_at, open_step
from etude.watch.prompts import Prompt
from etude.watch.time_machine import TimeMachine

OPEN_AT_ONCE = 2
_machines: OrderedDict[Path, TimeMachine] = OrderedDict()


def machine(run: str | Path) -> TimeMachine:
    """The time machine of a run; of those used last it is the same one again, with what it has replayed.

    What a run has written down since is read.

    Raises:
        InputError: no run there, damaged files, or its text is gone.
    """
    path = Path(run).resolve()
    found = _machines.pop(path, None)
    if found is None or not found.catch_up():
        found = TimeMachine(Path(run))
    _machines[path] = found
    while len(_machines) > OPEN_AT_ONCE:
        _machines.popitem(last=False)
    return found


def machine_at_hand(run: str | Path) -> TimeMachine | None:
    """The time machine of a run that is open already, as it is; None where none is."""
    return _machines.get(Path(run).resolve())


def replay(run: str | Path, step: int) -> OpenedStep:
    """The update that led to ``step``, made again from the closest state before it, and held open.

    ``.proof`` says how all that was made again compares with the record.

    Raises:
        InputError: no such run or step.
    """
    return open_step(machine(run), step)


def node(run: str | Path, step: int, layer: str, unit: int) -> Node:
    """A node after ``step`` updates; ``layer`` is such as "model.layers.2.mlp".

    Raises:
        InputError: no such run, step, layer or node.
    """
    return look_at_node(machine(run), step, layer, unit)


def weight(
    run: str | Path, name: str, index: Sequence[int] | int, steps: Sequence[int] | None = None
) -> WeightHistory:
    """One number of a parameter over the run; see :func:`etude.watch.one_weight.look_at_weight`.

    Raises:
        InputError: no such run, parameter, index or step.
    """
    return look_at_weight(machine(run), name, index, steps)


def prompt(path: str | Path, text: str, step: int | None = None) -> Prompt:
    """``text`` read by a run as it was at ``step`` (its newest checkpoint unless told), or by any model folder.

    Raises:
        InputError: nothing there, no such step, or the text is too long.
    """
    if step is None:
        found = load_trained(path)
        return prompts.look(found.model, found.tokenizer, text, f"read by {found.folder}")
    at = machine(path)
    model = model_at(at, step)
    return prompts.look(model, at.data.tokenizer, text, f"after step {step}, {at.proof}", at.proof)


def compare(path: str | Path, text: str, turned: Sequence[Knob | str], step: int | None = None) -> Comparison:
    """``text`` read as by :func:`prompt`, beside the same with knobs turned.

    Raises:
        InputError: as there, or a knob is of nothing in this network.
    """
    if step is None:
        found = load_trained(path)
        return knobs.compare(found.model, found.tokenizer, text, turned, where=f"read by {found.folder}")
    at = machine(path)
    model = model_at(at, step)
    where = f"after step {step}, {at.proof}"
    return knobs.compare(model, at.data.tokenizer, text, turned, where=where)


def fork(run: str | Path, step: int, turned: Sequence[Knob | str], name: str | None = None) -> RunFolder:
    """A new run that stands at ``step`` with some parameters turned; ``etude train --resume`` continues it.

    Raises:
        InputError: no such run or step, a knob of an activation (which no checkpoint holds), or the name is taken.
    """
    return forking.fork(machine(run), step, turned, name)
