"""Functions that take a run by its path and plain values. The last runs used stay open, for the next question."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

from etude.pretrained.load_model import load_trained
from etude.run import RunFolder
from etude.watch import forking, knobs, prompts
from etude.watch.knobs import Comparison, Knob
from etude.watch.one_node import Node, look_at_node
from etude.watch.one_weight import WeightHistory, look_at_weight
from etude.watch.opened_step import OpenedStep, model_at, open_step
from etude.watch.prompts import Prompt
from etude.watch.time_machine import TimeMachine

OPEN_AT_ONCE = 2
"""Runs whose time machines stay open."""
_machines: OrderedDict[Path, TimeMachine] = OrderedDict()


def machine(run: str | Path) -> TimeMachine:
    """Return the time machine of a run, with everything the run has written since the last call.

    A run among the last :data:`OPEN_AT_ONCE` keeps its time machine, and so its replayed states.

    Raises:
        InputError: no run there, damaged files, or its text is gone.
    """
    path = Path(run).resolve()
    current = _machines.pop(path, None)
    if current is None or not current.catch_up():
        current = TimeMachine(Path(run))
    _machines[path] = current
    while len(_machines) > OPEN_AT_ONCE:
        _machines.popitem(last=False)
    return current


def machine_at_hand(run: str | Path) -> TimeMachine | None:
    """Return the time machine of a run if one is open, without reading the run again; otherwise None."""
    return _machines.get(Path(run).resolve())


def replay(run: str | Path, step: int) -> OpenedStep:
    """Replay the update that led to ``step`` from the closest state before it, and keep it open.

    ``.proof`` reports how every replayed step compares with the record.

    Raises:
        InputError: no such run or step.
    """
    return open_step(machine(run), step)


def node(run: str | Path, step: int, layer: str, unit: int) -> Node:
    """Return a neuron after ``step`` updates; ``layer`` is a name such as "model.layers.2.mlp".

    Raises:
        InputError: no such run, step, layer or neuron.
    """
    return look_at_node(machine(run), step, layer, unit)


def weight(
    run: str | Path, name: str, index: Sequence[int] | int, steps: Sequence[int] | None = None
) -> WeightHistory:
    """Return one number of a parameter over the run; see :func:`etude.watch.one_weight.look_at_weight`.

    Raises:
        InputError: no such run, parameter, index or step.
    """
    return look_at_weight(machine(run), name, index, steps)


def prompt(path: str | Path, text: str, step: int | None = None) -> Prompt:
    """Read ``text`` with a run at ``step`` (default: its newest checkpoint), or with any model folder.

    Raises:
        InputError: no run or model there, no such step, or a text that is too long.
    """
    if step is None:
        loaded = load_trained(path)
        return prompts.look(loaded.model, loaded.tokenizer, text, f"read by {loaded.folder}")
    time_machine = machine(path)
    model = model_at(time_machine, step)
    proof, tokenizer = time_machine.proof, time_machine.data.tokenizer
    return prompts.look(model, tokenizer, text, f"after step {step}, {proof}", proof)


def compare(path: str | Path, text: str, turned: Sequence[Knob | str], step: int | None = None) -> Comparison:
    """Read ``text`` as :func:`prompt` does, unchanged and with knobs turned.

    Raises:
        InputError: as in :func:`prompt`, or a knob names nothing in this network.
    """
    if step is None:
        loaded = load_trained(path)
        return knobs.compare(loaded.model, loaded.tokenizer, text, turned, where=f"read by {loaded.folder}")
    time_machine = machine(path)
    model = model_at(time_machine, step)
    where = f"after step {step}, {time_machine.proof}"
    return knobs.compare(model, time_machine.data.tokenizer, text, turned, where=where)


def fork(run: str | Path, step: int, turned: Sequence[Knob | str], name: str | None = None) -> RunFolder:
    """Return a new run at ``step`` with some parameters changed; ``etude train --resume`` continues it.

    Raises:
        InputError: no such run or step, a knob on an activation (checkpoints hold only parameters), or a name that is
            taken.
    """
    return forking.fork(machine(run), step, turned, name)
