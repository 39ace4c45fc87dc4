"""A tensor with named axes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Named:
    """A tensor with a name, and a name for each axis, such as ("head", "query", "key")."""

    name: str
    axes: tuple[str, ...]
    tensor: Tensor

    def __post_init__(self) -> None:
        assert len(self.axes) == self.tensor.ndim, (self.axes, self.tensor.shape)

    @property
    def shape(self) -> dict[str, int]:
        """Size of each axis by its name."""
        return dict(zip(self.axes, self.tensor.shape, strict=True))

    def numpy(self) -> NDArray[Any]:
        """Return a copy as a NumPy array."""
        array: NDArray[Any] = self.tensor.detach().cpu().float().numpy()
        return array

    def __getitem__(self, key: int | slice | tuple[int | slice, ...]) -> Named:
        """Index axis by axis with integers and slices; an integer removes its axis."""
        keys = key if isinstance(key, tuple) else (key,)
        removed = {place for place, item in enumerate(keys) if not isinstance(item, slice)}
        axes = tuple(axis for place, axis in enumerate(self.axes) if place not in removed)
        return Named(self.name, axes, self.tensor[keys])

    def __repr__(self) -> str:
        shape = " ".join(f"{axis}={size}" for axis, size in self.shape.items()) or "a number"
        values = self.tensor.detach().double()
        finite = values[values.isfinite()]
        if not finite.numel():
            return f"{self.name} ({shape})"
        low, mean, high = float(finite.min()), float(finite.mean()), float(finite.max())
        return f"{self.name} ({shape}): {low:.4g} to {high:.4g}, mean {mean:.4g}"
