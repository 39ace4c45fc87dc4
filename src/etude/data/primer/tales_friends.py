"""Two or three children: borrowing and mending, sharing, blaming and saying sorry, racing, making friends."""

from __future__ import annotations

from etude.data.primer.beats import close_story, give, idle, open_story
from etude.data.primer.entities import amount
from etude.data.primer.grammar import Lines
from etude.data.primer.lexicon import number_word
from etude.data.primer.story import Story

_OWNS = Lines(
    "{b.n} had {t.a}, and [{b.he} was very proud of it|it was the finest in the street|nobody else was allowed to touch it].",
    "On {b.his} birthday {b.n} had been given {t.a}. {B.he} {t.used} every day.",
    "{b.np} {t.my} was [well known|the envy of the whole class]. Day after day {b.he} {t.used}.",
)
_BORROW = Lines(
    '{a.n} could not take {a.his} eyes off it. "May I have it for one afternoon?" {a.he} asked. "I will bring it back tonight."',
    '"May I borrow your {t.x}?" asked {a.n}. "[Just until tomorrow|Only for today|I want to {t.use}]."',
    '"Please, {b.n}, may I {t.use}?" {a.n} begged. "[Only once|I will be careful]!"',
    '{a.n} wanted to {t.use} too. "Will you lend it to me?" {a.he} asked. "[Just for a day|I promise to be careful]!"',
)
_YES = Lines(
    '{b.n} thought about it. "<yes>," {b.he} said, "but [be careful|do not break it|bring it back]!" And {b.he} lent {a.n} {t.the}.',
    '"<yes>," said {b.n}, and [lent {a.n} {t.the}|put it into {a.np} hands]. "But [take good care of it|I want it back tomorrow]."',
    "It was not easy for {b.n}, but {b.he} nodded and lent {a.n} {t.the}.",
)
_BREAK = Lines(
    "At first all went well. {a.n} {t.used}. But then {a.he} [tripped over a root|slipped on the wet step|ran too fast], and [down {a.he} went|bump, down {a.he} fell|it slipped from {a.his} hands]. Now {t.the} {t.damage}.",
    "{a.n} {t.used}, [and {a.he} forgot to be careful|faster and faster]. There was a nasty crack. {T.the} {t.damage}!",
    "That <morning> {a.n} {t.used}. Then a [goat|big dog|boy on a bicycle] came round the corner. When {a.n} [got up|looked again], {t.the} {t.damage}.",
)
_SHAME = Lines(
    "{A.n} sat quite still. {A.he} could say that the wind had done it, or the cat. But it would not be true.",
    "{A.n} turned pale. What would {b.n} say?",
    "{A.n} felt [cold all over|a stone in {a.his} stomach]. {A.he} thought of hiding {t.the} [under the bed|in the cellar]. But [that would not be right|hiding it would not mend it].",
    '"Oh no," whispered {a.n}. [For a moment|At first] {a.he} wanted to run away and never come back.',
    '{A.n} sat on the step and cried. {A.his} [grandmother|mother|father] came out and listened to the whole story. "[Tell {b.n} the truth|The truth is the shortest way]," {m}.',
)
_CONFESS = Lines(
    '{a.n} practised the words all the way to {b.np} house. But when {b.n} opened the door, {a.he} only held out {t.the} and said, "I am sorry. It was me."',
    '[With shaking knees|The next morning], {a.n} went to {b.n}. "I broke your {t.x}," {a.he} said. "[I am so sorry|I am really sorry|It was my fault]."',
    '"I have to tell you something," said {a.n} to {b.n}, looking at the ground. "Your {t.x} is broken. [I did it|I was not careful], and I am sorry."',
    '{a.n} took {t.the} back to {b.n} and told {b.him} everything. "I am sorry," {a.he} said. "[I should have been careful.|Are you very angry?]"',
)
_ANSWER = Lines(
    '{b.n} breathed in, and {b.he} breathed out. "Things can be mended," {b.he} said.',
    "{b.np} lip trembled. But then {b.he} saw that {a.n} was crying, and {b.he} could not be angry any more.",
    '{b.n} was <angry> at first. Then {b.he} saw {a.np} face. "[Thank you for telling me|At least you told me the truth]," {b.he} said.',
    '{b.n} looked at {t.the} for a long time. "I am sad about it," {b.he} said at last. "But I am not angry with you."',
    '"[Go away|I will never lend you anything again]!" cried {b.n}. But after a while {b.he} came back and said, "[Let us look at it together|Perhaps we can mend it]."',
)
_MEND = Lines(
    "They [carried it to {g.n}|asked {g.n} for help], and the three of them {t.mended}. It looked [almost like new|better than before].",
    "{a.n} had an idea. {A.he} fetched {g.np} tool box, and with a little help {a.he} {t.mended}.",
    "So {a.n} and {b.n} sat down at the table and, with {g.np} help, {t.mended}.",
)


def broken(st: Story) -> None:
    """Break a borrowed thing; the truth comes out, the thing is mended, and it goes back to its owner."""
    a, b = st.pair()
    thing = st.thing("t")
    st.elder("g")
    st.world.get(b.name, thing.noun)
    open_story(st)
    idle(st)
    st.say(_OWNS)
    st.say(_BORROW)
    st.world.give(b.name, a.name, thing.noun, lend=True)
    st.note(b, f"lent the {thing.noun} to {a.name}")
    st.say(_YES)
    st.para()
    st.say(_BREAK)
    st.note(a, f"broke the {thing.noun}")
    st.say(_SHAME, m=st.rng.pick(("was the advice", "said a kind voice beside the tears")))
    st.ask(_WHO_BROKE, _A_BROKE)
    st.para()
    st.say(_CONFESS)
    st.note(a, "said sorry")
    st.say(_ANSWER)
    st.say(_MEND)
    st.world.give(a.name, b.name, thing.noun)
    st.say(_BACK)
    st.note(a, f"gave the {thing.noun} back to {b.name}")
    st.ask(_WHOSE, _B_WHOSE)
    close_story(st)


_WHO_BROKE = Lines("Who broke {t.the}?", "Whose fault was it that {t.the} was broken?")
_A_BROKE = Lines("{A.n} did.", "It was {a.n}.")
_WHOSE = Lines("To whom did {t.the} belong?", "Whose {t.x} was it?")
_B_WHOSE = Lines("It was {b.np}.", "It belonged to {b.n}.")
_BACK = Lines(
    "Then {a.n} gave {t.the} back to {b.n}, and {b.he} {t.used}.",
    "So {b.n} got {t.the} back, and [the first thing {b.he} did was to let {a.n} have another turn|all was well again].",
    '{a.n} gave it back to {b.n} with both hands. "[Next time I will hold it tight|I will never be so careless again]," {a.he} said.',
)

_PICKED = {
    "tree": Lines("{a.n} climbed up and picked {m}.", "Up in the tree it was green and quiet. When {a.n} came down again, {a.he} had {m} in {a.his} cap."),
    "plot": Lines("{a.n} knelt between the rows and gathered {m}.", "It had been a good year in the garden. {a.n} filled {a.his} apron with {m}."),
    "shore": Lines("{a.n} walked along the water and found {m}.", "The sea had been rough in the night. Along the edge of the water {a.n} gathered {m}."),
    "wood": Lines("{a.n} searched under the trees and found {m}.", "{a.n} kept {a.his} eyes on the ground, and by noon {a.he} had {m}."),
    "oven": Lines("{a.n} had baked all <morning>, and now {m} lay cooling on the table.", "Out of the oven came {m}, all made by {a.n} with {a.his} own hands."),
    "shop": Lines("{a.n} opened {a.his} box and counted {m}.", "{a.n} kept a tin full of {k} under {a.his} bed. That day {a.he} took out {m}."),
}  # fmt: skip
_SEES = Lines(
    '"What have you got there?" asked {b.n}, and came nearer. {B.he} had been out all day and had found nothing.',
    "{b.n} walked by with empty hands and tried not to look.",
    "Then {b.n} came along. {B.he} had none at all, and [{b.he} looked at them with big eyes|{b.his} face was <sad>].",
    "{b.n} sat on the wall and had nothing. [{B.he} did not say a word|{B.he} pretended not to look].",
    '"[Oh|How lovely]," sighed {b.n}. "I have not a single one."',
)
_SHARE = Lines(
    "{a.n} looked at them, and then at {b.n}. In the end {a.he} gave {b.n} {p} and kept {l}.",
    '"Close your eyes," said {a.n}. When {b.n} opened them again, {b.he} had {p}, and {a.n} had {l}.',
    "{a.n} [thought for a moment|did not think twice]. {A.he} gave {b.n} {p}. Now {a.he} had {l} left.",
    '"[You can have some|Here, take some] of mine," said {a.n}, and [counted out|gave {b.n}] {p}. {L} {was} left for {a.him}.',
    '"Hold out your hands!" said {a.n}, and put {p} into them. That left {a.him} with {l}.',
    "So {a.n} gave {p} to {b.n} and kept {l}.",
)
_SUM_ALOUD = Lines(
    '"{N} take away {pn} is {ln}," said {b.n}, who [liked sums|had learned it at school].',
    "{N} minus {pn} is {ln}: {a.n} counted them twice to be sure.",
)
_MORE = Lines(
    "{g.n} had seen it all from the window, and gave {a.n} {m} for having shared. So in the end {a.he} had {f}.",
    "When {g.n} heard of it, {g.he} smiled and put {m} on {a.np} plate. Now there were {f}.",
    "And what do you think? On the way home {a.n} found {m} [in the grass|in {a.his} other pocket]. Now {a.he} had {f} again.",
)


def sharing(st: Story) -> None:
    """Count some things, how many are given away, how many are left, and perhaps some more."""
    a, b = st.pair()
    kind = st.count_kind(("oven", "shop", "shore") if st.season in ("winter", "spring") else ())
    st.elder("g")
    open_story(
        st, season="autumn" if kind.source == "wood" else "summer" if kind.source in ("plot", "tree") else ""
    )
    idle(st)
    start = st.rng.between(4, 16)
    part = st.part_of(start, 1, start - 2)
    left = st.world.subtract(start, part)
    look = st.rng.pick(("", *kind.adjectives))
    st.world.get(a.name, kind.noun, start)
    st.para()
    st.say(_PICKED[kind.source], m=amount(start, kind, look), k=kind.plural)
    st.say(_SEES)
    st.world.give(a.name, b.name, kind.noun, part)
    st.note(a, f"shared the {kind.plural} with {b.name}")
    words = {
        "p": amount(part, kind),
        "l": number_word(left),
        "ln": number_word(left),
        "n": number_word(start),
        "was": "was" if left == 1 else "were",
    }
    st.say(_SHARE, **words)
    st.maybe(0.35, _SUM_ALOUD, pn=number_word(part), **words)
    st.world.left[kind.noun] = left
    st.ask(_HOW_MANY_GAVE, _GAVE_N, k=kind.plural, **words)
    st.ask(_HOW_MANY_LEFT, _LEFT_N, k=kind.plural, l2=amount(left, kind), **words)
    st.say(_B_GLAD, k=kind.plural)
    if st.rng.chance(0.4):
        _, more = st.addends(left, left, 1, 6)
        total = st.world.add(left, more)
        st.world.get(a.name, kind.noun, more)
        st.world.left[kind.noun] = total
        st.para()
        st.say(
            _MORE,
            m=amount(more, kind).replace(" ", " more ", 1) if st.rng.chance(0.5) else amount(more, kind),
            f=number_word(total),
        )
        st.ask(_HOW_MANY_END, _LEFT_N, k=kind.plural, l=number_word(total), l2=amount(total, kind))
    close_story(st)


_HOW_MANY_GAVE = Lines("How many {k} did {a.n} give to {b.n}?", "How many {k} did {b.n} get?")
_GAVE_N = Lines("{P}.")
_HOW_MANY_LEFT = Lines("How many {k} did {a.n} have left after that?", "How many {k} did {a.n} keep?")
_LEFT_N = Lines("{L2}.")
_HOW_MANY_END = Lines("How many {k} did {a.n} have in the end?")
_B_GLAD = Lines(
    '"<thanks>!" said {b.n}, and [{b.his} whole face lit up|{b.he} held them tight].',
    '{b.n} [beamed|laughed out loud]. "[You are a true friend|Next time I will share with you]," {b.he} said.',
    "How <glad> {b.n} was!",
)

_ACCUSE = Lines(
    'Only {b.n} had been in the house that day. "It must have been you," said {a.n} to {b.him}. "Nobody else was here."',
    '"Somebody has taken my {t.x}!" thought {a.n}, and {a.he} looked at {b.n}.',
    '"You took my {t.x}!" {a.n} shouted at {b.n}. "[Give it back|I know it was you]!"',
    '{a.n} was sure that {b.n} had taken it. "[Thief|You have it]!" {a.he} cried. "You [always|only] wanted my {t.x}!"',
)
_DENY = Lines(
    "{b.n} opened {b.his} mouth and shut it again. Then {b.he} turned round and went home without a word.",
    '"I did not," said {b.n}. "[I have not even seen it|I never touched it]." And {b.he} went away with {b.his} head down.',
    '{b.n} [turned red|was too hurt to answer]. "It was not me," {b.he} said, and [a tear rolled down {b.his} cheek|{b.he} walked off].',
)
_TRUTH = Lines(
    "At bedtime {a.n} sat up with a start. {X.at}! {A} ran out in {a.his} slippers, and there, where {a.he} had put it, was {t.full}.",
    "That evening {a.n} went {x.to}. And what was lying there? {T.full}! {a.n} had left it there [{a.himself}|the day before].",
    "Later {a.n} remembered that {a.he} had been {x.at}. {A} <ran> there, and found {t.full} just where {a.he} had put it down.",
)
_SORRY = Lines(
    '{a.n} felt terribly ashamed. {A} <ran> to {b.n}. "I was wrong," {a.he} said. "I am sorry."',
    '"{b.n}," said {a.n}, "I found my {t.x}. It was my own fault, and I was unfair to you. [Please forgive me.|Can you forgive me?]"',
    'It was hard to knock at {b.np} door, but {a.n} did. "I am sorry that I [blamed you|shouted at you]," {a.he} said.',
)
_FORGIVE = Lines(
    '{b.n} kicked a stone. "You should have asked me first," {b.he} said. "I know," said {a.n}. Then they were friends again.',
    '{b.n} was silent for a moment. Then {b.he} <smiled>. "[It is all right|Let us forget it]," {b.he} said.',
    '"That hurt," said {b.n}. "But it is good that you came." And {b.he} [held out {b.his} hand|moved over to make room on the bench].',
    '"Apologies are best with cake," said {b.n}, and {b.he} cut two big slices.',
)


def blame(st: Story) -> None:
    """Mislay a thing; a friend is blamed, the truth comes out, and there is an apology."""
    a, b = st.pair()
    thing, place = st.thing("t"), st.place("x")
    st.world.get(a.name, thing.noun)
    open_story(st)
    idle(st)
    st.say(_HAD_ONE)
    st.world.put(a.name, thing.noun, place.noun)
    st.para()
    st.say(_MISSING)
    st.say(_ACCUSE)
    st.say(_DENY)
    st.note(a, f"blamed {b.name}")
    st.ask(_WHY_HURT, _BLAMED)
    st.para()
    st.world.move(a.name, place.noun)
    st.world.take(a.name, thing.noun)
    st.say(_TRUTH)
    st.note(a, f"found the {thing.noun}")
    st.ask(_WHERE, _THERE)
    st.say(_SORRY)
    st.note(a, "said sorry")
    st.say(_FORGIVE)
    if st.rng.chance(0.3):
        st.para()
        give(st, a, b, thing)
    close_story(st)


_HAD_ONE = Lines(
    "{a.n} had {t.a} that [{a.he} loved|shone in the sun|was {a.his} greatest treasure].",
    "{a.n} owned {t.a}. Only the day before, {a.he} had shown it to {b.n}, who liked it very much.",
)
_MISSING = Lines(
    "But today {t.the} was [not in its place|gone]. {a.n} looked [everywhere|in all the corners].",
    "One morning {t.the} was missing. {a.n} turned the whole room upside down.",
    '"My {t.x} is gone!" cried {a.n}.',
)
_WHY_HURT = Lines("Why was {b.n} hurt?", "Had {b.n} taken {t.the}?")
_BLAMED = Lines("No, {b.n} had not taken {t.the}, but {a.n} said so.")
_WHERE = Lines("Where was {t.the} all the time?")
_THERE = Lines("It was {x.at}.", "{X.at}.")

_DARE = Lines(
    '"You run like [a snail|an old donkey]," said {b.n}. {a.n} did not like to hear that. "Then race me {x.to}!" {a.he} said.',
    '"I am faster than you!" said {b.n}. "[You are not|Never]!" said {a.n}. "[Let us race|We shall see]! First one {x.to} wins."',
    '"Let us race {x.to}," said {a.n}. {b.n} was already tying {b.his} shoes.',
    '{b.n} always won every race, and {b.he} liked to talk about it. "Race you {x.to}," said {a.n} one day. {b.n} laughed out loud.',
)
_START = Lines(
    "{a.n} drew a line in the dust. They bent down, somebody whistled, and off they went.",
    "At the third crow of the cock they started, elbows flying.",
    '"One, two, three, go!" They [shot off|ran] like [two arrows|the wind].',
    '"Ready, steady, go!" Dust flew up under their feet.',
)
_LEAD = Lines(
    "After the first bend {b.n} was ten steps ahead, and after the second {b.he} was twenty.",
    "{a.n} got a stone in {a.his} shoe, and {b.n} was gone like a hare.",
    "{b.n} was [soon far ahead|in front at once]. {a.n} [puffed|ran] along behind.",
    "{b.n} had the longer legs. Soon {a.n} could see only {b.his} back.",
    "For a while they ran side by side. Then {b.n} pulled ahead.",
)
_NAP = (
    Lines(
        "{B.n} was so sure of winning that {b.he} sat down [under a <tree>|on a milestone] for a rest, and [fell asleep|began to eat an old sandwich].",
        "Halfway there, {b.n} stopped to [look at a snake of ants|watch a train go by|talk to a dog], for there was plenty of time, {b.he} thought.",
    ),
    Lines(
        "{a.n} did not stop. Step by step {a.he} came nearer, went past, and was first {x.at}.",
        "But {a.n} ran on and on without a stop. When {b.n} looked up, {a.n} was already {x.at}, waving.",
    ),
)  # fmt: skip
_FALL = (
    Lines(
        "<suddenly> {b.n} stumbled and fell. {B.he} held {b.his} knee and [bit {b.his} lip|groaned].",
        "At the bend {b.n} slipped in the mud, and there {b.he} sat with a twisted foot.",
    ),
    Lines(
        "Now {a.n} could have won easily. But {a.he} stopped, helped {b.n} up, and arm in arm they limped on. They came {x.to} at the very same time.",
        '{a.n} ran past, [ten steps, twenty steps|just a little way]. Then {a.he} turned round. "Lean on me," {a.he} said. So there was no winner that day, or perhaps there were two.',
    ),
)
_AFTER = Lines(
    '{b.n} was cross for a minute, and then {b.he} was not. "How did you do that?" {b.he} asked. "I just did not stop," said {a.n}.',
    '"[Well run|You earned that]!" said {b.n}, [out of breath|and shook {a.np} hand].',
    '{b.n} [laughed|grinned]. "[I have learned something today|You are faster than I thought]," {b.he} said.',
)


def race(st: Story) -> None:
    """Tell of a race that is lost by resting, or given up to help."""
    a, b = st.pair()
    place = st.place(
        "x", ("mill", "bridge", "hill", "river", "station", "barn", "pond", "harbour", "lighthouse")
    )
    open_story(st)
    idle(st)
    st.para()
    st.say(_DARE)
    st.say(_START)
    st.say(_LEAD)
    st.note(b, "ran ahead")
    st.para()
    slept = st.rng.chance(0.5)
    trouble, finish = _NAP if slept else _FALL
    st.say(trouble)
    st.say(finish)
    for runner in (a, b):
        st.world.move(runner.name, place.noun)
    st.note(a, "won the race" if slept else f"helped {b.name} up")
    st.ask(_WHO_WON, _A_WON if slept else _NONE_WON)
    st.say(_AFTER if slept else _GRATEFUL)
    close_story(st)


_WHO_WON = Lines("Who won the race?")
_A_WON = Lines("{A.n} won it.", "{A.n} did.")
_NONE_WON = Lines("Nobody did. {A.n} stopped to help {b.n}.")
_GRATEFUL = Lines(
    '{b.n} said nothing for a while. "I would not have stopped for you," {b.he} said at last. "But next time I will."',
    '"You could have won," said {b.n}. "[I know|Winning alone is no fun]," said {a.n}.',
    '"<thanks>," said {b.n}. "[You are worth more than a prize|I would have sat there till night]."',
)
