"""Held-out questions, the form in which answers are compared, and few-shot prompts."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tuned_folders import corpus_of

from etude.data.conversations.conversation import SAMPLED, Example, Message
from etude.evaluate.tuning.held_out import (
    Question,
    comparable,
    held_out_questions,
    question_of,
    training_questions,
)
from etude.evaluate.tuning.prompting import MOST_EXAMPLES, Shot, is_right, prompted, training_answers


def conversation(*turns: str, system: str = "", untrained: tuple[int, ...] = ()) -> Example:
    messages = [Message("system", system)] if system else []
    for at, turn in enumerate(turns):
        messages.append(Message("assistant" if at % 2 else "user", turn))
    return Example("conversation", tuple(messages), untrained)


def question(asked: str, answer: str = "Yes.") -> Question:
    made = question_of(conversation(asked, answer))
    assert made is not None
    return made


def test_the_question_is_what_stands_before_the_last_trained_answer() -> None:
    whole = conversation("Hi", "Hello", "Who?", "I.", system="Be brief.")
    made = question_of(whole)
    assert made is not None
    assert (made.example, made.asked, made.answer) == (whole, "Who?", "I.")
    earlier = question_of(conversation("Hi", "Hello", "Who?", "I.", untrained=(3,)))
    assert earlier is not None
    assert (earlier.asked, earlier.answer, len(earlier.example.messages)) == ("Hi", "Hello", 2)
    assert question_of(conversation("Hi", "Hello", untrained=(1,))) is None
    assert question_of(Example("text", text="A text.")) is None
    completed = question_of(Example("completion", text="2+2=", completion="4"))
    assert completed is not None
    assert (completed.asked, completed.answer) == ("2+2=", "4")
    assert completed.with_answer("5").completion == "5"


def lines(count: int) -> list[bytes]:
    return [conversation(f"Question {n}?", f"Answer {n}.").to_json().encode() for n in range(count)]


def test_a_limit_takes_the_same_questions_whatever_their_order() -> None:
    some, number = held_out_questions(lines(40), 7)
    reordered, _ = held_out_questions(lines(40)[::-1], 7)
    assert (some, number) == (reordered, 40)
    assert len(some) == 7
    all_of_them, _ = held_out_questions(lines(40), 100)
    assert all_of_them[:7] == some
    assert len({question.key for question in all_of_them}) == 40


@pytest.mark.parametrize(
    ("answer", "reference", "right"),
    [
        ("The  Gray\nHeron", "the gray heron.", True),
        ("9:30!", "9:30", True),
        ("cafe\u0301", "CAF\u00c9", True),
        ("14 crowns", "41 crowns", False),
        ("It costs 5 %", "It costs 5", False),
        ("", ".", False),
        ("...", "...", True),
    ],
)
def test_answers_are_compared_without_case_white_space_and_final_punctuation(
    answer: str, reference: str, right: bool
) -> None:
    assert is_right(answer, reference) is right


@given(st.text())
def test_the_comparable_form_is_stable(text: str) -> None:
    assert comparable(comparable(text)) == comparable(text)
    assert comparable(f"  {text}\n") == comparable(text)


def test_the_most_similar_training_questions_are_chosen_and_the_best_comes_last() -> None:
    training = [
        question("When does the museum open?", "At nine."),
        question("What is the capital of France?", "Paris."),
        question("When does the museum close?", "At five."),
        question("When does the museum open?", "At nine."),
    ]
    wanted = [question("At what hour does the museum open?", "At nine.")]
    found = training_answers(wanted, training)
    assert [shot.asked[:24] for shot in found.similar[0]] == [
        "When does the museum ope",
        "When does the museum clo",
        "What is the capital of F",
    ]
    assert found.answers == {"At nine.", "Paris.", "At five."}
    example = prompted(wanted[0], "At ten.", found.similar[0][:2])
    assert [turn.content for turn in example.messages] == [
        *("When does the museum close?", "At five."),
        *("When does the museum open?", "At nine."),
        *("At what hour does the museum open?", "At ten."),
    ]


def test_only_the_best_are_kept_of_many() -> None:
    training = [question(f"word{n} " * 3 + "shared " * (n % 5), f"A{n}") for n in range(50)]
    wanted = question("word7 shared")
    (kept,) = training_answers([wanted], training).similar
    assert len(kept) == MOST_EXAMPLES
    assert kept[0].answer == "A7"
    assert training_answers([wanted], training[:3]).most_examples == 3
    assert training_answers([wanted], []).most_examples == 0


def test_examples_keep_the_system_turn_first_and_what_is_untrained() -> None:
    made = question_of(conversation("Hi", "Hello", "Who?", "I.", system="Be brief.", untrained=(2,)))
    assert made is not None
    example = prompted(made, "You.", [Shot("Near?", "N."), Shot("Far?", "F.")])
    assert [turn.content for turn in example.messages] == [
        *("Be brief.", "Far?", "F.", "Near?", "N.", "Hi", "Hello", "Who?", "You.")
    ]
    assert example.untrained == (6,)
    completion = question_of(Example("completion", text="2+2=", completion="4"))
    assert completion is not None
    assert prompted(completion, "4", [Shot("1+1=", "2")]).text == "1+1=2\n\n2+2="


def test_training_questions_skip_plain_text_and_samples_of_the_base(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_bytes(b"\n".join(lines(12)) + b"\n")
    samples = [conversation(f"Sampled {n}, please?", f"Sample {n}.").to_json() for n in range(3)]
    (tmp_path / SAMPLED).write_text("\n".join(samples) + "\n")
    with (tmp_path / "rows.jsonl").open("a") as file:
        file.write('{"text": "A plain text of its own, longer than a few words."}\n')
    corpus = corpus_of(tmp_path, tmp_path / "rows.jsonl", tmp_path / SAMPLED)
    texts = str([*corpus.documents("train"), *corpus.documents("validation")])
    assert "A plain text" in texts
    assert "Sample 2." in texts
    answers = [made.answer for made in training_questions(corpus)]
    held_out = [made.answer for made in held_out_questions(corpus.documents("validation"), 100)[0]]
    assert sorted(answers + held_out) == sorted(f"Answer {n}." for n in range(12))
