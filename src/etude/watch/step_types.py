"""Types of the answers about a step of training: what ``etude inspect --json`` prints and the studio's page draws.

Each is a dictionary with fixed keys, in this order. The page's TypeScript is generated from these classes
(:mod:`etude.serve.typescript`). In JSON a number that is not finite is null; a field is declared as such where the page
handles it.
"""

from __future__ import annotations

from typing import Literal, NotRequired

from typing_extensions import TypeAliasType, TypedDict

from etude.device import Dtype
from etude.watch.tuned_types import AdaptedMatrixAnswer, LowRankAnswer, RowPart

FormulaOf = TypeAliasType(
    "FormulaOf",
    tuple[Literal["sqrt", "sign"], "Formula"] | tuple[Literal["+", "-", "*", "/", "^"], "Formula", "Formula"],
)
"""An operation and the formulas that it is applied to."""

Formula = TypeAliasType("Formula", float | str | FormulaOf)
"""A number, a name, or an operation on formulas.

A name is ``clipped`` (the clipped gradient), ``state.LEAF`` (before the update), or the symbol of an earlier term.
"""


class ProofAnswer(TypedDict):
    """How a replay compares with the record of the run."""

    holds: bool
    from_step: int
    steps_compared: int
    checksums_equal: int
    largest_loss_difference: float
    largest_norm_difference: float
    other_machine: list[str]
    text: str


class TermAnswer(TypedDict):
    """A line of an update rule's arithmetic.

    Attributes:
        formula: None where the value does not follow from this number alone; `note` says where it comes from.
        leaf: of the rule's state, which holds this value after the update.
    """

    symbol: str
    words: str
    formula: Formula | None
    value: float
    leaf: str | None
    note: str


class WeightStepAnswer(TypedDict):
    """What one step made of one number.

    Attributes:
        state_before: by leaf of the rule's state, such as exp_avg.
        rule_title: the rule's usual name.
        rule_summary: a sentence on how the rule moves a weight, or nothing.
        terms: from the clipped gradient to the direction, which is the last.
        orthogonal: Muon's orthogonalised momentum; None for other rules.
    """

    step: int
    before: float
    gradient: float
    clip_factor: float
    state_before: dict[str, float]
    state_after: dict[str, float]
    rule: str
    rule_title: str
    rule_summary: str
    lr: float
    weight_decay: float
    betas: list[float]
    eps: float
    momentum: float
    applied: bool
    decay: float
    terms: list[TermAnswer]
    orthogonal: float | None
    scale: float
    direction: float
    update: float
    after: float
    by_the_rule: float
    difference: float
    proof: str
    low_rank: NotRequired[LowRankAnswer]  # of a matrix with an adapter


class ParameterAnswer(TypedDict):
    """A tensor of weights in one step, by the lengths of its parts."""

    name: str
    shape: list[int]
    rule: str
    rule_title: str
    lr: float
    weight_decay: float
    weight_norm: float
    grad_norm: float
    update_norm: float
    update_ratio: float | None


class RowSource(TypedDict):
    """A row of a batch and the documents in it."""

    row: int
    documents: list[str]


class RowToken(TypedDict):
    """A token of a row: read, predicted, desired.

    Attributes:
        desired: None where the loss does not count the prediction.
    """

    position: int
    read: str
    likeliest: str
    likeliest_probability: float
    desired: str | None
    desired_probability: float | None
    loss: float


class StepToken(RowToken):
    """A token of a row, and the loss of the same prediction with the weights after the update."""

    loss_after: float | None


class StreamAnswer(TypedDict):
    """The length of one activation's vector at each position of a row, and that of the error there."""

    name: str
    norm: list[float]
    grad_norm: list[float]


class StepAnswer(TypedDict):
    """A step, and one row of its batch.

    Attributes:
        dtype: of the run's matrix products. In bf16 both factors and the result are rounded to 8 bits.
        loss: of the whole batch, nats per token.
        row_loss: of this row; None where the loss counts none of its tokens.
        row_loss_after: the same with the weights after the update.
        adapted: the matrices with an adapter, which are frozen; none for other runs.
        parts: of the row, by what is trained; none for a run on plain text.
    """

    step: int
    dtype: Dtype
    proof: ProofAnswer
    loss: float
    grad_norm: float
    clip_factor: float
    applied: bool
    num_rows: int
    num_targets: int
    rows: list[RowSource]
    parameters: list[ParameterAnswer]
    row: int
    row_loss: float | None
    row_loss_after: float | None
    adapted: list[AdaptedMatrixAnswer]
    tokens: list[StepToken]
    parts: list[RowPart]
    stream: list[StreamAnswer]


class GuessInStep(TypedDict):
    """A token that was predicted in a step: predicted, desired (1 or 0), and the error at its logit."""

    token: str
    probability: float
    desired: float
    error: float


class LogitsAnswer(TypedDict):
    """The two numbers of a loss in float64: loss = logsumexp - desired."""

    logsumexp: float
    desired: float | None


class StreamAtToken(TypedDict):
    """The length of one activation's vector at a position, and that of the error there."""

    name: str
    norm: float
    grad_norm: float


class TokenAnswer(TypedDict):
    """One prediction of a step."""

    step: int
    dtype: Dtype
    row: int
    position: int
    context: str
    desired: str | None
    probability: float
    rank: int
    vocabulary: int
    loss: float
    guesses: list[GuessInStep]
    logits: LogitsAnswer
    stream: list[StreamAtToken]
    proof: ProofAnswer


class SumTerm(TypedDict):
    """One input of a neuron times its weight."""

    input: int
    value: float
    weight: float
    term: float


class WeightedSum(TypedDict):
    """One sum of a neuron: what it reads times its weights, plus its bias.

    Attributes:
        terms: the largest first.
        forward_pass: the sum that the forward pass had.
        dtype: values, weights and bias are as a product of this dtype read them.
    """

    terms: list[SumTerm]
    bias: float | None
    sum: float
    forward_pass: float
    dtype: Dtype


class ArithmeticAnswer(TypedDict):
    """A neuron at one token: its sums, and its activation."""

    gate: WeightedSum
    up: WeightedSum | None
    function: str
    activation: float
    difference: float


class ErrorAnswer(TypedDict):
    """The error at a neuron: each output weight times the error where it writes, summed, times the slope.

    Attributes:
        outgoing: (D,) the weights that it writes with, as the product read them.
        arriving: (D,) the error at the numbers that it writes to, likewise.
        at_activation: the sum of their products, as the backward pass had it.
        slope: how much the activation moves with the sum of the gate.
        at_sum: at_activation times slope, as the backward pass had it.
    """

    outgoing: list[float]
    arriving: list[float]
    at_activation: float
    slope: float
    at_sum: float


class PushesAnswer(TypedDict):
    """The pushes of all tokens of a batch on one weight: each is the token's error times its input.

    Attributes:
        up: sum of the pushes below zero, which raise the weight.
        down: sum of the pushes above zero, which lower it.
        size: sum of their sizes.
        rounded: size of all that was rounded to make them.
        total: their sum.
        gradient: the same as the run had it.
    """

    up: float
    down: float
    up_count: int
    down_count: int
    size: float
    rounded: float
    total: float
    gradient: float


class PushAnswer(TypedDict):
    """The push of one token on a weight."""

    row: int
    position: int
    token_id: int
    value: float
    error: float
    read: str
    push: float


class WeightOfUnit(TypedDict):
    """One weight of a neuron, the pushes on it, and its update."""

    input: int
    name: str
    index: list[int]
    pushes: PushesAnswer
    largest: list[PushAnswer]
    step: WeightStepAnswer


class BiasOfUnit(TypedDict):
    """The bias of a neuron and its update."""

    name: str
    index: list[int]
    step: WeightStepAnswer


class UnitAnswer(TypedDict):
    """A neuron at one token of a step.

    Attributes:
        layer: such as model.layers.1.mlp.
    """

    step: int
    row: int
    position: int
    layer: str
    unit: int
    read: str
    desired: str | None
    arithmetic: ArithmeticAnswer
    error: ErrorAnswer
    weight: WeightOfUnit
    bias: BiasOfUnit | None
    proof: ProofAnswer


class NamedSource(TypedDict):
    """The code of a function or class as it is installed."""

    name: str
    file: str
    first_line: int
    text: str


class RuleAnswer(TypedDict):
    """An update rule in words.

    Attributes:
        formulas: as text, such as m ← β₁ m + (1 - β₁) g.
    """

    name: str
    title: str
    picture: str
    stops: str
    words: str
    formulas: list[str]
    symbols: str
    code: list[NamedSource]
