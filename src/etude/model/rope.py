"""Scaling of rotary frequencies, by which published models reach longer contexts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from etude.errors import InputError
from etude.untrusted import shown

if TYPE_CHECKING:
    from torch import Tensor

KINDS = ("linear", "llama3")


@dataclass(frozen=True, slots=True, kw_only=True)
class RopeScaling:
    """A change of the rotary frequencies theta^(-2i / Dh). The fields have Hugging Face's names.

    linear: every frequency is divided by `factor` (Chen et al. 2023, "Extending Context Window of Large Language
    Models via Positional Interpolation"). llama3: frequencies with wavelengths above
    `original_max_position_embeddings / low_freq_factor` are divided, those with wavelengths below
    `... / high_freq_factor` stay, and the change between the two is gradual (Llama 3.1).
    """

    rope_type: str
    factor: float
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_max_position_embeddings: int = 8192

    def __post_init__(self) -> None:
        """Raise InputError for a scaling that is unknown or impossible."""
        if self.rope_type not in KINDS:
            raise InputError(
                f"config.json asks for rotary positions of type {shown(repr(self.rope_type))}: "
                f"only default, {' and '.join(KINDS)} are supported"
            )
        if self.rope_type == "llama3" and self.high_freq_factor <= self.low_freq_factor:
            raise InputError("rope_scaling in config.json: high_freq_factor must be above low_freq_factor")

    @classmethod
    def from_hf(cls, entry: Mapping[str, Any], config: Mapping[str, Any]) -> RopeScaling | None:
        """Return the scaling that an entry of config.json describes; None where it describes none.

        Raises:
            InputError: an unsupported kind, or impossible values.
        """
        kind = str(entry.get("rope_type", entry.get("type", "default")))
        if kind == "default":
            return None
        if kind != "llama3":
            return cls(rope_type=kind, factor=_positive(entry, "factor") if kind in KINDS else 1.0)
        context = dict(entry)
        if not context.get("original_max_position_embeddings"):
            context["original_max_position_embeddings"] = config.get("max_position_embeddings")
        return cls(
            rope_type=kind,
            factor=_positive(entry, "factor"),
            low_freq_factor=_positive(entry, "low_freq_factor"),
            high_freq_factor=_positive(entry, "high_freq_factor"),
            original_max_position_embeddings=int(_positive(context, "original_max_position_embeddings")),
        )

    def to_hf(self) -> dict[str, Any]:
        """Return the entry of config.json."""
        values = asdict(self)
        if self.rope_type == "linear":
            return {name: values[name] for name in ("rope_type", "factor")}
        return values

    def apply(self, frequencies: Tensor) -> Tensor:
        """Scale frequencies, in radians per position."""
        if self.rope_type == "linear":
            return frequencies / self.factor
        # The order of operations is that of transformers: published models were trained with its rounding.
        turns = self.original_max_position_embeddings / (2 * math.pi / frequencies)
        # 0 where fewer turns than low_freq_factor fit the original context, 1 above high_freq_factor.
        unscaled = ((turns - self.low_freq_factor) / (self.high_freq_factor - self.low_freq_factor)).clamp(
            0, 1
        )
        return (1 - unscaled) * frequencies / self.factor + unscaled * frequencies


def _positive(entry: Mapping[str, Any], name: str) -> float:
    """Return a number of an entry. Raise InputError where it is missing or not above 0."""
    if name not in entry:
        raise InputError(f"rope_scaling in config.json lacks {name!r}")
    value = entry[name]
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < 1e12:
        raise InputError(
            f"{name} of rope_scaling in config.json must be a number above 0, not {shown(value)}"
        )
    return float(value)
