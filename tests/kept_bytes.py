"""What autograd saves for a backward pass.

As a script, ``python kept_bytes.py NAME...`` prints the bytes that a compiled layer saves, in fp32 and bf16, as JSON.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import torch
import torch.nn.functional as F

from etude.model.language_model import LanguageModel
from networks import make_config, make_network, make_tokens


def kept_bytes(model: LanguageModel, rows: int, count: int, **options: Any) -> int:
    """Bytes of the distinct tensors that autograd saves, without parameters."""
    own = {t.untyped_storage().data_ptr() for t in [*model.parameters(), *model.buffers()]}
    saved: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in own:
            saved[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        logits = model.head(model.hidden(make_tokens(rows, count), **options))
        F.cross_entropy(logits.flatten(0, 1), make_tokens(rows, count, 1).flatten())
    return sum(tensor.untyped_storage().nbytes() for tensor in saved.values())


def by_a_compiled_layer(name: str, rounded: bool) -> int:
    """Return the bytes that the third layer saves of 3 rows of 40 tokens. The partition of forward and backward pass is
    PyTorch's own; the backend without code generation is fast."""
    torch._dynamo.reset()
    run_layer = torch.compile(
        lambda layer, *arguments: layer(*arguments), backend="aot_eager_decomp_partition"
    )
    networks = [make_network(make_config(name, num_hidden_layers=layers)) for layers in (2, 3)]
    with torch.autocast("cpu", torch.bfloat16, enabled=rounded):
        fewer, more = (kept_bytes(network, 3, 40, run_layer=run_layer) for network in networks)
    return more - fewer


if __name__ == "__main__":
    cases = [(name, rounded) for name in sys.argv[1:] for rounded in (False, True)]
    print(json.dumps([(*case, by_a_compiled_layer(*case)) for case in cases]))
