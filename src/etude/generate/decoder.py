"""Run the network during generation: read prompts, then one forward pass for each new token of all rows.

Single tokens use `Decoding`, which is optimised for them, in families that support it. Prompts and other networks use
the network itself.
"""

from __future__ import annotations

import functools
import types
import weakref
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from etude.device import Dtype, free_memory_bytes, has_fast_bf16
from etude.errors import EtudeError, InputError
from etude.model.cache import Cache, KVCache
from etude.model.config import ModelConfig
from etude.model.decoding import Decoding
from etude.model.language_model import LanguageModel

Compile = bool | Literal["auto"]
COMPILE_FROM_STEPS = 10_000
"""Fewest steps for which "auto" compiles: compilation takes 10 to 30 s and saves some milliseconds per step."""
FEWEST_STEPS = 8
"""For fewer new tokens, copying the weights for `Decoding` takes longer than it saves."""
_REACH_STEP = 16
"""The compiled step reads cached positions in multiples of this: never 0 or 1, on which the compiler specialises."""
_SMALLEST_CAPACITY = 64
"""Each capacity compiles another graph. Powers of two from here on keep them few."""

SHARE_OF_FREE = 0.8
"""Most of the free memory that the copies of the weights may take."""

Step = Callable[[Tensor, KVCache], Tensor]


class Decoder:
    """Read tokens of several rows, of different lengths, and predict the next token of each."""

    def __init__(
        self,
        model: LanguageModel,
        rows: int,
        longest: int,
        steps: int,
        compile: Compile,
        dtype: Dtype = "fp32",
    ) -> None:
        """Allocate the cache, and choose how single tokens are computed.

        Args:
            longest: most tokens of a row, prompt included.
            steps: expected new tokens of each row.

        Raises:
            EtudeError: compilation was requested and fails.
            InputError: bf16 where it would not be faster.
        """
        self.model = model
        self.device = model.unembedding()[0].device
        self.rounded = dtype != "fp32"  # whether weights are rounded to bf16
        if self.rounded:
            _require_bf16(model, dtype, self.device)
        capacity = min(longest, model.config.max_position_embeddings)
        self.step: Step | None = None
        self.fixed = False
        """Whether a compiled graph fixes rows and capacity, so that no row can be dropped."""
        if model.config.family.decodes_fast and steps >= FEWEST_STEPS and self._has_room_for_copies():
            if compile is True or (compile == "auto" and _is_worth_compiling(model, rows, steps)):
                self._compile(model, rows, capacity, demanded=compile is True)
            if self.step is None:
                self.step = _decoding(model, compiled=False, rounded=self.rounded).step
        if not self.fixed:
            self.cache = model.new_cache(rows, capacity)

    def _has_room_for_copies(self) -> bool:
        """Return whether the memory has room for the copies of :class:`Decoding`; otherwise the model itself decodes.

        Raises:
            InputError: it has no room for rounded copies, which the user has requested.
        """
        copies = sum(parameter.numel() for parameter in self.model.parameters()) * (2 if self.rounded else 4)
        free = free_memory_bytes(self.device.type)
        if free is None or copies <= SHARE_OF_FREE * free or _holds_copies(self.model, self.rounded):
            return True
        if self.rounded:
            raise InputError(
                f"weights rounded to bf16 take {copies / 2**30:,.1f} GiB besides the model, and "
                f"{free / 2**30:,.1f} GiB are free: use --dtype fp32, which then needs no copy"
            )
        return False

    def _compile(self, model: LanguageModel, rows: int, longest: int, *, demanded: bool) -> None:
        """Compile the step; if that fails, raise EtudeError where it is ``demanded``, else stay in eager mode."""
        capacity = max(_SMALLEST_CAPACITY, 1 << (longest - 1).bit_length())  # the next power of two
        cache = model.new_cache(rows, capacity)
        assert isinstance(cache, KVCache)
        step = _CompiledStep(model, rows, cache.capacity, self.rounded)
        problem = step.problem(cache)
        if problem is None:
            self.step, self.cache, self.fixed = step, cache, True
        elif demanded:
            raise EtudeError(f"torch.compile failed ({problem}): generate with compile=False")

    @property
    def lengths(self) -> list[int]:
        """Number of tokens that each row has read."""
        return self.cache.lengths

    @torch.inference_mode()
    def read(self, contexts: Sequence[Sequence[int]]) -> None:
        """Read the prompts into the empty cache, as one batch padded on the right."""
        _read(self.model, self.cache, contexts, self.device)

    @torch.inference_mode()
    def reread(self, row: int, context: Sequence[int]) -> None:
        """Replace the tokens of one row by `context`, from position 0."""
        view = self.cache.row(row)
        view.rewind([0])
        _read(self.model, view, [context], self.device)
        self.cache.lengths[row] = view.lengths[0]

    @torch.inference_mode()
    def next_logits(self, tokens: Sequence[int]) -> Tensor:
        """Read one token for each row; return the logits of the next one, (rows, V) in float32 on the CPU."""
        newest = torch.tensor(tokens, device=self.device)
        if self.step is None:
            logits = self.model.head(self.model.hidden(newest[:, None], cache=self.cache)[:, -1])
        else:
            assert isinstance(self.cache, KVCache)
            logits = self.step(newest, self.cache)
        return logits.float().cpu()

    def keep(self, rows: Sequence[int]) -> None:
        """Drop all other rows. Not possible where a compiled graph fixes their number."""
        assert not self.fixed
        self.cache = self.cache.select(rows)


def _read(
    model: LanguageModel, cache: Cache, contexts: Sequence[Sequence[int]], device: torch.device
) -> None:
    """Read ``contexts`` into an empty cache."""
    longest = max(map(len, contexts))
    if longest:
        padded = [[*context, *([0] * (longest - len(context)))] for context in contexts]
        model.hidden(torch.tensor(padded, device=device), cache=cache)
        cache.rewind([len(context) for context in contexts])  # hide the padding


def _require_bf16(model: LanguageModel, dtype: str, device: torch.device) -> None:
    """Raise InputError for an unknown dtype, an unsupported family, or a device where bf16 is slow."""
    if dtype != "bf16":
        raise InputError(f"unknown dtype '{dtype}': use fp32 or bf16")
    if not model.config.family.decodes_fast:
        raise InputError(f"the {model.config.model_type} family does not generate in bf16: use fp32")
    if not has_fast_bf16(device.type):  # type: ignore[arg-type]
        raise InputError(f"bf16 is not known to be fast on this {device.type}: use --dtype fp32")


def _is_worth_compiling(model: LanguageModel, rows: int, steps: int) -> bool:
    """Return whether to compile. On a CPU only for a single row: for several, uncompiled packed weights are faster."""
    return steps >= COMPILE_FROM_STEPS and (rows == 1 or model.unembedding()[0].device.type == "cuda")


class _CompiledStep:
    """`Decoding.traced_step` as one compiled graph, shared by all networks of the same shape."""

    def __init__(self, model: LanguageModel, rows: int, capacity: int, rounded: bool) -> None:
        self.decoding = _decoding(model, compiled=True, rounded=rounded)
        weight = self.decoding.embedding
        self._numbers = torch.arange(capacity, device=weight.device)
        self._fixed_reach = weight.device.type == "cuda"
        self._run = _graph(model.config, rows, capacity, weight.dtype, rounded, weight.device)

    def __call__(self, tokens: Tensor, cache: KVCache) -> Tensor:
        """Read one token for each row; return the logits (B, V) of the next one."""
        cache.require_room(len(tokens), 1)
        positions = torch.tensor(cache.lengths, device=tokens.device)
        logits = self._run(self.decoding, tokens, positions, self._reach(max(cache.lengths) + 1), cache)
        cache.advance(1)
        return logits

    def _reach(self, length: int) -> Tensor:
        """Return the cached positions to read: on a CPU up to the longest row; on a GPU all, to keep shapes fixed."""
        if self._fixed_reach:
            return self._numbers
        return self._numbers[: -(-length // _REACH_STEP) * _REACH_STEP]

    @torch.inference_mode()
    def problem(self, cache: KVCache) -> str | None:
        """Compile on an empty cache. Returns one line on why that fails, else None."""
        rows, device = cache.batch_size, self._numbers.device
        # Pass two distinct tensors: dynamo would specialise on their aliasing. Clone `reach`: mark_dynamic marks the
        # tensor itself.
        tokens, positions = (torch.tensor([0] * rows, device=device) for _ in range(2))
        reach = self._reach(2 * _REACH_STEP).clone()
        if not self._fixed_reach:
            torch._dynamo.mark_dynamic(reach, 0)  # type: ignore[no-untyped-call]
        try:
            self._run(self.decoding, tokens, positions, reach, cache)
        except Exception as error:  # the compiler's failures have no common type
            lines = str(error).strip().splitlines()
            return f"{type(error).__name__}: {lines[0][:120] if lines else 'no message'}"
        return None


@functools.cache
def _graph(
    config: ModelConfig, rows: int, capacity: int, dtype: torch.dtype, rounded: bool, device: torch.device
) -> Callable[..., Tensor]:
    """Compile `Decoding.traced_step` once for these arguments.

    They determine everything on which the graph specialises. So its guards (at least one for each weight) are dropped:
    checking them would take longer than a small network.
    """
    step = Decoding.traced_step
    # Dynamo stores graphs by code object: give each graph its own copy.
    function = types.FunctionType(step.__code__.replace(), step.__globals__, step.__name__)
    options: dict[str, Any] = {
        "guard_filter_fn": torch.compiler.skip_all_guards_unsafe,
        "size_asserts": False,
    }
    return torch.compile(function, fullgraph=True, dynamic=False, options=options)


_Kept = tuple[tuple[object, bool, bool], Decoding]
_decodings: weakref.WeakKeyDictionary[LanguageModel, _Kept] = weakref.WeakKeyDictionary()
"""The last `Decoding` of each network, with its key: fingerprint of the weights, and options."""


def _decoding(model: LanguageModel, *, compiled: bool, rounded: bool) -> Decoding:
    """Return the `Decoding` of `model`, from the cache if the weights are unchanged.

    Only networks in evaluation mode are cached: during training the weights change before the next call.
    """
    weights = _fingerprint(model)
    key = (weights, compiled, rounded)
    cached = _decodings.get(model)
    if cached is not None and cached[0] == key:
        return cached[1]
    _decodings.pop(model, None)  # frees its memory before the new copies are made
    with torch.inference_mode():
        decoding = Decoding(model, compiled=compiled, rounded=rounded)
    if not model.training and weights is not None:
        _decodings[model] = (key, decoding)
    return decoding


def _holds_copies(model: LanguageModel, rounded: bool) -> bool:
    """Return whether copies of the current weights are kept, of this size; others would replace them."""
    kept = _decodings.get(model)
    return kept is not None and (kept[0][0], kept[0][2]) == (_fingerprint(model), rounded)


def _fingerprint(model: LanguageModel) -> object:
    """Return a value that changes with every change of a parameter; None where PyTorch does not track changes."""
    parameters = list(model.parameters())
    if any(parameter.is_inference() for parameter in parameters):
        return None
    return [(parameter.data_ptr(), parameter._version) for parameter in parameters]
