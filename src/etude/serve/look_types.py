"""Types of the questions that the page asks about a run, and of their answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NotRequired

from typing_extensions import TypeAliasType, TypedDict

from etude.watch.step_types import (
    ProofAnswer,
    RuleAnswer,
    StepAnswer,
    TokenAnswer,
    UnitAnswer,
    WeightStepAnswer,
)
from etude.watch.text_types import (
    AttributionAnswer,
    CompareAnswer,
    Guess,
    NodeAnswer,
    NodeInTextAnswer,
    PromptBase,
    StoryAnswer,
)

What = TypeAliasType("What", Literal["before", "gradient", "update", "after", "since_start", "product"])
"""What is shown of a tensor in a step; "product" is what an adapter adds to a matrix, before the step."""


class MatrixAnswer(TypedDict):
    """A tensor as a matrix.

    Attributes:
        proof: None for a model without a run.
        since: the step that "since_start" counts from.
        shape: of the whole tensor.
        rows: the rows that are given.
        bin: every cell is the mean of so many rows by columns; [1, 1] where none are merged.
        tensors: key of a file with "values" (rows, columns) and, where binned, "spread" of the same shape.
    """

    step: int
    name: str
    what: What
    since: int
    shape: tuple[int, int]
    rows: tuple[int, int]
    bin: tuple[int, int]
    tensors: str
    norm: float
    proof: ProofAnswer | None


class WeightAnswer(TypedDict):
    """One number of a tensor in one step."""

    name: str
    index: list[int]
    shape: list[int]
    at: WeightStepAnswer


class RulesAnswer(TypedDict):
    """The update rules of a run."""

    rules: list[RuleAnswer]


class HeldOutText(TypedDict):
    """The beginning of a held-out document."""

    name: str
    text: str


class PassagesAnswer(TypedDict):
    """Texts that the model does not learn from."""

    passages: list[HeldOutText]


class HeadAnswer(TypedDict):
    """Shares of a head's attention along a text; None where not finite.

    Attributes:
        previous: to the token just before.
        first: to the first token.
        itself: to the token itself.
        entropy: nats; 0 where all goes to one token.
        here: to the tokens that followed earlier occurrences of the query's token in this text; None if too few did.
        kind: what it does most.
    """

    layer: int
    head: int
    previous: float | None
    first: float | None
    itself: float | None
    entropy: float | None
    here: float | None
    kind: str


class HeadPattern(TypedDict):
    """The attention pattern of a head, (query, key)."""

    layer: int
    head: int
    pattern: list[list[float | None]]


class PromptAnswer(PromptBase):
    """A text on its way through the network of a step.

    Attributes:
        drawn: the patterns of some heads, kind by kind; the look "head" gives that of another.
        choice: how many heads are drawn, of how many, and why those.
        sinks: how many heads look at the first token, and why; empty where none does.
        guesses_along: behind every token.
        proof: None at a checkpoint that was loaded without a replay.
    """

    guesses_along: list[list[Guess]]
    heads: NotRequired[list[HeadAnswer]]
    drawn: NotRequired[list[HeadPattern]]
    choice: NotRequired[str]
    sinks: NotRequired[str]
    proof: ProofAnswer | None


class NeuronsAnswer(TypedDict):
    """A layer of F neurons along a text of T tokens.

    Attributes:
        tensors: key of a file with "post" (T, F), the activations, and "pre" (T, F), the sums.
        incoming: (F,) length of the weights that each reads with.
        outgoing: (F,) length of the weights that each writes with.
        change: (F,) length of the change of `incoming` weights since the first checkpoint.
    """

    step: int
    layer: str
    tokens: list[str]
    tensors: str
    incoming: list[float]
    outgoing: list[float]
    change: list[float] | None
    proof: ProofAnswer | None


class StreamAlong(TypedDict):
    """The length of the residual stream at each token, at a place of the network; None where not finite."""

    name: str
    norm: list[float | None]


class ParameterFacts(TypedDict):
    """A tensor of the network: its shape, and the length, mean and standard deviation of its numbers."""

    name: str
    shape: list[int]
    norm: float | None
    mean: float | None
    deviation: float | None


class LayersAnswer(TypedDict):
    """A text on its way up the layers, and the tensors of the network."""

    tokens: list[str]
    stream: list[StreamAlong]
    parameters: list[ParameterFacts]


class ValueAnswer(TypedDict):
    """One number of a tensor, and where it lies among the others.

    Attributes:
        share_smaller: share of the tensor's numbers that are smaller in size.
    """

    name: str
    index: list[int]
    shape: list[int]
    value: float
    share_smaller: float
    mean: float
    deviation: float


class VersionFacts(TypedDict):
    """A saved version of a model.

    Attributes:
        name: of its folder.
        same_as: the step of an earlier version with the same weights; None without one.
        weights: hash of its weights, if they are those of an earlier version.
    """

    step: int
    name: str
    same_as: int | None
    weights: str | None


class VersionsAnswer(TypedDict):
    """The saved versions of a model, in the order of steps."""

    versions: list[VersionFacts]


class ForkAnswer(TypedDict):
    """A new run that starts from a step with some numbers turned."""

    run: str
    step: int
    turned: list[str]


class ChatAnswer(TypedDict):
    """A whole continuation, or answer in a conversation, and why it ended."""

    text: str
    finish: Literal["eos", "length", "context", "stop"]
    where: str


ANSWERS: Mapping[str, type] = {
    "step": StepAnswer,
    "token": TokenAnswer,
    "unit": UnitAnswer,
    "weight": WeightAnswer,
    "matrix": MatrixAnswer,
    "rules": RulesAnswer,
    "passages": PassagesAnswer,
    "prompt": PromptAnswer,
    "head": HeadPattern,
    "layers": LayersAnswer,
    "value": ValueAnswer,
    "node_in_text": NodeInTextAnswer,
    "attribution": AttributionAnswer,
    "story": StoryAnswer,
    "neurons": NeuronsAnswer,
    "node": NodeAnswer,
    "compare": CompareAnswer,
    "versions": VersionsAnswer,
    "fork": ForkAnswer,
    "chat": ChatAnswer,
}
"""The type of the answer to each look."""


class ChatMessage(TypedDict):
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: str


class Question(TypedDict):
    """A question about a run, besides its `look`; which fields are needed depends on that.

    For a model in several saved versions, `step` chooses one of them.

    step:        step, row                            token:  step, row, position
    unit:        step, row, position, layer, unit, [input]
    weight:      step, name, index                    matrix: step, name, what, [rows]
    prompt:      text, [step]                         attribution: text, [step]
    head:        text, [step], layer, head            node_in_text: text, layer, unit (of a model)
    layers:      text (of a model)                    value:  name, index (of a model)
    story:       text, [steps]                        neurons: step, layer, text
    node:        step, layer, unit                    compare: text, [step], knobs
    fork:        step, knobs, name                    versions: (of a model in several)
    chat:        text or messages, [step], temperature, top_p, seed, count, [taken] or [retries]

    `ids` in place of `text` are exactly the tokens to read.
    """

    run: str
    step: NotRequired[int]
    row: NotRequired[int]
    position: NotRequired[int]
    layer: NotRequired[int]
    head: NotRequired[int]
    unit: NotRequired[int]
    input: NotRequired[int]
    name: NotRequired[str]
    index: NotRequired[list[int]]
    what: NotRequired[What]
    rows: NotRequired[tuple[int, int]]
    text: NotRequired[str]
    steps: NotRequired[list[int]]
    knobs: NotRequired[list[str]]
    temperature: NotRequired[float]
    top_p: NotRequired[float]
    seed: NotRequired[int]
    count: NotRequired[int]
    taken: NotRequired[list[int]]
    ids: NotRequired[list[int]]
    messages: NotRequired[list[ChatMessage]]
    retries: NotRequired[int]


class ProgressOf(TypedDict):
    """How far a piece of work is."""

    doing: str
    done: int
    of: int


class Progress(TypedDict):
    """A line before the answer: how far it is."""

    progress: ProgressOf


class BusyWith(TypedDict):
    """How many of this machine's cores other programs keep busy."""

    others: float
    cores: int


class Busy(TypedDict):
    """A line before the answer: other programs hold the processors, so the answer takes longer."""

    busy: BusyWith


class Candidate(TypedDict):
    """A next token with the model's own probability, before temperature and top-p."""

    id: int
    text: str
    probability: float


class NewToken(Candidate):
    """The token that was drawn, and the likeliest ones."""

    others: list[Candidate]


class TokenLine(TypedDict):
    """A line before the answer to "chat": the next token."""

    token: NewToken


class ConversationTokens(TypedDict):
    """What a model reads of a conversation before it answers.

    Attributes:
        ids: its tokens, with those that the chat template writes.
        dropped: how many of the oldest exchanges do not fit the context.
    """

    ids: list[int]
    dropped: int


class ConversationLine(TypedDict):
    """A line before the tokens of an answer in a conversation."""

    conversation: ConversationTokens


class Failure(TypedDict):
    """What went wrong, as one line that says what to do instead."""

    error: str
