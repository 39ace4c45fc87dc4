"""Other parts of a children's book: letters, conversations, portraits of places, counting rhymes."""

from __future__ import annotations

from collections.abc import Callable

from etude.data.primer.beats import SEASONS, in_season
from etude.data.primer.grammar import Lines, finish
from etude.data.primer.lexicon import number_word
from etude.data.primer.story import Story

_DEAR = Lines("Dear {g.n},", "My dear {g.n},", "Dear {g.n}, hello from far away!")
_HOW = Lines(
    "how are you? I am [well|very well], and [I hope you are too|it is raining here].",
    "thank you for your letter. I read it [twice|three times].",
    "today I want to tell you [something|what happened this week].",
    "it is so [quiet|dull] here without you.",
)
_NEWS = Lines(
    "On [Monday|Tuesday|Friday] I went {x.to} with {b.n}. {x.detail}",
    "{b.n} and I are building a [raft|hut|tree house]. It [is not finished yet|already fell down once], but it will be [splendid|the best one ever].",
    "{b.n} taught me how to [whistle with two fingers|swim on my back|tie a knot that never comes undone].",
    "Yesterday I [lost a tooth|fell into a ditch|saw a fox|found a wasps' nest].",
    "At school we are learning [long sums|a song in three voices|the names of all the rivers]. I can [almost|already] do it.",
    "Our [neighbour's cat|old grey cat] had kittens. One is [black|striped] with a white nose, and I am allowed to give it a name.",
    "There is a new {b.boy} next door, called {b.n}, and we [are already friends|have not spoken yet].",
    "[Mum|Dad] says that I have grown, and my [boots|trousers] say so too.",
    "{b.n} was angry with me on Monday, but on Tuesday we [made up|both said sorry].",
    "Last night there was a storm, and I was [not afraid at all|only a little afraid].",
    "I have {t.a} now, and I {t.used} yesterday.",
    "It has [rained|snowed] for three days, and {b.n} says that [we will soon grow fins|the sky must have a hole].",
)
_WHEN = Lines(
    "When are you coming to visit us?",
    "Will you come in the holidays?",
    "Please write soon.",
    "Next week I will tell you more.",
    "I miss you very much.",
    "Tomorrow we will go fishing, and I will catch one for you.",
)
_LOVE = Lines(
    "Love from {a.n}.", "Your {a.n}.", "With a thousand kisses, your {a.n}.", "Many greetings, {a.n}."
)


def letter(st: Story) -> None:
    """Write a child's letter to a grown-up."""
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
    Lines("Good morning, {b.n}!/Good morning, {a.n}! [Did you sleep well?|You are up early.]/[Yes, like a stone|Not very well. The wind was so loud|I dreamed of a whale]."),
    Lines("Hello, {b.n}! Where are you going?/{X.to}. Will you come along?/[Gladly! Wait, I only need my boots|I have to ask first|Not today. I have to look after my little brother]."),
    Lines("There you are, {b.n}! I was looking for you./[Why|What is the matter]?/[I have news|I need your help|I was bored, that is all]."),
    Lines("Do you know who has {t.a}?/[No, but I can ask my sister|I saw one in a shop once]. What do you want it for?/I would like to {t.use}. That is all."),
    Lines("Can you keep a secret?/Of course I can. Tell me!/[So can I|I will tell you tomorrow]./That is not fair!"),
    Lines("Guess what I have in my pocket!/A [frog|snail|piece of string|wet sock]?/No. [Guess again!|You are cold, quite cold.]/Then I give up."),
    Lines("Are you angry with me?/No. I was only [thinking|sad|hungry]./I am glad. [Shall we share my sandwich?|Then let us be friends again.]/Yes, please!"),
    Lines("Listen! What was that?/[It was only the wind|That was an owl|My stomach. I am hungry]./Are you sure?/[Quite sure|Nearly sure]."),
    Lines("Look, it is getting dark./Then we must go [home|in]./[One more game|Five more minutes]!/[All right, but only one|You always say that]."),
    Lines("What will you be when you grow up?/A [baker|sailor|doctor|teacher]. And you?/I will be a [pilot|painter|gardener|clown]./Then I will come and visit you every Sunday."),
    Lines("Why are you laughing?/Because you have [flour|jam|ink] on your nose./Where? Is it gone now?/No, now it is on your [ear|chin] too."),
    Lines("I am sorry about yesterday./What about yesterday?/I shouted at you, and I was wrong./I had forgotten it. But thank you."),
    Lines("It is raining again./[Good. The ducks will be happy|Then we can play inside]./[And the frogs|I would rather be a duck]./Quack!"),
    Lines("May I have a bite of your cheese pie?/Only if I may have some of your soup./Here you are./And here you are."),
)  # fmt: skip


def dialogue(st: Story) -> None:
    """Write a conversation of two children, like a play."""
    a, b = st.pair()
    st.thing("t")
    st.place("x")
    talks = [st.rng.pick(_TALKS[:3]), *st.rng.some(_TALKS[3:], st.rng.between(1, 3))]
    turns: list[str] = []
    for talk in talks:
        line: list[str] = []
        st.render(talk.templates[0], st.env, line)
        for at, said in enumerate("".join(line).split("/")):
            turns.append(f"{(a, b)[at % 2]}: {said}")
    ends = st.rng.pick(
        (
            ("See you tomorrow!", "See you!"),
            ("Goodbye!", "Goodbye, and thank you!"),
            ("I must go now.", "Then run!"),
        )
    )
    turns += [f"{a}: {ends[0]}", f"{b}: {ends[1]}"]
    st.para()
    st.paragraphs.append(finish("\n".join(turns)))


_PORTRAIT = Lines(
    "This is {x}.",
    "Do you know {x}?",
    "Come with me {x.to}.",
    "{a.n} often went {x.to}.",
    "Nobody was {x.at} that day, only {a.n}.",
)
_SENSES = Lines(
    "If you stood quite still, you could hear [your own heart|the grass grow|a dog bark, far away].",
    "[Someone|A boy] was whistling in the distance.",
    "Nothing happened for a long time, and that was the best of it.",
    "{a.n} [sat down|stayed] there until [the light changed|{a.his} foot fell asleep].",
    "{A.n} shut {a.his} eyes and counted ten different sounds.",
    "Here {a.n} [learned to whistle|had once met a toad|came when {a.he} wanted to think].",
)


def portrait(st: Story) -> None:
    """Describe a place in a season, through a child's eyes."""
    a = st.child("a")
    place = st.place("x")
    st.world.move(a.name, place.noun)
    season = st.rng.pick(("spring", "summer", "autumn", "winter"))
    season = season if in_season(season, place.noun) else "summer"
    if st.rng.chance(0.6):
        st.say(SEASONS[season])
    st.say(_PORTRAIT)
    details = st.rng.some(place.kind.details, st.rng.between(2, 3))
    for detail in details:
        st.line.append(" " + detail)
    st.sentence += 1
    for _ in range(st.rng.between(1, 3)):
        st.say(_SENSES)


_HOP = (
    "frogs",
    "crows",
    "mice",
    "ducks",
    "kittens",
    "sparrows",
    "lambs",
    "rabbits",
    "crabs",
    "squirrels",
    "owls",
    "beetles",
)
_LEAVE = (
    "flew away",
    "fell asleep",
    "went home",
    "ran off to play",
    "said goodbye",
    "hid behind a tree",
    "jumped into the pond",
    "was gone",
)
_SAT = (
    "sat in a row",
    "danced in a ring",
    "stood by the road",
    "waited for the sun",
    "played on the wall",
    "lay in the grass",
)


def counting(st: Story) -> None:
    """Write a rhyme that counts down to none, or rows of numbers."""
    if st.rng.chance(0.35):
        step, start = st.rng.between(1, 5), st.rng.between(0, 10)
        many = [start + step * at for at in range(st.rng.between(5, 9))]
        word = "Count" if step == 1 else f"Count by {number_word(step)}s"
        st.paragraphs.append(f"{word}: {', '.join(map(str, many))}.")
        st.paragraphs.append(", ".join(number_word(value) for value in many).capitalize() + ".")
        return
    animal, sat = st.rng.pick(_HOP), st.rng.pick(_SAT)
    one = {"mice": "mouse"}.get(animal, animal[:-1])
    lines = []
    for count in range(st.rng.between(3, 9), 0, -1):
        left = st.world.subtract(count, 1)
        leaver = "It" if count == 1 else "One"
        after = "was one" if left == 1 else f"were {number_word(left) if left else 'none'}"
        here = f"{number_word(count).capitalize()} {one if count == 1 else animal} {sat}."
        lines.append(f"{here} {leaver} {st.rng.pick(_LEAVE)}, and then there {after}.")
        st.world.left[one] = left
    st.paragraphs.append("\n".join(lines))


PAGES: tuple[tuple[str, Callable[[Story], None], int], ...] = (
    ("letter", letter, 4), ("dialogue", dialogue, 3), ("description", portrait, 4), ("counting", counting, 2),
)  # fmt: skip
