"""Types of settings: the values that each may have, with their bounds."""

from __future__ import annotations

from enum import Enum
from functools import partial
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field
from typing_extensions import TypeVar  # with a default: Python 3.13 has it in typing

from etude.registry import MODEL_FAMILIES, OBJECTIVES, UPDATE_RULES, known_name

Auto = Literal["auto"]
"""Type of a setting that may stay open until it is used: it follows from the text or the machine at hand."""
Open = TypeVar("Open", default=Auto, covariant=True)
"""Type parameter of settings that the dial always resolves: ``Auto`` as the user gives them, then ``Never``."""
AUTO: Any = "auto"
"""Default of a setting of type ``X | Open``."""


class Change(Enum):
    """When a setting may be changed once a run has begun, in words for the user."""

    OBSERVING = "on a resume"
    """It only says what is written down."""
    STEERING = "on a resume: the training changes from there on"
    """The run's manifest records from which step."""
    FORK = "in a fork"
    """A fork is a run of its own, and may have another text as well."""
    NEVER = "in a new run"
    """The weights would be of no use with another value."""


class Compared(Enum):
    """What a setting is to runs that are compared as one family: the same training with several seeds."""

    MAY_DIFFER = "may differ"
    """The seed, and what does not change the training."""


_T = TypeVar("_T")
Observing = Annotated[_T, Change.OBSERVING]
Steering = Annotated[_T, Change.STEERING]
MayDiffer = Annotated[_T, Compared.MAY_DIFFER]

Seed = Annotated[int, Field(ge=0, lt=2**63)]
Count = Annotated[int, Field(ge=1, le=2**48)]
WeightDecay = Annotated[float, Field(ge=0)]
MOST_THREADS = 1024
Threads = Annotated[int, Field(ge=1, le=MOST_THREADS)]
ContextLength = Annotated[int, Field(ge=2, le=2**24)]
ByteVocabulary = Annotated[int, Field(ge=257, le=2**24)]
Decay = Annotated[float, Field(ge=0, lt=1)]
Rate = Annotated[float, Field(gt=0)]


def _joined(value: Any) -> Any:
    """Return a list of names as one string; anything else as it is, for the validation that follows to judge."""
    is_names = isinstance(value, list | tuple) and all(isinstance(name, str) for name in value)
    return ",".join(value) if is_names else value


Names = Annotated[str, BeforeValidator(_joined)]
Rules = Annotated[
    tuple[str, ...], BeforeValidator(lambda value: value.split(",") if isinstance(value, str) else value)
]
Delimiter = Annotated[str, Field(pattern=r'^(auto|comma|semicolon|tab|pipe|[^"\r\n])$')]
FamilyName = Annotated[str, AfterValidator(partial(known_name, MODEL_FAMILIES, "model.preset"))]
ObjectiveName = Annotated[str, AfterValidator(partial(known_name, OBJECTIVES, "train.objective"))]
UpdateRuleName = Annotated[str, AfterValidator(partial(known_name, UPDATE_RULES, "train.optimizer"))]
