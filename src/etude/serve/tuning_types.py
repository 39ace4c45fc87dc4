"""Types of what the page shows of a tuning: what it gained and cost."""

from __future__ import annotations

from typing_extensions import TypedDict


class TuningFigure(TypedDict):
    """A figure with its 95 % interval; None where it has none."""

    value: float
    low: float | None
    high: float | None


class TuningSystem(TypedDict):
    """What the base, with a number of examples before each question, or the tuned model does with held-out questions.

    Attributes:
        loss: nats per trained token of the held-out answers.
        right: share of right answers among the short ones.
        ended: share of answers that ended by themselves.
        copies: share of answers that equal a training answer.
        wrong_copies: share of these that are not right.
    """

    name: str
    loss: TuningFigure
    right: TuningFigure | None
    ended: float | None
    copies: float | None
    wrong_copies: float | None


class TuningNull(TypedDict):
    """The share of right answers of a rule without a language model, which a classification is compared with."""

    name: str
    right: TuningFigure


class TuningKind(TypedDict):
    """The share of right answers to one kind of question.

    Attributes:
        asked: questions of this kind.
        prompted: of the base with its best prompt.
    """

    name: str
    asked: int
    base: TuningFigure
    prompted: TuningFigure
    tuned: TuningFigure


class TuningText(TypedDict):
    """Bits per byte on a reference text before and after tuning."""

    name: str
    base: float
    tuned: float
    rise: TuningFigure


class TuningPairs(TypedDict):
    """The base, or the model tuned on pairs, on held-out pairs of a chosen and a rejected answer.

    Attributes:
        won: share of pairs whose chosen answer is the more probable one.
        gained: share of pairs whose chosen answer gained on the rejected one since the base; None for the base.
        chosen: log-probability of a token of the chosen answers, nats.
        rejected: the same of the rejected answers.
    """

    name: str
    won: TuningFigure
    gained: TuningFigure | None
    chosen: TuningFigure
    rejected: TuningFigure


class TuningProbe(TypedDict):
    """The share of right answers to a probe of general abilities before and after tuning.

    Attributes:
        asks: what is asked, in a sentence.
    """

    name: str
    asks: str
    chance: float
    items: int
    base: TuningFigure
    tuned: TuningFigure
    change: TuningFigure


class TuningStep(TypedDict):
    """What a tuning gained and cost at one step.

    Attributes:
        asked: held-out questions, or pairs.
        best_examples: in the base's best prompt.
        systems: the base without a prompt first, the tuned model last; none for a run on pairs.
        nulls: rules without a language model, of a classification; else none.
        kinds: of questions, where the data name them; else none.
        pairs: the base and the tuned model, of a run on pairs; else none.
        pair_changes: of the log-probabilities of chosen and of rejected answers, per token; else none.
        probes: general abilities; none where they were not asked.
        probes_dropped: whether they were not asked for want of time.
    """

    step: int
    base: str
    asked: int
    best_examples: int
    systems: list[TuningSystem]
    nulls: list[TuningNull]
    kinds: list[TuningKind]
    pairs: list[TuningPairs]
    pair_changes: list[TuningFigure]
    texts: list[TuningText]
    probes: list[TuningProbe]
    probes_dropped: bool
    claims: list[str]
    verdict: str
    error_rates: str
