"""Arrays that are too large for JSON, as safetensors files of which the page reads the parts it draws."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from etude.files import hash_bytes

MOST_BYTES = 2**30
SIDE = 768
"""Rows and columns of a picture: a larger matrix is shown as the means of its blocks."""


class TensorFiles:
    """A folder of tensor files within a budget; the oldest is removed first."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def save(self, tensors: Mapping[str, Tensor]) -> str:
        """Write ``tensors`` and return the file's key, a hash of its content.

        The step cannot be the key: a run that was resumed from an earlier step has another state at the same step.
        """
        plain = {name: value.detach().float().cpu().contiguous() for name, value in tensors.items()}
        described = [
            [name, list(value.shape), hash_bytes(value.numpy().tobytes())] for name, value in plain.items()
        ]
        key = hash_bytes(json.dumps(described).encode())
        file = self.folder / f"{key}.safetensors"
        if not file.exists():
            self._make_room()
            staged = file.with_suffix(".part")
            save_file(plain, staged)
            staged.replace(file)
        return key

    def _make_room(self) -> None:
        files = sorted(self.folder.glob("*.safetensors"), key=lambda file: file.stat().st_mtime)
        size = sum(file.stat().st_size for file in files)
        while files and size > MOST_BYTES:
            size -= files[0].stat().st_size
            files.pop(0).unlink()


def binned(matrix: Tensor) -> tuple[dict[str, Tensor], tuple[int, int]]:
    """Return a matrix unchanged, or if large, the means and standard deviations of its blocks, with the block size."""
    rows, columns = matrix.shape
    by = (-(-rows // SIDE), -(-columns // SIDE))
    if by == (1, 1):
        return {"values": matrix}, by
    # Blocks at the lower and right edges may be smaller: pad with NaN, which the means skip.
    padded = torch.nn.functional.pad(matrix, (0, -columns % by[1], 0, -rows % by[0]), value=torch.nan)
    blocks = padded.unfold(0, by[0], by[0]).unfold(1, by[1], by[1]).flatten(2)
    mean = blocks.nanmean(-1)
    return {"values": mean, "spread": (blocks - mean[..., None]).square().nanmean(-1).sqrt()}, by
