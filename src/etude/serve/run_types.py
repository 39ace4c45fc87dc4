"""Types of what the page shows of a run without a question: facts, log lines, abilities, verdicts, code."""

from __future__ import annotations

from typing import Literal, NotRequired

from typing_extensions import TypedDict

from etude.run.state import State


class RunLine(TypedDict):
    """A run, or a model without a run, in the list.

    Attributes:
        state: "model" for a model without a run, "history" for several saved versions of one.
        loss: of its last step, nats per token.
        val_loss: of its last evaluation.
        changed: seconds since 1970.
    """

    name: str
    state: State | Literal["model", "history"]
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


class PublishedFacts(TypedDict):
    """What is known of a model that has no run, from the files beside its weights.

    Attributes:
        source: the file or the place that it came from; empty if it is not recorded.
        licence: as stated; None if it is not.
        rounding: number formats that its weights were rounded to; None if they were not.
        chat_template: whether it has one.
        train: the command that continues its training on a text.
    """

    source: str
    licence: str | None
    rounding: str | None
    chat_template: bool
    train: str


class HistoryFacts(TypedDict):
    """Several saved versions of a model, whose training Etude did not record.

    Attributes:
        note: what is not known.
        evaluate: the command that scores every version.
    """

    note: str
    evaluate: str


class BaseFacts(TypedDict):
    """The model that a run began with.

    Attributes:
        name: how the user named it, without the folders before it.
        step: its step, if Etude trained it.
    """

    name: str
    step: int | None


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
    """What the page knows of a run, or of a model without one, before it asks anything.

    A model without a run has one checkpoint, of step 0, and no record. One in several saved versions has a checkpoint
    for each; the other facts are those of the last.

    Attributes:
        published: None for a run.
        history: None for a run, and for a model in one version.
        base: None for a run that began with random weights.
        reason: why it ended.
        heartbeat: seconds since 1970.
        now: the server's clock.
        control: whether this page may pause the training, and so on.
        fork: whether this page may write a new run beside it.
        uniform_loss: ln V, nats per token.
        ladder: the weakest first.
        first_step: the first that can be opened.
        turns: whether it has a chat template, and so answers in a conversation.
    """

    name: str
    state: State | Literal["model", "history"]
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
    published: PublishedFacts | None
    history: HistoryFacts | None
    base: BaseFacts | None
    optimizer: str
    sources: list[str]
    uniform_loss: float | None
    ladder: list[Rung]
    checkpoints: list[int]
    first_step: int
    last_step: int
    compiled: bool
    turns: bool


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
        event: step, eval, reference, preference, reward, rung, summary, spike, left_out (a skipped step), checkpoint,
            length, micro_batch, checksum, end.
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
    digest: NotRequired[str]
    accuracy: NotRequired[float]
    chosen: NotRequired[float]
    rejected: NotRequired[float]
    num_pairs: NotRequired[int]
    right: NotRequired[float]
    ended: NotRequired[float]
    mixed: NotRequired[float]
    tokens: NotRequired[float]
    divergence: NotRequired[float | None]
    num_answers: NotRequired[int]
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
    """A verdict of the doctor on a run: its finding, and the rule behind it."""

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
