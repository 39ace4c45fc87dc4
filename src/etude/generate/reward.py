"""The objective ``reward``: its answers are sampled as any other text is (:mod:`etude.train.objectives.reward`)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from etude.generate.chat_prompt import answer_ends
from etude.generate.engine import generate
from etude.generate.sampling import SamplingSettings
from etude.model.language_model import LanguageModel
from etude.train.objectives.checked_questions import Answer, require_checked
from etude.train.objectives.contract import ObjectiveKind, ObjectiveParts
from etude.train.objectives.conversation import trained_tokens
from etude.train.objectives.reward import Reward, make_reward


def sample_answers(
    model: LanguageModel,
    ends: frozenset[int],
    prompts: Sequence[Sequence[int]],
    seeds: Sequence[int],
    most_new: int,
) -> list[Answer]:
    """Sample an answer to each prompt at temperature 1, up to a token of ``ends`` or ``most_new`` tokens.

    The answers are a function of the weights, the prompts and the seeds. Not compiled: another session could not
    reproduce a graph's rounding.
    """
    sampled = generate(
        model,
        prompts,
        SamplingSettings(temperature=1.0, max_new_tokens=most_new),
        stop_ids=(),  # the token that ends an answer is trained too, so it is one of its tokens
        seed=seeds,
        at_context_end="stop",
        compile=False,
        on_token=lambda row, token: token in ends,
    )
    return [Answer(one.token_ids, one.logprobs, one.finish_reason == "stop") for one in sampled]


def reward(parts: ObjectiveParts) -> Reward:
    """Build the objective, with answers from the network that is trained."""
    return make_reward(parts, partial(sample_answers, parts.model, answer_ends(parts.data.tokenizer)))


OBJECTIVE = ObjectiveKind(reward, trained_tokens, require_checked)
