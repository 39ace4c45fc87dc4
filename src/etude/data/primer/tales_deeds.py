"""Deeds: building, baking, a storm, a lost pet, a fear overcome, a contest."""

from __future__ import annotations

from typing import NamedTuple

from etude.data.primer.beats import close_story, go_together, idle, open_story
from etude.data.primer.entities import amount
from etude.data.primer.grammar import Lines
from etude.data.primer.lexicon import number_word
from etude.data.primer.story import Story


class Work(NamedTuple):
    """Something to build: what it is, its season, where, what is needed, how it goes wrong and right."""

    what: str
    season: str
    places: tuple[str, ...]
    need: str
    wrong: str
    right: str
    done: str


_WORKS = (
    Work("raft", "summer", ("pond", "river", "harbour"), "planks, barrels and a long rope", "the knots came undone, and half of it floated away", "tied every knot twice", "It carried them both and tipped only once"),
    Work("tree house", "summer", ("orchard", "forest", "garden"), "boards, nails and a ladder", "the first board fell and just missed the cat", "nailed a strong beam across the branches", "From up there they could see three church towers"),
    Work("snowman", "winter", ("park", "meadow", "field", "hill"), "two lumps of coal, an old pot and plenty of snow", "the head rolled off and broke in two", "packed the snow harder and set the head on a thick neck", "It looked as if it were about to tell a joke"),
    Work("sandcastle", "summer", ("beach",), "wet sand and flat stones", "a wave came in and licked the towers away", "dug a deep ditch all around it", "The next wave ran into the ditch, and the castle stood"),
    Work("bird house", "spring", ("garden", "shed", "barn"), "a box, a saw and some moss", "the roof was crooked and the rain came in", "sawed a new roof and nailed it down tight", "By the end of the week a blue tit had moved in"),
    Work("scarecrow", "spring", ("field", "farm", "garden"), "straw, two poles and Grandpa's oldest trousers", "it fell on its nose at the first puff of wind", "drove the pole deep into the ground", "The crows were so surprised that they stayed away for a week"),
    Work("hut", "autumn", ("forest", "hill", "meadow"), "branches, moss and string", "the whole roof slid down on their heads", "leaned the longest branches against a tall rock", "Inside it was dry and smelled of leaves"),
    Work("dam", "spring", ("river", "meadow"), "stones, clay and sticks", "the water found a hole and rushed through", "stuffed the hole with clay and moss", "Behind it the water rose until it made a little lake"),
)  # fmt: skip
_PLAN = Lines(
    '"Let us build {what}," said {a.n}. "[I know how|It cannot be hard|I saw it in a picture]."',
    '"What shall we do today?" asked {b.n}. {a.n} had [an answer ready|thought about it all night]. "We will build {what}!"',
    "{a.n} and {b.n} wanted to build {what}, [the biggest in the world|and it was to be ready by evening].",
)
_GATHER = Lines(
    "{a.n} made a list: {need}. {b.n} found most of it [behind the shed|in the cellar], and the rest they [borrowed|begged] from the neighbours.",
    "Without {need} it could not be done, so they went from door to door and asked.",
    "They needed {need}, and [it took them <time> to find it all|they carried it all {x.to}].",
    'They gathered {need}. "That should be enough," said {b.n}, [and wiped {b.his} nose|looking at the heap].',
)
_WRONG = Lines(
    '"Finished!" cried {b.n}. But {b.he} had spoken too soon, for {wrong}.',
    "By noon they were proud of it. By one o'clock {wrong}.",
    "They worked [hard|like beavers], but {wrong}.",
    'At first {wrong}. ["This will never work," said {b.n}.|{b.n} wanted to go home.|{a.n} kicked a stone.]',
    "It looked easy, but it was not: {wrong}.",
)
_RIGHT = Lines(
    "{b.n} wanted to give up, but {a.n} did not. Once more they began, and now they {right}. {done}.",
    '"I know what we did wrong!" cried {b.n}. So they {right}, and then it was done. {done}.',
    '"We must do it [differently|another way]," said {a.n}. So they {right}. {done}.',
    "They sat down and thought. Then they {right}, and [this time it held|that was the answer]. {done}.",
    "{g.n} came by, looked at it, and [gave them good advice|showed them where the mistake was]. So they {right}. {done}.",
)


def building(st: Story) -> None:
    """Tell of a plan, the material it needs, a failure with a cause, and the remedy for that cause."""
    a, b = st.pair()
    st.elder("g")
    work = st.rng.pick([work for work in _WORKS if st.season in ("", work.season)])
    place = st.place("x", work.places)
    what = ("an " if work.what[0] in "aeiou" else "a ") + work.what
    open_story(st, season=work.season)
    st.say(_PLAN, what=what)
    for child in (a, b):
        st.note(child, f"wanted to build {what}")
    go_together(st, place)
    idle(st)
    st.para()
    st.say(_GATHER, need=work.need)
    st.say(_WRONG, wrong=work.wrong)
    st.say(_RIGHT, right=work.right, done=work.done)
    st.ask(_WHAT_BUILT, _BUILT, what=what)
    st.ask(_WHERE_BUILT, _BUILT_THERE)
    close_story(st)


_WHAT_BUILT = Lines("What did {a.n} and {b.n} build?")
_BUILT = Lines("They built {what}.", "{What}.")
_WHERE_BUILT = Lines("Where did they build it?")
_BUILT_THERE = Lines("{X.at}.", "They built it {x.at}.")

_BAKE_PLAN = Lines(
    "{a.n} and {g.n} were going to bake {k}. On the table stood flour, butter, [salt|milk] and [a pot of honey|sugar].",
    '"Shall we bake {k} today?" asked {g.n}. {a.n} was already [washing {a.his} hands|looking for the big bowl].',
    "The rain drummed on the roof, so {a.n} and {g.n} decided to bake {k}.",
)
_BAKE = Lines(
    "{g.n} read out the recipe, and {a.n} measured everything twice. Into the oven it went, and the clock ticked [very slowly|louder than ever].",
    "There was more dough on {a.np} sleeves than in the bowl, but in the end the tray was full, and the oven door closed.",
    "They weighed and stirred, and soon there was flour [on the floor|on {a.np} nose|everywhere]. Then the tray went into the oven.",
    "{a.n} stirred until {a.his} arm hurt, and {g.n} [showed {a.him} how to shape them|rolled out the dough]. Then they had to wait, which is the hardest part of baking.",
    "First came the flour, then the butter, and last a pinch of salt. {a.n} [licked the spoon|got to lick the bowl].",
)
_BURN = Lines(
    "But {a.n} had forgotten to watch the oven, and {b} were as black as coal. So {l} were left.",
    "Oh dear! {B} were burnt on the bottom. That left {l}.",
)
_TRAY = Lines(
    "When the oven door opened, {m} lay on the tray, [hot and steaming|smelling like heaven].",
    "After <time>, they took {m} out of the oven.",
)
_GUEST = Lines(
    "{b.n} [smelled it through the window|came in with a cold nose] and ate {p}. {L} {was} left on the plate.",
    "{a.n} took {p} next door to {b.n}. That left {l}.",
    '"May I have some?" asked {b.n}. {a.n} gave {b.him} {p}, so {l} {was} left.',
)


def baking(st: Story) -> None:
    """Count what is baked, what burns, what a guest gets, and what is left."""
    a, b = st.pair()
    kind = st.count_kind(("oven",))
    st.elder("g", st.rng.pick(("Grandma", "Dad", "Mum", "Grandpa")))
    open_story(st)
    idle(st)
    st.place_nouns.add("kitchen")
    st.say(_BAKE_PLAN, k=kind.plural)
    st.say(_BAKE)
    st.para()
    left = st.rng.between(7, 20)
    st.world.get(a.name, kind.noun, left)
    st.say(_TRAY, m=amount(left, kind, st.rng.pick(("", *kind.adjectives))))
    if st.rng.chance(0.4):
        burnt = st.part_of(left, 2, 4)
        st.world.use_up(a.name, kind.noun, burnt)
        left = st.world.subtract(left, burnt)
        st.say(_BURN, b=number_word(burnt), l=number_word(left))
        st.note(a, "forgot to watch the oven")
    part = st.part_of(left, 1, 4)
    st.world.give(a.name, b.name, kind.noun, part)
    left = st.world.subtract(left, part)
    st.world.left[kind.noun] = left
    st.say(_GUEST, p=amount(part, kind), l=number_word(left), was="was" if left == 1 else "were")
    st.note(a, f"gave {b.name} {amount(part, kind)}")
    st.ask(_HOW_MANY, _SO_MANY, k=kind.plural, m=amount(left, kind))
    st.say(_TASTE)
    close_story(st)


_HOW_MANY = Lines("How many {k} were left?", "How many {k} were there at the end?")
_SO_MANY = Lines("{M}.")
_TASTE = Lines(
    '"What is the secret?" asked the neighbour at the window. "Patience," said {g.n}, and {a.n} laughed.',
    "{a.n} kept one for the morning. In the morning it was still good.",
    '"[These are the best ever|Perfect]," said {g.n} with a full mouth.',
    '"A little more sugar next time," said {g.n} and smacked {g.his} lips.',
    "It was quiet in the kitchen for a while, because everybody was chewing.",
)

_CLOUDS = Lines(
    "A black cloud came over the hills, and behind it another, even blacker. The swallows flew low.",
    '{a.n} wet a finger and held it up. "The wind has turned," {a.he} said. It was not long before the first drops fell.',
    "<suddenly> the sky [went dark|turned as black as ink]. The first drops fell, as big as coins.",
    'Far away there was a growl, [like a dog under the table|as if somebody were moving heavy furniture]. "[Thunder|A storm is coming]!" said {b.n}.',
    "The birds stopped singing. The air stood still. Then a gust of wind tore the leaves from the trees.",
)
_STORM = Lines(
    "The rain came down in ropes, and every path was a brook.",
    "Hail jumped on the ground like peas. It hurt!",
    "Lightning flashed, and thunder cracked [right above them|a moment later].",
    "It rained as if [somebody had tipped out a tub|the sky had burst]. In a minute they were wet to the skin.",
    "The wind howled [and pulled at their clothes|like a hundred wolves].",
)
_SHELTER = Lines(
    '"Where can we go?" cried {b.n}. {a.n} pointed. They ran {x.to} and did not stop until they were under the roof.',
    "They held one jacket over both their heads and ran {x.to}.",
    '"[Quick|Run], {x.to}!" cried {a.n}. Hand in hand they ran until they were safe {x.at}.',
    "They could not stay where they were. So they [bent their heads|took each other by the hand] and <ran> {x.to}.",
)
_CALM = Lines(
    '{b.n} was [afraid|scared|frightened] of thunder. "Count with me," said {a.n}. "From the flash to the bang. [The more you can count, the farther away it is|If the number grows, it is going away]." They counted {s}, and the next time {big}. It was going away.',
    "{a.n} saw that {b.n} was shaking. So {a.he} [sang the silliest song {a.he} knew|told the story of the wolf who was afraid of sheep], and soon {b.n} [laughed|was smiling again].",
)
_RAINBOW = Lines(
    "When they looked out again, the clouds were moving off, and every leaf had a drop at its tip.",
    "The thunder grumbled once more, far away, like somebody who must have the last word.",
    "Then it was over. The sun came out, and a rainbow stood over the {x2}.",
    "At last the rain grew thin and stopped. [Everything dripped and shone|The whole world smelled new].",
)


def storm(st: Story) -> None:
    """Let a storm surprise two friends; one is afraid, the other knows a remedy."""
    a, b = st.pair()
    first, place = (
        st.place("y", ("meadow", "hill", "beach", "field", "river")),
        st.place("x", ("barn", "mill", "cave", "shed", "farm", "tower")),
    )
    open_story(st, season=st.rng.pick(("summer", "autumn", "spring")))
    go_together(st, first)
    idle(st)
    st.para()
    st.say(_CLOUDS)
    st.say(_STORM)
    st.say(_SHELTER)
    for child in (a, b):
        st.world.move(child.name, place.noun)
    st.para()
    small = st.rng.between(3, 5)
    st.say(_CALM, s=f"to {number_word(small)}", big=f"to {number_word(small + st.rng.between(2, 4))}")
    st.note(a, f"cheered {b.name} up")
    st.ask(_WHO_AFRAID, _B_AFRAID)
    st.ask(_WHERE_SAFE, _SAFE)
    st.say(_RAINBOW, x2=st.rng.pick(("hills", "fields", "village")))
    close_story(st)


_WHO_AFRAID = Lines("Who was afraid of the storm?")
_B_AFRAID = Lines("{B.n} was.", "It was {b.n}.")
_WHERE_SAFE = Lines("Where did they hide from the storm?", "Where were they safe?")
_SAFE = Lines("{X.at}.", "They were safe {x.at}.")

_PET = Lines(
    "{a.n} had a {p.kind} called {p.n}. [Wherever {a.he} went, {p.n} went too|{p.n} slept at the foot of {a.his} bed|Nobody could say which of the two was hungrier].",
    "{p.n} was {a.np} {p.kind}. {P.he} [liked {p.treat} more than anything|was clever and knew it|had one white ear].",
)
_PET_GONE = Lines(
    "In the night the wind had blown the gate open. When {a.n} came out with {p.treat}, there was no {p.n}.",
    "{a.n} had forgotten to close the gate. When {a.he} remembered, it was too late: {p.n} had gone off to see the world.",
    "One <morning> the gate [stood open|had been left open], and {p.n} was gone.",
    '"{p.n}! {p.n}!" {a.n} called. No {p.kind} came.',
    "But that <morning> no one came when {a.n} called. {p.n} had vanished.",
)
_TRACKS = Lines(
    'They asked everyone they met. At last an old man nodded. "A {p.kind} went by an hour ago," he said, "straight {x.to}."',
    "{a.n} lay down and put {a.his} ear to the ground. {b.n} laughed, but then they both saw the tracks, and the tracks went {x.to}.",
    "In the [mud|soft earth] there were tracks. They led {x.to}.",
    '"I saw a {p.kind}," said {o.n}. "{P.he} ran {x.to}, as if {p.he} had an appointment."',
    '{b.n} found a [little tuft of hair|footprint] by the gate. "This way," {b.he} said, and pointed {x.to}.',
)
_CAUGHT = Lines(
    "They whistled and called. Something moved, and out of the grass looked {p.n}, wet and thin and glad. {P.his} leg was caught in a wire.",
    "On top of a heap of stones stood {p.n} and did not dare to come down. {P.he} {p.noise} as loud as {p.he} could.",
    "There was {p.n}! {P.he} was caught [in a bramble bush|under a fence|between two boards] and {p.noise} sadly.",
    "Then they heard it: somebody {p.noise}. {p.n} had [fallen into a pit|climbed up too high] and could not get out.",
    "Behind a pile of wood sat {p.n}, {p.move}. {P.he} was not alone: [beside {p.him} lay four tiny mice|{p.he} had found a friend, a hedgehog].",
)
_FREED = Lines(
    "It took time and four careful hands. Then {p.n} was free, and {p.he} {p.noise} so loud that both of them had to laugh.",
    "{b.n} talked to {p.him} in a low voice while {a.n} worked. At last it was done, and {p.n} came along home, {p.move}.",
    "{a.n} held out {p.treat}, and {b.n} [pushed from behind|lifted {p.him} gently]. A moment later {p.n} was in {a.np} arms.",
    "Little by little they [coaxed|helped] {p.him} out. {p.n} {p.noise} and came to {a.n}, {p.move}.",
    '"Come here, you silly {p.kind}," said {a.n}, half laughing and half crying, and {p.n} came, {p.move}.',
)


def lost_pet(st: Story) -> None:
    """Let a pet run away through an open gate; it is tracked, found in trouble and freed."""
    a, _ = st.pair()
    st.pet("p")
    st.neighbour("o")
    place = st.place("x", ("forest", "mill", "meadow", "farm", "orchard", "field", "garden", "park"))
    open_story(st)
    st.say(_PET)
    idle(st)
    st.para()
    st.say(_PET_GONE)
    st.note(a, f"missed {st.env['p'].name}")
    st.ask(_WHY_AWAY, _AWAY)
    st.say(_TRACKS)
    go_together(st, place)
    st.para()
    st.say(_CAUGHT)
    st.say(_FREED)
    st.world.move(st.env["p"].name, place.noun)
    st.ask(_WHERE_PET, _PET_THERE)
    st.maybe(0.5, _GATE)
    close_story(st)


_WHY_AWAY = Lines("Who had run away?", "What kind of animal was {p.n}?")
_AWAY = Lines("{P.n}, the {p.kind}.")
_WHERE_PET = Lines("Where did they find {p.n}?")
_PET_THERE = Lines("{X.at}.", "They found {p.him} {x.at}.")
_GATE = Lines(
    "And from then on the gate was always shut. Nearly always.",
    "At home {p.n} got {p.treat}, and slept until noon.",
    "{a.n} [fixed|tied up] the gate that very evening.",
)

_FEARS = (
    ("to swim", ("pond", "river", "beach"), "the water was cold and deep", "lay on {a.his} back and felt the water carry {a.him}"),
    ("to climb to the very top", ("tower", "lighthouse"), "the stairs were steep and the wind whistled", "climbed with {a.his} eyes on the next step, and only on the next step"),
    ("to sing in front of everyone", ("school", "market", "library"), "all those faces were looking up", "looked only at {b.n} and sang, first softly and then louder and louder"),
    ("to ride the pony", ("farm", "meadow", "field"), "the pony was so big and its teeth were so yellow", "held on to the mane, and the pony walked as gently as a cloud"),
)  # fmt: skip
_SCARED = Lines(
    "Everyone else could do it. Only {a.n} could not, or thought so. {A.he} longed {deed}, but {why}.",
    "{a.n} wanted {deed}, but {a.he} was <afraid>, for {why}.",
    "There was one thing that {a.n} did not dare: {deed}. [Each time {a.he} tried|When {a.he} stood there], {why}.",
)
_CHEER = Lines(
    '"What is the worst that can happen?" asked {b.n}. {a.n} thought of three things, and then {a.he} had to laugh at the third.',
    '{b.n} went first. "See?" {b.he} called. "I am still alive!"',
    '"I was afraid too, the first time," said {b.n}. "[Fear gets smaller if you look at it.|Shall I stay with you?]"',
    '{b.n} did not laugh. {B.he} [only said, "I am here."|stood beside {a.him} and waited.]',
    '"You need not do it today," said {b.n}. "But I think you can."',
)
_DARED = Lines(
    "So {a.n} {how}.",
    "{a.n} took a deep breath. {A} {how}.",
    "[The first time did not count|It took three tries], but then {a.n} {how}.",
)
_PROUD = Lines(
    '"Again!" said {a.n}. There was no stopping {a.him} now.',
    "Afterwards {a.np} knees shook, but {a.his} eyes shone.",
    '"I did it!" {a.he} shouted. "[Did you see|I really did it]!"',
    "{A} was so [happy|glad|delighted] that {a.he} did it [again|twice more].",
    "Nobody was prouder than {b.n}, except {a.n}.",
)


def fear(st: Story) -> None:
    """Tell of something a child does not dare, a friend's encouragement, and the deed."""
    a, _ = st.pair()
    deed, places, why, how = st.rng.pick(_FEARS if st.season in ("", "summer") else _FEARS[1:])
    place = st.place("x", places)
    open_story(st, season="summer" if places[0] == "pond" else "")
    go_together(st, place)
    idle(st)
    st.para()
    st.say(_SCARED, deed=deed, why=why)
    st.say(_CHEER)
    his, him = a.words["his"], a.words["him"]
    st.say(_DARED, how=how.replace("{a.his}", his).replace("{a.him}", him).replace("{b.n}", st.env["b"].name))
    st.say(_PROUD)
    st.note(a, f"dared {deed}")
    st.ask(_WHAT_FEAR, _FEARED, deed=deed)
    close_story(st)


_WHAT_FEAR = Lines("What was {a.n} afraid of at first?")
_FEARED = Lines("{A.n} was afraid {deed}.")
_COUNT_START = Lines(
    '"Let us see who finds more {k}," said {b.n}. They shook hands on it and ran off in different directions.',
    "They made a bet: whoever found more {k} would be king until supper.",
    '"I can find more {k} than you," said {a.n}. "[Never|We shall see]," said {b.n}, and off they went, each with a bag.',
    "{a.n} and {b.n} wanted to see who could find more {k}. They had until the [church clock struck|sun touched the trees].",
)
_COUNTED = Lines(
    "{A.n} found {m}. {B.n} found {n}. So {w.n} had {d} more, [and won|and was the winner].",
    "When they counted, {a.n} had {m} and {b.n} had {n}. {W.n} had won by {d}.",
)
_TOGETHER = Lines(
    "They put them all in one heap. {Ma} and {na} make {s}: [enough for everyone|what a heap that was]!",
    '"And together?" asked {a.n}. "{Ma} plus {na} is {s}," said {b.n}.',
)


def contest(st: Story) -> None:
    """Tell who finds more, by how many, and how many there are together."""
    a, b = st.pair()
    kind = st.count_kind(("shore", "wood"))
    where = ("beach",) if kind.source == "shore" else ("forest", "park", "hill")
    place = st.place("x", where)
    open_story(st, season="autumn" if kind.source == "wood" else "")
    go_together(st, place)
    st.para()
    st.say(_COUNT_START, k=kind.plural)
    low = st.rng.between(3, 8)
    _, extra = st.addends(low, low, 1, 6)
    counts = [low, st.world.add(low, extra)]
    if st.rng.chance(0.5):
        counts.reverse()
    winner = a if counts[0] > counts[1] else b
    for child, count in zip((a, b), counts, strict=True):
        st.world.get(child.name, kind.noun, count)
    st.say(_COUNTED, m=amount(counts[0], kind), n=number_word(counts[1]), w=winner, d=number_word(extra))
    st.world.subtract(max(counts), min(counts))
    st.note(winner, "won")
    st.ask(_WHO_MORE, _W_MORE, w=winner, k=kind.plural)
    if st.rng.chance(0.6):
        total = st.world.add(*counts)
        st.say(_TOGETHER, ma=number_word(counts[0]), na=number_word(counts[1]), s=number_word(total))
        st.ask(_ALL, _TOTAL, k=kind.plural, s=number_word(total))
    close_story(st)


_WHO_MORE = Lines("Who found more {k}?")
_W_MORE = Lines("{W.n} did.", "{W.n} found more.")
_ALL = Lines("How many {k} did they find together?")
_TOTAL = Lines("{S}.", "They found {s}.")
