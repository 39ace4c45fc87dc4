"""Check a family before it is registered: build a small network of it and convert it in both directions."""

from __future__ import annotations

from typing import Any

from etude.errors import InputError
from etude.model.families.contract import Family


def require_complete(family: Any) -> None:
    """Build a small network of ``family`` on the "meta" device, and check the declaration against it.

    Raises:
        InputError: configuration or tensor names do not survive a round trip, the parameter count is wrong, or the
            layers of neurons do not have the declared size.
    """
    # Imported late: these modules use the registry, which calls this function.
    from etude.model.build import empty_model
    from etude.model.config import preset
    from etude.model.cost import count_parameters
    from etude.model.hf_config import config_from_hf, config_to_hf

    if not isinstance(family, Family):
        raise InputError(f"a model family is declared by an etude.model.families.Family, not {family!r}")
    sizes: dict[str, Any] = {"vocab_size": 64, "hidden_size": 32, "max_position_embeddings": 16}
    config = preset(family.name, **sizes)
    problems = []
    if config_from_hf(config_to_hf(config)) != config:
        problems.append("config_from_hf does not read what config_to_hf writes")
    model = empty_model(config)
    state = model.state_dict()
    back = family.from_saved(family.to_saved(state, config), config)
    if {name: tensor.shape for name, tensor in back.items()} != {n: t.shape for n, t in state.items()}:
        problems.append("from_saved does not invert to_saved")
    counted, real = count_parameters(config).total, sum(p.numel() for p in model.parameters())
    if counted != real:
        problems.append(f"its cost counts {counted} parameters, and the network has {real}")
    if family.has_attention is not model.has_attention:
        problems.append("has_attention differs from the network's")
    for layer in model.node_layers():
        if layer.all_outgoing(model).shape[1] != layer.size:
            problems.append(f"{layer.path} has another size than it declares")
    if problems:
        raise InputError(f"the model family {family.name!r} is incomplete: {'; '.join(problems)}")
