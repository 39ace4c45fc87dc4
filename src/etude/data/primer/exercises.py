"""Short practice: sums, tenses, plurals, opposites, who has what, who is where, true or not."""

from __future__ import annotations

from collections.abc import Callable

from etude.data.primer.entities import amount
from etude.data.primer.grammar import Lines
from etude.data.primer.holdout import HELD_SUMS
from etude.data.primer.lexicon import COUNTS, PLACES, number_word, plural_of
from etude.data.primer.story import Story
from etude.data.primer.world import HeldOut

# base, third person, past, ending of the sentence
_VERBS = tuple(
    tuple(row.split("|"))
    for row in """
run|runs|ran|to the gate
sing|sings|sang|a song about the rain
eat|eats|ate|a slice of bread
write|writes|wrote|a letter to a friend
swim|swims|swam|across the lake
build|builds|built|a wall of stones
draw|draws|drew|a horse with wings
find|finds|found|a nest in the hedge
go|goes|went|home before dark
see|sees|saw|a fox behind the hut
give|gives|gave|the cat some milk
take|takes|took|a long walk
bring|brings|brought|wood for the fire
catch|catches|caught|a fish with bare hands
think|thinks|thought|about the sea
make|makes|made|soup for everyone
tell|tells|told|a funny joke
sleep|sleeps|slept|until noon
sit|sits|sat|under the old tree
hide|hides|hid|behind the curtain
wake|wakes|woke|before the birds
drink|drinks|drank|a glass of water
read|reads|read|a tale about giants
fall|falls|fell|into the hay
ring|rings|rang|at the door
lose|loses|lost|the way in the fog
buy|buys|bought|a loaf of bread
climb|climbs|climbed|over the fence
carry|carries|carried|water to the house
help|helps|helped|an old man across the street
paint|paints|painted|the door green
wash|washes|washed|the dishes
laugh|laughs|laughed|at the joke
open|opens|opened|the window
clean|cleans|cleaned|the windows
whisper|whispers|whispered|a secret
plant|plants|planted|a row of beans
dance|dances|danced|in the rain
walk|walks|walked|along the wall
call|calls|called|the dog
""".strip().splitlines()
)
_ODD_PLURALS = (
    ("mouse", "mice"), ("goose", "geese"), ("child", "children"), ("foot", "feet"), ("tooth", "teeth"),
    ("man", "men"), ("woman", "women"), ("sheep", "sheep"), ("leaf", "leaves"), ("knife", "knives"),
    ("wolf", "wolves"), ("loaf", "loaves"), ("fish", "fish"), ("story", "stories"), ("baby", "babies"),
    ("fox", "foxes"), ("bus", "buses"), ("dish", "dishes"), ("shelf", "shelves"), ("berry", "berries"),
)  # fmt: skip
_NOUNS = ("house", "tree", "bridge", "horse", "cat", "dog", "bird", "chair", "table", "window", "river", "garden",
          "cloud", "stone", "letter", "song", "boot", "bed", "road", "wall", "box", "bush", "city", "lady")  # fmt: skip
_OPPOSITES = (
    "big small", "hot cold", "old young", "fast slow", "loud quiet", "day night", "wet dry", "light dark",
    "happy sad", "full empty", "open shut", "early late", "near far", "up down", "hard soft", "high low",
    "clean dirty", "rich poor", "long short", "thick thin", "first last", "summer winter", "brave afraid",
    "give take", "laugh cry", "begin end", "in out", "left right", "sweet sour", "strong weak",
)  # fmt: skip
_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
    "December",
)  # fmt: skip


def _add(st: Story, text: str) -> None:
    st.para()
    st.paragraphs.append(text)


def _answer(st: Story, question: str, answer: str, sep: str) -> str:
    st.questions.append((question, answer))
    return f"{question}{sep}{answer}"


def _drawn_sum(st: Story) -> tuple[int, int, str]:
    for _ in range(50):
        op = "+" if st.rng.chance(0.55) else "-"
        a, b = st.rng.between(0, 20), st.rng.between(0, 20)
        a, b = (max(a, b), min(a, b)) if op == "-" else (a, b)
        if (a, b, op) not in HELD_SUMS:
            return a, b, op
    raise HeldOut


def sums(st: Story) -> None:
    """Write a page of sums in one style: digits, words, or questions."""
    style = st.rng.between(0, 4)
    lines = []
    for _ in range(st.rng.between(4, 10)):
        a, b, op = _drawn_sum(st)
        result = st.world.add(a, b) if op == "+" else st.world.subtract(a, b)
        x, y, z = number_word(a), number_word(b), number_word(result)
        name = "plus" if op == "+" else "minus"
        if style == 0:
            lines.append(f"{a} {op} {b} = {result}")
        elif style == 1:
            lines.append(f"{x.capitalize()} {name} {y} is {z}.")
        elif style == 2:
            lines.append(_answer(st, f"What is {a} {name} {b}?", f"{result}.", " "))
        elif style == 3:
            ask = f"How much is {x} and {y} more?" if op == "+" else f"How much is {x} take away {y}?"
            lines.append(_answer(st, ask, f"{z.capitalize()}.", " "))
        else:
            lines.append(f"{x.capitalize()} {name} {y} is {z}: {a} {op} {b} = {result}.")
    if st.rng.chance(0.5):
        _add(st, st.rng.pick(("Sums for today:", "Let us practise.", "A page of sums.", "Can you do these?")))
    _add(st, "\n".join(lines))


_HAS = Lines(
    "{a.n} has {m}.",
    "There are {m} on {a.np} table.",
    "In {a.np} bag there are {m}.",
    "{a.n} is holding {m}.",
)
_GAINS = Lines(
    "{b.n} gives {a.him} {p} more.", "{A.he} gets {p} more from {b.n}.", "Then {b.n} brings {p} more."
)
_LOSES = Lines("{A.he} gives {p} to {b.n}.", "{b.n} takes {p} of them.", "{A.he} gives {p} away to {b.n}.")
_NOW = Lines(
    "How many {k} does {a.n} have now?",
    "How many {k} has {a.n} now?",
    "How many {k} are there for {a.n} now?",
)


def word_problems(st: Story) -> None:
    """Write counts that grow and shrink, in the present tense, with the sum and the answer."""
    a, b = st.pair()
    for _ in range(st.rng.between(1, 3)):
        st.para()
        kind = st.count_kind()
        start = st.rng.between(3, 15)
        st.world.get(a.name, kind.noun, start)
        st.say(_HAS, m=amount(start, kind))
        if st.rng.chance(0.5):
            part = st.part_of(start, 1, start - 1)
            st.world.give(a.name, b.name, kind.noun, part)
            total, sign = st.world.subtract(start, part), "-"
            st.say(_LOSES, p=number_word(part))
        else:
            _, part = st.addends(start, start, 1, 9)
            st.world.get(a.name, kind.noun, part)
            total, sign = st.world.add(start, part), "+"
            st.say(_GAINS, p=number_word(part))
        st.world.left[kind.noun] = total
        st.say(_NOW, k=kind.plural)
        if st.rng.chance(0.5):
            st.line.append(f" {start} {sign} {part} = {total}.")
        said = amount(total, kind)
        st.line.append(f" {said.capitalize()}.")


def tenses(st: Story) -> None:
    """Move sentences between today, yesterday and tomorrow."""
    who = st.child("a")
    style = st.rng.between(0, 3)
    lines = []
    for base, present, past, rest in st.rng.some(_VERBS, st.rng.between(2, 6)):
        now, then, soon = f"{who} {present} {rest}.", f"{who} {past} {rest}.", f"{who} will {base} {rest}."
        if style == 0:
            lines.append(f"Today {who} {present} {rest}. Yesterday {who} {past} {rest}. Tomorrow {soon}")
        elif style == 1:
            lines.append(_answer(st, f"Tell it in the past: {now}", then, "\n"))
        elif style == 2:
            lines.append(_answer(st, f"Say it for tomorrow: {now}", soon, "\n"))
        else:
            lines.append(f"What did {who} do? {then} What does {who} do every day? {now}")
    _add(st, ("\n" if style in (0, 3) else "\n\n").join(lines))


def plurals(st: Story) -> None:
    """Write singulars and plurals, including irregular nouns."""
    nouns = [(noun, plural_of(noun)) for noun in _NOUNS] + list(_ODD_PLURALS) * 2
    nouns += [(kind.noun, kind.plural) for kind in COUNTS]
    style = st.rng.between(0, 2)
    lines = []
    for one, many in st.rng.some(nouns, st.rng.between(4, 9)):
        count = number_word(st.rng.between(2, 12))
        article = "an" if one[0] in "aeiou" else "a"
        if style == 0:
            lines.append(f"One {one}, {count} {many}.")
        elif style == 1:
            lines.append(_answer(st, f"What do you call more than one {one}?", f"{many.capitalize()}.", " "))
        else:
            lines.append(f"Here is {article} {one}. There are {count} {many}.")
    _add(st, "\n".join(lines))


def opposites(st: Story) -> None:
    """Write opposites, and what comes before and after each day and month."""
    lines = []
    for _ in range(st.rng.between(3, 8)):
        draw = st.rng.between(0, 3)
        if draw < 2:
            pair = st.rng.pick(_OPPOSITES).split()
            one, other = pair if st.rng.chance(0.5) else pair[::-1]
            lines.append(_answer(st, f"What is the opposite of {one}?", f"{other.capitalize()}.", " "))
        else:
            row = _DAYS if draw == 2 else _MONTHS
            at = st.rng.between(0, len(row) - 1)
            following = row[(at + 1) % len(row)]
            if st.rng.chance(0.6):
                lines.append(_answer(st, f"What comes after {row[at]}?", f"{following}.", " "))
            else:
                lines.append(_answer(st, f"What comes before {following}?", f"{row[at]}.", " "))
    _add(st, "\n".join(dict.fromkeys(lines)))


_PASS = Lines(
    "{g.n} gives {t.the} to {r.n}.",
    "Then {g.n} hands {t.the} to {r.n}.",
    "{r.n} asks for {t.the}, and {g.n} gives it to {r.him}.",
    "{r.n} gets {t.the} from {g.n}.",
)
_START = Lines("{g.n} has {t.a}.", "{g.n} is holding {t.a}.", "{t.a} lies in {g.np} lap.")


def who_has(st: Story) -> None:
    """Pass things from hand to hand, and ask who has them."""
    st.pair()
    if st.rng.chance(0.6):
        st.child("c")
    things = [st.thing("t") for _ in range(st.rng.between(1, 2))]
    holder = {}
    for thing in things:
        holder[thing] = st.rng.pick(st.children)
        st.world.get(holder[thing].name, thing.noun)
        st.say(_START, g=holder[thing], t=thing)
    for _ in range(st.rng.between(1, 5)):
        thing = st.rng.pick(things)
        giver = holder[thing]
        taker = st.rng.pick([child for child in st.children if child is not giver])
        st.world.give(giver.name, taker.name, thing.noun)
        holder[thing] = taker
        st.say(_PASS, g=giver, r=taker, t=thing)
    joint = "\n\n" if st.rng.chance(0.5) else " "
    st.para()
    asked = [
        _answer(
            st,
            f"Who has the {thing.noun} now?",
            st.rng.pick((f"{who}.", f"{who} has it.", f"{who} has the {thing.noun}.")),
            " ",
        )
        for thing, who in holder.items()
    ]
    st.paragraphs[-1] += joint + joint.join(asked)


_WALKS = Lines(
    "{w.n} goes {x.to}.",
    "Then {w.n} walks {x.to}.",
    "{w.n} runs {x.to}.",
    "After that {w.n} goes {x.to}.",
    "Later {w.n} is {x.at}.",
)


def who_where(st: Story) -> None:
    """Let people walk about, and ask where each of them is."""
    st.pair()
    if st.rng.chance(0.4):
        st.child("c")
    places = [st.place("x", tuple(kind.noun for kind in PLACES)) for _ in range(3)]
    for turn in range(st.rng.between(3, 6)):
        walker = st.children[turn] if turn < len(st.children) else st.rng.pick(st.children)
        place = st.rng.pick([place for place in places if st.world.places.get(walker.name) != place.noun])
        st.world.move(walker.name, place.noun)
        st.say(_WALKS, w=walker, x=place)
    at = {place.noun: place.words["at"] for place in places}
    st.para()
    for child in st.rng.some(st.children, st.rng.between(1, 3)):
        where = at[st.world.places[child.name]]
        short = where[0].upper() + where[1:]
        st.paragraphs[-1] += " " + _answer(
            st, f"Where is {child} now?", st.rng.pick((f"{short}.", f"{child} is {where}.")), " "
        )


def yes_or_no(st: Story) -> None:
    """Write a statement, and questions that it answers with yes or no."""
    who, other = st.pair()
    lines = []
    for base, _, past, rest in st.rng.some(_VERBS, st.rng.between(2, 4)):
        asked = who if st.rng.chance(0.5) else other
        answer = f"Yes, {who.words['he']} did." if asked is who else f"No, it was {who}."
        lines.append(f"{who} {past} {rest}. " + _answer(st, f"Did {asked} {base} {rest}?", answer, " "))
    _add(st, "\n".join(lines))


EXERCISES: tuple[tuple[str, Callable[[Story], None], int], ...] = (
    ("sums", sums, 4), ("exercise", word_problems, 4), ("exercise", tenses, 3), ("exercise", plurals, 2),
    ("exercise", opposites, 2), ("exercise", who_has, 4), ("exercise", who_where, 3), ("exercise", yes_or_no, 2),
)  # fmt: skip
