"""Types of settings: the values that each may have, with their bounds."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from etude.errors import InputError
from etude.registry import MODEL_FAMILIES, OBJECTIVES, UPDATE_RULES, Registry

Auto = Literal["auto"]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Count = Annotated[int, Field(ge=1, le=2**48)]
WeightDecay = Annotated[float, Field(ge=0)]
MOST_THREADS = 1024
Threads = Annotated[int, Field(ge=1, le=MOST_THREADS)]
ContextLength = Annotated[int, Field(ge=2, le=2**24)]
ByteVocabulary = Annotated[int, Field(ge=257, le=2**24)]
Decay = Annotated[float, Field(ge=0, lt=1)]
Rate = Annotated[float, Field(gt=0)]


def _registered(registry: Registry[Any], key: str) -> AfterValidator:
    """Accept the names in ``registry`` for the setting ``key``; InputError names those there are."""

    def require(name: str) -> str:
        try:
            registry.require(name)
        except InputError as error:
            raise InputError(f"setting '{key}': {error}") from None
        return name

    return AfterValidator(require)


def _joined(value: Any) -> Any:
    """Return a list of names as one string; anything else as it is, for the validation that follows to judge."""
    is_names = isinstance(value, list | tuple) and all(isinstance(name, str) for name in value)
    return ",".join(value) if is_names else value


Names = Annotated[str, BeforeValidator(_joined)]
Rules = Annotated[
    tuple[str, ...], BeforeValidator(lambda value: value.split(",") if isinstance(value, str) else value)
]
Delimiter = Annotated[str, Field(pattern=r'^(auto|comma|semicolon|tab|pipe|[^"\r\n])$')]
FamilyName = Annotated[str, _registered(MODEL_FAMILIES, "model.preset")]
ObjectiveName = Annotated[str, _registered(OBJECTIVES, "train.objective")]
UpdateRuleName = Annotated[str, _registered(UPDATE_RULES, "train.optimizer")]
