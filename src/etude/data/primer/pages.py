"""Other things that stand in a children's book: letters, small talk, portraits of places, counting rhymes."""

from __future__ import annotations

from collections.abc import Callable

from etude.data.primer.beats import SEASONS
from etude.data.primer.grammar import Lines
from etude.data.primer.lexicon import number_word
from etude.data.primer.story import Story

_DEAR = Lines("Dear {g.n},", "My dear {g.n},", "Dear {g.n}, hello from far away!")
_HOW = Lines("how are you? I am [well|very well], and [I hope you are too|it is raining here].", "thank you for your letter. I read it [twice|three times].", "today I want to tell you [something|what happened this week].", "it is so [quiet|dull] here without you.")
_NEWS = Lines(
    "On [Monday|Tuesday|Friday] I went {x.to} with {b.n}. {x.detail}",
    "{b.n} and I are building a [raft|hut|tree house]. It [is not finished yet|already fell down once], but it will be [splendid|the best one ever].",
    "{b.n} taught me how to [whistle with two fingers|swim on my back|tie a knot that never comes undone].",
    "Yesterday I [lost a tooth|fell into a ditch|saw a fox|found a nest with four blue eggs].".replace("a nest with four blue eggs", "a wasps' nest"),
    "At school we are learning [long sums|a song in three voices|the names of all the rivers]. I can [almost|already] do it.",
    "Our [neighbour's cat|old grey cat] had kittens. One is [black|striped] with a white nose, and I am allowed to give it a name.",
    "I have {t.a} now, and I {t.used} yesterday.",
    "It has [rained|snowed] for three days, and {b.n} says that [we will soon grow fins|the sky must have a hole].",
)
_WHEN = Lines("When are you coming to visit us?", "Will you come in the holidays?", "Please write soon.", "Next week I will tell you more.", "I miss you very much.", "Tomorrow we will go fishing, and I will catch one for you.")
_LOVE = Lines("Love from {a.n}.", "Your {a.n}.", "With a thousand kisses, your {a.n}.", "Many greetings, {a.n}.")


def letter(st: Story) -> None:
    """A child writes to a grown-up."""
    a = st.child("a")
    st.child("b")
    st.elder("g", st.rng.pick(("Grandma", "Grandpa", "Aunt Flora", "Uncle Ned")))
    thing = st.thing("t")
    st.place("x")
    st.world.get(a.name, thing.noun)
    st.say(_DEAR)
    st.para()
    st.say(_HOW)
    for _ in range(st.rng.between(2, 4)):
        st.say(_NEWS)
    st.say(_WHEN)
    st.para()
    st.say(_LOVE)


_TALKS = (
    (Lines("Good morning, {b.n}!", "Hello, {b.n}!", "There you are, {b.n}!"), Lines("Hello, {a.n}! [How are you|What are you doing]?", "Good morning! [Did you sleep well|Where are you going]?")),
    (Lines("I am [a little tired|very well, thank you|cold]. And you?", "I am going {x.to}. Will you come along?", "Nothing much. I am waiting for the rain to stop."), Lines("[So am I|Me too]!", "I have to ask first.", "I would rather stay here.", "[Why|What for]?")),
    (Lines("Do you know who has {t.a}?", "I am looking for {t.a}. Have you seen one?", "Can you keep a secret?", "Guess what I have in my pocket!"), Lines("No, but [we can look for one|I can ask my sister]. What do you want it for?", "[Of course|Yes, I can]. Tell me!", "A [frog|snail|piece of string]? No? Then I give up.", "Perhaps. [Why do you ask|Is it important]?")),
    (Lines("I [want to|would like to] {t.use}. That is all.", "You will see it tomorrow.", "I cannot tell you here. Somebody might hear us.", "It was my grandfather's idea."), Lines("You are a strange one.", "Then I will wait.", "That sounds [good|like fun].", "Ha! I knew it.")),
    (Lines("Are you angry with me?", "Shall we share my sandwich?", "Look, it is getting dark.", "Listen! What was that?"), Lines("No, not at all.", "Yes, please. I am so hungry!", "Then we must go home.", "It was only [the wind|an owl|your stomach].")),
)  # fmt: skip


def dialogue(st: Story) -> None:
    """Two children talk, written like a play; each answer fits its own line."""
    a, b = st.pair()
    st.thing("t")
    st.place("x")
    turns = []
    for mine, yours in _TALKS[: st.rng.between(3, 5)]:
        at = st.rng.between(0, min(mine.count, yours.count) - 1)
        mine_line, yours_line = [], []
        st.render(mine.templates[at], st.env, mine_line)
        st.render(yours.templates[at if yours.count == mine.count else st.rng.between(0, yours.count - 1)], st.env, yours_line)
        turns += [f"{a}: {''.join(mine_line)}", f"{b}: {''.join(yours_line)}"]
    ends = st.rng.pick((("See you tomorrow!", "See you!"), ("Goodbye!", "Goodbye, and thank you!"), ("I must go now.", "Then run!")))
    turns += [f"{a}: {ends[0]}", f"{b}: {ends[1]}"]
    st.para()
    st.paragraphs.append("\n".join(turns))


_PORTRAIT = Lines("This is {x}.", "Do you know {x}?", "Come with me {x.to}.", "{a.n} often went {x.to}.", "Nobody was {x.at} that day, only {a.n}.")
_SENSES = Lines(
    "If you stood quite still, you could hear [your own heart|the grass grow|a far-off bell].".replace("|a far-off bell", "|a dog bark, far away"),
    "[Someone|A boy] was whistling in the distance.",
    "Nothing happened for a long time, and that was the best of it.",
    "{a.n} [sat down|stayed] there until [the light changed|{a.his} foot fell asleep].",
    "{A.n} shut {a.his} eyes and counted ten different sounds.",
    "Here {a.n} [learned to whistle|had once met a toad|came when {a.he} wanted to think].",
)


def portrait(st: Story) -> None:
    """A place in a season, through somebody's eyes."""
    a = st.child("a")
    place = st.place("x")
    st.world.move(a.name, place.noun)
    season = st.rng.pick(("spring", "summer", "autumn", "winter"))
    if st.rng.chance(0.6):
        st.say(SEASONS[season])
    st.say(_PORTRAIT)
    details = st.rng.some(place.kind.details, st.rng.between(2, 3))
    for detail in details:
        st.line.append(" " + detail)
    st.sentence += 1
    for _ in range(st.rng.between(1, 3)):
        st.say(_SENSES)


_HOP = ("frogs", "crows", "mice", "ducks", "kittens", "sparrows", "lambs", "rabbits", "clouds", "snowflakes", "ships", "beetles")
_LEAVE = ("flew away", "fell asleep", "went home", "ran off to play", "said goodbye", "hid behind a tree", "jumped into the pond", "was gone")
_SAT = ("sat in a row", "danced in a ring", "stood by the road", "waited for the sun", "played on the wall", "lay in the grass")


def counting(st: Story) -> None:
    """A rhyme that counts down to none, or rows of numbers."""
    if st.rng.chance(0.35):
        step, start = st.rng.between(1, 5), st.rng.between(0, 10)
        many = [start + step * at for at in range(st.rng.between(5, 9))]
        word = "Count" if step == 1 else f"Count by {number_word(step)}s" if step not in (6,) else "Count by sixes"
        st.paragraphs.append(f"{word}: {', '.join(map(str, many))}.")
        st.paragraphs.append(", ".join(number_word(value) for value in many).capitalize() + ".")
        return
    animal, sat = st.rng.pick(_HOP), st.rng.pick(_SAT)
    one = {"mice": "mouse"}.get(animal, animal[:-1])
    lines = []
    for count in range(st.rng.between(3, 9), 0, -1):
        here = f"{number_word(count).capitalize()} {one if count == 1 else animal} {sat}. One {st.rng.pick(_LEAVE)}"
        after = count - 1
        left = "none were" if after == 0 else f"{number_word(after)} {'was' if after == 1 else 'were'}"
        lines.append(f"{here}, and then {'there ' + left if after == 0 else 'there ' + ('was ' if after == 1 else 'were ') + number_word(after)}.")
        st.world.left[one] = after
        st.world.subtract(count, 1)
    st.paragraphs.append("\n".join(lines))


PAGES: tuple[tuple[str, Callable[[Story], None], int], ...] = (
    ("letter", letter, 4), ("dialogue", dialogue, 3), ("description", portrait, 4), ("counting", counting, 2),
)  # fmt: skip
