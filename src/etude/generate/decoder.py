"""The network while it generates: what each row has read, and the one forward pass that each new token costs.

Single steps of a family that `Decoding` can arrange go through it, which is made for them; everything else (prompts,
other networks) goes through the network itself.
"""

from __future__ import annotations

import functools
import types
import weakref
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from etude.device import Dtype, has_fast_bf16
from etude.errors import EtudeError, InputError
from etude.model.cache import Cache, KVCache
from etude.model.config import ModelConfig
from etude.model.decoding import Decoding
from etude.model.language_model import LanguageModel

Compile = bool | Literal["auto"]
COMPILE_FROM_STEPS = 10_000
"""Steps from which "auto" compiles: a compilation takes 10 to 30 s, and a compiled step saves some milliseconds."""
FEWEST_STEPS = 8
"""For fewer new tokens than this it is not worth arranging the weights."""
_REACH_STEP = 16
"""Cached positions are read in whole multiples of this (which are neither 0 nor 1, both special to the compiler)."""
_SMALLEST_CAPACITY = 64
"""Each capacity is a graph of its own; they are powers of two, so that there are few."""

Step = Callable[[Tensor, KVCache], Tensor]


class Decoder:
    """Reads tokens for several rows, each with a length of its own, and predicts the next."""

    def __init__(
        self,
        model: LanguageModel,
        rows: int,
        longest: int,
        steps: int,
        compile: Compile,
        dtype: Dtype = "fp32",
    ) -> None:
        """`longest`: tokens that a row can come to hold; `steps`: new tokens expected for each row.

        Raises EtudeError when compilation was asked for and fails; InputError for bf16 where nothing would gain by it.
        """
        self.model = model
        self.device = model.unembedding()[0].device
        self.rounded = dtype != "fp32"
        if self.rounded:
            _require_bf16(model, dtype, self.device)
        capacity = min(longest, model.config.max_position_embeddings)
        self.step: Step | None = None
        self.fixed = False
        """Whether rows and capacity are those of a compiled graph, so that no row can be dropped."""
        if model.config.family.decodes_fast and steps >= FEWEST_STEPS:
            if compile is True or (compile == "auto" and _is_worth_compiling(model, rows, steps)):
                self._compile(model, rows, capacity, demanded=compile is True)
            if self.step is None:
                self.step = _arranged(model, compiled=False, rounded=self.rounded).step
        if not self.fixed:
            self.cache = model.new_cache(rows, capacity)

    def _compile(self, model: LanguageModel, rows: int, longest: int, *, demanded: bool) -> None:
        rounded = max(_SMALLEST_CAPACITY, 1 << (longest - 1).bit_length())
        cache = model.new_cache(rows, rounded)
        assert isinstance(cache, KVCache)
        step = _CompiledStep(model, rows, cache.capacity, self.rounded)
        problem = step.problem(cache)
        if problem is None:
            self.step, self.cache, self.fixed = step, cache, True
        elif demanded:
            raise EtudeError(f"torch.compile failed here ({problem}): generate with compile=False")

    @property
    def lengths(self) -> list[int]:
        """Tokens that each row has read."""
        return self.cache.lengths

    @torch.inference_mode()
    def read(self, contexts: Sequence[Sequence[int]]) -> None:
        """Fill the empty cache. Rows are padded on the right: what stands behind a row's end is never seen."""
        _read(self.model, self.cache, contexts, self.device)

    @torch.inference_mode()
    def reread(self, row: int, context: Sequence[int]) -> None:
        """Forget what one row has read, and read `context` instead."""
        alone = self.cache.row(row)
        alone.rewind([0])
        _read(self.model, alone, [context], self.device)
        self.cache.lengths[row] = alone.lengths[0]

    @torch.inference_mode()
    def next_logits(self, tokens: Sequence[int]) -> Tensor:
        """Read one more token for each row; the logits of the one after it, (rows, V) in float32 on the CPU."""
        newest = torch.tensor(tokens, device=self.device)
        if self.step is None:
            logits = self.model.head(self.model.hidden(newest[:, None], cache=self.cache)[:, -1])
        else:
            assert isinstance(self.cache, KVCache)
            logits = self.step(newest, self.cache)
        return logits.float().cpu()

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with these rows only. Not where the number of rows is fixed by a compiled graph."""
        assert not self.fixed
        self.cache = self.cache.select(rows)


def _read(
    model: LanguageModel, cache: Cache, contexts: Sequence[Sequence[int]], device: torch.device
) -> None:
    longest = max(map(len, contexts))
    if longest:
        padded = [[*context, *([0] * (longest - len(context)))] for context in contexts]
        model.hidden(torch.tensor(padded, device=device), cache=cache)
        cache.rewind([len(context) for context in contexts])


def _require_bf16(model: LanguageModel, dtype: str, device: torch.device) -> None:
    """Raises InputError where there is no such arithmetic, or it would be slow."""
    if dtype != "bf16":
        raise InputError(f"there is no dtype '{dtype}': fp32 or bf16")
    if not model.config.family.decodes_fast:
        raise InputError(f"the {model.config.model_type} family does not generate in bf16: take fp32")
    if not has_fast_bf16(device.type):  # type: ignore[arg-type]
        raise InputError(f"bf16 is not known to be fast on this {device.type}: take --dtype fp32")


def _is_worth_compiling(model: LanguageModel, rows: int, steps: int) -> bool:
    """On a CPU only for a single row: for several the packed weights of the uncompiled step are faster."""
    return steps >= COMPILE_FROM_STEPS and (rows == 1 or model.unembedding()[0].device.type == "cuda")


class _CompiledStep:
    """`Decoding.traced_step` as one graph, for every generation with a network of this shape."""

    def __init__(self, model: LanguageModel, rows: int, capacity: int, rounded: bool) -> None:
        self.decoding = _arranged(model, compiled=True, rounded=rounded)
        weight = self.decoding.embedding
        self._numbers = torch.arange(capacity, device=weight.device)
        self._fixed_reach = weight.device.type == "cuda"
        self._run = _graph(model.config, rows, capacity, weight.dtype, rounded, weight.device)

    def __call__(self, tokens: Tensor, cache: KVCache) -> Tensor:
        cache.require_room(len(tokens), 1)
        positions = torch.tensor(cache.lengths, device=tokens.device)
        logits = self._run(self.decoding, tokens, positions, self._reach(max(cache.lengths) + 1), cache)
        cache.advance(1)
        return logits

    def _reach(self, length: int) -> Tensor:
        """On a CPU only as far as there is something; on a GPU everything, which leaves all shapes fixed."""
        if self._fixed_reach:
            return self._numbers
        return self._numbers[: -(-length // _REACH_STEP) * _REACH_STEP]

    @torch.inference_mode()
    def problem(self, cache: KVCache) -> str | None:
        """Compile, on an empty cache; one line on why it cannot be done."""
        rows, device = cache.batch_size, self._numbers.device
        # Two tensors, for the graph would always take one that is given twice to be one; and a reach of its own
        # memory, for the size that may vary is marked on it.
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
    """The arguments decide everything that the graph takes for granted, so none of it is checked at each call.

    Those checks (one for each weight and more) would take longer than a small network does.
    """
    step = Decoding.traced_step
    # The compiler keeps its graphs with a function's code: each gets a copy of its own.
    own = types.FunctionType(step.__code__.replace(), step.__globals__, step.__name__)
    options: dict[str, Any] = {
        "guard_filter_fn": torch.compiler.skip_all_guards_unsafe,
        "size_asserts": False,
    }
    return torch.compile(own, fullgraph=True, dynamic=False, options=options)


_kept: weakref.WeakKeyDictionary[LanguageModel, tuple[object, Decoding]] = weakref.WeakKeyDictionary()
"""With what each was arranged for: the weights, and how."""


def _arranged(model: LanguageModel, *, compiled: bool, rounded: bool) -> Decoding:
    """The weights of `model` arranged for decoding, kept for as long as they are the same.

    They are kept with networks in evaluation mode only: one that is being trained will have changed by the next time.
    """
    weights = _fingerprint(model)
    wanted = (weights, compiled, rounded)
    found = _kept.get(model)
    if found is not None and found[0] == wanted:
        return found[1]
    _kept.pop(model, None)
    with torch.inference_mode():
        decoding = Decoding(model, compiled=compiled, rounded=rounded)
    if not model.training and weights is not None:
        _kept[model] = (wanted, decoding)
    return decoding


def _fingerprint(model: LanguageModel) -> object:
    """Equal only while no parameter was changed or replaced; None where that cannot be told."""
    parameters = list(model.parameters())
    if any(parameter.is_inference() for parameter in parameters):
        return None
    return [(parameter.data_ptr(), parameter._version) for parameter in parameters]
