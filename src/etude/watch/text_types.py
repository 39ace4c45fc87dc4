"""Types of the answers about a network that reads a text, and about its neurons; see :mod:`etude.watch.step_types`."""

from __future__ import annotations

from typing import NotRequired

from typing_extensions import TypedDict

from etude.watch.step_types import ArithmeticAnswer, ProofAnswer


class Guess(TypedDict):
    """One token of a predicted distribution."""

    token: int
    text: str
    probability: float


class ContributionsAnswer(TypedDict):
    """What each part of the network adds to one logit."""

    terms: dict[str, float]
    logit: float
    unexplained: float


class InductionAnswer(TypedDict):
    """Induction scores by layer and head, and what a head that looks everywhere alike would have."""

    scores: list[list[float | None]]
    chance: float


class PromptBase(TypedDict):
    """A text on its way through the network, without the attribution, which takes long.

    Attributes:
        losses: of every token but the first.
        lens: (layers + 1, tokens) probability of the token that comes next, after each layer.
    """

    where: str
    tokens: list[str]
    ids: list[int]
    losses: list[float]
    guesses: list[Guess]
    contributions: ContributionsAnswer
    lens: NotRequired[list[list[float]]]
    induction: NotRequired[InductionAnswer]


class AttributionAnswer(TypedDict):
    """How much each token of a text supports the most likely next token."""

    token: str
    logit: float
    gradient_times_input: list[float]
    ablation: list[float]


class LikeliestToken(TypedDict):
    """The likeliest next token."""

    text: str
    probability: float


class StoryAnswer(TypedDict):
    """A text read at checkpoints.

    Attributes:
        losses: (steps, tokens - 1).
        likeliest: at every step, behind every token but the last.
    """

    tokens: list[str]
    steps: list[int]
    losses: list[list[float | None]]
    likeliest: list[list[LikeliestToken]]


class TokenEffect(TypedDict):
    """What one unit of a neuron's activation adds to a token's logit, over the mean of the vocabulary."""

    token: str
    value: float


class Passage(TypedDict):
    """A token of the held-out text with a neuron's activation there.

    Attributes:
        token_ids: all that the network had read there, the token itself last.
    """

    value: float
    before: str
    token: str
    after: str
    place: int
    document: str
    token_ids: list[int]


class Moment(TypedDict):
    """A neuron at a checkpoint: its activation over held-out text, and the lengths of its weights."""

    step: int
    mean: float
    std: float
    max: float
    share_active: float
    norm_in: float
    norm_up: float | None
    norm_out: float


class NodeGradient(TypedDict):
    """The gradient of a neuron's weights in the next step."""

    weights: list[float]
    bias: float | None
    outgoing: list[float]


class NodeAnswer(TypedDict):
    """A neuron at a step: its weights, what activates it, what it promotes, and its history.

    Attributes:
        gradient: None after the last recorded step.
        history: at every checkpoint, over the same sample of held-out text.
    """

    step: int
    layer: str
    unit: int
    weights: list[float]
    bias: float | None
    up_weights: list[float] | None
    up_bias: float | None
    outgoing: list[float]
    gradient: NodeGradient | None
    promoted: list[TokenEffect]
    suppressed: list[TokenEffect]
    most: list[Passage]
    least: list[Passage]
    share_active: float
    dead: bool
    arithmetic: ArithmeticAnswer
    history: list[Moment]
    came_alive: int | None
    died: int | None
    proof: ProofAnswer


class NodeInTextAnswer(TypedDict):
    """A neuron along a text; `position` is where its activation is largest."""

    layer: str
    unit: int
    tokens: list[str]
    activation: list[float]
    promoted: list[TokenEffect]
    suppressed: list[TokenEffect]
    position: int
    arithmetic: ArithmeticAnswer


class NextToken(TypedDict):
    """The probability of a next token without and with the knobs."""

    token: str
    before: float
    after: float


class CompareAnswer(TypedDict):
    """A text read by the network and by a copy whose knobs are turned."""

    where: str
    tokens: list[str]
    knobs: list[str]
    losses_before: list[float]
    losses_after: list[float]
    divergence: list[float]
    next: list[NextToken]
