"""What a classification is compared with: the commonest answer, and naive Bayes as by its definition."""

from __future__ import annotations

import io
from dataclasses import replace
from fractions import Fraction

from rich.console import Console

from etude.data.conversations.conversation import Example, Message
from etude.evaluate.tuning.classification import COMMONEST, NAIVE_BAYES, Labels
from etude.evaluate.tuning.held_out import Question, question_of
from etude.evaluate.tuning.summary import shares_of_nulls
from etude.evaluate.tuning.tables import print_reports
from reported_tunings import report

TRAINING = [
    *[(f"a bright and {word} tale", "Good.") for word in ("warm", "kind", "merry", "brave")],
    *[(f"a dull and {word} tale", "bad") for word in ("cold", "grim", "slow")],
]


def question(asked: str, answer: str) -> Question:
    found = question_of(Example("conversation", (Message("user", asked), Message("assistant", answer))))
    assert found is not None
    return found


def counted(pairs: list[tuple[str, str]]) -> Labels:
    labels = Labels()
    for asked, answer in pairs:
        labels.add(asked, answer)
    return labels


def probability(asked: str, label: str) -> Fraction:
    """The joint probability of a label and the known words of a question, each word counted once more."""
    words = {
        own: [w for text, answer in TRAINING if answer == own for w in text.split()]
        for own in ("Good.", "bad")
    }
    vocabulary = {word for own in words.values() for word in own}
    chance = Fraction(sum(answer == label for _, answer in TRAINING), len(TRAINING))
    for word in asked.split():
        if word in vocabulary:
            chance *= Fraction(words[label].count(word) + 1, len(words[label]) + len(vocabulary))
    return chance


def test_naive_bayes_takes_the_likeliest_label() -> None:
    labels = counted(TRAINING)
    for asked in ("a dull day", "a tale", "bright but grim", "cold cold merry", "unknown"):
        likeliest = max(("Good.", "bad"), key=lambda label: probability(asked, label))
        assert labels.likeliest(asked) == likeliest.lower().rstrip("."), asked


def test_labels_are_few_short_answers_that_repeat() -> None:
    asked = [question("A DULL day", "Bad"), question("bright", "good"), question("dull and grim", "Good!")]
    commonest, bayes = counted(TRAINING).nulls(asked)
    assert (commonest.name, commonest.exact) == (COMMONEST, (False, True, True))
    assert (bayes.name, bayes.exact) == (NAIVE_BAYES, (True, True, False))
    assert not counted(TRAINING[:4]).nulls(asked)  # one label
    assert not counted([(text, f"{answer} {text}") for text, answer in TRAINING]).nulls(asked)  # long
    assert not counted([(text, str(number)) for number, (text, _) in enumerate(TRAINING)]).nulls(asked)
    assert not counted([(f"{n}?", str(n % 21)) for n in range(210)]).nulls(asked)  # too many
    assert counted([(f"{n}?", str(n % 20)) for n in range(210)]).nulls(asked)


def test_the_table_shows_them_below_the_models() -> None:
    asked = [question("dull", "bad"), question("bright", "good")]
    shares = shares_of_nulls(counted(TRAINING).nulls(asked), ["first", "second"])
    out = io.StringIO()
    print_reports([replace(report(4), answers=2, nulls=shares)], False, Console(file=out, width=150))
    rows = {line.split("  ")[0].strip(): line for line in out.getvalue().splitlines()}
    assert "0.50 (" in rows[COMMONEST]
    assert "1.00 (" in rows[NAIVE_BAYES]
    assert "with 2 different answers" in " ".join(out.getvalue().split())
