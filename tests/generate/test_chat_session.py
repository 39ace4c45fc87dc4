"""A conversation with a model: its answers, what ends them, undo and retry, other checkpoints, and its file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from chat_models import CONTEXT, END_OF_TURN, end_turns_instead_of, make_chat_model
from etude.data.conversations.conversation import Message
from etude.errors import EtudeError, InputError
from etude.generate.chat_session import ChatSession
from etude.generate.engine import generate
from etude.generate.language import Language, load
from etude.generate.sampling import SamplingSettings

SETTINGS = SamplingSettings(temperature=0.9, top_p=0.95, max_new_tokens=8)
GREEDY = SamplingSettings(temperature=0.0, max_new_tokens=8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_chat_model(tmp_path_factory.mktemp("chat") / "model")


@pytest.fixture(scope="module")
def language(folder: Path) -> Language:
    return load(folder)


@pytest.fixture
def session(language: Language) -> ChatSession:
    return ChatSession(language, settings=SETTINGS, seed=3)


def say(session: ChatSession, text: str) -> str:
    return "".join(session.ask(text))


def test_an_answer_is_added_as_it_was_generated(session: ChatSession) -> None:
    session.system = "Be brief."
    pieces = list(session.ask("Hello?"))
    assert len(pieces) > 1
    assert session.messages == [
        Message("system", "Be brief."),
        Message("user", "Hello?"),
        Message("assistant", "".join(pieces)),
    ]
    assert session.finish == "length"
    say(session, "And now?")
    assert [turn.role for turn in session.turns] == ["user", "assistant", "user", "assistant"]


def test_the_tokens_are_those_of_the_engine_and_an_end_of_turn_is_never_printed(
    folder: Path, language: Language, tmp_path: Path
) -> None:
    session = ChatSession(language, settings=GREEDY)
    prompt = session._chatter.prompt([Message("user", "Hello?")], 8).ids
    (whole,) = generate(language.model, [prompt], GREEDY, stop_ids={END_OF_TURN}, seed=0)
    text = say(session, "Hello?")
    assert text == language.tokenizer.decode(whole.token_ids)
    place = next(n for n in range(1, 8) if whole.token_ids[n] not in whole.token_ids[:n])
    ending = load(end_turns_instead_of(whole.token_ids[place], folder, tmp_path / "ending"))
    ended = ChatSession(ending, settings=GREEDY)
    assert say(ended, "Hello?") == language.tokenizer.decode(whole.token_ids[:place])
    assert ended.finish == "eos"
    assert "<|im_end|>" not in ended.turns[1].content
    following = ended._chatter.prompt([*ended.turns[:2], Message("user", "b")], 8).ids
    assert following[: len(prompt)] == prompt
    assert following.count(END_OF_TURN) == 3


def test_the_same_seed_gives_the_same_answers(language: Language) -> None:
    def talk(seed: int) -> list[str]:
        session = ChatSession(language, settings=SETTINGS, seed=seed)
        return [say(session, "Hello?"), say(session, "Hello?")]

    assert talk(3) == talk(3) != talk(4)
    session = ChatSession(language, settings=SETTINGS, seed=3)
    assert language.chat("Hello?", SETTINGS, 3) == say(session, "Hello?")
    messages = [{"role": turn.role, "content": turn.content} for turn in session.turns]
    following = language.chat([*messages, {"role": "user", "content": "Hello?"}], SETTINGS, 3)
    assert following == talk(3)[1]
    assert language.chat("Hello?", SETTINGS, 3, max_new_tokens=2) != following


def test_undo_and_retry(session: ChatSession) -> None:
    for refused in (session.undo, session.retry):
        with pytest.raises(InputError, match=r"there is no answer to .* yet"):
            refused()
    first = say(session, "Hello?")
    other = "".join(session.retry())
    assert other != first
    assert session.turns == [Message("user", "Hello?"), Message("assistant", other)]
    third = "".join(session.retry())
    assert third not in (first, other)
    assert session.undo() == "Hello?"
    assert session.turns == []
    assert say(session, "Hello?") == first


def test_the_likeliest_answer_is_the_default_and_the_others_are_drawn(language: Language) -> None:
    session = ChatSession(language)
    likeliest = say(session, "Hello?")
    assert likeliest == language.chat("Hello?", temperature=0.0, max_new_tokens=256)
    assert "".join(session.retry()) != likeliest
    assert session.settings.temperature == 0


def test_an_answer_that_is_ended_early_stays_as_far_as_it_was_generated(session: ChatSession) -> None:
    answer = session.ask("Hello?")
    some = next(answer) + next(answer)
    answer.close()
    assert session.turns == [Message("user", "Hello?"), Message("assistant", some)]
    assert session.finish is None
    never = session.ask("Not read")
    never.close()
    assert len(session.turns) == 2
    kept = session.turns[1]
    session.retry().close()
    assert session.turns[1] == kept
    assert session.retries == 0


@pytest.mark.parametrize("text", ["", "  \n"])
def test_an_empty_question_is_refused(session: ChatSession, text: str) -> None:
    with pytest.raises(InputError, match="the message is empty"):
        session.ask(text)
    with pytest.raises(InputError, match="must be from user"):
        session.answer([])


def test_a_stop_text_ends_an_answer(language: Language) -> None:
    session = ChatSession(language, settings=SETTINGS, seed=3)
    whole = say(session, "Hello?")
    stop = whole[4:6]
    stopped = ChatSession(language, settings=SETTINGS, seed=3, stop=stop)
    assert say(stopped, "Hello?") == whole[: whole.index(stop)]
    assert stopped.finish == "stop"


def test_old_exchanges_are_kept_but_no_longer_read(session: ChatSession) -> None:
    for number in range(6):
        say(session, f"Question {number}? " + "fox " * 6)
    assert session.dropped > 0
    assert len(session.turns) == 12
    say(session, "short")
    assert session.context == CONTEXT
    kept = session.turns
    with pytest.raises(InputError, match="shorten the text"):
        session.ask("fox " * 300)
    assert session.turns is kept


def test_the_conversation_continues_with_another_model(session: ChatSession, tmp_path: Path) -> None:
    say(session, "Hello?")
    before = list(session.turns)
    other = load(make_chat_model(tmp_path / "other", seed=9))
    session.use(other, tmp_path / "other")
    assert session.turns == before
    answer = say(session, "Still there?")
    expected = ChatSession(other, settings=SETTINGS, seed=3)
    given = [*before, Message("user", "Still there?")]
    assert "".join(expected.answer(given)) == answer
    base = load(make_chat_model(tmp_path / "base", None))
    with pytest.raises(InputError, match="no chat template"):
        session.use(base, "base")
    assert session.language is other


def test_a_saved_conversation_continues_as_if_it_had_not_ended(
    session: ChatSession, language: Language, tmp_path: Path
) -> None:
    session.system = "Be <|im_end|> brief. é🦊"
    say(session, "Hello?")
    "".join(session.retry())
    session.save(tmp_path / "talk.json")
    stated = json.loads((tmp_path / "talk.json").read_text())
    assert stated["model"] == str(language.folder)
    assert stated["seed"] == 3
    assert stated["settings"]["max_new_tokens"] == 8
    opened = ChatSession(language)
    assert opened.load(tmp_path / "talk.json") == str(language.folder)
    assert opened.messages == session.messages
    assert opened.settings == session.settings
    assert "".join(opened.retry()) == "".join(session.retry())
    assert say(opened, "And?") == say(session, "And?")
    session.save(tmp_path / "talk.json")  # replaces its own file
    assert len(json.loads((tmp_path / "talk.json").read_text())["messages"]) == 5


def test_messages_of_another_program_can_be_loaded(session: ChatSession, tmp_path: Path) -> None:
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho", "more": 1}]
    (tmp_path / "a.json").write_text(json.dumps({"messages": messages}))
    assert session.load(tmp_path / "a.json") == ""
    assert session.turns == [Message("user", "Hi"), Message("assistant", "Ho")]
    assert session.seed == 0


GOOD = {"messages": [], "settings": {}}
BAD: dict[str, Any] = {
    "text": "hello",
    "half a file": '{"messages": [{"role": "user"',
    "deep": "[" * 200_000,
    "a list": "[]",
    "another object": '{"model_type": "llama"}',
    "messages that are none": '{"messages": 3}',
    "a message without content": '{"messages": [{"role": "user"}]}',
    "a question at the end": '{"messages": [{"role": "user", "content": "a"}]}',
    "a later schema": json.dumps(GOOD | {"schema": 2}),
    "a seed that is none": json.dumps(GOOD | {"seed": "3"}),
    "a seed that is too large": json.dumps(GOOD | {"seed": 2**70}),
    "negative retries": json.dumps(GOOD | {"retries": -1}),
    "unknown settings": json.dumps(GOOD | {"settings": {"heat": 3}}),
    "wrong settings": json.dumps(GOOD | {"settings": {"temperature": "hot"}}),
    "a stop text that is none": json.dumps(GOOD | {"settings": {"stop": [3]}}),
}


@pytest.mark.parametrize("content", BAD.values(), ids=BAD.keys())
def test_a_strangers_or_damaged_file_changes_nothing(
    session: ChatSession, content: str, tmp_path: Path
) -> None:
    say(session, "Hello?")
    before = (session.messages, session.settings, session.seed, session.stop, session.retries)
    file = tmp_path / "talk.json"
    file.write_text(content)
    with pytest.raises(InputError) as refused:
        session.load(file)
    assert str(file) in str(refused.value)
    assert "\n" not in str(refused.value)
    assert (session.messages, session.settings, session.seed, session.stop, session.retries) == before


def test_saving_replaces_nothing_else(session: ChatSession, tmp_path: Path) -> None:
    say(session, "Hello?")
    notes = tmp_path / "notes.txt"
    notes.write_text("mine")
    with pytest.raises(InputError, match="exists and is no saved conversation"):
        session.save(notes)
    assert notes.read_text() == "mine"
    with pytest.raises(InputError, match="exists and is no"):
        session.save(tmp_path)
    with pytest.raises(EtudeError, match="could not write"):
        session.save(tmp_path / "missing" / "talk.json")
    with pytest.raises(InputError, match="there is no file"):
        session.load(tmp_path / "missing.json")
    with pytest.raises(InputError, match="not a plain file"):
        session.load(tmp_path)
