"""Simulated studies of a tuning, question by question, to count how often the verdict is wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from etude.evaluate.tuning.verdict import Paired, Verdict, groups_of, verdict_of

TOKENS = 12


@dataclass(frozen=True)
class Study:
    """A study of `questions` about as many facts.

    base: share of right answers of the base with each number of examples, the first without any; tuned: of the tuned
    model; form: nats per token that the form saves; specific: nats per token by which tuning makes a question's own
    answer more likely than another's; base_specific: the same of the base with examples; short: whether answers can be
    compared exactly; wordings: questions for each fact.
    """

    questions: int = 24
    base: tuple[float, ...] = (0.0, 0.04, 0.04, 0.04)
    tuned: float = 0.04
    form: float = 1.0
    specific: float = 0.0
    base_specific: float = 0.0
    short: bool = True
    wordings: int = 1


def verdict(study: Study, seed: int, *, grouped: bool = True) -> Verdict:
    """Simulate one study, and return its verdict. Both models find the same questions hard."""
    random = np.random.default_rng([seed, study.questions])
    facts = [f"fact {at // study.wordings}" for at in range(study.questions)]
    questions = [f"question {at}" for at in range(study.questions)]
    groups = groups_of(facts, questions) if grouped else questions
    hard = np.repeat(random.normal(0, 0.5, -(-study.questions // study.wordings)), study.wordings)
    hard = hard[: study.questions]
    systems = [
        _system(study, random, share, 0.0, 0.0 if number == 0 else study.base_specific, hard)
        for number, share in enumerate(study.base)
    ]
    tuned = _system(study, random, study.tuned, study.form, study.specific, hard)

    def merit(at: int) -> float:  # the base's best prompt, chosen on the same questions
        if study.short:
            return float(sum(value is True for value in systems[at].exact))
        return float(np.mean([value for value in systems[at].contrast if value is not None]))

    best = max(range(len(systems)), key=merit)
    return verdict_of(groups, systems[0], systems[best], tuned, [])


def _system(
    study: Study,
    random: np.random.Generator,
    share: float,
    form: float,
    specific: float,
    hard: np.ndarray,
) -> Paired:
    own = 3.0 - form - specific + hard + random.standard_t(3, study.questions) * 0.3
    other = 3.0 - form + hard + random.standard_t(3, study.questions) * 0.3
    right = random.random(-(-study.questions // study.wordings)) < share  # a fact is known in every wording
    right = np.repeat(right, study.wordings)[: study.questions]
    ended = random.random(study.questions) < (0.95 if form else 0.3)
    return Paired(
        tuple((own * TOKENS).tolist()),
        (TOKENS,) * study.questions,
        tuple(other.tolist()),
        tuple(right.tolist()) if study.short else (None,) * study.questions,
        tuple(ended.tolist()) if study.short else (None,) * study.questions,
    )


def share_of(studies: Sequence[Verdict], claim: str) -> float:
    """Return the share of the verdicts that make a claim."""
    return sum(claim in study.claims for study in studies) / len(studies)
