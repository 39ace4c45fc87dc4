"""Types of the answers about a step of a tuned run: the parts of a row, and what an adapter adds to a matrix."""

from __future__ import annotations

from typing import Literal

from typing_extensions import TypedDict


class RowPart(TypedDict):
    """Tokens of a row that belong together: an example, one of the two conversations of a pair, or padding.

    Attributes:
        first: the position of the first.
        trained: for each token that is read, whether the loss counts its prediction.
        last: the token that is predicted after them and not read, such as an end of turn; None where none counts.
    """

    kind: Literal["example", "chosen", "rejected", "padding"]
    first: int
    trained: list[bool]
    last: str | None


class LowRankAnswer(TypedDict):
    """What an adapter adds to one number of a matrix: the scale times a row of B times a column of A.

    Attributes:
        base: the frozen weight.
        up_name, down_name: the parameters B and A.
        up, down: the row of B and the column of A before the step.
        product: what is added before the step.
        share: the size of the product over the sizes of product and frozen weight together.
        sum, sum_after: the weight that the layer computes with, before and after the step.
        gradient: of the loss by that weight: it was not applied to the frozen one.
    """

    base: float
    up_name: str
    down_name: str
    up: list[float]
    down: list[float]
    scale: float
    product: float
    product_after: float
    share: float
    sum: float
    sum_after: float
    gradient: float


class AdaptedMatrixAnswer(TypedDict):
    """A frozen matrix W with an adapter, which computes with W + scale B A, by the lengths of its parts.

    Attributes:
        name: of the frozen parameter.
        up_name, down_name: the parameters B and A.
        grad_norm: of the gradient by W, which was not applied.
        product_norm: of scale B A, before the step.
        share: product_norm over weight_norm.
        moved: length of the change of scale B A in this step.
    """

    name: str
    shape: list[int]
    up_name: str
    down_name: str
    rank: int
    scale: float
    weight_norm: float
    grad_norm: float
    product_norm: float
    share: float | None
    moved: float
