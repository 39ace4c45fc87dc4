"""Held-out combinations written out in the style of the corpus, for probes of what it never contains."""

from __future__ import annotations

from etude.data.primer.entities import Person, Place, Thing, amount
from etude.data.primer.grammar import Lines
from etude.data.primer.holdout import HELD_PAIRS, is_held_out
from etude.data.primer.lexicon import COUNT_BY_NOUN, GIRLS, NAMES, PLACE_BY_NOUN, THING_BY_NOUN, number_word
from etude.data.primer.rng import Rng
from etude.data.primer.story import Story

_HAS_THING = Lines(
    "{a.n} had {t.a}. {A.he} {t.used}. Then {a.he} gave {t.the} to {b.n}, and {b.n} gave it back. Who has {t.the} now? {a.n} has {t.the}.",
    "{b.n} has {t.a}. {b.n} gives {t.the} to {a.n}. Who has {t.the} now? {a.n}.",
    'More than anything in the world, {a.n} wanted {t.a}. "Here," said {b.n}, and gave {a.n} {t.the}. {a.n} {t.used}. Who has {t.the} now? {a.n} has it.',
)
_HAS_MANY = Lines(
    "{a.n} has {m}. Who has the {k}? {a.n}.",
    "In {a.np} bag there are {m}. {a.n} counts the {k}: there are {n}.",
)
_TOLD = Lines(
    "{b.n} told {a.n} that {c.n} had {t.the}. Who told {a.n} about {t.the}? {b.n} did. Who has {t.the}? {c.n}.",
    '"{c.n} has {t.the}," {b.n} told {a.n}. How did {a.n} know that {c.n} had {t.the}? {b.n} had said so.',
)
_KEPT = Lines(
    "{a.n} left {a.his} {t.x} {x.at}. Where was {t.the}? It was {x.at}.",
    "{a.n} lost {t.a} and looked for it everywhere. It was {x.at}: {a.n} had left {t.the} {x.at}.",
)
_KEPT_MANY = Lines("{a.n} left {m} {x.at}. Where were the {k}? They were {x.at}.")


def render_held_out(kind: str, item: tuple[str | int, ...], seed: int) -> str:
    """Write a short text in the style of the corpus that contains this held-out combination.

    Raises ValueError if the combination is not held out.
    """
    if not is_held_out(kind, *item):
        raise ValueError(f"{kind} {item} is taught, not held out")
    st = Story(Rng(f"unseen {seed} {kind} {item}"))
    if kind == "sum":
        return _sum(st, *item)
    words = [str(word) for word in item]
    if kind == "told":
        for key, name in zip("bac", words[:3], strict=True):
            st.cast(key, _person(name))
        st.env["t"] = _thing(st, words[3])
        st.say(_TOLD)
        return st.text()
    name, noun = words[0], words[1]
    st.cast("a", _person(name))
    st.cast(
        "b",
        _person(st.rng.pick([other for other in NAMES if other != name and (other, noun) not in HELD_PAIRS])),
    )
    many = COUNT_BY_NOUN.get(noun)
    if kind == "kept":
        st.env["x"] = Place(PLACE_BY_NOUN[words[2]])
    if many is None:
        st.env["t"] = _thing(st, noun)
        st.say(_KEPT if kind == "kept" else _HAS_THING)
    else:
        count = st.rng.between(2, 12)
        lines = _KEPT_MANY if kind == "kept" else _HAS_MANY
        st.say(lines, m=amount(count, many), k=many.plural, n=number_word(count))
    return st.text()


def _person(name: str) -> Person:
    return Person(name, "f" if name in GIRLS else "m")


class _Many:
    """Replaces a thing by counted things in the text: "the shells"."""

    def __init__(self, plural: str) -> None:
        self.plural = plural

    def refer(self, form: str, sentence: int, rng: Rng) -> str:
        return "the " + self.plural


def _thing(st: Story, noun: str) -> Thing | _Many:
    kind = THING_BY_NOUN.get(noun)
    return Thing(kind, st.rng.pick(kind.adjectives)) if kind else _Many(COUNT_BY_NOUN[noun].plural)


def _sum(st: Story, a: str | int, b: str | int, op: str | int) -> str:
    first, second = int(a), int(b)
    result = first + second if op == "+" else first - second
    name = "plus" if op == "+" else "minus"
    x, y, z = number_word(first), number_word(second), number_word(result)
    return st.rng.pick(
        (
            f"{first} {op} {second} = {result}",
            f"{x.capitalize()} {name} {y} is {z}.",
            f"What is {first} {name} {second}? {result}.",
            f"{x.capitalize()} {name} {y} is {z}: {first} {op} {second} = {result}.",
        )
    )
