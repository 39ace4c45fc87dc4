"""Types of settings: the values that each may have, and marks for when and where it may differ."""

from __future__ import annotations

import re
from enum import Enum
from functools import partial
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from typing_extensions import TypeVar  # with a default: Python 3.13 has it in typing

from etude.registry import MODEL_FAMILIES, OBJECTIVES, UPDATE_RULES, known_name

Auto = Literal["auto"]
"""Type of the value of a setting that is derived from the text or the machine when it is used."""
Open = TypeVar("Open", default=Auto, covariant=True)
"""Type parameter of settings that the dial always resolves: ``Auto`` in the user's settings, ``Never`` in resolved."""
AUTO: Any = "auto"
"""Default of a setting of type ``X | Open``."""


class Change(Enum):
    """When the user may change a setting of an existing run; the values are words of messages."""

    OBSERVING = "on a resume"
    """It does not change the training, only what is logged or saved, and when the run stops."""
    STEERING = "on a resume: the training changes from there on"
    """It changes the training. The run's manifest records from which step on."""
    FORK = "in a fork"
    """It makes another run, but with weights of the same shape: a fork can start from the old weights."""
    NEVER = "in a new run"
    """The weights of the run cannot be used with another value."""


class Compared(Enum):
    """Mark of a setting for runs that are compared over seeds. Unmarked settings must be equal in all of them."""

    MAY_DIFFER = "may differ"
    """The seed, and settings that do not change the training."""


class Section(BaseModel):
    """A group of settings. Frozen; unknown names are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
    change: ClassVar[Change] = Change.FORK
    """When its settings may be changed, unless a setting has its own mark."""

    def __class_getitem__(cls, item: Any) -> Any:
        """Return the class itself: only mypy distinguishes ``Settings[Never]`` from ``Settings``, not pydantic."""
        return cls


_T = TypeVar("_T")
Observing = Annotated[_T, Change.OBSERVING]
Steering = Annotated[_T, Change.STEERING]
Fixed = Annotated[_T, Change.NEVER]
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
    """Join a list of names with commas. Any other value is returned unchanged, and validated by pydantic afterwards."""
    is_list_of_names = isinstance(value, list | tuple) and all(isinstance(name, str) for name in value)
    return ",".join(value) if is_list_of_names else value


Names = Annotated[str, BeforeValidator(_joined)]
Rules = Annotated[
    tuple[str, ...], BeforeValidator(lambda value: value.split(",") if isinstance(value, str) else value)
]
Delimiter = Annotated[str, Field(pattern=r'^(auto|comma|semicolon|tab|pipe|[^"\r\n])$')]


def _compiled(value: str) -> str:
    """Return a regular expression, once it is known to be one."""
    try:
        re.compile(value)
    except re.error as error:
        raise ValueError(f"not a regular expression ({error})") from None
    return value


Pattern = Annotated[str, AfterValidator(_compiled)]
FamilyName = Annotated[str, AfterValidator(partial(known_name, MODEL_FAMILIES, "model.preset"))]
ObjectiveName = Annotated[str, AfterValidator(partial(known_name, OBJECTIVES, "train.objective"))]


def _known_rule(value: str) -> str:
    """Return the name of an update rule, or ``"auto"``, which the dial replaces."""
    return value if value == AUTO else known_name(UPDATE_RULES, "train.optimizer", value)


UpdateRuleName = Annotated[str, AfterValidator(_known_rule)]
