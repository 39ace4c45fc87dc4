"""Copy the tensors of a GGUF file into a safetensors file, one at a time, under Hugging Face's names.

Tensors of 16 or 32 bits per number are copied unchanged. Quantised ones become float32 by the `gguf` package, in
pieces: at no time does the process hold more than one tensor that must be transposed, or one piece of another.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from etude.errors import InputError
from etude.files import write_failure
from etude.model.build import empty_model
from etude.model.config import ModelConfig
from etude.model.folder import stored_state
from etude.pretrained.gguf_config import OUTPUT, ROPE_FACTORS, family_of
from etude.pretrained.gguf_file import GgufFile, GgufTensor
from etude.untrusted import shown

PLAIN = {"F32": "<f4", "F16": "<f2", "BF16": "<u2"}
"""The number formats that safetensors has too, and a NumPy type of their size."""
QUANTISED = (
    *("Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K"),
    *(
        "IQ4_NL",
        "IQ4_XS",
        "IQ3_XXS",
        "IQ3_S",
        "IQ2_XXS",
        "IQ2_XS",
        "IQ2_S",
        "IQ1_S",
        "IQ1_M",
        "TQ1_0",
        "TQ2_0",
    ),
)
"""The number formats that the `gguf` package turns into float32."""
PIECE_NUMBERS = 1 << 20
"""Numbers that are dequantised at once: a few MiB, which the processor's cache holds."""


@dataclass(frozen=True, slots=True)
class PlannedTensor:
    """A tensor of the saved format, and where it comes from.

    Attributes:
        name, shape: in the saved format.
        dtype: safetensors' name of the number format in which it is stored.
        paired_heads: number of heads whose rows the file interleaves; None where it does not.
        transposed: whether the file holds the transpose.
        centered: whether the numbers are those of the file minus one: GGUF stores what a norm multiplies by.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    source: GgufTensor
    paired_heads: int | None
    transposed: bool
    centered: bool

    @property
    def size(self) -> int:
        """Bytes in the safetensors file."""
        return math.prod(self.shape) * (4 if self.dtype == "F32" else 2)


def plan_weights(file: GgufFile, config: ModelConfig) -> list[PlannedTensor]:
    """Return every tensor of the saved format, after comparing names and shapes with the file's.

    Raises:
        InputError: a tensor is missing, unexpected, of another shape, or of a number format that cannot be read.
    """
    from gguf import MODEL_ARCH_NAMES, get_tensor_name_map

    family, form = family_of(file)
    # Before the network is built: a damaged file may ask for so many layers that building them takes minutes.
    if config.num_hidden_layers > len(file.tensors):
        raise file.damaged(f"{config.num_hidden_layers} layers, and {len(file.tensors)} tensors")
    architectures = {name: architecture for architecture, name in MODEL_ARCH_NAMES.items()}
    names = get_tensor_name_map(architectures[form.architecture], config.num_hidden_layers)
    planned, used = [], {ROPE_FACTORS} | ({OUTPUT} if config.tie_word_embeddings else set())
    for name, meta in stored_state(empty_model(config).state_dict(), config).items():
        module, _, kind = name.rpartition(".")
        source_name = names.get_name(name, (".weight", ".bias"))
        source = file.tensors.get(source_name or "")
        if source_name is None or source is None:
            raise file.damaged(f"it has no tensor {source_name or name}")
        used.add(source_name)
        transposed = kind == "weight" and module.endswith(tuple(form.transposed))
        shape = tuple(meta.shape)
        if source.shape != (shape[::-1] if transposed else shape):
            raise file.damaged(f"the shape of {source_name} is {source.shape}, which does not fit {shape}")
        if source.kind not in PLAIN and source.kind not in QUANTISED:
            raise InputError(
                f"{file.path}: the tensor {source_name} has {source.kind} numbers: "
                f"only {', '.join((*PLAIN, *QUANTISED))} can be read"
            )
        heads = next(
            (getattr(config, field) for end, field in form.paired.items() if module.endswith(end)), None
        )
        centered = config.zero_centered_norm and len(shape) == 1
        if centered and source.kind != "F32":
            raise InputError(
                f"{file.path}: the norm {source_name} has {source.kind} numbers: only F32 can be read"
            )
        dtype = source.kind if source.kind in PLAIN else "F32"
        planned.append(PlannedTensor(name, shape, dtype, source, heads, transposed, centered))
    if unexpected := [name for name in file.tensors if name not in used]:
        raise InputError(
            f"{file.path} has the tensor {shown(unexpected[0])}, which a {family.name} network does not have"
        )
    return planned


def write_weights(path: Path, file: GgufFile, plan: list[PlannedTensor]) -> None:
    """Write the planned tensors as a safetensors file. Raises EtudeError where it cannot be written."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for tensor in plan:
        offsets = [end, end := end + tensor.size]
        header[tensor.name] = {"dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": offsets}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the data begins at a multiple of 8 bytes
    try:
        with path.open("wb") as target:
            target.write(len(text).to_bytes(8, "little") + text)
            for tensor in plan:
                _write_tensor(target, file, tensor)
        path.chmod(0o644)
    except OSError as error:
        raise write_failure(path, error) from error


def _write_tensor(target: BinaryIO, file: GgufFile, tensor: PlannedTensor) -> None:
    if not tensor.transposed:
        for piece in pieces(file, tensor):
            target.write(piece.data)
        return
    whole = np.concatenate(list(pieces(file, tensor)))
    target.write(np.ascontiguousarray(whole.T).data)


def pieces(file: GgufFile, tensor: PlannedTensor) -> Iterator[NDArray[Any]]:
    """Yield the rows of a tensor in the order of the saved format, float32 or as they are stored.

    Shapes: (rows, row length), of as many rows as make about :data:`PIECE_NUMBERS` numbers.
    """
    rows, kind = file.rows(tensor.source), tensor.source.kind
    order = None if tensor.paired_heads is None else _unpaired(tensor.source.shape[0], tensor.paired_heads)
    if len(tensor.shape) == 1:  # one row, whose numbers are in the order of a matrix's rows
        numbers = _numbers(rows, kind)[0]
        if tensor.centered:
            numbers = numbers - np.float32(1)
        yield numbers if order is None else numbers[order]
        return
    step = max(1, PIECE_NUMBERS // tensor.source.shape[-1])
    for begin in range(0, len(rows), step):
        part = rows[begin : begin + step] if order is None else rows[order[begin : begin + step]]
        yield _numbers(part, kind)


def _numbers(rows: NDArray[np.uint8], kind: str) -> NDArray[Any]:
    return np.ascontiguousarray(rows).view(PLAIN[kind]) if kind in PLAIN else dequantised(rows, kind)


def dequantised(rows: NDArray[np.uint8], kind: str) -> NDArray[np.float32]:
    """Return rows of quantised numbers as float32, by the `gguf` package."""
    from gguf import GGMLQuantizationType
    from gguf.quants import dequantize

    with np.errstate(all="ignore"):  # a damaged scale may be infinite
        numbers = dequantize(rows, GGMLQuantizationType[kind])
    return np.ascontiguousarray(numbers, dtype=np.float32)


def _unpaired(num_rows: int, heads: int) -> NDArray[np.intp]:
    """Return the file's row for each row of the saved format.

    llama.cpp rotates rows 2i and 2i + 1 of a head together, Hugging Face rows i and i + Dh / 2.
    """
    return np.arange(num_rows).reshape(heads, -1, 2).swapaxes(1, 2).reshape(-1)


def quantisation(plan: list[PlannedTensor]) -> dict[str, dict[str, int]]:
    """Return the number of tensors and of parameters in each number format, the most common first."""
    tensors: Counter[str] = Counter()
    parameters: Counter[str] = Counter()
    for tensor in plan:
        tensors[tensor.source.kind] += 1
        parameters[tensor.source.kind] += math.prod(tensor.shape)
    return {kind: {"tensors": tensors[kind], "parameters": count} for kind, count in parameters.most_common()}


def common_dtype(plan: list[PlannedTensor]) -> str:
    """Return PyTorch's name of the number format of all matrices; float32 where they have several."""
    dtypes = {tensor.dtype for tensor in plan if len(tensor.shape) > 1}
    return (
        {"F16": "float16", "BF16": "bfloat16"}.get(dtypes.pop(), "float32") if len(dtypes) == 1 else "float32"
    )
