"""Taps: a forward pass hands each activation to them under its name, and goes on with what they return.

The network is written once. With ``taps=None``, as in training, nothing is handed over and the compiled graph has no
trace of it; with taps every activation can be kept, differentiated or changed. The names stand in
`etude.watch.forward`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch import Tensor

Change = Callable[[Tensor], Tensor]
"""What an activation becomes on its way; the rest of the pass goes on from that."""


def every_activation(name: str) -> bool:
    """Accept any name."""
    return True


@dataclass
class Taps:
    """Keeps and changes activations as they pass by.

    Attributes:
        wanted: whether the activation of a name is kept.
        changes: by name, what an activation is replaced by.
        gradients: whether kept activations get a ``grad`` in a backward pass.
        kept: activations by name, in the order of the pass.
        met: every name that passed by.
    """

    wanted: Callable[[str], bool] = every_activation
    changes: Mapping[str, Change] = field(default_factory=dict)
    gradients: bool = False
    kept: dict[str, Tensor] = field(default_factory=dict)
    met: set[str] = field(default_factory=set)

    def __call__(self, name: str, value: Tensor) -> Tensor:
        self.met.add(name)
        if name in self.changes:
            value = self.changes[name](value)
        if self.wanted(name):
            if self.gradients and value.requires_grad:
                value.retain_grad()
            self.kept[name] = value
        return value


def tap(taps: Taps | None, path: str, leaf: str, value: Tensor) -> Tensor:
    """Hand ``value`` to ``taps`` as the activation ``path.leaf``; return it, or what they make of it."""
    return value if taps is None else taps(f"{path}.{leaf}", value)
