"""What people know: a thing moved behind a back, word passed on, a small wonder at night."""

from __future__ import annotations

from etude.data.primer.beats import close_story, go_together, idle, open_story
from etude.data.primer.grammar import Lines
from etude.data.primer.story import Story

_BOXES = (
    "the red box",
    "the drawer",
    "the old trunk",
    "the cupboard",
    "the big jar",
    "the bread bin",
    "the chest",
    "the brown bag",
)
_PUT = Lines(
    "{a.n} owned {t.a}, and it lived in {h1}. Before going out to [play|fetch water], {a.he} put it there and closed the lid.",
    "In the morning {a.n} played with {t.a}. Then {a.he} put it into {h1} and [went to school|went for a walk].",
    "{a.n} had {t.a}. {A.he} put it into {h1} and went out to [play|help {a.his} father|feed the hens].",
    "Before lunch, {a.n} laid {t.a} in {h1}, [where it would be safe|as {a.he} always did]. Then {a.he} left the room.",
    '"I will keep my {t.my} in {h1}," said {a.n}, and [did so|in it went]. Then {a.he} went outside.',
)
_MOVED = Lines(
    "A little later {b.n} tidied the room. Out of {h1} came {t.the}, and into {h2} it went. {a.n} was far away and knew nothing of it.",
    "{b.n} wanted to play a trick. As soon as {a.n} was gone, {b.he} took {t.the} from {h1} and hid it in {h2}.",
    "While {a.he} was away, {b.n} came in. {B.he} took {t.the} out of {h1} and put it into {h2}[, just for fun| to make room for the plates|, because {b.he} thought it was safer there].",
    "Nobody was there when {b.n} came in. {B.he} {t.used} for a while and then put {t.the} away in {h2}. {a.n} did not see it.",
)
_RETURN = Lines(
    "At last {a.n} came home. Where would {a.he} look? In {h1}, of course! {A.he} opened it, and there was nothing inside.",
    '{a.n} came in with cold hands and opened {h1}. "But I put it here!" {a.he} cried. {T.the} was not there.',
    "Then {a.n} came back and wanted {t.the}. Of course {a.he} looked in {h1} first, because {a.he} had put it there. It was empty.",
    "When {a.n} came back, {a.he} went straight to {h1}. {A.he} could not know that {t.the} was no longer there.",
)
_REVEAL = Lines(
    '"Cold," said {b.n} from the door. "[Very cold|Still cold]." {a.n} went to the window, to the stove, and at last to {h2}. "Hot!" cried {b.n}. And there it was.',
    '{b.n} could not keep a straight face. "Look in {h2}," {b.he} said. {a.n} looked, and there was {t.the}.',
    '"{b.n}, have you seen my {t.x}?" {b.n} laughed. "It is in {h2}. I put it there." {a.n} laughed too[.|, after a moment.]',
    '{a.n} searched the whole room. At last {b.n} came in. "Oh! I put it in {h2}," {b.he} said. "[I should have told you|I am sorry]."',
)


def hidden(st: Story) -> None:
    """Move a thing while its owner is away, who looks for it in the old place (a false belief)."""
    a, b = st.pair()
    thing = st.thing("t")
    first, second = st.rng.some(_BOXES, 2)
    words = {"h1": first, "h2": second}
    st.world.get(a.name, thing.noun)
    open_story(st)
    idle(st)
    st.para()
    st.say(_PUT, **words)
    st.note(a, f"put the {thing.noun} into {first}")
    st.say(_MOVED, **words)
    st.note(b, f"put the {thing.noun} into {second}")
    st.para()
    st.say(_RETURN, **words)
    st.note(a, f"looked in {first}")
    st.ask(_WHERE_LOOK, _LOOKED, **words)
    st.ask(_WHERE_REAL, _REAL, **words)
    st.say(_REVEAL, **words)
    close_story(st)


_WHERE_LOOK = Lines("Where did {a.n} look first?", "Where did {a.n} think {t.the} was?")
_LOOKED = Lines("In {h1}.", "{A.n} looked in {h1}, because {a.he} had not seen {b.n} move it.")
_WHERE_REAL = Lines("Where was {t.the} really?", "Where had {b.n} put {t.the}?")
_REAL = Lines("In {h2}.", "It was in {h2}.")

_WANTS = Lines(
    "{a.n} needed {t.a} for [the school play|a secret plan|the fair], but {a.he} did not know who had one.",
    '"Who in the world has {t.a}?" {a.n} wondered.',
)
_CHAIN = Lines(
    "{b.n} told {a.n} that {c.n} had {t.full}. So {a.n} <ran> {x.to} to find {c.n}.",
    '"{c.n} has {t.full}," {b.n} told {a.n}. "{C.he} is {x.at}." And {a.n} was already on the way.',
)
_MEET = Lines(
    '{a.n} found {c.n} without any trouble. "Is it true that you have {t.a}?" {a.he} asked. {c.n} nodded. "Here it is."',
    '"I heard that you have {t.a}," said {a.n}. {c.n} [raised {c.his} eyebrows|laughed]. "That must have been {b.n}," {c.he} said.',
    '{c.n} was {x.at}, just as {b.n} had said. "Yes, I have it," {c.he} said. "How did you know?" "{b.n} told me," said {a.n}.',
    'There was {c.n}, and {t.the} was [beside|with] {c.him}. "{b.n} told me that you had it," said {a.n}. {c.n} <smiled>.',
)
_LEND = Lines(
    '"I do not need it this week," said {c.n}, and lent {a.n} {t.the}. So {a.n} {t.used}.',
    "{c.n} [thought about it|made {a.n} promise to be careful], and then {c.he} lent {a.him} {t.the}.",
    '"You may have it until [Sunday|tomorrow]," said {c.n}, and lent {a.n} {t.the}.',
    "{c.n} was glad to help and lent {a.him} {t.the}. {a.n} {t.used}, and everyone was <glad>.",
)


def word_passed(st: Story) -> None:
    """Let one child tell another that a third has something, and let it prove true."""
    a, b = st.pair()
    c = st.child("c")
    thing, place = st.thing("t"), st.place("x")
    st.world.get(c.name, thing.noun)
    st.world.move(c.name, place.noun)
    st.world.tell(b.name, a.name, c.name, thing.noun)
    open_story(st)
    st.say(_WANTS)
    st.para()
    st.say(_CHAIN)
    st.note(b, f"told {a.name} about the {thing.noun}")
    st.world.move(a.name, place.noun)
    st.para()
    st.say(_MEET)
    st.world.give(c.name, a.name, thing.noun, lend=True)
    st.say(_LEND)
    st.note(c, f"lent the {thing.noun} to {a.name}")
    st.ask(_HOW_KNOW, _TOLD)
    st.ask(_WHO_TOLD, _B_DID)
    st.say(_ALL_GOOD)
    close_story(st)


_HOW_KNOW = Lines("How did {a.n} know that {c.n} had {t.the}?")
_TOLD = Lines("{B.n} had said so.", "Because {b.n} knew it and said so.")
_WHO_TOLD = Lines("Who told {a.n} about {t.the}?")
_B_DID = Lines("{B.n} did.", "It was {b.n}.")
_ALL_GOOD = Lines(
    "It had only taken one question.",
    "{a.n} was glad that {a.he} had asked.",
    '"It is good to have friends who know things," thought {a.n}.',
    "{a.n} ran back to thank {b.n} as well.",
    "So one word had helped, at the right moment.",
)

_WAKE = Lines(
    "{a.n} could not sleep. [The moon was shining on the bed|An owl called outside|The house creaked like a ship].",
    "In the middle of the night {a.n} woke up. Something had [tapped at the window|rustled in the garden].",
    "It was long past bedtime, but {a.n} lay awake and [listened to the wind|counted the cracks in the ceiling].",
)
_WONDER = (
    ("a family of hedgehogs was marching across the grass, one behind the other", "hedgehogs"),
    ("a fox was dancing all by itself in the moonlight", "a fox"),
    ("stars were falling, one after the other, like sparks from a fire", "falling stars"),
    ("the first snow of the year was coming down without a sound", "snow"),
    ("hundreds of glow-worms were floating over the hedge like tiny lamps", "glow-worms"),
    ("a deer stood by the fence and looked straight in", "a deer"),
    ("wild geese were flying over the roof, calling to each other", "wild geese"),
)
_OUT = Lines(
    "{A.he} went to the window on bare feet. Outside, {w}.",
    "Very softly {a.he} opened the door and peeped out. And there, {w}.",
    "{A.he} pulled back the curtain. {W}!",
)
_CALL = Lines(
    '{A.he} woke {g.n}. "Come and see," {a.he} whispered, and the two of them [stood there, close together|watched until their feet were cold].',
    "{A.he} hardly dared to breathe. {A.he} stood there until {a.his} toes were cold.",
    '"[Is it real|Am I dreaming]?" {a.he} whispered. But the cold floor was real enough.',
)
_TELL = Lines(
    'In the morning nobody believed {a.him}, except {g.n}. "I saw it too, when I was as small as you," said {g.n}.',
    '"What did you dream?" asked {g.n} at breakfast. "It was no dream," said {a.n}, and told {g.him} everything.',
    "In the morning there was nothing to be seen. But {a.n} knew what {a.he} knew.",
)


def night(st: Story) -> None:
    """Let a child who cannot sleep see a small wonder."""
    a = st.child("a")
    st.elder("g")
    wonder, short = st.rng.pick(_WONDER)
    open_story(
        st, season="winter" if short == "snow" else st.rng.pick(("summer", "autumn", "spring")), friend=False
    )
    st.para()
    st.say(_WAKE)
    st.say(_OUT, w=wonder)
    st.note(a, f"saw {short}")
    st.say(_CALL)
    st.ask(_WHAT_SAW, _SAW, w=short)
    st.para()
    st.say(_TELL)
    st.maybe(0.5, _NIGHT_END)


_NIGHT_END = Lines(
    "And that night {a.n} [left the curtain open|slept with one eye open], just in case.",
    "Some things [come only once|only come to those who cannot sleep].",
    "Ever since then, {a.n} has liked the dark a little better.",
    "{a.n} drew a picture of it, and it [hangs over {a.his} bed|hung on the wall for years].",
)
_WHAT_SAW = Lines("What did {a.n} see in the night?")
_SAW = Lines("{A.n} saw {w}.", "{W}.")

_NEW = Lines(
    "That week a new {b.boy} came to the school. {B.his} name was {b.n}, and {b.he} [did not say a word|sat all alone at break].",
    "A family had moved in across the street, and {a.n} saw a {b.boy} [on the steps|behind the fence] who looked lonely. It was {b.n}.",
)
_SHY = Lines(
    "At first {a.n} only watched. It is not easy to talk to somebody you do not know.",
    "{a.n} walked past [once|twice|three times]. Each time {a.he} opened {a.his} mouth, and each time no word came out.",
    "{a.n} wanted to say hello, but did not know how. What if {b.he} did not want to talk?",
    '"[Go and say hello|Somebody has to begin]," said {a.np} [mother|father]. That was easy to say!',
)
_ICE = Lines(
    'So {a.n} went and fetched {t.a}. {A.he} {t.used}, and {b.n} [looked up|came closer, step by step]. "[May I try|Can I do that too]?" {b.he} asked.',
    'Then {a.n} had an idea. {A.he} held out {t.a}. "Do you want to try it?" {a.he} asked. {b.n} [nodded|smiled for the first time].',
)
_PLAYED = Lines(
    "Soon they were laughing as if they had a joke that nobody else knew.",
    "{b.n} knew games that {a.n} had never heard of, and {a.n} knew all the good hiding places.",
    "They took turns, and by [noon|evening] it was as if they had always known each other.",
    '"My name is {b.n}," {b.he} said. "I know," said {a.n}. "I am {a.n}. [Come!|Shall we play?]" And they <ran> off.',
)


def newcomer(st: Story) -> None:
    """Let a new child be alone until another one makes a beginning."""
    a, b = st.pair()
    thing, place = st.thing("t"), st.place("x", ("playground", "park", "garden", "meadow", "river"))
    st.world.get(a.name, thing.noun)
    open_story(st, friend=False)
    st.say(_NEW)
    st.say(_SHY)
    st.ask(_WHO_NEW, _B_NEW)
    st.para()
    st.say(_ICE)
    st.say(_PLAYED)
    st.note(a, f"let {b.name} try the {thing.noun}")
    go_together(st, place)
    close_story(st)


_WHO_NEW = Lines("Who was new?", "Who had nobody to play with at first?")
_B_NEW = Lines("It was {b.n}.", "{B.n}.")
