"""Taps: callbacks that receive each activation of a forward pass by name and may replace it.

The network is written once. With ``taps=None``, as in training, :func:`tap` returns its argument and the compiled
graph does not contain it. With taps, every activation can be recorded, differentiated or changed.
`etude.watch.tapped_forward` lists the names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch import Tensor

Change = Callable[[Tensor], Tensor]
"""Replaces an activation; the rest of the forward pass uses the result."""


def every_activation(name: str) -> bool:
    """Accept any name."""
    return True


@dataclass
class Taps:
    """Record and change the activations of a forward pass.

    Attributes:
        wanted: returns whether to record the activation of a name.
        changes: by name, the function that replaces the activation.
        gradients: whether recorded activations get a ``grad`` in the backward pass.
        kept: recorded activations by name, in the order of the forward pass.
        met: the names of all activations of the forward pass.
    """

    wanted: Callable[[str], bool] = every_activation
    changes: Mapping[str, Change] = field(default_factory=dict)
    gradients: bool = False
    kept: dict[str, Tensor] = field(default_factory=dict)
    met: set[str] = field(default_factory=set)

    def __call__(self, name: str, value: Tensor) -> Tensor:
        """Record the activation and return it, changed where :attr:`changes` has its name."""
        self.met.add(name)
        if name in self.changes:
            value = self.changes[name](value)
        if self.wanted(name):
            if self.gradients and value.requires_grad:
                value.retain_grad()  # autograd otherwise keeps the gradients of leaves only
            self.kept[name] = value
        return value


def tap(taps: Taps | None, path: str, leaf: str, value: Tensor) -> Tensor:
    """Pass ``value`` to ``taps`` as the activation ``path.leaf``, and return what the forward pass continues with."""
    return value if taps is None else taps(f"{path}.{leaf}", value)
