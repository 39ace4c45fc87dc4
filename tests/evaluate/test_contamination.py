"""A training text that contains a question is detected; one that does not is left alone; mirrors stay balanced."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator

import pytest

from etude.data.primer.generator import generate
from etude.data.tasks.generator import document
from etude.data.tasks.search import held_out_in as tasks_in
from etude.evaluate.contamination import balanced, question_text, search_training
from etude.evaluate.items import Item, Probe, choice
from etude.evaluate.task_probes import task_probes
from etude.evaluate.world_probes import world_probes
from etude.evaluate.world_probes.combinations import held_out_in as world_in

WORLD = world_probes(0, 24)
TASKS = task_probes(0, 24)
STORIES = [tale.text for tale in generate(9, max_bytes=60_000)]
LINES = [document(9, index).text for index in range(150)]


def nothing(_: str) -> set[str]:
    return set()


def title(probe: Probe) -> str:
    return probe.title


def right_equally_often(items: tuple[Item, ...]) -> bool:
    times: dict[tuple[str, ...], Counter[str]] = defaultdict(Counter)
    for item in items:
        times[tuple(one.said for one in item.candidates)][item.answer.said] += 1
    return all(set(found) == set(said) and len(set(found.values())) == 1 for said, found in times.items())


@pytest.mark.parametrize("probe", [one for one in WORLD + TASKS if one.name != "agreement"], ids=title)
def test_a_planted_item_is_found_and_goes_with_its_group(probe: Probe) -> None:
    world = probe in WORLD
    planted, texts = probe.items[0], STORIES if world else LINES
    middle = len(texts) // 2
    documents = [*texts[:middle], f"Once. {question_text(planted)} And so on.", *texts[middle:]]
    (found,) = search_training([probe], lambda: documents, world_in if world else tasks_in)
    assert found.items == len(probe.items)
    assert found.seen_verbatim >= 1
    if probe.name != "who is where":
        assert found.seen_combination >= 1
        assert found.examples
    if found.probe is None:
        assert found.dropped == len(probe.items)
        return
    assert found.probe.dropped == found.dropped == len(probe.items) - len(found.probe.items)
    assert question_text(planted) not in {question_text(item) for item in found.probe.items}
    assert planted.group not in {item.group for item in found.probe.items}
    assert probe.per_token or right_equally_often(found.probe.items)


def test_clean_training_leaves_every_item() -> None:
    for probes, texts, finder in ((WORLD, STORIES, world_in), (TASKS, LINES, tasks_in)):
        for probe, found in zip(
            probes, search_training(probes, lambda texts=texts: texts, finder), strict=True
        ):
            assert found.probe == probe
            assert found.dropped == 0


def test_a_combination_in_other_words_is_found() -> None:
    """A combination is held out whatever its wording."""
    by_title = {probe.title: probe for probe in WORLD + TASKS}
    has = by_title["who has what, 1 move"]
    words = question_text(has.items[0]).rstrip("?").split()
    noun, name = words[words.index("now?") - 1], has.items[0].answer.said
    other = f"Nobody knew where the {noun} was. Then came {name}."
    (found,) = search_training([has], lambda: [other], world_in)
    assert found.seen_combination >= 1
    assert found.seen_verbatim == found.seen_words == 0
    assert found.dropped >= 2

    gains = by_title["word problems, gains"]
    key = next(one for one in world_in(question_text(gains.items[0])) if one[0] == "sum")
    _, a, b, _ = key
    (found,) = search_training([gains], lambda: [f"{b} + {a} = {int(a) + int(b)}"], world_in)
    assert found.seen_combination >= 1

    addition = by_title["two-digit addition, carry"]
    a, b = (int(word) for word in question_text(addition.items[0]).split()[:3:2])
    (found,) = search_training([addition], lambda: [f"total = {b}+{a}\n"], tasks_in)
    assert found.seen_combination >= 1
    left = found.probe.items if found.probe else ()
    assert question_text(addition.items[0]) not in {question_text(item) for item in left}


def test_thirteen_words_are_found_and_twelve_are_not() -> None:
    sentence = "the small boat went slowly past many quiet houses under tall green trees today"
    words = sentence.split()
    probe = Probe("p", "", "?", (choice(sentence + " and then it ", "sank", "flew"),))

    def dropped(text: str) -> int:
        (found,) = search_training([probe], lambda: [text], nothing)
        return found.seen_words

    assert dropped("Once, THE " + " ".join(words[1:13]) + "\nfull stop") == 1
    assert dropped("Once, the " + " ".join(words[1:12]) + " full stop") == 0
    letters = "a b c d e f g h i j k l m n"
    one = Probe("p", "", "?", (choice(letters + " ", "o", "p"),))
    (found,) = search_training([one], lambda: ["z " + letters + " z"], nothing)
    assert found.seen_words == 0


def test_the_wording_of_a_question_is_not_the_item() -> None:
    """Thirteen words that all groups share are in the training text by intention."""
    asks = " Which of the two who were told of in the story above has it now in hand? "
    probe = Probe(
        "p",
        "",
        "?",
        tuple(choice(f"{name} came.{asks}", name, "Nobody", group=name) for name in ("Ann", "Ben")),
    )
    (found,) = search_training([probe], lambda: ["Zoe came." + asks + "Zoe"], nothing)
    assert found.seen_words == 0
    (found,) = search_training([probe], lambda: ["Zoe came. Ann came." + asks + "Zoe"], nothing)
    assert found.seen_words == 1


def test_the_documents_are_read_once_and_not_kept() -> None:
    passes = 0

    def documents() -> Iterator[str]:
        nonlocal passes
        passes += 1
        yield from STORIES

    search_training(WORLD, documents, world_in)
    assert passes == 1


def test_what_is_left_stays_balanced() -> None:
    def item(right: int, group: str) -> Item:
        made = choice(f"{group} says ", "one", "two", "three")
        return Item(made.candidates, right, group)

    left = balanced([item(0, "a"), item(1, "b"), item(0, "c"), item(1, "d"), item(0, "e")])
    assert [one.group for one in left] == ["a", "b", "c", "d"]
    assert [one.right for one in left] == [0, 1, 0, 1]
    assert all([candidate.said for candidate in one.candidates] == ["one", "two"] for one in left)
    assert balanced([item(2, "a"), item(2, "b")]) == ()
    with_three = tuple(item(at, "abc"[at]) for at in range(3))
    assert balanced(with_three) == with_three


def test_a_probe_of_which_nothing_is_left_says_so() -> None:
    probe = Probe("p", "", "?", (choice("What is so? ", "This it is", "That"),))
    (found,) = search_training([probe], lambda: ["What is so? This it is, indeed"], nothing)
    assert found.probe is None
    assert (found.items, found.dropped, found.seen_verbatim) == (1, 1, 1)
