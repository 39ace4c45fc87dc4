"""A tensor whose axes have names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Named:
    """``tensor`` with a name for itself and for each axis, such as ("head", "query", "key")."""

    name: str
    axes: tuple[str, ...]
    tensor: Tensor

    def __post_init__(self) -> None:
        assert len(self.axes) == self.tensor.ndim, (self.axes, self.tensor.shape)

    @property
    def shape(self) -> dict[str, int]:
        """Sizes by axis."""
        return dict(zip(self.axes, self.tensor.shape, strict=True))

    def numpy(self) -> NDArray[Any]:
        """A copy as a NumPy array."""
        found: NDArray[Any] = self.tensor.detach().cpu().float().numpy()
        return found

    def __getitem__(self, key: int | slice | tuple[int | slice, ...]) -> Named:
        """Integers and slices, axis by axis; the axes of integers go."""
        keys = key if isinstance(key, tuple) else (key,)
        gone = {place for place, one in enumerate(keys) if not isinstance(one, slice)}
        axes = tuple(axis for place, axis in enumerate(self.axes) if place not in gone)
        return Named(self.name, axes, self.tensor[keys])

    def __repr__(self) -> str:
        shape = " ".join(f"{axis}={size}" for axis, size in self.shape.items()) or "a number"
        values = self.tensor.detach().double()
        finite = values[values.isfinite()]
        if not finite.numel():
            return f"{self.name} ({shape})"
        low, mean, high = float(finite.min()), float(finite.mean()), float(finite.max())
        return f"{self.name} ({shape}): {low:.4g} to {high:.4g}, mean {mean:.4g}"
