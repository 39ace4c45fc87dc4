"""Everything that the studio's server answers, and the questions that the page may ask.

GET  api/runs                        RunLine[]
GET  api/runs/NAME                   RunFacts
GET  api/runs/NAME/rows?from=A,B     Rows: lines of metrics.jsonl and samples.jsonl behind byte offsets A and B
GET  api/runs/NAME/abilities         Ability[]
POST api/runs/NAME/control           {action}: answers {}; only where RunFacts.control is true
POST api/runs/NAME/doctor            Verdict[]: those of `etude doctor RUN`, after some seconds
POST api/ask                         a Question; lines of JSON: any Progress and TokenLine, then {answer} or Failure
GET  api/tensors/KEY                 a file of safetensors, which the page reads in parts by Range
GET  api/source?of=FILE:NAME         Source: a function or class of Etude's own code, as it is installed

All of these need the token, which opening the printed address exchanges for a cookie; without it they answer 401.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NotRequired

from typing_extensions import TypeAliasType, TypedDict

from etude.run.state import State
from etude.watch.answer_types import (
    AttributionAnswer,
    CompareAnswer,
    Guess,
    NodeAnswer,
    PromptBase,
    ProofAnswer,
    RuleAnswer,
    StepAnswer,
    StoryAnswer,
    TokenAnswer,
    UnitAnswer,
    WeightStepAnswer,
)


class RunLine(TypedDict):
    """A run in the list of runs.

    Attributes:
        loss: of its last step, nats per token.
        val_loss: of its last evaluation.
        changed: seconds since 1970.
    """

    name: str
    state: State
    step: int
    loss: float | None
    val_loss: float | None
    bits_per_byte: float | None
    changed: float


class NodeLayerFacts(TypedDict):
    """A layer of neurons.

    Attributes:
        path: what it is called, such as model.layers.2.mlp.
        units: how many neurons it has.
        inputs: how many numbers each of them reads.
        gate: the linear layer that the activation function follows; a row of its weight is a neuron.
        up: the linear layer that a gate lets through; None where nothing is gated.
        out: the linear layer with which neurons write; a column of its weight is a neuron.
        drops_units: whether dropout drops neurons, and not the numbers that they add to.
    """

    path: str
    units: int
    inputs: int
    gate: str
    up: str | None
    out: str
    drops_units: bool


class ModelFacts(TypedDict):
    """The network of a run, in the same words for all families.

    Attributes:
        attention: whether it has attention heads and a residual stream.
        width: D, the length of a token's embedding.
        nodes: neurons in each layer of them.
        vocabulary: V.
        window: tokens whose embeddings a position reads side by side; 1 where attention brings in the others.
    """

    family: str
    attention: bool
    layers: int
    width: int
    nodes: int
    heads: int
    kv_heads: int
    vocabulary: int
    context: int
    activation: str
    gated: bool
    biases: bool
    parameters: int
    tied: bool
    window: int
    node_layers: list[NodeLayerFacts]


class Rung(TypedDict):
    """An earlier kind of language model on the same held-out text.

    Attributes:
        order: 0 for pure guessing, 1 for the frequency of each symbol, n for a symbol after n - 1 others.
        loss: nats per token of this run's tokens.
    """

    order: int
    name: str
    loss: float
    bits_per_byte: float


class RunFacts(TypedDict):
    """What the page knows of a run before it asks anything.

    Attributes:
        reason: why it ended.
        heartbeat: seconds since 1970.
        now: the server's clock.
        control: whether this page may pause the training, and so on.
        fork: whether this page may write a new run beside it.
        uniform_loss: ln V, nats per token.
        ladder: the weakest first.
        first_step: the first that can be opened.
    """

    name: str
    state: State
    step: int
    num_steps: int | None
    reason: str
    heartbeat: float | None
    now: float
    paused: bool
    control: bool
    fork: bool
    schema_known: bool
    model: ModelFacts | None
    optimizer: str
    sources: list[str]
    uniform_loss: float | None
    ladder: list[Rung]
    checkpoints: list[int]
    first_step: int
    last_step: int
    compiled: bool


class TensorNorms(TypedDict):
    """A tensor in a summary."""

    weight_norm: float | None
    grad_norm: float | None
    update_norm: float | None
    update_ratio: float | None


class StepSeconds(TypedDict):
    """How long the parts of a step took."""

    batch: float
    forward: float
    backward: float
    update: float


class MetricRow(TypedDict):
    """A line of metrics.jsonl, with the fields that the page reads; which are there depends on `event`.

    Attributes:
        event: step, eval, rung, summary, spike, left_out (a skipped step), checkpoint, length, micro_batch,
            checksum, end.
    """

    event: str
    step: int
    tokens_seen: int
    wall_time: float
    loss: NotRequired[float | None]
    grad_norm: NotRequired[float | None]
    lr: NotRequired[float | None]
    tokens_per_second: NotRequired[float | None]
    val_loss: NotRequired[float | None]
    bits_per_byte: NotRequired[float | None]
    order: NotRequired[int]
    num_steps: NotRequired[int]
    usual: NotRequired[float | None]
    reason: NotRequired[str]
    tensors: NotRequired[dict[str, TensorNorms]]
    attention_entropy: NotRequired[list[list[float | None]]]
    dead_units: NotRequired[list[float]]
    seconds: NotRequired[StepSeconds]


class SampleRow(TypedDict):
    """A line of samples.jsonl."""

    event: Literal["sample"]
    step: int
    prompt: str
    text: str


class Rows(TypedDict):
    """New lines of a run's logs.

    Attributes:
        reset: the record is another one than before: forget what was read.
        cursor: for the next request.
        more: more can be read at once.
        every: of a long record only every so many-th step is sent; all other events are.
    """

    reset: bool
    cursor: str
    more: bool
    every: int
    metrics: list[MetricRow]
    samples: list[SampleRow]


class Ability(TypedDict):
    """A probe of an ability, with its scores by step.

    Attributes:
        counting: the share that is right by counting alone.
        random: the share that is right with random weights.
        low: lower end of the confidence interval of `right`.
        high: its upper end.
        probability: of the right answer among the candidates, geometric mean.
    """

    title: str
    asks: str
    held_out: str
    chance: float
    num_items: int
    label: str
    num_parameters: int
    counting: float | None
    random: float | None
    steps: list[int]
    right: list[float]
    low: list[float]
    high: list[float]
    probability: list[float]
    exact: list[float | None]
    independent: list[float | None]


class Verdict(TypedDict):
    """What the doctor says of a run: its finding, and the rule behind it."""

    rule: str
    severity: Literal["problem", "notice", "fine", "not judged"]
    finding: str
    statement: str
    advice: str


class Source(TypedDict):
    """A piece of Etude's own code."""

    file: str
    first_line: int
    text: str


What = TypeAliasType("What", Literal["before", "gradient", "update", "after", "since_start"])
"""What is shown of a tensor in a step."""


class MatrixAnswer(TypedDict):
    """A tensor as a matrix.

    Attributes:
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
    proof: ProofAnswer


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
    """

    layer: int
    head: int
    previous: float | None
    first: float | None
    itself: float | None
    entropy: float | None


class PromptAnswer(PromptBase):
    """A text on its way through the network of a step.

    Attributes:
        guesses_along: behind every token.
        proof: None at a checkpoint that was loaded without a replay.
    """

    guesses_along: list[list[Guess]]
    heads: NotRequired[list[HeadAnswer]]
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


class ForkAnswer(TypedDict):
    """A new run that starts from a step with some numbers turned."""

    run: str
    step: int
    turned: list[str]


class ChatAnswer(TypedDict):
    """A whole continuation, and why it ended."""

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
    "attribution": AttributionAnswer,
    "story": StoryAnswer,
    "neurons": NeuronsAnswer,
    "node": NodeAnswer,
    "compare": CompareAnswer,
    "fork": ForkAnswer,
    "chat": ChatAnswer,
}
"""The type of the answer to each look."""


class Question(TypedDict):
    """A question about a run, besides its `look`; which fields are needed depends on that.

    step:        step, row                            token:  step, row, position
    unit:        step, row, position, layer, unit, [input]
    weight:      step, name, index                    matrix: step, name, what, [rows]
    prompt:      text, [step]                         attribution: text, [step]
    story:       text, [steps]                        neurons: step, layer, text
    node:        step, layer, unit                    compare: text, [step], knobs
    fork:        step, knobs, name
    chat:        text, [step], temperature, top_p, seed, count, [taken]
    """

    run: str
    step: NotRequired[int]
    row: NotRequired[int]
    position: NotRequired[int]
    layer: NotRequired[int]
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


class ProgressOf(TypedDict):
    """How far a piece of work is."""

    doing: str
    done: int
    of: int


class Progress(TypedDict):
    """A line before the answer: how far it is."""

    progress: ProgressOf


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


class Failure(TypedDict):
    """What went wrong, as one line that says what to do instead."""

    error: str
