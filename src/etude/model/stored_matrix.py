"""Matrices of 16 bits per number that stay in their file, and are computed with as float32.

A large published model has twice the size in memory as in its file if all its weights become float32 when it is loaded.
A :class:`StoredMatrix` is mapped from the file instead; an operation that reads it converts it for as long as it takes.
The operation is the same on the same numbers, so every result is, to the bit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

STORED_FROM = 1 << 28
"""Numbers in the 16-bit matrices of a model from which on they stay in the file.

Below, float32 takes at most 1 GiB, and spares the conversion at each use."""
SMALLEST = 1 << 16
"""Smaller matrices become float32."""
_aten = torch.ops.aten
_SELECTING = {
    *(_aten.embedding.default, _aten.select.int, _aten.slice.Tensor),
    *(_aten.index.Tensor, _aten.index_select.default),
}
"""Operations that only choose numbers, which are converted afterwards."""


class StoredMatrix(Tensor):
    """A float32 matrix for reading, whose numbers are stored in ``stored`` with 16 bits."""

    stored: Tensor

    @staticmethod
    def __new__(cls, stored: Tensor) -> StoredMatrix:
        made: StoredMatrix = Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls, stored.shape, dtype=torch.float32, device=stored.device
        )
        made.stored = stored
        return made

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return f"StoredMatrix({self.stored!r})"

    def data_ptr(self) -> int:
        """Return where the stored numbers are."""
        return self.stored.data_ptr()

    def numpy(self, **options: Any) -> Any:
        """Return the numbers as an array of float32."""
        return self.whole().numpy(**options)

    def tolist(self) -> Any:
        """Return the numbers as lists."""
        return self.whole().tolist()

    def whole(self) -> Tensor:
        """Return the matrix in float32."""
        return self.stored.to(torch.float32, memory_format=torch.contiguous_format)

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls,
        func: Any,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        aliases = any(result.alias_info is not None for result in func._schema.returns)
        if aliases and torch.is_inference_mode_enabled():
            # A view is not an inference tensor if its base is none. Leaving the mode would record gradients.
            with torch.inference_mode(False), torch.no_grad():
                return cls._computed(func, args, kwargs or {})
        return cls._computed(func, args, kwargs or {})

    @classmethod
    def _computed(cls, func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        if func is _aten.detach.default:
            return cls(args[0].stored)
        if func in _SELECTING and isinstance(args[0], cls):
            return func(args[0].stored, *args[1:], **kwargs).to(torch.float32)
        for argument, value in zip(func._schema.arguments, args, strict=False):
            if isinstance(value, cls) and argument.alias_info is not None and argument.alias_info.is_write:
                raise RuntimeError("a matrix that is mapped from its file cannot be changed")
        return func(*tree_map_only(cls, cls.whole, args), **tree_map_only(cls, cls.whole, dict(kwargs)))


def stays_stored(state: Mapping[str, Tensor]) -> bool:
    """Return whether the matrices of a model are so large that they stay in their files."""
    return sum(tensor.numel() for tensor in state.values() if _can_stay(tensor)) >= STORED_FROM


def as_parameter(tensor: Tensor) -> nn.Parameter:
    """Return the parameter of a stored tensor: a large matrix of 16 bits as it is stored, any other in float32."""
    if _can_stay(tensor):
        return nn.Parameter(StoredMatrix(tensor))
    return nn.Parameter(tensor.to(torch.float32, copy=True, memory_format=torch.contiguous_format))


def in_memory(tensor: Tensor) -> Tensor:
    """Return a tensor as an ordinary one: the whole of a stored matrix, and any other unchanged."""
    return tensor.whole() if isinstance(tensor, StoredMatrix) else tensor


def _can_stay(tensor: Tensor) -> bool:
    half = tensor.dtype in (torch.float16, torch.bfloat16)
    return half and tensor.ndim == 2 and tensor.numel() >= SMALLEST
