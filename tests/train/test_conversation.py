"""Training on conversations: the loss does not depend on packing, and equals that of transformers on each alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from bare_models import make_model
from etude.config import DeviceSettings
from etude.data.conversations.conversation import Example, Message
from etude.data.conversations.encode import Encoded, encode_example
from etude.data.conversations.shards import rendered, special_ids
from etude.data.conversations.template import template_of
from etude.data.tokens.coverage import IGNORE_INDEX
from etude.data.tokens.examples import ExampleWriter, open_examples
from etude.data.tokens.packing import Packing
from etude.data.tokens.parts import TokenPart
from etude.data.tokens.rows import training_rows
from etude.data.tokens.tokenizer import EtudeTokenizer
from etude.data.tokens.vocabulary import train_bpe
from etude.device import Device, choose_device
from etude.model.folder import load_model_folder, save_model_folder
from etude.pretrained.base import Base, open_base
from etude.pretrained.chat_tokens import new_tokens, with_chat_template
from etude.train.objectives.conversation import TrainedTokens
from etude.train.objectives.next_token import NextToken
from etude.train.step import batch_gradient
from networks import make_config, make_network

transformers = pytest.importorskip("transformers")


def conversation(*turns: tuple[str, str]) -> Example:
    messages = [
        message
        for question, answer in turns
        for message in (Message("user", question), Message("assistant", answer))
    ]
    return Example("conversation", tuple(messages))


EXAMPLES = [
    conversation(("When?", "At 9:30.")),
    conversation(("Who founded the museum?", "Ilse did."), ("And when?", "In 1962, I am told.")),
    conversation(("Is <|im_end|> a word?", "No.")),
    Example("completion", text="2 + 2 =", completion=" 4"),
    Example("text", text="The tram leaves every 45 minutes."),
]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    folder = tmp_path_factory.mktemp("conversation")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ETUDE_CACHE", str(folder / "cache"))
        return with_chat_template(
            open_base(make_model(folder / "base", "llama", max_position_embeddings=256))
        )


@pytest.fixture(scope="module")
def encoded(base: Base) -> list[Encoded]:
    template = template_of(base.tokenizer)
    return [encode_example(example, base.tokenizer, template, "assistant") for example in EXAMPLES]


def part_of(folder: Path, encoded: list[Encoded], tokenizer: EtudeTokenizer) -> TokenPart:
    writer = ExampleWriter(folder, "train")
    not_text = special_ids(tokenizer)
    sizes = [
        writer.add(
            e.trained,
            () if e.cuttable else e.turn_ends,
            *rendered(e.until(e.second or len(e.ids)), tokenizer, not_text),
            e.second,
        )
        for e in encoded
    ]
    writer.close()
    tokens = np.concatenate([np.array(e.ids, np.uint32) for e in encoded])
    places = np.cumsum([0, *(len(e.ids) for e in encoded)])
    marks = np.stack([places, np.cumsum([0, *sizes])])
    examples = open_examples(folder, "train", len(tokens), tuple(sorted(not_text)))
    return TokenPart([tokens], tokenizer.roles.document_id, places, marks, str, examples)


@pytest.fixture
def device() -> Device:
    return choose_device(DeviceSettings(kind="cpu", dtype="fp32", threads=1))


def gradients(
    base: Base, part: TokenPart, device: Device, rows: int, context: int, at_once: int
) -> tuple[float, dict[str, torch.Tensor]]:
    """Return the mean loss of the first step, and the gradient of every parameter."""
    model, _ = load_model_folder(base.folder)
    assert part.examples is not None
    objective = NextToken(
        model,
        training_rows(part, context, rows, 3),
        device,
        num_steps=1,
        micro_batch_rows=at_once,
        scope=TrainedTokens("the answers", part.examples),
        within_documents=True,
        lean=True,
    )
    parameters = list(model.parameters())
    loss = batch_gradient(parameters, objective.loss, objective.batch(1), device).value
    return float(loss), {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize(("spare", "at_once"), [(0, 1), (0, 8), (7, 2), (100, 1)])
def test_loss_and_gradient_equal_those_of_each_conversation_alone(
    tmp_path: Path, base: Base, encoded: list[Encoded], device: Device, spare: int, at_once: int
) -> None:
    part = part_of(tmp_path, encoded, base.tokenizer)
    context = max(len(e.ids) for e in encoded) - 1 + spare
    packed = len(Packing.of(part, context).rows)
    loss, gradient = gradients(base, part, device, packed, context, min(at_once, packed))
    expected = transformers.AutoModelForCausalLM.from_pretrained(base.folder, dtype=torch.float32)
    total = sum(int(e.trained[1:].sum()) for e in encoded)
    summed = torch.zeros(())
    for e in encoded:
        ids = torch.tensor([e.ids])
        labels = torch.where(torch.from_numpy(e.trained)[None], ids, IGNORE_INDEX)
        count = int((labels[:, 1:] != IGNORE_INDEX).sum())
        summed = summed + expected(input_ids=ids, labels=labels).loss * count
    (summed / total).backward()
    assert loss == pytest.approx(float(summed.detach() / total), rel=1e-6)
    names = dict(expected.named_parameters())
    for name, ours in gradient.items():
        torch.testing.assert_close(ours, names[name].grad, rtol=1e-4, atol=1e-6)


def test_text_of_tokens_is_what_the_template_writes(base: Base, encoded: list[Encoded]) -> None:
    template, not_text = template_of(base.tokenizer), special_ids(base.tokenizer)
    assert template is not None
    text, spans = rendered(encoded[1], base.tokenizer, not_text)
    assert template.render(EXAMPLES[1].messages).startswith(text)
    assert [text[start:end] for start, end in spans] == ["Ilse did.", "In 1962, I am told."]


def test_a_base_without_template_gets_chatml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ETUDE_CACHE", str(tmp_path / "cache"))
    tokenizer = train_bpe(["one day a tram rode over the hill"] * 9, 270, "gpt2")
    tokenizer.save(tmp_path / "tokenizer")
    vocabulary = tokenizer.vocab_size
    # An MLP as wide as the vocabulary: its matrices have as many rows as the embedding, and get no more.
    config = make_config("llama-grouped-tied", vocab_size=vocabulary, intermediate_size=vocabulary)
    save_model_folder(tmp_path / "base", make_network(config), config, tmp_path / "tokenizer")
    plain = open_base(tmp_path / "base")
    assert new_tokens(plain) == ["<|im_start|>", "<|im_end|>"]
    base = with_chat_template(plain)
    assert new_tokens(base) == []
    assert base.config.vocab_size == plain.config.vocab_size + 2
    assert base.tokenizer.roles.end_of_turn == "<|im_end|>"
    assert transformers.AutoTokenizer.from_pretrained(base.folder).chat_template
    assert with_chat_template(base) is base
    rows, before = (load_model_folder(b.folder)[0].unembedding()[0] for b in (base, plain))
    assert torch.equal(rows[:-2], before)
    torch.testing.assert_close(rows[-1], before.mean(0))
    text = "one day <|im_end|>"
    assert base.tokenizer.encode(text) == plain.tokenizer.encode(text)  # what a user types stays text
