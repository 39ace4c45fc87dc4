"""Group relative policy optimization (GRPO): of sampled answers to a question, those with more reward gain.

For each question of a step, the network as it is before the step writes G answers at temperature 1. A function checks
them: the reward of answer i is r_i = 1 if it is right and ends, else 0. Its advantage is A_i = (r_i - mean) / (std +
1e-4), over the answers to its question (Shao et al. 2024, "DeepSeekMath", arXiv 2402.03300, section 4.1; std is that of
a sample, as in TRL). A question whose answers all have the same reward teaches nothing: its advantages are 0.

The loss of a step is the mean over all tokens of its answers of

    ratio * (kl * (q/p - log(q/p) - 1) - A_i),  ratio = p / p_sampled,

where p is the probability of the token, p_sampled the one with which it was drawn, and q that of the base, which is the
network with its adapter switched off. There is one update per batch, so p and p_sampled differ by rounding alone: the
ratio is 1, clipping it would change nothing, and the gradient is that of the policy gradient. The paper does not
multiply the divergence by the ratio; this makes its gradient unbiased (DeepSeek-AI 2025, "DeepSeek-V3.2", arXiv
2512.02556), as in TRL.

The mean is over tokens, not over answers (Yu et al. 2025, "DAPO", arXiv 2503.14476). So the gradient of an
answer is not divided by its length, which would favour long wrong answers (Liu et al. 2025, "Understanding R1-zero-like
training", "Dr. GRPO", arXiv 2503.20783). Dr. GRPO does not divide by the std either; this does.

A batch is a function of the seed, the step and the weights: a replayed step samples the same answers again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from torch import Tensor

from etude.data.tokens.coverage import IGNORE_INDEX
from etude.data.tokens.permutation import Permutation
from etude.device import Device
from etude.errors import EtudeError
from etude.model.language_model import LanguageModel
from etude.model.lora import adapter_off
from etude.model.run_layer import compiled_layer, compiles_by_layer
from etude.run.events import RowSource
from etude.train.batch import Int64, MicroBatch, Row, Weights, to_device
from etude.train.loss import token_losses, trained_losses
from etude.train.objectives.checked_questions import CheckedQuestions, Sampler, answer_seed
from etude.train.objectives.contract import Objective, ObjectiveParts
from etude.train.objectives.preference import answers_at_once

REWARD = "reward"
LEAST_DEVIATION = 1e-4
"""Added to the standard deviation of the rewards of a question, as in TRL."""


@dataclass(frozen=True)
class RewardBatch(MicroBatch):
    """Rows of one sampled answer each, with its question.

    Attributes:
        advantages: (B, T) of the answer, at its tokens; 0 elsewhere.
        sampled: (B, T) log-probability with which each token of an answer was drawn; 0 elsewhere.
        reference: (B, T) log-probability of each under the base; None in a run without an adapter.
    """

    advantages: Float[Tensor, "B T"] | None = None
    sampled: Float[Tensor, "B T"] | None = None
    reference: Float[Tensor, "B T"] | None = None

    @property
    def tensors(self) -> list[Tensor]:
        """Every tensor of the micro-batch."""
        own = (self.advantages, self.sampled, self.reference)
        return [*super().tensors, *(tensor for tensor in own if tensor is not None)]


@dataclass(frozen=True)
class RewardRow(Row):
    """A row of a sampled answer; the other tensors as in :class:`RewardBatch`."""

    advantages: Float[Tensor, "1 T"] | None = None
    sampled: Float[Tensor, "1 T"] | None = None
    reference: Float[Tensor, "1 T"] | None = None


def group_advantages(rewards: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the advantages (Q, G) of rewards (Q, G): relative to the other answers to the same question."""
    from_mean = rewards - rewards.mean(1, keepdims=True)
    advantages: npt.NDArray[np.float64] = from_mean / (
        rewards.std(1, ddof=1, keepdims=True) + LEAST_DEVIATION
    )
    return advantages


def answer_losses(
    log_probabilities: Tensor, advantages: Tensor, sampled: Tensor, reference: Tensor | None, kl: float
) -> Tensor:
    """Return the loss of each token of answers, in the shape of the arguments."""
    ratio = torch.exp(log_probabilities - sampled)
    if reference is None or not kl:
        return -ratio * advantages
    return ratio * (kl * divergence(log_probabilities, reference) - advantages)


def divergence(log_probabilities: Tensor, reference: Tensor) -> Tensor:
    """Return an unbiased estimate of KL(p || q) at each token that p drew (Schulman 2020, "k3"); never negative."""
    gain = reference - log_probabilities
    return torch.exp(gain) - gain - 1


@dataclass(frozen=True)
class Figures:
    """What became of the answers of a step; the names as in :class:`etude.run.events.RewardEvent`."""

    step: int
    right: float
    ended: float
    mixed: float
    tokens: float
    divergence: float
    num_answers: int


@dataclass(frozen=True, eq=False)
class _Rows:
    """The rows of a step: (B, T) arrays, and what became of the answers."""

    inputs: Int64
    targets: Int64
    owners: Int64  # 0, and -1 after the answer
    advantages: Weights
    sampled: Weights
    figures: Figures


class Reward(Objective):
    """Questions with sampled answers, and their loss.

    Args:
        batch_rows: answers of a step; ``group`` of them are to the same question.
        kl: weight of the divergence from the base.
        shuffle: permute the rewards among the answers of a step: nothing can be learned then.
        recompute: activation checkpointing: recompute each layer in the backward pass.
    """

    reads_weights = True

    def __init__(
        self,
        model: LanguageModel,
        questions: CheckedQuestions,
        sample: Sampler,
        device: Device,
        *,
        num_steps: int,
        batch_rows: int,
        micro_batch_rows: int,
        context: int,
        group: int,
        seed: int,
        kl: float = 0.0,
        shuffle: bool = False,
        recompute: bool = False,
    ) -> None:
        self.model, self.num_steps = model, num_steps
        self.tokens_per_step = batch_rows * context
        self.figures: Figures | None = None  # of the newest batch
        self._questions, self._sample, self._device = questions, sample, device
        self._batch_rows, self._micro_batch_rows, self._context = batch_rows, micro_batch_rows, context
        self._group, self._seed, self._kl, self._shuffle = group, seed, kl, shuffle
        self._options: dict[str, Any] = {"recompute": recompute}  # of the forward pass that is trained
        self._compiled = False
        self._newest: _Rows | None = None

    def batch(self, step: int) -> list[RewardBatch]:
        """Sample answers with the current weights, and return them with their advantages.

        Raises:
            EtudeError: no answer of the first step ends.
        """
        rows = self._rows(step)
        if step == 1 and not rows.figures.ended:
            raise EtudeError(
                f"none of the {len(rows.inputs)} answers that were sampled for step 1 ends within "
                f"{self._questions.most_new} tokens, so none can be right: train on the same questions without "
                "--reward first, and begin with that run (--from)"
            )
        parts = [self._part(rows, first) for first in range(0, self._batch_rows, self._micro_batch_rows)]
        self._newest, self.figures = rows, _with_divergence(rows.figures, parts)
        return parts

    def loss(self, part: MicroBatch) -> Tensor:
        """Return the sum of the losses of the tokens of answers in a micro-batch."""
        assert isinstance(part, RewardBatch)
        if self._compiled:
            raise EtudeError("the number of tokens of answers changes from batch to batch")
        losses = self._log_losses(part.inputs, part.targets, part.document_ids, **self._options)
        return self._answer_losses(-losses, part).sum()

    def token_losses(self, logits: Tensor, row: Row) -> Tensor:
        """Return the loss (1, T) of each token of a row, 0 for tokens that are not of an answer."""
        assert isinstance(row, RewardRow)
        real = row.targets != IGNORE_INDEX
        losses = token_losses(logits, row.targets)  # (1, T)
        own = self._answer_losses(-losses[real], row)
        return torch.zeros_like(losses).masked_scatter(real, own.to(losses.dtype))

    def row(self, part: MicroBatch, place: int) -> RewardRow:
        """Return row ``place`` of a micro-batch, as input of the network."""
        assert isinstance(part, RewardBatch)
        names = [field.name for field in fields(RewardRow) if field.name != "dropout"]
        tensors = {name: getattr(part, name) for name in names}
        row: dict[str, Any] = {
            name: None if value is None else value[place : place + 1] for name, value in tensors.items()
        }
        return RewardRow(**row)

    def first_row(self, step: int, num_tokens: int) -> Row:
        """Return the first row of ``step`` if its batch is the newest, else its question alone."""
        newest = self._newest
        if newest is not None and newest.figures.step == step:
            arrays = [values[:1, :num_tokens] for values in (newest.inputs, newest.targets, newest.owners)]
        else:
            prompt = np.array(self._questions.prompt(self._numbers(step)[0]), np.int64)[None, :num_tokens]
            arrays = [prompt, np.full_like(prompt, IGNORE_INDEX), np.zeros_like(prompt)]
        inputs, targets, owners = (to_device(np.ascontiguousarray(values), self._device) for values in arrays)
        return Row(inputs, targets, owners)

    def row_sources(self, step: int) -> list[RowSource]:
        """Return the question of each row of ``step``."""
        names = [self._questions.part.namer(number) for number in self._numbers(step)]
        return [RowSource(row, (names[row // self._group],)) for row in range(self._batch_rows)]

    def halve_micro_batches(self) -> int | None:
        """Halve the rows of all further micro-batches. Returns their number, None if it is already 1."""
        if self._micro_batch_rows == 1:
            return None
        self._micro_batch_rows //= 2
        return self._micro_batch_rows

    def compile(self) -> None:
        """Compile layer by layer. Otherwise let the next :meth:`loss` fail: the number of answers' tokens changes."""
        if compiles_by_layer(self.model.config, 0.0):
            self._options["run_layer"] = compiled_layer()
        else:
            self._compiled = True

    def use_eager(self) -> None:
        """Switch back to eager mode."""
        self._options.pop("run_layer", None)
        self._compiled = False

    def _numbers(self, step: int) -> list[int]:
        """Return the numbers of the questions of a step, which are drawn without replacement in each pass."""
        numbers = self._questions.numbers
        serial = (step - 1) * (self._batch_rows // self._group) + np.arange(self._batch_rows // self._group)
        passes, places = serial // len(numbers), np.empty_like(serial)
        for number in np.unique(passes).tolist():
            own = passes == number
            places[own] = Permutation(len(numbers), self._seed, number)(serial[own] % len(numbers))
        chosen: list[int] = numbers[places].tolist()
        return chosen

    def _rows(self, step: int) -> _Rows:
        """Sample the answers of a step, check them, and write them into rows."""
        numbers = [number for number in self._numbers(step) for _ in range(self._group)]
        prompts = {number: self._questions.prompt(number) for number in numbers}
        seeds = [answer_seed(self._seed, step, row) for row in range(self._batch_rows)]
        answers = self._sample([prompts[number] for number in numbers], seeds, self._questions.most_new)
        right = np.array(list(map(self._questions.is_right, numbers, answers)), np.float64)
        rewards = right
        if self._shuffle:
            rewards = right[Permutation(len(right), self._seed, step)(np.arange(len(right)))]
        groups = rewards.reshape(-1, self._group)
        advantages = group_advantages(groups).ravel()
        shape = (self._batch_rows, self._context)
        inputs = np.full(shape, self._questions.part.document_id, np.int64)
        targets, owners = np.full(shape, IGNORE_INDEX, np.int64), np.full(shape, -1, np.int64)
        by_token, sampled = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
        for row, (number, answer) in enumerate(zip(numbers, answers, strict=True)):
            prompt = prompts[number]
            ids = [*prompt, *answer.token_ids]
            end, own = len(ids) - 1, slice(len(prompt) - 1, len(ids) - 1)  # the last token is a target only
            inputs[row, :end], owners[row, :end] = ids[:-1], 0
            targets[row, own] = answer.token_ids
            by_token[row, own], sampled[row, own] = advantages[row], answer.logprobs
        figures = Figures(
            step,
            float(right.mean()),
            float(np.mean([answer.ended for answer in answers])),
            float((groups.min(1) < groups.max(1)).mean()),
            float(np.mean([len(answer.token_ids) for answer in answers])),
            float("nan"),
            len(answers),
        )
        return _Rows(inputs, targets, owners, by_token, sampled, figures)

    def _part(self, rows: _Rows, first: int) -> RewardBatch:
        """Return the micro-batch of rows from ``first`` on, with the log-probabilities under the base."""
        own = slice(first, first + self._micro_batch_rows)
        plain = MicroBatch.of(
            rows.inputs[own], rows.targets[own], self._device, document_ids=rows.owners[own]
        )
        reference = None
        if self.model.config.adapter is not None:
            with torch.no_grad(), adapter_off(self.model), self._device.autocast():
                losses = self._log_losses(plain.inputs, plain.targets, plain.document_ids)
            real = plain.targets != IGNORE_INDEX
            reference = torch.zeros(real.shape, device=losses.device).masked_scatter(real, -losses.float())
        return RewardBatch(
            **{field.name: getattr(plain, field.name) for field in fields(MicroBatch)},
            advantages=to_device(rows.advantages[own], self._device),
            sampled=to_device(rows.sampled[own], self._device),
            reference=reference,
        )

    def _log_losses(
        self, inputs: Tensor, targets: Tensor, document_ids: Tensor | None, **options: Any
    ) -> Tensor:
        """Return the cross-entropies (N,) of all tokens of answers."""
        hidden = self.model.hidden(inputs, document_ids=document_ids, **options)
        head = self.model.unembedding()
        return trained_losses(hidden, targets, *head, at_once=answers_at_once(head[0]))

    def _answer_losses(self, log_probabilities: Tensor, of: RewardBatch | RewardRow) -> Tensor:
        """Return the losses (N,) of all tokens of answers, from their log-probabilities."""
        assert of.advantages is not None
        assert of.sampled is not None
        device, real = log_probabilities.device, of.targets != IGNORE_INDEX
        reference = None if of.reference is None else of.reference[real].to(device)
        return answer_losses(
            log_probabilities,
            of.advantages[real].to(device),
            of.sampled[real].to(device),
            reference,
            self._kl,
        )


def _with_divergence(figures: Figures, parts: Sequence[RewardBatch]) -> Figures:
    """Return the figures with the mean divergence from the base, by the probabilities when the answers were drawn."""
    values = [
        divergence(part.sampled[real], part.reference[real])
        for part in parts
        for real in [part.targets != IGNORE_INDEX]
        if part.sampled is not None and part.reference is not None
    ]
    return replace(figures, divergence=float(torch.cat(values).mean())) if values else figures


def make_reward(parts: ObjectiveParts, sample: Sampler) -> Reward:
    """Build the objective on the training questions of a run; ``sample`` draws answers from its network."""
    train = parts.settings.train
    return Reward(
        parts.model,
        CheckedQuestions.of(parts.data.train, parts.data.tokenizer, train.context),
        sample,
        parts.device,
        num_steps=train.steps,
        batch_rows=train.batch_rows,
        micro_batch_rows=parts.micro_batch_rows,
        context=train.context,
        group=train.group,
        seed=parts.settings.run.seed,
        kl=train.kl,
        shuffle=train.shuffle_rewards,
        recompute=train.activation_checkpointing,
    )
