"""Wishes and searches: a person wants a thing or has lost one, and there are obstacles."""

from __future__ import annotations

from etude.data.primer.beats import close_story, give, go, go_together, idle, open_story
from etude.data.primer.entities import Thing
from etude.data.primer.grammar import Lines
from etude.data.primer.lexicon import number_word
from etude.data.primer.story import Story

_WISH = Lines(
    "More than anything in the world, {a.n} wanted {t.a}.",
    "{a.n} had one great wish: {a.he} wanted {t.a} of {a.his} own.",
    "For weeks {a.n} had been dreaming of {t.a}.",
    '"If only I had {t.a}," {a.n} said [every night|to {a.his} pillow|to anyone who would listen].',
    "There was just one thing that {a.n} wished for, and that was {t.a}.",
    "{a.n} had seen {t.a} in a picture, and since then {a.he} could think of nothing else.",
    "[All winter|For a whole year] {a.n} had wished for {t.a}. {A.he} even [drew it on the wall|talked about it in {a.his} sleep].",
)
_DREAM = Lines(
    '"I would {t.use} [every day|from morning to night]," {a.he} [said|told {a.his} mother].',
    "{A.he} closed {a.his} eyes and saw it all: how {a.he} would {t.use}, and how everyone would [stop and look|clap].",
    '"What would you do with it?" asked {a.his} sister. "I would {t.use}, of course!" said {a.n}.',
    "Oh, how {a.he} would {t.use}!",
)
_TRY = Lines(
    "First {a.n} tried to make one out of [old boxes and string|sticks and glue|paper and a wire], but it [fell apart|fell to pieces] at once.",
    '"We have no money for that just now," said {a.his} [mother|father] kindly, and {a.n} nodded and [swallowed hard|said no more].',
    "{A.he} looked under {a.his} bed, in case [a good fairy had been there|wishes came true overnight]. There was only [dust|an old sock].",
    "{A.he} asked {a.his} big brother, but he only laughed.",
    "{A.he} emptied {a.his} money box. Out fell [one button-sized coin and a dead fly|two small coins and a bent nail].",
    "{A.he} waited for {a.his} birthday, but [a birthday is slow to come|that was still far away].",
)


def quest(st: Story) -> None:
    """Tell of a wish for a thing, obtained by one of several plans, which may need plans of their own."""
    st.pair()
    thing = st.thing("t")
    open_story(st)
    st.say(_WISH)
    st.maybe(0.6, _DREAM)
    st.maybe(0.45, _TRY)
    st.ask(_WHAT_WISH, _IT_WISHED)
    st.note(st.env["a"], f"wished for a {thing.noun}")
    st.para()
    obtain(st, thing, depth=1 if st.rng.chance(0.75) else 2)
    st.say(_JOY)
    close_story(st, joint=st.world.places.get(st.env["b"].name) is not None)


_WHAT_WISH = Lines("What did {a.n} wish for?", "What did {a.n} want?")
_IT_WISHED = Lines("{A.n} wished for {t.a}.", "{T.a}.", "{A.he} wanted {t.a}.")
_JOY = Lines(
    "It was late when {a.n} came home. {A.he} {t.used} all the same, just once, before going to bed.",
    "[That very day|Before supper|At once], {a.n} {t.used}.",
    "{a.n} {t.used}, and [everyone came out to watch|it was even better than in {a.his} dreams|{a.he} did not want to stop].",
    "Now {a.n} had {t.a} at last. {A.he} {t.used}, and then {a.he} did it [again|once more].",
    "At last the wish had come true, and {a.n} {t.used} [until dark|until supper time|with shining eyes].",
)


def obtain(st: Story, thing: Thing, depth: int) -> None:
    """Plan backwards from "a has the thing": obtain a plan's missing condition first, one level down."""
    plans = [_by_work, _by_finding, _by_kindness, _through_friend]
    if depth > 0:
        plans += [_by_trade, _by_trade]
    st.rng.pick(plans)(st, thing, depth)


_SEEN = Lines(
    "One day {a.he} saw {t.a} [in a shop window|at the market|on a stall]. [The card said|It cost] {n} coins, and {a.n} had only {m}.",
    "In the window of the little shop stood {t.a}. It cost {n} coins. {a.n} [counted|turned out] {a.his} pockets: {m}, and not one more.",
    '{o.n} had {t.a} for sale. "{N} coins," said {o.n}, "and it is yours." But {a.n} had no more than {m}.',
)
_NEEDS = Lines(
    '"{N} take away {m} is {k}," {a.he} said. "[I need {k} more|Only {k} to go]!"',
    "{A.he} needed {k} more coins.",
    "So {k} coins were missing, and {a.n} [scratched {a.his} head|began to think].",
    '"{K} more," {a.n} sighed. "[That is a lot.|Where do coins come from?]"',
)
_JOB = Lines(
    "{o.n} needed help with the [hens|weeds|firewood|windows], so {a.n} [swept, scrubbed and carried|worked hard] {when}.",
    '"[Could you|Would you] [rake my leaves|wash my windows|stack my firewood|feed my hens]?" asked {o.n}. {a.n} [nodded|did not need to be asked twice] and worked {when}.',
    "{a.n} carried water for {o.n} {when}, though {a.his} arms ached.",
    "{When}, {a.n} pulled weeds for {o.n} until [there was not one left|{a.his} back hurt].",
)
_PAID = Lines(
    "For that {o.n} gave {a.him} {k} coins. {M} and {k} make {n}: it was enough!",
    '"You have earned this," said {o.n} and counted {k} coins into {a.his} hand. Now {a.he} had {n}.',
    "In the end there were {k} new coins in {a.his} pocket, and with the old {m} that made {n}.",
)
_BUY = Lines(
    "{a.n} <ran> to the shop and [put all the coins on the counter|paid with shining eyes], and {t} was {a.hers}.",
    "[With hot cheeks|Proudly], {a.n} paid {n} coins and carried {t} home [in both arms|like a treasure].",
)


def _by_work(st: Story, thing: Thing, depth: int) -> None:
    a = st.env["a"]
    owner = st.neighbour("o")
    have, need = st.addends(1, 6, 2, 9)
    price = st.world.add(have, need)
    st.world.subtract(price, have)
    words = {"n": number_word(price), "m": number_word(have), "k": number_word(need)}
    st.say(_SEEN, **words)
    st.say(_NEEDS, **words)
    when = st.rng.pick(("for two days", "for three days", "all week", "every afternoon that week"))
    st.say(_JOB, when=when)
    st.say(_PAID, **words)
    st.para()
    st.say(_BUY, **words)
    st.world.get(a.name, thing.noun)
    st.note(a, f"worked for {owner.name}")
    st.note(a, f"bought the {thing.noun}")
    st.ask(_HOW_MUCH, _THAT_MUCH, **words)


_HOW_MUCH = Lines("How many coins did {t.the} cost?", "How much did {t.the} cost?")
_THAT_MUCH = Lines("It cost {n} coins.", "{N} coins.")
_CLUE = Lines(
    '"There is an old {t.x} somewhere {x.at}," said {o.n} one day. "[Nobody wants it|It belongs to nobody now]. If you find it, it is yours."',
    "Then {o.n} told {a.him} a secret: {t.a} had been left {x.at}, long ago, and whoever found it might keep it.",
    '{o.n} scratched {o.his} chin. "{T.a}? I left one {x.at} when I was young. Go and look! You may keep it."',
)
_HIGH = (
    Lines(
        "And there it was! But it lay [high up on a ledge|on top of a tall cupboard|far up between two beams], and {a.n} [was too small|could not reach it].",
        "{a.n} saw it at once, high above {a.his} head. {A.he} jumped, [once, twice, three times|again and again], but it was no use.",
    ),
    Lines(
        "So {a.he} [piled one crate on another|fetched a ladder|pushed an old barrel over], climbed up on shaking legs, and took it down.",
        "Then {b.n} came by. {a.n} stood on {b.np} shoulders, and together they were tall enough.",
        "{A.he} found a long stick with a hook, [fished a little|poked and pulled], and caught it as it fell.",
    ),
)
_DARK = (
    Lines(
        "But it was dark in there, and something [rustled|squeaked] in the corner. {a.np} heart [beat like a hammer|was in {a.his} mouth].",
        "Inside, it was so dark that {a.n} could not see {a.his} own hands. {A.he} [nearly turned back|was <afraid>].",
    ),
    Lines(
        "{A.he} took a deep breath, counted to three, and went on. It was only a mouse! And behind the mouse, [under an old sack|in the dust], lay {t.the}.",
        '"I am not afraid," said {a.n}, [though it was not quite true|as loudly as {a.he} could], and felt along the wall. There! {A.his} fingers had found {t.the}.',
        "Then {b.n} held {a.his} hand, and it was not half so bad. In the last corner of all they found {t.the}.",
    ),
)
_STUCK = (
    Lines(
        "There stood {t.the}, [but it was stuck fast between two stones|but thorns had grown all over it|wedged under a heavy plank]. {a.n} pulled with all {a.his} might. It did not move.",
    ),
    Lines(
        "{b.n} heard {a.him} puffing and came to help. They pulled, one, two, three, and out it flew, and both of them [sat down hard|fell on their backs, laughing].",
        "Pulling did not help, so {a.he} [thought|sat down and thought]. Then {a.he} wiggled it [to the left and to the right|a little this way and a little that way], and it came loose.",
    ),
)


def _by_finding(st: Story, thing: Thing, depth: int) -> None:
    a = st.env["a"]
    st.neighbour("o")
    dark = st.rng.chance(0.4)
    place = st.place(
        "x",
        ("attic", "cave", "barn", "shed", "tower")
        if dark
        else ("barn", "mill", "tower", "shed", "forest", "garden", "farm"),
    )
    st.world.lay(thing.noun, place.noun)
    st.say(_CLUE)
    go(st, a, place)
    st.para()
    obstacle, answer = _DARK if dark else st.rng.pick((_HIGH, _STUCK))
    st.say(obstacle)
    st.say(answer)
    st.world.take(a.name, thing.noun)
    st.note(a, f"found the {thing.noun}")
    st.ask(_WHERE_FOUND, _FOUND_THERE)


_WHERE_FOUND = Lines("Where was {t.the}?", "Where did {a.n} find {t.the}?")
_FOUND_THERE = Lines("It was {x.at}.", "{A.n} found it {x.at}.")
_HELPED = Lines(
    '{a.n} stopped at once. "Two are faster than one," {a.he} said, and {a.he} was right.',
    '"Wait, I will help you!" cried {a.n}, and it took [only a minute|quite a while|the whole morning], but in the end [all was well|it was done].',
    "{a.n} did not think of {t.the} at all. {A.he} just [helped|rolled up {a.his} sleeves], and [soon|before long] everything was in order.",
    '"Let me," said {a.n}. [Before the clock struck again|In no time], the trouble was over, and {o.n} was <glad>.',
)
_REWARD = Lines(
    '"You are a kind child," said {o.n}. "Is there something you wish for?" And {a.n} told {o.him} about {t.the}.',
    '"[How can I thank you|What can I do for you]?" asked {o.n}. {a.n} went red. "I only ever wish for one thing," {a.he} said. "{T.a}."',
    '{o.n} laughed and said, "[What luck|Well, well]! I have {t.a} at home, and [my arms are too old for it|it does nothing but gather dust]."',
)


def _by_kindness(st: Story, thing: Thing, depth: int) -> None:
    a, owner = st.env["a"], st.neighbour("o")
    place = st.place("x", ("market", "station", "mill", "bridge", "farm", "harbour"))
    st.world.get(owner.name, thing.noun)
    st.world.move(a.name, place.noun)
    st.say(_TROUBLE)
    st.say(_HELPED)
    st.note(a, f"helped {owner.name}")
    st.para()
    st.say(_REWARD)
    give(st, owner, a, thing)
    st.ask(_WHY_GIVEN, _FOR_HELP)


_TROUBLE = Lines(
    "It was a windy day, and {o.np} papers were flying all over the road {x.to}. {O.he} ran after them, but {o.he} was much too slow. {a.n} saw it.",
    "On the way {x.to}, {a.n} met {o.n}, who was [looking for {o.his} glasses|standing beside a cart with a broken wheel|chasing three hens].",
    "One <morning> {a.n} [saw|met] {o.n} {x.at}. {O.he} [had dropped a whole sack of potatoes|could not open the gate|had lost {o.his} purse].",
    "{a.n} was {x.at} when {a.he} heard a cry. It was {o.n}, and {o.he} [had slipped and fallen|was up to the knees in mud|could not carry {o.his} bags any further].",
)
_WHY_GIVEN = Lines("Why did {o.n} give {a.n} {t.the}?", "Why did {a.n} get {t.the} from {o.n}?")
_FOR_HELP = Lines(
    "Because {a.n} had helped {o.him}.", "{A.he} had helped {o.n}, and {o.n} wanted to say thank you."
)


def _through_friend(st: Story, thing: Thing, depth: int) -> None:
    """Ask who has it: one friend points to the next, in a chain of reported facts."""
    a, b = st.env["a"], st.env["b"]
    c = st.child("c")
    st.world.get(c.name, thing.noun)
    st.world.tell(b.name, a.name, c.name, thing.noun)
    place = st.place("x")
    st.say(_ASK_AROUND)
    st.say(_TOLD)
    st.note(b, f"told {a.name} about the {thing.noun}")
    st.world.move(c.name, place.noun)
    go(st, a, place)
    st.para()
    st.say(_C_HAS)
    give(st, c, a, thing)
    st.ask(_WHO_TOLD, _B_TOLD)


_ASK_AROUND = Lines(
    '"Do you know anyone who has {t.a}?" {a.n} asked {b.o}.',
    'One day {a.n} asked {b.n}, "Who has {t.a} in this village?"',
)
_TOLD = Lines(
    "{b.n} told {a.n} that {c.n} had {t.full}.",
    '"{c.n} has {t.full}," {b.n} told {a.n}. "[Go and ask|Just ask {c.him}]!"',
    "{b.n} thought for a moment. Then {b.n} told {a.n} that {c.n} had {t.the}.",
)
_C_HAS = Lines(
    'There sat {c.n}, and beside {c.him} lay {t.the}. "[I never use it any more|I am too big for it now|I have two of them]," said {c.n}.',
    '{a.n} found {c.n} and told {c.him} about {a.his} wish. {c.n} [listened|was silent for a while|smiled]. "You want it more than I do," {c.he} said.',
    '{c.n} was there, just as {b.n} had said. "Would you lend it to me?" asked {a.n}. "Lend it?" said {c.n}. "You can [have it for good|keep it]!"',
)
_WHO_TOLD = Lines("Who told {a.n} that {c.n} had {t.the}?")
_B_TOLD = Lines("{B.n} did.", "{B.n} told {a.him}.", "It was {b.n}.")
_OFFER = Lines(
    '{o.n} had {t.a}, but {o.he} would not [sell it|give it away for nothing]. "[Bring me|Find me] {u.a}," said {o.n}, "and {t.the} is yours."',
    '"I would swap {t.the}," said {o.n}, who had {t.a}, "but only for {u.a}. [I have always wanted one|That is what my grandchild is asking for]."',
    'It was {o.n} who had {t.a}. "A swap?" said {o.n}. "[Gladly|Why not]! But I need {u.a}."',
)
_BUT = Lines(
    '"I have no {u.x}," said {a.n}. "Then go and find one," said {o.n}, and that was the end of the talk.',
    "{a.n} had no {u.x}. [So that had to come first|So where could {a.he} get one|But {a.he} did not give up].",
    "Now {a.n} needed {u.a} before {a.he} could have {t.the}.",
    '"{U.a}!" thought {a.n}. "[Where shall I find that?|One thing at a time.]"',
)
_SWAP = Lines(
    "Now that {a.he} had {u.the}, {a.n} <ran> back to {o.n}. {U.the} went one way and {t.the} the other, and both were <glad>.",
    '{a.n} gave {o.n} {u.full}, and {o.n} gave {a.n} {t.full}. "[A fair swap|A good trade]," said {o.n}.',
    '"You really found one!" cried {o.n} when {a.n} came with {u.full}. And {t.the} [changed hands|was {a.hers}].',
)


def _by_trade(st: Story, thing: Thing, depth: int) -> None:
    a = st.env["a"]
    owner = st.neighbour("q")
    wanted = st.thing("u")
    st.world.get(owner.name, thing.noun)
    st.say(_OFFER, o=owner, u=wanted, t=thing)
    st.say(_BUT, o=owner, u=wanted, t=thing)
    st.para()
    st.env["t"] = wanted
    obtain(st, wanted, depth - 1)
    st.env["t"], st.env["u"] = thing, wanted
    st.para()
    st.world.give(a.name, owner.name, wanted.noun)
    st.world.give(owner.name, a.name, thing.noun)
    st.say(_SWAP, o=owner)
    st.note(a, f"gave the {wanted.noun} to {owner.name}")
    st.note(owner, f"gave the {thing.noun} to {a.name}")
    st.ask(_WHAT_SWAP, _SWAPPED, o=owner)


_WHAT_SWAP = Lines("What did {a.n} give {o.n} for {t.the}?", "What did {o.n} want for {t.the}?")
_SWAPPED = Lines("{U.a}.", "{O.n} wanted {u.a}, and {a.n} brought it.")
_HAD = Lines(
    "{A.p} [dearest|favourite] thing was {t.a}, [a present from {a.his} grandmother|which {a.he} had found in the attic of an old aunt|and {a.he} took it everywhere].",
    "For {a.his} birthday {a.n} had [got|been given] {t.a}, and [{a.he} loved it|it never left {a.his} side].",
    "{a.n} had {t.a}. That <morning> {a.he} {t.used}.",
)
_GONE = Lines(
    "In the evening {a.n} wanted to take out {t.the}. {A.he} looked, and looked again. It was not there!",
    "But [when evening came|a little later|after lunch], {t.the} was gone!",
    '"Where is my {t.x}?" cried {a.n} [the next morning|that afternoon|suddenly]. It was [gone|nowhere to be seen].',
    "Then {a.n} put {a.his} hand in {a.his} bag, and {t.the} was not there.",
    "<suddenly>, {a.n} stood still. {T.the} was missing!",
)
_FEEL = Lines(
    '"Perhaps it will come back," said {a.his} little brother. But things do not come back by themselves.',
    "{A.n} sat down on the stairs and did not want to get up again.",
    "{A} was <sad>. [A tear ran down {a.his} nose|{A.he} could not eat a bite].",
    "{A.p} [lip trembled|face grew long|eyes filled with tears].",
    '"[I must have lost it|It cannot be far]," {a.he} said, but {a.his} voice shook.',
)
_SEARCH = Lines(
    "They turned out every pocket and shook every sheet. A thimble came to light, and a tooth, but no {t.x}.",
    "{b.n} crawled under the sofa and came out with a spider on {b.his} ear, but without {t.the}.",
    "{Both.n} looked [under the bed and behind the stove|in every drawer|under every bush], but [there was no {t.x} there|they found only dust and an old shoe].",
    "They looked high and low. They looked in [the washing|the bread box|the rain barrel]. Nothing!",
    "{a.n} asked [the postman|the milk woman|the boy next door], but [no one|nobody] had seen it.",
    "They searched for <time>, and {a.n} [was ready to give up|nearly gave up].",
)
_THINK = Lines(
    '"[Think|Let us think]," said {b.n}. "Where did you have it last?" {a.n} closed {a.his} eyes. "{X.at}!" {a.he} cried.',
    '"Where were you {when}?" asked {b.n}. "{X.at}," said {a.n} slowly, "and I had it with me."',
    '{b.n} was a good thinker. "You were {x.at} {when}," {b.he} said. "[Did you|Perhaps you] put it down there[?|, just for a moment?]"',
)
_THERE = Lines(
    "And there it lay, [under a leaf|half hidden in a corner|behind an old box|just where {a.he} had put it down]!",
    '"[I see it|Here it is|Found it]!" cried {b.n}, and held up {t.full}.',
    "Something [shone|lay] in the corner. It was {t.full}!",
)


def lost_thing(st: Story) -> None:
    """Leave a thing somewhere; it is missed, looked for in the wrong places, remembered and found."""
    a, _ = st.pair()
    thing, place = st.thing("t"), st.place("x")
    st.world.get(a.name, thing.noun)
    open_story(st, friend=st.rng.chance(0.7))
    st.say(_HAD)
    idle(st)
    st.world.put(a.name, thing.noun, place.noun)
    st.para()
    st.say(_GONE)
    st.say(_FEEL)
    st.ask(_WHY_SAD, _LOST_IT)
    st.note(a, f"lost the {thing.noun}")
    st.para()
    st.say(_SEARCH)
    st.maybe(0.4, _SEARCH)
    st.say(_THINK, when=st.rng.pick(("this morning", "yesterday", "before lunch")))
    go_together(st, place)
    st.say(_THERE)
    st.world.take(a.name, thing.noun)
    st.note(a, f"got the {thing.noun} back")
    st.ask(_WHERE_FOUND, _FOUND_THERE2)
    st.say(_RELIEF)
    close_story(st)


_WHY_SAD = Lines("Why was {a.n} sad?")
_LOST_IT = Lines("Because {a.he} had lost {a.his} {t.x}.", "{A.he} could not find {t.the}.")
_FOUND_THERE2 = Lines("It was {x.at}.", "{X.at}.", "{A.n} had left it {x.at}.")
_RELIEF = Lines(
    "{a.n} danced three times round {b.n}, and that was thanks enough.",
    "{a.n} hugged {t.the} and then {a.he} hugged {b.n}.",
    '"<thanks>," said {a.n}. "[Without you I would never have found it|You are the best finder in the world]."',
    "{a.n} was so [happy|glad|delighted] that {a.he} {t.used} [right there|then and there].",
    '"From now on I will [be more careful|look after it]," said {a.n}, and [{a.he} did|{a.he} meant it].',
)
