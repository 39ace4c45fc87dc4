"""Rows of many formats as examples, and why a row is not usable."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etude.data.conversations.conversation import Example, Message
from etude.data.conversations.formats import example_of, is_conversation
from etude.data.reading.piece import Unusable

USER, ANSWER = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}
TWO = Example("conversation", (Message("user", "Hi"), Message("assistant", "Hello")))
PAIR = Example("preference", TWO.messages, rejected=(Message("user", "Hi"), Message("assistant", "Go")))
BRIEF = Example("conversation", (Message("system", "Be brief."), *TWO.messages))


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"messages": [USER, ANSWER]}, TWO),
        ({"messages": [USER, ANSWER], "prompt": "Hi", "id": 3}, TWO),
        ({"messages": json.dumps([USER, ANSWER])}, TWO),
        ({"messages": [{"role": "system", "content": ""}, USER, ANSWER, USER]}, TWO),
        ({"messages": [{"role": "developer", "content": "Be brief."}, USER, ANSWER]}, BRIEF),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}, ANSWER]}, TWO),
        ({"messages": [{**USER, "tool_calls": None, "name": None}, ANSWER], "tools": None}, TWO),
        ({"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]}, TWO),
        ({"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}], "system": "Be brief."}, BRIEF),
        ({"conversations": [USER, ANSWER]}, TWO),
        ({"instruction": "Hi", "input": "", "output": "Hello"}, TWO),
        ({"instruction": "Hi", "output": "Hello", "system": "Be brief.", "history": []}, BRIEF),
        ({"instruction": "Add.", "input": "1 2", "output": "3"}, Example("conversation", (Message("user", "Add.\n\n1 2"), Message("assistant", "3")))),
        ({"question": "Hi", "answer": "Hello"}, TWO),
        ({"prompt": [USER], "completion": [ANSWER]}, TWO),
        ({"prompt": [USER], "completion": "Hello"}, TWO),
        ({"prompt": json.dumps([USER]), "completion": json.dumps([ANSWER])}, TWO),
        ({"prompt": [USER, ANSWER, USER], "completion": [ANSWER]}, Example("conversation", TWO.messages * 2, (1,))),
        ({"prompt": "2+2=", "completion": "4"}, Example("completion", text="2+2=", completion="4")),
        ({"prompt": "", "completion": "4"}, Example("completion", completion="4")),
        ({"prompt": "Hi", "chosen": "Hello", "rejected": "Go"}, PAIR),
        ({"prompt": [USER], "chosen": [ANSWER], "rejected": [{**ANSWER, "content": "Go"}]}, PAIR),
        ({"prompt": "Hi", "chosen": [ANSWER], "rejected": "Go"}, PAIR),
        ({"chosen": [USER, ANSWER], "rejected": [USER, {**ANSWER, "content": "Go"}]}, PAIR),
        ({"prompt": "Hi", "chosen": [USER, ANSWER], "rejected": [USER, {**ANSWER, "content": "Go"}]}, PAIR),
        ({"chosen": json.dumps([USER, ANSWER]), "rejected": json.dumps([USER, {**ANSWER, "content": "Go"}])}, PAIR),
        ({"text": "Once"}, Example("text", text="Once")),
        ({"text": "Once", "messages": [USER, ANSWER]}, Example("text", text="Once")),
        ({"text": None, "messages": [USER, ANSWER]}, TWO),
        ({"text": "", "messages": [USER, ANSWER]}, TWO),
    ],
)  # fmt: skip
def test_the_format_is_found_by_the_keys(row: dict[str, Any], expected: Example) -> None:
    assert example_of(row) == expected
    assert is_conversation(row) == (expected.kind != "text")


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({}, "no known format"),
        ({"title": "x", "body": "y"}, "no known format"),
        ({"text": " \n"}, "text without content"),
        ({"messages": "Hi"}, "no list of messages"),
        ({"messages": {"role": "user"}}, "no list of messages"),
        ({"messages": ["Hi"]}, "no list of messages"),
        ({"messages": [USER]}, "no assistant turn"),
        ({"messages": [{"role": "system", "content": "x"}]}, "no assistant turn"),
        ({"messages": [ANSWER]}, "roles out of order"),
        ({"messages": [USER, USER, ANSWER]}, "roles out of order"),
        ({"messages": [USER, {"role": "system", "content": "x"}, ANSWER]}, "roles out of order"),
        ({"messages": [{**USER, "content": " "}, ANSWER]}, "empty message"),
        ({"messages": [USER, {**ANSWER, "content": None}]}, "empty message"),
        ({"messages": [USER, {"role": "narrator", "content": "x"}]}, "unknown role"),
        ({"messages": [USER, {"role": "tool", "content": "x"}, ANSWER]}, "tools"),
        ({"messages": [USER, {**ANSWER, "tool_calls": [{"id": 1}]}]}, "tools"),
        ({"messages": [USER, ANSWER], "tools": [{"name": "x"}]}, "tools"),
        ({"messages": [USER, ANSWER], "images": ["a.png"]}, "images or audio"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}, ANSWER]}, "images or audio"),
        ({"messages": [USER, {"role": "assistant", "content": 3}]}, "text is not a string"),
        ({"messages": [USER, {**ANSWER, "weight": 0}]}, "no assistant turn to train"),
        ({"prompt": [USER, ANSWER], "completion": [USER]}, "no assistant turn to train"),
        ({"prompt": "x", "completion": ""}, "no known format"),
        ({"prompt": "x", "completion": " "}, "empty completion"),
        ({"instruction": "Hi", "output": ""}, "no assistant turn"),
        ({"instruction": "Hi", "output": "x", "history": ["y"]}, "bad history"),
        ({"chosen": "y", "rejected": "z"}, "no prompt"),
        ({"chosen": [ANSWER], "rejected": [{**ANSWER, "content": "No"}]}, "no prompt"),
        ({"chosen": [USER, ANSWER], "rejected": [USER, ANSWER]}, "equal answers"),
        ({"chosen": [USER, ANSWER], "rejected": [{**USER, "content": "Ho"}, ANSWER]}, "no common prompt"),
        ({"chosen": [USER, ANSWER], "rejected": [USER, ANSWER, USER, ANSWER]}, "no common prompt"),
        ({"chosen": [USER, ANSWER], "rejected": [USER]}, "no assistant turn"),
        ({"prompt": "Hi", "chosen": "Hello", "rejected": " "}, "empty message"),
        ({"prompt": "Hi", "chosen": "Hello"}, "no known format"),
    ],
)  # fmt: skip
def test_a_row_that_cannot_be_used_says_why(row: dict[str, Any], reason: str) -> None:
    with pytest.raises(Unusable) as error:
        example_of(row)
    assert error.value.reason == reason


def test_what_cleaning_leaves_empty_is_empty() -> None:
    row = {"messages": [{"role": "user", "content": "\x00"}, ANSWER]}
    with pytest.raises(Unusable, match="empty message"):
        example_of(row, lambda text: text.replace("\x00", ""))


KEYS = st.sampled_from(
    ["messages", "conversations", "role", "content", "from", "value", "text", "prompt", "completion", "instruction",
     "output", "history", "system", "chosen", "rejected", "tools", "weight", "type", "question", "answer", "input"]
)  # fmt: skip
TEXTS = st.text(st.characters(exclude_categories=[]), max_size=30)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS | KEYS, inner, max_size=4),
    max_leaves=12,
)
TURN = st.fixed_dictionaries(
    {
        "role": st.sampled_from(["user", "assistant", "system", "tool", "gpt"]) | VALUES,
        "content": TEXTS | VALUES,
    }
)


@given(st.dictionaries(KEYS, VALUES | st.lists(TURN, max_size=5), max_size=6))
def test_any_row_is_an_example_or_unusable(row: dict[str, Any]) -> None:
    is_conversation(row)
    try:
        example = example_of(row)
    except Unusable:
        return
    assert Example.from_json(example.to_json()) == example
    if example.kind == "conversation":
        assert example.trained_turns()
    if example.kind == "preference":
        chosen, rejected = example.answers()
        assert chosen.trained_turns()
        assert rejected.trained_turns()
        assert chosen.messages != rejected.messages


EXAMPLES = st.one_of(
    st.builds(lambda text: Example("text", text=text), TEXTS),
    st.builds(lambda text, completion: Example("completion", text=text, completion=completion), TEXTS, TEXTS),
    st.builds(
        lambda texts, untrained: Example(
            "conversation",
            tuple(Message("assistant" if i % 2 else "user", text) for i, text in enumerate(texts)),
            untrained,
        ),
        st.lists(TEXTS, min_size=2, max_size=6),
        st.sampled_from([(), (1,), (1, 3)]),
    ),
    st.builds(
        lambda asked, chosen, rejected: Example(
            "preference",
            (Message("user", asked), Message("assistant", chosen)),
            rejected=(Message("user", asked), Message("assistant", rejected)),
        ),
        TEXTS,
        TEXTS,
        TEXTS,
    ),
)


@given(EXAMPLES)
def test_an_example_is_one_line_and_comes_back(example: Example) -> None:
    line = example.to_json()
    assert "\n" not in line
    assert Example.from_json(line) == example


@given(VALUES)
def test_a_line_of_something_else_is_refused(value: Any) -> None:
    line = json.dumps(value)
    if not (isinstance(value, dict) and "kind" in value):
        with pytest.raises(ValueError, match="example"):
            Example.from_json(line)


def test_a_system_prompt_beside_messages_is_the_system_turn() -> None:
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Salve"}]
    example = example_of({"system": "Answer in Latin.", "messages": messages})
    assert [turn.role for turn in example.messages] == ["system", "user", "assistant"]


def test_what_is_marked_as_not_to_be_trained_is_not() -> None:
    with pytest.raises(Unusable, match="label of false"):
        example_of({"prompt": "2+2=", "completion": "5", "label": False})
    turns = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Go", "train": False},
        {"role": "user", "content": "Hi again"},
        {"role": "assistant", "content": "Hello"},
    ]
    assert example_of({"messages": turns}).trained_turns() == [3]
