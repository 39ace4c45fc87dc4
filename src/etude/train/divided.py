"""A network that is divided among the ranks of a run: fully sharded data parallel training (FSDP2).

Each rank holds a piece of every parameter, of its gradient and of the optimizer's state. It gathers the parameters of a
layer when it runs the layer, and the backward pass leaves it its piece of the summed gradient (Zhao et al. 2023,
"PyTorch FSDP"). ``parallel.shard`` ranks share one copy; further ranks hold further copies.

A run in one process, or with a whole copy on each rank, never comes here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from etude.config import Resolved, ResolvedTrain
from etude.errors import InputError
from etude.model.build import empty_model, fill_buffers
from etude.model.config import ModelConfig
from etude.model.language_model import LanguageModel
from etude.model.pieces import REPLICATE, SHARD, is_piece, shard_mesh
from etude.train.optimizer import freeze_others, parameters_of_config
from etude.train.rules.chosen import rule_named, rule_of
from etude.train.rules.contract import Parameter

OBJECTIVES = frozenset({"next-token", "answer-only", "conversation"})
"""The objectives whose loss reads the network's hidden states alone."""


def require_divisible(config: ModelConfig, settings: Resolved, count: int, shard: int) -> None:
    """Raise InputError where a run cannot be divided so that ``shard`` of its ``count`` processes share a copy."""
    whole = "--set parallel.shard=1 keeps a whole copy in each process"
    if count % shard:
        fitting = ", ".join(str(n) for n in range(1, count + 1) if count % n == 0)
        raise InputError(
            f"parallel.shard={shard} does not divide the {count} process{'es' * (count > 1)} of this run: "
            f"use --set parallel.shard=auto, or one of {fitting}"
        )
    if shard == 1:
        return
    train = settings.train
    if settings.device.compile is True:
        raise InputError(
            f"device.compile=true does not work in a run that is divided among processes: {whole}"
        )
    if config.adapter is not None:
        raise InputError(f"a run with an adapter cannot be divided among processes: {whole}")
    if train.objective not in OBJECTIVES:
        raise InputError(
            f"a run with the objective {train.objective} cannot be divided among processes: {whole}"
        )
    if train.stop_early:
        raise InputError(f"train.stop_early does not work in a run that is divided among processes: {whole}")


def make_mesh(kind: str, count: int, shard: int) -> Any:
    """Return the mesh of ``count`` processes, of which each ``shard`` neighbours share one copy of the network."""
    from torch.distributed.device_mesh import init_device_mesh

    if shard == count:
        return init_device_mesh(kind, (shard,), mesh_dim_names=(SHARD,))
    return init_device_mesh(kind, (count // shard, shard), mesh_dim_names=(REPLICATE, SHARD))


def cuts(config: ModelConfig, optimizer: str, shard: int) -> dict[str, int]:
    """Return the dimension along which each parameter is cut into ``shard`` pieces, by name.

    It is the one that the parameter's update rule prefers. Columns are cut only into pieces of equal and even width:
    FSDP2 requires the first, and the checksum, which reads pairs of numbers, the second.
    """
    chosen = rule_named(optimizer)

    def cut(parameter: Parameter) -> int:
        even = parameter.shape[-1] % (2 * shard) == 0
        return rule_of(parameter, chosen).cut(parameter, config) if even else 0

    return {parameter.name: cut(parameter) for parameter in parameters_of_config(config)}


def divided_model(
    config: ModelConfig, train: ResolvedTrain, mesh: Any, device: torch.device | str
) -> LanguageModel:
    """Build a network of which this process holds its pieces, uninitialised. No process ever holds a whole copy."""
    model = empty_model(config)
    freeze_others(model, train.only)
    divide(model, cuts(config, train.optimizer, shard_mesh(mesh).size()), mesh)
    model.to_empty(device=device)
    return fill_buffers(model, device)


def divide(model: LanguageModel, dimensions: Mapping[str, int], mesh: Any) -> None:
    """Divide the parameters of ``model`` among the processes of ``mesh``, each along its dimension."""
    from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
    from torch.distributed.tensor import Shard

    by_parameter = {parameter: dimensions[name] for name, parameter in model.named_parameters()}

    def placement(parameter: nn.Parameter) -> Any:
        return Shard(by_parameter[parameter])

    for part in (*model.gathered_apart(), model):
        fully_shard(part, mesh=mesh, shard_placement_fn=placement)
    for module in model.modules():
        if isinstance(module, FSDPModule):
            # Plain sums: a step divides its loss by the tokens of the whole batch itself. gloo cannot scale a sum.
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)
    register_fsdp_forward_method(model, "hidden")  # training calls it in place of `forward`
    forgotten = [name for name, parameter in model.named_parameters() if not is_piece(parameter)]
    assert not forgotten, f"not divided: {forgotten}"


def release_gathered(model: nn.Module) -> None:
    """Free the parameters that a forward pass without a backward pass has left gathered.

    Until then the network's parameters are whole tensors that no update reaches.
    """
    from torch.distributed.fsdp import FSDPModule

    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()
