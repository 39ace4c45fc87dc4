"""Training on sampled answers: advantages and loss of the paper and of TRL, and batches that follow from their step."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Sequence
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from test_conversation import base, device, part_of
from torch import Tensor

from etude.data.checked.generator import sums
from etude.data.conversations.conversation import Example
from etude.data.conversations.encode import encode_example
from etude.data.conversations.template import template_of
from etude.device import Device
from etude.errors import EtudeError, InputError
from etude.generate.chat_prompt import answer_ends
from etude.generate.reward import sample_answers
from etude.model.adapter import LoRA
from etude.model.build import zero_model
from etude.model.folder import load_model_folder
from etude.model.language_model import LanguageModel
from etude.model.lora import adapter_off
from etude.pretrained.base import Base
from etude.train.objectives.checked_questions import Answer, CheckedQuestions, Sampler
from etude.train.objectives.reward import Reward, RewardBatch, group_advantages
from etude.train.step import batch_gradient

transformers = pytest.importorskip("transformers")
__all__ = ["base", "device"]
CONTEXT, GROUP, ROWS = 120, 4, 8


@pytest.fixture(scope="module")
def questions(tmp_path_factory: pytest.TempPathFactory, base: Base) -> CheckedQuestions:
    template = template_of(base.tokenizer)
    examples = [Example.from_json(document.text) for document in islice(sums(5), 30)]
    encoded = [encode_example(example, base.tokenizer, template, "assistant") for example in examples]
    part = part_of(tmp_path_factory.mktemp("sums"), encoded, base.tokenizer)
    return CheckedQuestions.of(part, base.tokenizer, CONTEXT)


def given(base: Base) -> Sampler:
    """Return a sampler of answers of different lengths: right ones where the seed is even, else wrong ones."""
    end = base.tokenizer.backend.token_to_id("<|im_end|>")

    def sample(prompts: Sequence[Sequence[int]], seeds: Sequence[int], most_new: int) -> list[Answer]:
        answers = []
        for prompt, seed in zip(prompts, seeds, strict=True):
            a, b = map(int, re.findall(r"\d+", base.tokenizer.decode(list(prompt)))[:2])
            text = str(a + b) if seed % 2 == 0 else ("7", "nine", "1 2")[seed % 3]
            ids = [*base.tokenizer.encode(text), end]
            answers.append(Answer(ids, [-1.0 - 0.1 * at for at in range(len(ids))], ended=seed % 7 > 0))
        return answers

    return sample


def objective(
    model: LanguageModel,
    questions: CheckedQuestions,
    sample: Sampler,
    device: Device,
    *,
    at_once: int = ROWS,
    kl: float = 0.0,
    shuffle: bool = False,
    seed: int = 1,
) -> Reward:
    return Reward(
        model,
        questions,
        sample,
        device,
        num_steps=9,
        batch_rows=ROWS,
        micro_batch_rows=at_once,
        context=CONTEXT,
        group=GROUP,
        seed=seed,
        kl=kl,
        shuffle=shuffle,
    )


def sampling(model: LanguageModel, base: Base) -> Sampler:
    return partial(sample_answers, model, answer_ends(base.tokenizer))


def with_reference(parts: list[RewardBatch]) -> list[RewardBatch]:
    """Return a batch with log-probabilities of a base that is another network."""
    generator = torch.Generator().manual_seed(4)
    made = []
    for part in parts:
        assert part.sampled is not None
        gain = torch.rand(part.targets.shape, generator=generator) - 0.5
        made.append(dataclasses.replace(part, reference=(part.sampled + gain) * part.loss_mask))
    return made


def nearly_sampled_by(model: LanguageModel, parts: list[RewardBatch]) -> list[RewardBatch]:
    """Return a batch with ratios from 0.95 to 1.05, none of which TRL clips."""
    generator = torch.Generator().manual_seed(5)
    made = []
    for part in parts:
        with torch.no_grad():
            logits = model(part.inputs, document_ids=part.document_ids)
        logps = torch.log_softmax(logits, -1).gather(-1, part.targets.clamp(min=0)[..., None])[..., 0]
        noise = 0.1 * torch.rand(logps.shape, generator=generator) - 0.05
        made.append(dataclasses.replace(part, sampled=(logps + noise) * part.loss_mask))
    return made


def test_advantages_are_those_of_the_paper() -> None:
    rewards = np.array([[1.0, 0, 0, 0], [1, 1, 1, 1], [0, 0, 0, 0], [1, 0, 1, 0]])
    found = group_advantages(rewards)
    for row, values in zip(found, rewards.tolist(), strict=True):
        mean = math.fsum(values) / 4
        deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / 3)
        assert row.tolist() == pytest.approx([(value - mean) / (deviation + 1e-4) for value in values])
    assert not found[1:3].any()  # a question whose answers have the same reward teaches nothing
    assert found[0, 0] > 1
    assert found[0, 0] > -found[0, 1]


@pytest.mark.parametrize("kl", [0.0, 0.3])
@pytest.mark.parametrize("at_once", [1, 8])
def test_loss_and_gradient_equal_those_of_trl(
    tmp_path: Path, base: Base, questions: CheckedQuestions, device: Device, kl: float, at_once: int
) -> None:
    pytest.importorskip("trl")
    datasets = pytest.importorskip("datasets")
    from trl import GRPOConfig, GRPOTrainer

    model, _ = load_model_folder(base.folder)
    ours = objective(model, questions, given(base), device, at_once=at_once, kl=kl)
    batch = with_reference(nearly_sampled_by(model, ours.batch(2)))
    loss = batch_gradient(list(model.parameters()), ours.loss, batch, device).value

    network = transformers.AutoModelForCausalLM.from_pretrained(base.folder, dtype=torch.float32)
    trainer = GRPOTrainer(
        model=network,
        reward_funcs=lambda **others: [0.0],
        args=GRPOConfig(
            output_dir=str(tmp_path), report_to="none", use_cpu=True, bf16=False, gradient_checkpointing=False,
            loss_type="bnpo", beta=kl, per_device_train_batch_size=ROWS, num_generations=GROUP,
            gradient_accumulation_steps=1,
        ),
        train_dataset=datasets.Dataset.from_list([{"prompt": "a"}]),
        processing_class=transformers.AutoTokenizer.from_pretrained(base.folder),
    )  # fmt: skip
    trainer.current_gradient_accumulation_steps = 1  # which its loop sets
    network.train()
    expected = trainer._compute_loss(network, for_trl(batch))
    network.zero_grad()
    expected.backward()
    assert float(loss) == pytest.approx(float(expected.detach()), rel=1e-5, abs=1e-6)
    theirs = dict(network.named_parameters())
    assert sum(float(p.grad.norm()) for p in model.parameters() if p.grad is not None) > 0.1
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, theirs[name].grad, rtol=1e-4, atol=1e-6)


def for_trl(batch: list[RewardBatch]) -> dict[str, Tensor]:
    """Return a batch as TRL's trainer pads it: prompts on the left, completions on the right."""
    rows = [(part, place) for part in batch for place in range(len(part.inputs))]
    prompts, answers, values = [], [], []
    for part, place in rows:
        real = part.loss_mask[place]
        first = int(real.int().argmax())
        prompts.append(part.inputs[place, : first + 1])
        answers.append(part.targets[place][real])
        tables = (part.sampled, part.reference, part.advantages)
        values.append([table[place][real] for table in tables])  # type: ignore[index]
    longest = max(map(len, prompts))

    def right(tensors: list[Tensor]) -> Tensor:
        return torch.nn.utils.rnn.pad_sequence(tensors, batch_first=True)

    return {
        "prompt_ids": torch.stack([torch.nn.functional.pad(p, (longest - len(p), 0)) for p in prompts]),
        "prompt_mask": torch.stack(
            [torch.nn.functional.pad(torch.ones_like(p), (longest - len(p), 0)) for p in prompts]
        ),
        "completion_ids": right(answers),
        "completion_mask": right([torch.ones_like(answer) for answer in answers]),
        "old_per_token_logps": right([value[0] for value in values]),
        "ref_per_token_logps": right([value[1] for value in values]),
        "advantages": torch.stack([value[2][0] for value in values]),
    }


def test_the_gradient_is_that_of_the_policy_gradient_in_float64(
    base: Base, questions: CheckedQuestions, device: Device
) -> None:
    """The advantages times the gradients of log-probabilities, each answer read alone, by transformers in float64."""
    model, _ = load_model_folder(base.folder)
    ours = objective(model, questions, sampling(model, base), device, seed=3)
    batch = ours.batch(2)
    advantages = torch.tensor(group_advantages(np.array([[1.0, 0, 1, 0], [0, 0, 0, 1]]))).ravel()
    batch = [
        dataclasses.replace(part, advantages=(advantages[:, None] * part.loss_mask).float()) for part in batch
    ]
    batch_gradient(list(model.parameters()), ours.loss, batch, device)
    network = transformers.AutoModelForCausalLM.from_pretrained(base.folder, dtype=torch.float64)
    total = torch.zeros((), dtype=torch.float64)
    (part,) = batch
    for row, advantage in enumerate(advantages):
        count = int((part.document_ids[row] == 0).sum())  # type: ignore[index]
        real = part.loss_mask[row, :count]
        logits = network(input_ids=part.inputs[row : row + 1, :count]).logits[0]
        logps = torch.log_softmax(logits, -1)[real].gather(1, part.targets[row, :count][real][:, None])
        total = total - advantage * logps.sum()
    (total / part.num_targets).backward()  # type: ignore[no-untyped-call]
    theirs = dict(network.named_parameters())
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad.double(), theirs[name].grad, rtol=1e-3, atol=1e-6)  # type: ignore[union-attr]


def test_losses_of_tokens_add_up_to_the_loss_and_to_its_gradient(
    base: Base, questions: CheckedQuestions, device: Device
) -> None:
    model, _ = load_model_folder(base.folder, dtype=torch.float64)
    ours = objective(model, questions, given(base), device, at_once=4, kl=0.2)
    for micro in with_reference(ours.batch(2)):
        losses = []
        for place in range(len(micro.inputs)):
            row = ours.row(micro, place)
            losses.append(ours.token_losses(model(row.inputs, document_ids=row.document_ids), row))
            assert bool((losses[-1][row.targets < 0] == 0).all())
        results = []
        for loss in (ours.loss(micro), torch.stack([own.sum() for own in losses]).sum()):
            model.zero_grad()
            loss.backward(retain_graph=True)  # type: ignore[no-untyped-call]
            results.append([loss.detach(), *(p.grad.clone() for p in model.parameters())])  # type: ignore[union-attr]
        torch.testing.assert_close(*results, rtol=1e-8, atol=1e-10)


def test_a_batch_follows_from_seed_step_and_weights(
    base: Base, questions: CheckedQuestions, device: Device
) -> None:
    model, _ = load_model_folder(base.folder)
    ours, again = (objective(model, questions, sampling(model, base), device) for _ in range(2))
    first, other = ours.batch(3), ours.batch(4)
    assert all(map(torch.equal, first[0].tensors, again.batch(3)[0].tensors))
    assert [source.documents for source in ours.row_sources(3)][::GROUP] != [
        source.documents for source in ours.row_sources(4)
    ][::GROUP]
    assert not torch.equal(first[0].targets, other[0].targets)
    answers = [first[0].targets[row][first[0].loss_mask[row]].tolist() for row in range(ROWS)]
    assert len({tuple(answer) for answer in answers}) > ROWS // 2  # answers to one question differ
    seeded = objective(model, questions, sampling(model, base), device, seed=2)
    assert not torch.equal(seeded.batch(3)[0].targets, first[0].targets)
    with torch.no_grad():
        next(iter(model.parameters())).mul_(1.5)
    assert not torch.equal(ours.batch(3)[0].targets, first[0].targets)
    # In passes over the questions each comes once.
    steps = range(1, len(questions.numbers) // 2 + 1)
    assert sorted(number for step in steps for number in ours._numbers(step)) == questions.numbers.tolist()


def test_answers_are_drawn_with_the_probabilities_of_the_network(
    base: Base, questions: CheckedQuestions, device: Device
) -> None:
    model, _ = load_model_folder(base.folder)
    ours = objective(model, questions, sampling(model, base), device)
    (part,) = ours.batch(2)
    logits = model(part.inputs, document_ids=part.document_ids)
    logps = torch.log_softmax(logits, -1).gather(-1, part.targets.clamp(min=0)[..., None])[..., 0]
    assert part.sampled is not None
    torch.testing.assert_close(part.sampled, logps * part.loss_mask, rtol=1e-4, atol=1e-4)
    assert ours.figures is not None
    assert math.isnan(ours.figures.divergence)
    ends = answer_ends(base.tokenizer)
    lasts = [part.targets[row][part.loss_mask[row]][-1].item() in ends for row in range(ROWS)]
    assert ours.figures.ended == np.mean(lasts)


def test_shuffled_rewards_are_the_same_ones_of_other_answers(
    base: Base, questions: CheckedQuestions, device: Device
) -> None:
    model, _ = load_model_folder(base.folder)
    differs = 0
    for step in range(2, 8):
        true, null = (objective(model, questions, given(base), device, shuffle=s) for s in (False, True))
        (one,), (other,) = true.batch(step), null.batch(step)
        assert torch.equal(one.targets, other.targets)
        assert true.figures is not None
        assert null.figures is not None
        assert (
            true.figures.right == null.figures.right
        )  # the record tells what is right, not what is rewarded
        differs += not torch.equal(one.advantages, other.advantages)  # type: ignore[arg-type]
        again = objective(model, questions, given(base), device, shuffle=True).batch(step)
        assert torch.equal(again[0].advantages, other.advantages)  # type: ignore[arg-type]
    assert differs > 2


def test_an_adapter_that_is_off_gives_the_base_and_its_divergence(
    base: Base, questions: CheckedQuestions, device: Device
) -> None:
    plain, config = load_model_folder(base.folder)
    adapted = zero_model(
        dataclasses.replace(config, adapter=LoRA(4, 8.0, ("q_proj", "down_proj"))), device=device.torch
    )
    generator = torch.Generator().manual_seed(0)
    state = plain.state_dict()
    adapted.load_state_dict(
        {
            name: state.get(name, torch.randn(value.shape, generator=generator) / 4)
            for name, value in adapted.state_dict().items()
        }
    )
    inputs = torch.arange(6)[None] + 30
    with torch.no_grad():
        with adapter_off(adapted):
            torch.testing.assert_close(adapted(inputs), plain(inputs), rtol=0, atol=0)
        assert not torch.equal(adapted(inputs), plain(inputs))
    ours = objective(adapted, questions, sampling(adapted, base), device)
    (part,) = ours.batch(2)
    assert part.reference is not None
    with torch.no_grad():
        logits = plain(part.inputs, document_ids=part.document_ids)
    logps = torch.log_softmax(logits, -1).gather(-1, part.targets.clamp(min=0)[..., None])[..., 0]
    torch.testing.assert_close(part.reference, logps * part.loss_mask, rtol=1e-5, atol=1e-5)
    assert part.sampled is not None
    gain = (part.reference - part.sampled)[part.loss_mask].double()
    assert ours.figures is not None
    assert ours.figures.divergence == pytest.approx(float((gain.exp() - gain - 1).mean()), rel=1e-5)
    assert ours.figures.divergence > 0


def test_a_base_that_never_stops_is_refused(base: Base, questions: CheckedQuestions, device: Device) -> None:
    model, _ = load_model_folder(base.folder)
    endless = partial(sample_answers, model, frozenset())
    with pytest.raises(EtudeError, match="none of the 8 answers that were sampled for step 1 ends"):
        objective(model, questions, endless, device).batch(1)


def test_questions_that_do_not_fit_are_refused(base: Base, questions: CheckedQuestions) -> None:
    fewer = CheckedQuestions.of(questions.part, base.tokenizer, int(np.diff(questions.part.documents).max()))
    assert 0 < len(fewer.numbers) <= len(questions.numbers)
    for number in fewer.numbers.tolist():
        assert len(fewer.prompt(number)) + fewer.most_new <= np.diff(questions.part.documents).max() + 1
    with pytest.raises(InputError, match="no question fits into 20 tokens"):
        CheckedQuestions.of(questions.part, base.tokenizer, 20)
