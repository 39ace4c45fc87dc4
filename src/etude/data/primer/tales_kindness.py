"""Kindness: a surprise for a friend, a neighbour in need."""

from __future__ import annotations

from etude.data.primer.beats import close_story, give, open_story
from etude.data.primer.grammar import Lines
from etude.data.primer.story import Story

_SECRET = Lines(
    'In one day {c.n} would have {c.his} birthday. "We must think of something," said {a.n} to {b.n}, and they put their heads together.',
    "The next day was {c.np} birthday, and {a.n} and {b.n} had a secret. They [whispered behind the door|talked in signs].",
    '"Tomorrow is {c.np} birthday," said {a.n}. "[Let us give a party|We will surprise {c.him}]!" {b.n} put a finger to {b.his} lips.',
)
_PREPARE = Lines(
    "{a.n} [hung paper chains on the walls|blew up paper bags], and {b.n} baked a cake [with too much sugar|that leaned to one side].",
    "They cut stars out of paper and hung them [over the table|in the window], and the stove was lit, and the floor was swept.",
)
_PARCEL = Lines(
    "[Under the table|Behind the curtain] they hid a parcel tied with string. In it was {t.a}.",
    "The best of all was {t.a}, which {a.n} [had wrapped in brown paper|was going to give {c.him}].",
    "And then there was the present: {t.a}, [wrapped in old newspaper|with a bow on top].",
)
_THINKS = Lines(
    '{c.n} did not know what was going on. Whenever {c.he} came near, everyone stopped talking. "They do not like me any more," {c.he} thought, and {c.he} was <sad>.',
    "{c.n} knew nothing of it. [Nobody said a word to {c.him} all day|Everyone seemed busy], and {c.he} thought that [{c.his} friends had forgotten {c.him}|nobody remembered]. {C.he} was <sad>.",
    '{c.n} [waited and waited|sat on the step with {c.his} chin in {c.his} hands]. "They have forgotten me," {c.he} thought, because nobody had told {c.him} anything.',
)
_DOOR = Lines(
    'Then {c.n} opened the door. "Surprise!" cried {a.n} and {b.n}. [{C.np} mouth fell open|{c.n} jumped like a frog].',
    'In the evening {c.n} came in out of the dark. The lamp went on. "Happy birthday!" [rang through the room|shouted everyone].',
)


def surprise(st: Story) -> None:
    """Let a friend believe that the birthday is forgotten; the others know better."""
    a, b = st.pair()
    c = st.child("c")
    thing = st.thing("t")
    st.world.get(a.name, thing.noun)
    open_story(st)
    st.say(_SECRET)
    st.say(_PREPARE)
    st.say(_PARCEL)
    for child in (a, b):
        st.note(child, f"got ready for {c.name}'s birthday")
    st.para()
    st.say(_THINKS)
    st.ask(_BELIEF, _WRONGLY)
    st.para()
    st.say(_DOOR)
    give(st, a, c, thing)
    st.ask(_PRESENT, _IT_WAS)
    close_story(st)


_BELIEF = Lines("What did {c.n} think?", "Why was {c.n} sad?")
_WRONGLY = Lines(
    "{C.n} thought that the birthday was forgotten.",
    "Because {c.he} thought {c.his} friends had forgotten the birthday.",
)
_PRESENT = Lines("What did {c.n} get?", "What was the present?")
_IT_WAS = Lines("{T.a}.", "It was {t.a}.")

_HOME = Lines(
    "{o.n} lived alone {near}, and {o.his} [knees were stiff|back was bent|eyes were bad].",
    "Next door lived {o.n}, who [hardly ever went out|had nobody to talk to].",
)
_NEED = Lines(
    'For three days nobody had seen {o.n}. "Something is wrong," said {a.n}.',
    "One evening {a.n} heard somebody coughing behind {o.np} window.",
    "One day {a.n} saw that [there was no smoke from {o.his} chimney|the curtains were still closed at noon|{o.his} garden was full of weeds].",
    '"Why does {o.n} never come out any more?" {a.n} asked {b.n}. Nobody knew.',
)
_VISIT = Lines(
    "{Both} took some soup and went over. {o.n} was sitting in the cold, for {o.his} stove was broken.",
    '"Come in," said a weak voice when {both} knocked. {o.n} had not been out of bed since Monday.',
    "{Both} knocked. {o.n} was in bed with a cold, and there was no wood for the stove.",
    "{Both} went over and rang. It took a long time until {o.n} opened. {O.he} had hurt {o.his} foot.",
)
_CARE = Lines(
    "{a.n} told jokes, good ones and bad ones, and {b.n} washed the dishes.",
    "{b.n} mended the latch of the door, and {a.n} opened the windows to let the sun in.",
    "{a.n} lit the fire, and {b.n} cooked <meal>.",
    "{b.n} swept the floor while {a.n} [fetched wood|ran for the doctor].",
    "{a.n} watered the plants, and {b.n} read aloud from the newspaper.",
)
_BETTER = Lines(
    '"Will you come again?" asked {o.n}. They came again, and soon {o.he} could walk to the gate and back.',
    "After a week {o.n} was singing in the garden, a little out of tune.",
    "Day after day they came. [By the end of the week|Soon] {o.n} was [up and about|well] again.",
    '"[You are better than any medicine|I had forgotten how good a visit is]," said {o.n}, and {o.his} eyes shone.',
)


def neighbourly(st: Story) -> None:
    """Notice a neighbour in need and help; the thanks are a present."""
    a, b = st.pair()
    st.neighbour("o")
    thing = st.thing("t")
    st.world.get(st.env["o"].name, thing.noun)
    open_story(st)
    st.say(_HOME, near=st.rng.pick(("at the end of the street", "behind the church", "up on the hill")))
    st.say(_NEED)
    st.para()
    st.say(_VISIT)
    st.say(_CARE)
    st.maybe(0.5, _CARE)
    for child in (a, b):
        st.note(child, f"visited {st.env['o'].name}")
    st.ask(_WHO_ILL, _O_ILL)
    st.say(_BETTER)
    st.para()
    st.say(_SHELF)
    give(st, st.env["o"], st.rng.pick((a, b)), thing)
    close_story(st)


_SHELF = Lines(
    "One day {o.n} opened [a chest|an old cupboard] and took out {t.a}. [It had lain there for thirty years|It was still as good as new].",
    '"I have something for you," {o.n} said. It was {t.a}.',
    "When {both} said goodbye, {o.n} came to the door with {t.a}.",
)
_WHO_ILL = Lines("Whom did {a.n} and {b.n} help?")
_O_ILL = Lines("They helped {o.n}.", "{O.n}.")
