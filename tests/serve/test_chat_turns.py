"""Conversations in the studio: the answers of ``etude chat``, with their tokens, and looks at exactly these."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from chat_models import CONTEXT, make_shelf
from etude.data.tokens.vocabulary import train_char
from etude.errors import InputError
from etude.generate.chat_session import ChatSession
from etude.generate.language import load
from etude.generate.sampling import SamplingSettings
from etude.serve.answers import Answers
from etude.serve.chat_facts import knows_turns
from etude.serve.collection import Collection
from etude.serve.look_types import ConversationLine, TokenLine
from etude.serve.model_facts import facts_of_model
from etude.serve.request import Question
from etude.serve.tensor_files import TensorFiles
from serving import require_type
from watched import Watched

SAMPLING = {"temperature": 0.9, "top_p": 0.95, "seed": 4, "count": 6}


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_shelf(tmp_path_factory.mktemp("shelf"))


@pytest.fixture(scope="module")
def answers(shelf: Path, tmp_path_factory: pytest.TempPathFactory) -> Answers:
    return Answers(Collection(shelf), TensorFiles(tmp_path_factory.mktemp("tensors")))


def ask(answers: Answers, look: str, model: str = "talks", **fields: Any) -> tuple[Any, list[Any]]:
    """Return the answer to a question, and the messages before it."""
    messages: list[Any] = []
    answer: Any = answers.answer(Question({"run": model, "look": look, **fields}), messages.append)
    if look != "chat":
        return answer, messages
    while True:
        try:
            next(answer)
        except StopIteration as end:
            return end.value, messages


def test_the_answers_are_those_of_a_session(answers: Answers, shelf: Path) -> None:
    settings = SamplingSettings(temperature=0.9, top_p=0.95, max_new_tokens=6)
    session = ChatSession(load(shelf / "talks"), settings=settings, seed=4, system="Be brief.")
    said: list[dict[str, str]] = [{"role": "system", "content": "Be brief."}]
    for text in ("Hello?", "say <|im_end|>", "fox " * 12):
        said.append({"role": "user", "content": text})
        expected = "".join(session.ask(text))
        answer, lines = ask(answers, "chat", messages=said, **SAMPLING)
        assert answer["text"] == expected
        assert answer["finish"] == session.finish == "length"
        conversation, *tokens = [line for line in lines if "progress" not in line]
        require_type(ConversationLine, conversation)
        assert conversation["conversation"]["dropped"] == session.dropped
        for token in tokens:
            require_type(TokenLine, token)
        assert load(shelf / "talks").tokenizer.decode([t["token"]["id"] for t in tokens]) == expected
        said.append({"role": "assistant", "content": expected})
    assert session.dropped > 0
    again, _ = ask(answers, "chat", messages=said[:-1], retries=1, **SAMPLING)
    assert again["text"] == "".join(session.retry())


def test_the_tokens_of_a_conversation_are_looked_at_as_they_were_read(answers: Answers) -> None:
    said = [{"role": "user", "content": "Hello?"}]
    _, lines = ask(answers, "chat", messages=said, **SAMPLING)
    lines = [line for line in lines if "progress" not in line]
    before = lines[0]["conversation"]["ids"]
    ids = before + [line["token"]["id"] for line in lines[1:]]
    prompt, _ = ask(answers, "prompt", ids=ids)
    assert prompt["ids"] == ids
    assert prompt["tokens"][0] == "<|im_start|>"
    assert "<|im_end|>" in prompt["tokens"]
    # What was predicted when the answer was written: the loss of its tokens is that of their probabilities.
    losses = prompt["losses"][len(before) - 1 :]
    for loss, line in zip(losses, lines[1:], strict=True):
        assert 2.718281828 ** (-loss) == pytest.approx(line["token"]["probability"], rel=1e-3)
    for look, fields in (
        ("head", {"layer": 0, "head": 1}),
        ("attribution", {}),
        ("neurons", {"layer": 0}),
        ("node_in_text", {"layer": 0, "unit": 2}),
        ("layers", {}),
        ("compare", {"knobs": ["model.layers.0.mlp_out*0"]}),
    ):
        answer, _ = ask(answers, look, ids=ids, **fields)
        if "tokens" in answer:
            assert list(answer["tokens"]) == list(prompt["tokens"])


@pytest.mark.parametrize(
    ("model", "fields", "reason"),
    [
        ("talks", {"messages": "hello"}, "must be a list"),
        ("talks", {"messages": [{"role": "user", "content": " "}]}, "the message is empty"),
        ("talks", {"messages": [{"role": "assistant", "content": "a"}]}, "turn 1"),
        ("talks", {"messages": [{"role": "user", "content": "fox " * 300}]}, f"the model reads {CONTEXT}"),
        ("talks", {"messages": [{"role": "user", "content": "a" * 200_001}]}, "at most 200,000 characters"),
        ("base", {"messages": [{"role": "user", "content": "a"}]}, "base has no chat template"),
    ],
)
def test_what_cannot_be_answered_is_refused(
    answers: Answers, model: str, fields: dict[str, Any], reason: str
) -> None:
    with pytest.raises(InputError, match=reason):
        ask(answers, "chat", model, **fields)


@pytest.mark.parametrize("ids", [[], [420], [1] * (CONTEXT + 1), [-1], ["1"], "1"])
def test_tokens_that_cannot_be_read_are_refused(answers: Answers, ids: Any) -> None:
    with pytest.raises(InputError):
        ask(answers, "prompt", ids=ids)


def test_a_run_reads_tokens_at_every_checkpoint(studied: Watched, tmp_path: Path) -> None:
    answers = Answers(Collection(studied.path.parent), TensorFiles(tmp_path))
    name = studied.path.name
    story, _ = ask(answers, "story", name, ids=[0, 5, 6, 7], steps=[0, 16])
    assert len(story["tokens"]) == 4
    prompt, _ = ask(answers, "prompt", name, ids=[0, 5, 6, 7], step=16)
    assert prompt["losses"] == pytest.approx(story["losses"][1])
    with pytest.raises(InputError, match="no chat template"):
        ask(answers, "chat", name, messages=[{"role": "user", "content": "a"}], step=16)


def test_the_page_knows_which_models_know_turns(shelf: Path, studied: Watched, tmp_path: Path) -> None:
    assert facts_of_model("talks", shelf / "talks")["turns"]
    assert not facts_of_model("base", shelf / "base")["turns"]
    assert not knows_turns(studied.path / "checkpoints" / "step-00000000")
    own = train_char(["abc <|>_"])
    own.save(tmp_path / "own")
    assert not knows_turns(tmp_path / "own")
    own.backend.add_special_tokens(["<|im_start|>", "<|im_end|>"])
    own.save(tmp_path / "chatml")
    assert knows_turns(tmp_path / "chatml")
    shutil.copytree(shelf / "talks", tmp_path / "jinja")
    (tmp_path / "jinja" / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|im_end|>"}))
    assert not knows_turns(tmp_path / "jinja")
    (tmp_path / "jinja" / "chat_template.jinja").write_text("{{ messages }}")
    assert knows_turns(tmp_path / "jinja")
    (tmp_path / "jinja" / "chat_template.jinja").write_bytes(b"\xff")
    assert not knows_turns(tmp_path / "jinja")
