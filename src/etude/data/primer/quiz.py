"""Questions after a story, with answers that follow from its world."""

from __future__ import annotations

from etude.data.primer.grammar import finish
from etude.data.primer.lexicon import THING_BY_NOUN
from etude.data.primer.story import Story

_LAYOUTS = (("", " "), ("Q: ", "\nA: "), ("Question: ", " Answer: "), ("", "\n"))
_HEADS = (
    "Questions",
    "Now you know the story. Can you answer?",
    "Do you remember?",
    "Let us see what you remember.",
)


def add_questions(st: Story) -> None:
    """Append two to six questions and their true answers, and keep only these in ``st.questions``."""
    pool = st.questions + _now_questions(st) + _order_questions(st) + _truth_questions(st)
    chosen = [(finish(q), finish(a)) for q, a in st.rng.some(pool, st.rng.between(2, 6))]
    st.questions = chosen
    if not chosen:
        return
    st.para()
    before, between = st.rng.pick(_LAYOUTS)
    if st.rng.chance(0.5):
        st.paragraphs.append(st.rng.pick(_HEADS))
        if not st.paragraphs[-1].endswith((".", "?")):
            st.paragraphs[-1] += ":"
    st.paragraphs.extend(f"{before}{question}{between}{answer}" for question, answer in chosen)


def _now_questions(st: Story) -> list[tuple[str, str]]:
    made = []
    for name, held in st.world.holds.items():
        for noun in held:
            if noun in THING_BY_NOUN:
                question = st.rng.pick((f"Who has the {noun} now?", f"Who has the {noun} at the end?"))
                made.append(
                    (question, st.rng.pick((f"{name}.", f"{name} has it.", f"{name} has the {noun}.")))
                )
    return made


def _order_questions(st: Story) -> list[tuple[str, str]]:
    if len(st.notes) < 2:
        return []
    first = st.rng.between(0, len(st.notes) - 2)
    second = st.rng.between(first + 1, len(st.notes) - 1)
    deeds = [deed for _, deed in st.notes]
    a, b = (" ".join(st.notes[at]) for at in (first, second))
    if deeds.count(deeds[first]) > 1 or deeds.count(deeds[second]) > 1:
        return []
    x, y = (a, b) if st.rng.chance(0.5) else (b, a)
    question = st.rng.pick((f"What came first: {x}, or {y}?", f"What happened first? {x}, or {y}?"))
    return [(question, st.rng.pick((f"First {a}.", f"First {a}, and then {b}.")))]


def _truth_questions(st: Story) -> list[tuple[str, str]]:
    if not st.notes:
        return []
    name, deed = st.rng.pick(st.notes)
    made = [
        (f"Is it true that {name} {deed}?", st.rng.pick(("Yes.", "Yes, it is true.", "Yes, that is true.")))
    ]
    others = [
        child.name for child in st.children if (child.name, deed) not in st.notes and child.name not in deed
    ]
    others = [other for other in others if other != name]
    if others:
        answer = st.rng.pick((f"No, it was {name}.", f"No. {name} {deed}.", "No."))
        made.append((f"Is it true that {st.rng.pick(others)} {deed}?", answer))
    return made
