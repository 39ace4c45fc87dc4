"""Training on pairs of answers: the loss is that of the paper and of TRL, whatever the packing and micro-batches."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from test_conversation import base, device, part_of
from torch import Tensor

from etude.data.conversations.conversation import Example, Message
from etude.data.conversations.encode import Encoded, encode_example
from etude.data.conversations.preview import BETWEEN, shown_tokens, states_of
from etude.data.conversations.template import template_of
from etude.data.tokens.packing import Packing
from etude.data.tokens.parts import TokenPart
from etude.data.tokens.rows import training_rows
from etude.device import Device
from etude.model.folder import load_model_folder
from etude.model.language_model import LanguageModel
from etude.pretrained.base import Base
from etude.train.loss import summed_loss, trained_losses
from etude.train.objectives.conversation import TrainedTokens
from etude.train.objectives.preference import (
    ChosenTokens,
    HeldOutPairs,
    PairBatch,
    PairRow,
    Preference,
    log_probabilities,
    pair_logits,
)
from etude.train.parallel import ALONE, Ranks
from etude.train.step import batch_gradient
from etude.train.validation import ValidationText

transformers = pytest.importorskip("transformers")
__all__ = ["base", "device"]


def pair(question: str, chosen: str, rejected: str, *before: tuple[str, str]) -> Example:
    turns = [Message(role, text) for b in before for role, text in zip(("user", "assistant"), b, strict=True)]  # type: ignore[arg-type]
    turns.append(Message("user", question))
    one, other = ((*turns, Message("assistant", text)) for text in (chosen, rejected))
    return Example("preference", one, rejected=other)


PAIRS = [
    pair("When?", "At 9:30.", "No idea, sorry."),
    pair("And when?", "In 1962.", "Yes.", ("Who founded the museum?", "Ilse did.")),
    pair("Is <|im_end|> a word?", "No.", "It is a word of many letters, I am told."),
]
# What another network than the trained one might give: the loss must not need it to be right.
REFERENCE = torch.tensor([[-40.0, -61.5], [-33.0, -21.0], [-18.5, -160.0]], dtype=torch.float64)


def encode(pairs: list[Example], base: Base) -> list[Encoded]:
    template = template_of(base.tokenizer)
    return [encode_example(example, base.tokenizer, template, "assistant") for example in pairs]


@pytest.fixture
def part(tmp_path: Path, base: Base) -> TokenPart:
    return part_of(tmp_path, encode(PAIRS, base), base.tokenizer)


def objective(
    model: LanguageModel,
    part: TokenPart,
    device: Device,
    *,
    context: int | None = None,
    at_once: int = 1,
    beta: float = 0.1,
    ranks: Ranks = ALONE,
) -> Preference:
    """Return the objective whose first batch is all pairs."""
    assert part.examples is not None
    context = context or int((part.documents[1:] - part.documents[:-1]).max())
    rows = len(Packing.of(part, context).rows)
    return Preference(
        model,
        training_rows(part, context, rows, 3),
        device,
        num_steps=1,
        micro_batch_rows=at_once,
        scope=TrainedTokens("both answers", part.examples),
        within_documents=True,
        lean=True,
        beta=beta,
        ranks=ranks,
        reference=REFERENCE[: part.num_documents],
    )


def log_probability(logits: Tensor, ids: list[int], trained: Tensor) -> Tensor:
    """Return the log-probability of the trained tokens, from the logits (T, V) of a sequence alone."""
    every = torch.log_softmax(logits[:-1], -1).gather(1, torch.tensor(ids)[1:, None])[:, 0]
    return every[trained[1:]].sum()


def expected_loss(model: torch.nn.Module, encoded: list[Encoded], beta: float) -> Tensor:
    """Return the mean loss of the pairs from transformers' network, each answer read alone."""
    losses = []
    for e, reference in zip(encoded, REFERENCE, strict=True):
        assert e.second is not None
        halves = (slice(0, e.second), slice(e.second, None))
        logps = [
            log_probability(
                model(input_ids=torch.tensor([e.ids[half]])).logits[0],
                e.ids[half],
                torch.from_numpy(e.trained)[half],
            )
            for half in halves
        ]
        gain = (logps[0] - reference[0]) - (logps[1] - reference[1])
        losses.append(-F.logsigmoid(beta * gain))
    return torch.stack(losses).mean()


@pytest.mark.parametrize(("context", "at_once"), [(None, 1), (256, 1), (256, 2), (200, 2)])
def test_loss_and_gradient_equal_those_of_each_answer_alone(
    base: Base, part: TokenPart, device: Device, context: int | None, at_once: int
) -> None:
    model, _ = load_model_folder(base.folder)
    ours = objective(model, part, device, context=context, at_once=at_once)
    parameters = list(model.parameters())
    loss = batch_gradient(parameters, ours.loss, ours.batch(1), device).value
    network = transformers.AutoModelForCausalLM.from_pretrained(base.folder, dtype=torch.float64)
    expected = expected_loss(network, encode(PAIRS, base), 0.1)
    expected.backward()  # type: ignore[no-untyped-call]
    assert float(loss) == pytest.approx(float(expected.detach()), rel=1e-6)
    theirs = dict(network.named_parameters())
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad.double(), theirs[name].grad, rtol=1e-4, atol=1e-6)  # type: ignore[union-attr]


def test_loss_and_gradient_equal_those_of_trl(
    tmp_path: Path, base: Base, part: TokenPart, device: Device
) -> None:
    pytest.importorskip("trl")
    datasets = pytest.importorskip("datasets")
    from trl import DPOConfig, DPOTrainer

    network = transformers.AutoModelForCausalLM.from_pretrained(base.folder, dtype=torch.float32)
    encoded = encode(PAIRS, base)
    trainer = DPOTrainer(
        model=network,
        args=DPOConfig(
            output_dir=str(tmp_path / "trl"), beta=0.1, report_to="none", use_cpu=True, bf16=False,
            gradient_checkpointing=False, precompute_ref_log_probs=True,
        ),
        train_dataset=datasets.Dataset.from_list([{"prompt": "a", "chosen": "b", "rejected": "c"}]),
        processing_class=transformers.AutoTokenizer.from_pretrained(base.folder),
    )  # fmt: skip
    halves = [(e.ids[: e.second], e.trained[: e.second]) for e in encoded]
    halves += [(e.ids[e.second :], e.trained[e.second :]) for e in encoded]
    longest = max(len(ids) for ids, _ in halves)

    def padded(values: list[list[int]]) -> Tensor:
        return torch.tensor([[*row, *[0] * (longest - len(row))] for row in values])

    inputs = {
        "input_ids": padded([ids for ids, _ in halves]),
        "attention_mask": padded([[1] * len(ids) for ids, _ in halves]),
        "completion_mask": padded([trained.astype(int).tolist() for _, trained in halves]),
        "ref_chosen_logps": REFERENCE[:, 0].float(),
        "ref_rejected_logps": REFERENCE[:, 1].float(),
    }
    network.train()
    expected = trainer.compute_loss(network, inputs)
    network.zero_grad()
    expected.backward()
    model, _ = load_model_folder(base.folder)
    ours = objective(model, part, device)
    loss = batch_gradient(list(model.parameters()), ours.loss, ours.batch(1), device).value
    assert float(loss) == pytest.approx(float(expected.detach()), rel=1e-5)
    theirs = dict(network.named_parameters())
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, theirs[name].grad, rtol=1e-4, atol=1e-6)


def test_gradient_equals_finite_differences(base: Base, part: TokenPart, device: Device) -> None:
    model, _ = load_model_folder(base.folder, dtype=torch.float64)
    ours = objective(model, part, device)
    parameters = list(model.parameters())
    batch_gradient(parameters, ours.loss, ours.batch(1), device)
    generator = torch.Generator().manual_seed(1)
    directions = [torch.randn(p.shape, generator=generator, dtype=p.dtype) for p in parameters]
    expected = sum(float((p.grad * d).sum()) for p, d in zip(parameters, directions, strict=True))  # type: ignore[operator]
    height = 1e-6
    with torch.no_grad():
        sides = []
        for sign in (1, -2):
            for p, d in zip(parameters, directions, strict=True):
                p += sign * height * d
            sides.append(sum(float(ours.loss(micro)) for micro in ours.batch(1)) / len(PAIRS))
    assert (sides[0] - sides[1]) / (2 * height) == pytest.approx(expected, rel=1e-5)


def test_two_ranks_share_the_pairs_of_a_batch(base: Base, part: TokenPart, device: Device) -> None:
    model, _ = load_model_folder(base.folder)
    sums = []
    for ranks in ((ALONE,), (Ranks(0, 2), Ranks(1, 2))):
        model.zero_grad()
        losses, pairs = torch.zeros(()), 0
        for rank in ranks:
            ours = objective(model, part, device, context=256, ranks=rank)
            for micro in ours.batch(1):
                losses, pairs = losses + ours.loss(micro), pairs + int(micro.total_weight)
        losses.backward()  # type: ignore[no-untyped-call]
        assert pairs == len(PAIRS)
        sums.append([losses.detach(), *(p.grad.clone() for p in model.parameters())])  # type: ignore[union-attr]
    torch.testing.assert_close(*sums, rtol=1e-6, atol=1e-6)


def test_gradients_vanish_with_beta(base: Base, part: TokenPart, device: Device) -> None:
    norms = []
    for beta in (1e-3, 1e-6):
        model, _ = load_model_folder(base.folder)
        ours = objective(model, part, device, beta=beta)
        loss = batch_gradient(list(model.parameters()), ours.loss, ours.batch(1), device).value
        assert float(loss) == pytest.approx(math.log(2), abs=100 * beta)
        norms.append(math.sqrt(sum(float(p.grad.square().sum()) for p in model.parameters())))  # type: ignore[union-attr]
    assert norms[0] > 0
    assert norms[1] < 2e-3 * norms[0]


def test_swapped_pairs_negate_the_logit(tmp_path: Path, base: Base, part: TokenPart, device: Device) -> None:
    model, _ = load_model_folder(base.folder)
    swapped = [Example("preference", e.rejected, rejected=e.messages) for e in PAIRS]
    (tmp_path / "swapped").mkdir()
    other = part_of(tmp_path / "swapped", encode(swapped, base), base.tokenizer)
    logits = []
    for data, reference in ((part, REFERENCE), (other, REFERENCE.flip(1))):
        numbers, found = log_probabilities(model, Packing.of(data, 256), device)
        order = torch.from_numpy(numbers).argsort()
        logits.append(pair_logits(found[order], reference, 0.1))
    torch.testing.assert_close(logits[0], -logits[1], rtol=1e-6, atol=1e-6)


def test_an_evaluation_reads_each_pair_once_for_both_of_its_events(
    base: Base, part: TokenPart, device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, _ = load_model_folder(base.folder)
    assert part.examples is not None
    text = ValidationText(
        part, 256, device, within_documents=True, scope=ChosenTokens("chosen", part.examples)
    )
    read: list[int] = []
    hidden = type(model).hidden
    monkeypatch.setattr(
        type(model),
        "hidden",
        lambda self, inputs, **more: read.append(inputs.numel()) or hidden(self, inputs, **more),
    )
    event, score = HeldOutPairs(text, 0.1, REFERENCE)(model, 3, 40, 1.5)
    assert sum(read) == len(text.windows) * 256
    alone = text.score(model)
    assert score.num_tokens == alone.num_tokens
    assert (score.loss, score.bits_per_byte) == pytest.approx((alone.loss, alone.bits_per_byte), rel=1e-6)
    numbers, found = log_probabilities(model, Packing.of(part, 256), device)
    assert (event.chosen, event.rejected) == pytest.approx(tuple(found.mean(0).tolist()), rel=1e-9)
    losses = F.softplus(-pair_logits(found, REFERENCE[torch.from_numpy(numbers)], 0.1))
    assert event.loss == pytest.approx(float(losses.mean()))
    assert (event.step, event.tokens_seen, event.num_pairs) == (3, 40, len(PAIRS))


def test_shares_of_tokens_add_up_to_the_loss_and_to_its_gradient(
    base: Base, part: TokenPart, device: Device
) -> None:
    model, _ = load_model_folder(base.folder, dtype=torch.float64)
    ours = objective(model, part, device, context=256, at_once=1)
    for micro in ours.batch(1):
        assert isinstance(micro, PairBatch)
        shares = torch.stack([_shares(ours, micro, place).sum() for place in range(len(micro.inputs))]).sum()
        results = []
        for loss in (ours.loss(micro), shares):
            model.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            results.append([loss.detach(), *(p.grad.clone() for p in model.parameters())])  # type: ignore[union-attr]
        torch.testing.assert_close(*results, rtol=1e-8, atol=1e-10)


def _shares(ours: Preference, micro: PairBatch, place: int) -> Tensor:
    row = ours.row(micro, place)
    assert isinstance(row, PairRow)
    shares = ours.token_losses(ours.model(row.inputs, document_ids=row.document_ids), row)
    assert bool((shares[row.targets < 0] == 0).all())
    return shares


def test_logits_in_pieces_give_the_same_losses_and_gradients() -> None:
    generator = torch.Generator().manual_seed(2)
    hidden, weight = (torch.randn(*shape, generator=generator) for shape in ((2, 9, 8), (30, 8)))
    targets = torch.randint(0, 30, (2, 9), generator=generator)
    targets[0, 2:5] = -100
    factors = torch.randn(15, generator=generator)
    results = []
    for at_once in (4, 100):
        leaves = [hidden.clone().requires_grad_(), weight.clone().requires_grad_()]
        losses = trained_losses(leaves[0], targets, leaves[1], at_once=at_once)
        (losses * factors).sum().backward()  # type: ignore[no-untyped-call]
        results.append([losses, *(leaf.grad for leaf in leaves)])
    torch.testing.assert_close(*results)
    torch.testing.assert_close(results[0][0].sum(), summed_loss(hidden, targets, weight))


def test_both_answers_of_a_pair_share_a_row_and_do_not_see_each_other(base: Base, part: TokenPart) -> None:
    assert part.examples is not None
    assert part.examples.rejected is not None
    packing = Packing.of(part, 256)
    scope = ChosenTokens("chosen", part.examples)
    texts = []
    for row in range(len(packing.rows)):
        inputs, targets, places, owners = packing.inputs(row)
        chosen = scope.mask(part, places)
        for number in sorted(set(owners[owners >= 0].tolist())):
            own = owners == number
            assert inputs[own][0] == base.tokenizer.backend.token_to_id("<|im_start|>")
            trained = own & part.examples.trained[places]
            assert bool((chosen[own] == (part.examples.trained[places][own] & (number % 2 == 0))).all())
            texts.append(base.tokenizer.decode(targets[trained].tolist()).removesuffix("<|im_end|>"))
    answers = [turns[-1].content for e in PAIRS for turns in (e.messages, e.rejected)]
    assert sorted(texts) == sorted(answers)
    longest = max(len(e.ids) for e in encode(PAIRS, base))
    fewer = Packing.of(part, longest - 2)
    assert fewer.pieces.dropped == 1
    assert all(len(e.ids) in fewer.pieces.lengths for e in encode(PAIRS, base) if len(e.ids) < longest)


def test_the_preview_shows_where_the_rejected_answer_begins(base: Base) -> None:
    (e,) = encode(PAIRS[:1], base)
    shown = list(shown_tokens(e, states_of(e, len(e.ids)), base.tokenizer))
    at = [token.text for token in shown].index(BETWEEN)
    assert "".join(token.text for token in shown[:at]).endswith("At 9:30.<|im_end|>")
    assert "".join(token.text for token in shown[at + 1 :]).endswith("No idea, sorry.<|im_end|>")


def test_what_both_conversations_share_is_context_only(base: Base) -> None:
    for mask in ("assistant", "last", "all"):
        e = encode_example(PAIRS[1], base.tokenizer, template_of(base.tokenizer), mask)  # type: ignore[arg-type]
        trained = base.tokenizer.decode([id for id, own in zip(e.ids, e.trained, strict=True) if own])
        assert trained == "In 1962.<|im_end|>Yes.<|im_end|>"
