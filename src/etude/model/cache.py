"""Caches of the tokens that a network has read, so that the next token costs one position instead of all of them.

A cache is allocated once, with a fixed capacity. Rows may have different lengths: the next token of row b is written
at position `lengths[b]`. Positions beyond a row's length are never read. So a batch of prompts, padded on the right,
is read in one forward pass, and `rewind` then sets each row to its true length.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor


class Cache:
    """Row lengths and capacity. Subclasses define what is stored for each position."""

    def __init__(self, lengths: list[int], capacity: int) -> None:
        self.lengths = lengths
        self.capacity = capacity

    @property
    def batch_size(self) -> int:
        return len(self.lengths)

    @property
    def start(self) -> int | None:
        """The common length of all rows; None where they differ."""
        return self.lengths[0] if len(set(self.lengths)) == 1 else None

    def positions(self, count: int, device: torch.device) -> Int[Tensor, "B T"]:
        """Return the positions of the next `count` tokens of each row."""
        starts = torch.tensor(self.lengths, device=device)
        return starts[:, None] + torch.arange(count, device=device)

    def require_room(self, rows: int, count: int) -> None:
        """Raise ValueError unless the cache has `rows` rows and room for `count` more tokens in each."""
        if rows != self.batch_size:
            raise ValueError(f"the cache has {self.batch_size} rows, the inputs {rows}")
        if max(self.lengths) + count > self.capacity:
            longest = max(self.lengths)
            raise ValueError(f"{longest} + {count} tokens are more than the cache holds ({self.capacity})")

    def advance(self, count: int) -> None:
        """Add the `count` tokens just written to the length of every row."""
        self.lengths[:] = [length + count for length in self.lengths]

    def rewind(self, lengths: Sequence[int]) -> None:
        """Shorten each row to the given length. Raises ValueError for a length beyond the current one."""
        if len(lengths) != self.batch_size or any(
            not 0 <= new <= old for new, old in zip(lengths, self.lengths, strict=True)
        ):
            raise ValueError(f"cannot rewind rows of lengths {self.lengths} to {list(lengths)}")
        self.lengths[:] = list(lengths)

    def row(self, index: int) -> Cache:
        """Return a view of one row: the same memory, a separate length."""
        raise NotImplementedError

    def select(self, rows: Sequence[int]) -> Cache:
        """Return a copy that holds only the given rows."""
        raise NotImplementedError

    def leading(self, count: int) -> Cache:
        """Return a view of the first ``count`` rows: the same memory, separate lengths."""
        raise NotImplementedError

    def copy_tokens(self, source: int, target: int, count: int) -> None:
        """Make row ``target`` hold the first ``count`` tokens of row ``source``, and nothing else."""
        for buffer in self._token_first():
            buffer[target, :count] = buffer[source, :count]
        self.lengths[target] = count

    def swap_rows(self, first: int, second: int) -> None:
        """Exchange two rows."""
        count = max(self.lengths[first], self.lengths[second])
        for buffer in self._token_first():
            kept = buffer[first, :count].clone()
            buffer[first, :count] = buffer[second, :count]
            buffer[second, :count] = kept
        lengths = self.lengths
        lengths[first], lengths[second] = lengths[second], lengths[first]

    def _token_first(self) -> list[Tensor]:
        """Return views of all buffers whose first two dimensions are rows and positions."""
        raise NotImplementedError

    def _like(self, lengths: list[int], **buffers: Any) -> Cache:
        view = object.__new__(type(self))
        Cache.__init__(view, lengths, self.capacity)
        for name, value in buffers.items():
            setattr(view, name, value)
        return view


class KVCache(Cache):
    """Keys and values of every layer, each in a buffer of shape (B, K, capacity, Dh)."""

    def __init__(
        self,
        *,
        num_layers: int,
        batch_size: int,
        num_heads: int,
        capacity: int,
        head_dim: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        super().__init__([0] * batch_size, capacity)
        shape = (batch_size, num_heads, capacity, head_dim)
        self.keys = [torch.zeros(shape, dtype=dtype, device=device) for _ in range(num_layers)]
        self.values = [torch.zeros(shape, dtype=dtype, device=device) for _ in range(num_layers)]

    def write(
        self, layer: int, keys: Float[Tensor, "B K T Dh"], values: Float[Tensor, "B K T Dh"]
    ) -> tuple[Float[Tensor, "B K S Dh"], Float[Tensor, "B K S Dh"]]:
        """Store keys and values of the next T tokens of each row.

        Returns keys and values of all positions up to the last of the new ones (S of the longest row).
        """
        count = keys.shape[2]
        end = max(self.lengths) + count
        for buffer, new in ((self.keys[layer], keys), (self.values[layer], values)):
            if self.start is not None:
                buffer[:, :, self.start : end] = new
            else:  # rows of different lengths: each writes at its own positions
                rows = torch.arange(self.batch_size, device=new.device)[:, None]
                buffer[rows, :, self.positions(count, new.device)] = new.transpose(1, 2).to(buffer.dtype)
        return self.keys[layer][:, :, :end], self.values[layer][:, :, :end]

    def row(self, index: int) -> Cache:
        return self._part([self.lengths[index]], slice(index, index + 1))

    def select(self, rows: Sequence[int]) -> Cache:
        return self._part([self.lengths[row] for row in rows], list(rows))

    def leading(self, count: int) -> Cache:
        return self._part(self.lengths[:count], slice(0, count))

    def _token_first(self) -> list[Tensor]:
        return [buffer.transpose(1, 2) for buffer in (*self.keys, *self.values)]

    def _part(self, lengths: list[int], rows: slice | list[int]) -> Cache:
        keys = [buffer[rows] for buffer in self.keys]
        return self._like(lengths, keys=keys, values=[buffer[rows] for buffer in self.values])


class TokenCache(Cache):
    """The token ids themselves, (B, capacity), for a network that reads a window of tokens."""

    def __init__(self, *, batch_size: int, capacity: int, device: torch.device) -> None:
        super().__init__([0] * batch_size, capacity)
        self.tokens = torch.zeros((batch_size, capacity), dtype=torch.long, device=device)

    def write(self, inputs: Int[Tensor, "B T"]) -> None:
        """Store the next T tokens of each row."""
        rows = torch.arange(self.batch_size, device=inputs.device)[:, None]
        self.tokens[rows, self.positions(inputs.shape[1], inputs.device)] = inputs.long()

    def row(self, index: int) -> Cache:
        return self._like([self.lengths[index]], tokens=self.tokens[index : index + 1])

    def select(self, rows: Sequence[int]) -> Cache:
        return self._like([self.lengths[row] for row in rows], tokens=self.tokens[list(rows)])

    def leading(self, count: int) -> Cache:
        return self._like(self.lengths[:count], tokens=self.tokens[:count])

    def _token_first(self) -> list[Tensor]:
        return [self.tokens]
