"""Passages that many stories share: openings, arrivals and departures, giving and thanking, and endings."""

from __future__ import annotations

from etude.data.primer.entities import Person, Place, Thing
from etude.data.primer.grammar import Lines
from etude.data.primer.story import Story

SEASONS = {
    "spring": Lines(
        "It was [the first warm day of spring|a bright spring morning], and the <flower> [were out|had opened in the night].",
        "Spring had come, and [every ditch was full of water|the birds would not stop singing|the lambs were out on the hillside].",
        "One [windy|bright|fresh] <morning> in spring, [the whole village smelled of wet earth|every window stood open].",
        "The snow had melted at last, and [there was mud everywhere|green tips were pushing up through the mud].",
        "[All night|All morning] a soft spring rain had fallen, and now [the roofs were shining|the puddles were full of sky].",
        "In [March|April|May] the wind [never sits still|likes to play tricks], and that <morning> was no different.",
    ),
    "summer": Lines(
        "It was [so hot that even the hens lay down in the shade|the hottest day of the summer].",
        "[On the first day of the holidays|One long summer day|One hot afternoon in July], nobody wanted to stay indoors.",
        "The summer holidays had begun, and [every day felt as long as a week|there was nothing to do but play].",
        "The sun was already high, and the [road was warm under bare feet|air above the road was shaking with heat].",
        "Early one summer morning, before [the heat came|anyone else was awake], the [grass|garden path] was still wet with dew.",
        "It had not rained for [two|three] weeks, and the [stream|little stream] had shrunk to a trickle.",
    ),
    "autumn": Lines(
        "The leaves had turned [red and gold|yellow], and [they crackled under every step|the wind chased them down the lane].",
        "One [grey|misty|windy] <morning> in autumn, fog lay over the fields like [milk|a blanket of wool|smoke].",
        "It was [October|the end of September], and the swallows had [gone|flown south].",
        "Autumn had come early that year, and [the evenings were getting dark|everyone smelled of wood smoke].",
        "The wind [rattled at the windows|shook the trees] and sent leaves [dancing|spinning] down the street.",
        "After three days of rain, the sun [peeped|looked] out between two clouds, [just to see who was there|as if to say sorry].",
    ),
    "winter": Lines(
        "It had snowed all night, and [the whole world was white and quiet|the fences wore tall white caps].",
        "One [cold|frosty|icy] <morning> in winter, there were [ice flowers|stars of frost] on the window.",
        "It was so cold that [breath hung in the air like smoke|the duck pond was frozen hard|noses turned red in a minute].",
        "On the shortest day of the year, [the lamps were lit before tea|it was dark by four o'clock].",
        "Snow was falling in [big, soft flakes|tiny flakes], and nobody could see the other side of the street.",
        "The north wind blew, and [icicles hung from every roof|everyone stayed close to the fire].",
    ),
}
_INTRO = Lines(
    "In <house> <near> lived a [|<trait> ]{a.boy} [called|named|whose name was] {a.n}.",
    "{a.n} was a <trait> [little |]{a.boy} who [lived|had always lived] in <house> <near>.",
    "There was once a <trait> {a.boy} [called|named] {a.n}, who {habit}.",
    "[Once upon a time|Once|Long ago], in <house> <near>, there lived a {a.boy} [called|named] {a.n}.",
    "{a.n} [was six|was seven|was eight|was nine] years old and {habit}.",
    "Everybody [in the village|in the street|at the school] knew {a.n}, the {a.boy} who {habit}.",
    "{a.n} lived <near> with [{a.his} mother and father|{a.his} grandmother|{a.his} father|{a.his} two aunts|{a.his} big family].",
    "This is a story about {a.n}, a {a.boy} who {habit}.",
    "Do you know {a.n}? {A.he} lived in <house>, <near>, and {habit}.",
    "[Not long ago|When your grandmother was small], a {a.boy} called {a.n} lived <near>. {A.he} {habit}.",
    "Of all the children [in the village|in the street], {a.n} was the [quietest|noisiest|youngest|tallest|boldest|kindest].",
    "{a.n} [woke up early|jumped out of bed|ate {a.his} porridge in a hurry] that day. {A.he} was a <trait> {a.boy} who {habit}.",
    "[Up on the hill|Down by the water|Behind the old church] stood <house>, and in it lived {a.n}, who {habit}.",
    "A <trait> {a.boy} sat on the steps of <house>. That was {a.n}, who {habit}.",
    "If you had walked past <house> that day, you would have [seen|met] a <trait> {a.boy} called {a.n}.",
)
_HABIT = Lines(
    "never walked when {a.he} could run", "asked a hundred questions a day", "could whistle like a blackbird",
    "talked to the trees and waited for an answer", "always had a plan", "loved to be outdoors",
    "hated to sit still", "collected good words the way others collect stones", "laughed easily and cried quickly",
    "was afraid of nothing but geese", "liked to do things {a.his} own way", "was always the last one at breakfast",
    "could never keep a secret for long", "wanted to know how everything worked", "hummed from morning to night",
    "could climb any tree in the village", "drew pictures on everything",
)  # fmt: skip
_MORE = Lines(
    "{A} {habit}.",
    "{A.his} hair was [always in {a.his} eyes|as black as ink|the colour of straw], and {a.his} pockets were [always full|never empty].",
    "{A} had [freckles on {a.his} nose|a gap in {a.his} front teeth|one sock up and one sock down] and {a2}.",
    "People said that {a.he} [was {a3}|had {a.his} head in the clouds|took after {a.his} grandfather].",
    "{A} was {a3}, [and everyone liked {a.him} for it|though not always at breakfast|and {a.he} knew it].",
)
_PLAIN = Lines("a loud laugh", "a great many ideas", "a voice like a bell", "two scraped knees")
_VIRTUE = Lines(
    "kind",
    "brave",
    "patient",
    "a good listener",
    "full of ideas",
    "as stubborn as a mule",
    "a dreamer",
    "careful",
    "good company",
)
_FRIEND = Lines(
    "{A.p} best friend was {b.n}, who lived [next door|across the street|two doors away|on the other side of the stream].",
    "[Every day|Nearly every day] {a.he} played with {b.n}, who was [a year older|a little younger|just as old] and [twice as noisy|far more careful|{habit2}].",
    "{b.n} [from next door|from across the street|from the next farm] was {a.his} [best |oldest |]friend.",
    "{a.n} and {b.n} [did everything together|were in the same class|had been friends since they could walk].",
    "With {a.him} was {b.n}, {a.his} friend, who {habit2}.",
)  # fmt: skip
_SEASON_NAMES = ("spring", "summer", "autumn", "winter")


_NEXT_DAY = Lines(
    "A few days later, [something else happened|there was something new].",
    "But that was not the end of it.",
    "[Two days|Three days|A month] later, [when nobody expected it|when it was nearly forgotten], the next thing happened.",
    "The morning after, {a.n} [knocked at {b.np} door|was up before the sun|had jam on {a.his} chin and a plan in {a.his} head].",
    "Now you may think that this was all. [Not at all!|It was not.]",
    "That same week, {both} [met again by the gate|had another adventure].",
    "The [Sunday|Saturday] after that, {b.n} came running [up the path|round the corner].",
    "The very next day [had something new in store|was quite different|began with a knock at the door].",
    "A week later [the weather had changed|the wind had turned|everything was back to normal], or so it seemed.",
    "And then, [on a Tuesday|on a Friday|one Sunday], [it began again|there was another story to tell].",
)


def open_story(st: Story, *, season: str = "", friend: bool = True) -> None:
    """Say when it was and who is in it, in varying order; the friend "b" may come in later."""
    if st.season:
        st.say(_NEXT_DAY)
        return
    st.season = season or st.rng.pick(_SEASON_NAMES)
    order = st.rng.random()
    if order < 0.45:
        st.say(SEASONS[st.season])
        introduce(st)
    else:
        introduce(st)
        if order < 0.8:
            st.say(SEASONS[st.season])
    if friend and "b" in st.env:
        befriend(st)


def introduce(st: Story) -> None:
    """Say who "a" is."""
    habit, other = _two_habits(st, st.env["a"])
    st.say(_INTRO, habit=habit)
    st.maybe(0.45, _MORE, habit=other, a2=_low(st, _PLAIN), a3=_low(st, _VIRTUE))


def befriend(st: Story) -> None:
    """Say that "b" is a friend of "a"."""
    st.say(_FRIEND, habit2=_two_habits(st, st.env["b"])[0])


def _two_habits(st: Story, who: Person) -> tuple[str, str]:
    first = _low(st, _HABIT, a=who)
    second = _low(st, _HABIT, a=who)
    return first, second if second != first else "was never bored"


def _low(st: Story, lines: Lines, **extra: object) -> str:
    out: list[str] = []
    last = [(person, person.last) for person in st.people]
    st.tell(lines, {**st.env, **extra}, out)
    for person, when in last:
        person.last = when
    return "".join(out)


_GO = Lines(
    "{W} <walked> {x.to}.",
    "[So|Then|After breakfast|That same day] {w} [went|set off|made {w.his} way] {x.to}.",
    "{W} [put on {w.his} boots|pulled on {w.his} cap|ate the last of {w.his} bread] and [set off|went|<ran>] {x.to}.",
    "It was [a quarter of an hour|only ten minutes|a good long walk] {x.to}, [and {w} <ran> all the way|but {w} did not mind|and {w} sang as {w.he} went].",
    "{W} <ran> [down the lane|across the fields|along the road] {x.to}.",
    "[Without another word|As soon as {w.he} could], {w} <ran> {x.to}.",
)
_GO_TOGETHER = Lines(
    "[So|Then|Together] {both} [went|set off|<walked>] {x.to}.",
    "{Both} <ran> [side by side|hand in hand|down the lane] {x.to}.",
    "[After lunch|Soon|Before long] {both} were on {both.their} way {x.to}.",
    '"[Come on|Let us go|I know where to go]," said {a.n}, and [off they went|they <ran>|away they ran] {x.to}.',
    "They [talked the whole way|took the short cut across the fields|raced each other], and soon {both.they} had come {x.to}.",
)
_DETAIL = Lines("{x.detail}", "{x.detail}", "{x.detail}", "It was [quiet|busy|cool|windy] there. {x.detail}")


def go(st: Story, who: Person, place: Place, key: str = "x") -> None:
    """Let one person walk to a place."""
    st.world.move(who.name, place.noun)
    st.say(_GO, w=who, x=place)
    _look(st, place)


def go_together(st: Story, place: Place) -> None:
    """Let "a" and "b" walk to a place."""
    for key in ("a", "b"):
        st.world.move(st.env[key].name, place.noun)
    st.say(_GO_TOGETHER, x=place)
    _look(st, place)


def in_season(season: str, place: str) -> bool:
    """Return whether the details of this place (bees, crickets, ducks) can be seen in this season."""
    return season in ("", "spring", "summer") or place not in _GREEN


_GREEN = frozenset(
    ("meadow", "garden", "field", "orchard", "pond", "river", "forest", "park", "beach", "hill", "greenhouse")
)


def _look(st: Story, place: Place) -> None:
    if not place.told and in_season(st.season, place.noun) and st.rng.random() < 0.6:
        place.told = True
        st.say(_DETAIL, x=place)


_GIVE = Lines(
    "{g.n} [gave|handed] {t} to {r.n}.",
    "{g.n} [put|laid] {t} into {r.np} hands.",
    "[Very gently|With a smile|Without a word], {g.n} [gave|handed] {r.n} {t}.",
    "{g.n} held out {t}, and {r.n} took it [with both hands|gently|with a <glad> smile].",
    '"Here," said {g.n}, and {g.he} gave {r.n} {t}.',
    '"[Take it|It is for you|This is yours now]," said {g.n}, [and gave {r.n} {t}|handing {r.n} {t}].',
    "So {g.n} gave {t} to {r.n}, [just like that|and that was that|and felt <glad> about it].",
)
_THANK = Lines(
    '"<thanks>!" [said|cried] {r.n}.',
    '"<thanks>, {g.v}!" {r.n} [said|cried], [and hugged {g.him} tight|and meant it|with shining eyes|jumping up and down].',
    '"<thanks>," said {r.n}. "[I will take good care of it|You are the best|I have never had anything so fine|I will never forget it]."',
    "{R} was so [happy|glad|delighted] that {r.he} [could not say a word|forgot to say thank you, and then said it twice|hugged {g.n}].",
    "{R} [thanked {g.n} again and again|could hardly believe it|turned quite pink with joy].",
)

_WHO_GAVE = Lines("Who {verb} {r.n} {t.the}?")
_GIVER_DID = Lines("{G.n} did.", "It was {g.n}.", "{G.n} {verb} {r.n} {t.the}.")


def give(st: Story, giver: Person, taker: Person, thing: Thing, *, lend: bool = False) -> None:
    """Hand the thing over, usually with thanks."""
    st.world.give(giver.name, taker.name, thing.noun, lend=lend)
    st.say(_GIVE, g=giver, r=taker, t=thing)
    st.maybe(0.75, _THANK, g=giver, r=taker, t=thing)
    verb = "lent" if lend else "gave"
    st.note(giver, f"{verb} the {thing.noun} to {taker.name}")
    st.ask(_WHO_GAVE, _GIVER_DID, g=giver, r=taker, t=thing, verb=verb)


_END_JOINT = Lines(
    "[That evening|On the way home|When the sun went down], {both} [agreed|decided] that it had been [a very good day|the best day of the {season}|a day to remember].",
    "{Both} [laughed|sang|talked] all the way home.",
    "And from that day on, {both} were [even better friends than before|never far apart|the best of friends].",
    "Then {both} [went in for tea|sat down by the stove|ran home], <tired> but <glad>.",
    "The sun was [setting|low and red] by then, and two long shadows walked home [side by side|together].",
    "The lamps were being lit when {both} [came home|said good night].",
    "[Nobody|No one] asked {both.o} why they were so [late|dirty|hungry], because [everybody could see it|their faces told it all].",
    "For a long time {both} sat on the wall, [dangling their legs|watching the bats], and did not need to say anything.",
    '"Same time tomorrow?" asked {b.n}. "Same time tomorrow," said {a.n}, and they shook hands on it.',
    "That evening {both} told the whole story at supper, and [each of them told it differently|with every telling it grew a little].",
    '"[What a day|That was a good day]," said {a.n}. "[And tomorrow?|What shall we do tomorrow?]" {b.n} laughed. "Tomorrow we [will think of something|will do it all again|are going to sleep till noon]."',
    'When {b.n} said good night, {a.n} said, "Come [early|back] tomorrow!" And of course {b.he} [did|came].',
    "There was <meal> for supper, and {both} ate [two plates each|until nothing was left].",
)
_END_ALONE = Lines(
    "That night {a.n} [fell asleep with a smile|slept very well|dreamed of it all again].",
    "[At bedtime|In bed that night], {a.n} thought about the day and [smiled in the dark|was <glad>].",
    'When {a.n} got home, there was <meal> on the table. "[Well|So], how was your day?" asked {a.his} [mother|father|grandmother]. It took {a.n} [a long time|all of supper] to tell.',
    "{a.n} [went|skipped|ran] home, and the moon [came along|went with {a.him}] all the way.",
    "And {a.n}? {A.he} [was already making a new plan|could not stop smiling|never forgot that day].",
    "{a.n} told nobody about it [but the cat|except the moon]. Some things are best kept.",
    "Years later, when {a.n} was old, {a.he} still liked to [tell this story|think of that day].",
    "Then it was time for [supper|bed], and {a.n} went in, [humming|whistling softly|with red cheeks].",
    "And if you go there today, you may still [hear people talk of it|meet {a.n}].",
    "{a.n} [yawned|stretched], pulled up the covers, and was asleep [before the stars came out|in a minute].",
)
_MORALS = Lines(
    "[|After all, ]a good friend is worth more than [anything in a shop|gold].",
    "[|Sometimes ]it is [|quite ]easy to be kind, [if only one begins|once one has begun].",
    "Things that are shared [last longer|taste better|are twice as good].",
    "[That is how it goes|So it is]: [who asks, finds out|a little help goes a long way|patience opens many doors].",
)


def close_story(st: Story, *, joint: bool = True) -> None:
    """Write a last paragraph or a last sentence."""
    if st.rng.random() < 0.7:
        st.para()
    if joint and st.rng.random() < 0.7:
        st.say(_END_JOINT, season=st.season or "year")
    else:
        st.say(_END_ALONE)
    st.maybe(0.08, _MORALS)


_PASTIME = Lines(
    "They had been playing <game> when it [began|happened].",
    "There was nothing [much |]to do, and {a.n} [was bored|yawned|threw stones at a tin can].",
    "Nobody [could have guessed|knew yet] what [the day would bring|was about to happen].",
    "That <morning> began like any other.",
)


def idle(st: Story) -> None:
    """Write a sentence or a small quiet scene before something happens."""
    st.maybe(0.2, _PASTIME)
    if "both" in st.env and st.rng.random() < 0.45:
        st.para()
        st.say(_WARM_SCENES if st.season in ("spring", "summer") and st.rng.chance(0.25) else _SCENES)
        st.para()


_SCENES = Lines(
    'A <bird> sat on the fence and [sang|scolded]. "What is it saying?" asked {b.n}. "It says that [the cat is coming|it will rain tomorrow|this is its fence]," said {a.n}.',
    "{a.n} had two slices of bread with [cheese|honey|dark red jam] in {a.his} pocket. {A} gave one to {b.n}, and they ate without talking.",
    '"When I am grown up," said {b.n}, "I will [sail around the world|have ten dogs|build bridges|be a baker and eat cake every day]. And you?" {a.n} thought about it. "I will [come and visit you|live in a tree|find out what the moon is made of]," {a.he} said.',
    '"Do you know what is [always coming but never here|full of holes and still holds water|yours, but others use it more]?" asked {b.n}. {a.n} did not know. "I will tell you [tomorrow|when you have guessed three times]," said {b.n}.',
    "{a.n} began to whistle, and {b.n} [whistled the second voice|clapped along]. An old woman at a window smiled down at them.",
    "A <beast> ran across the path, stopped, and looked at them [as if they were the strange ones|with round eyes]. Then it was gone.",
    '"[Are you hungry|Are you cold|Are you bored]?" asked {a.n}. "[Not yet|A little|Always]," said {b.n}, and they both laughed.',
    "They threw sticks from the [wall|bank] to see whose would [fly farther|float faster]. {b.np} won twice, and {a.np} won once.",
    'Clouds went over, one like a whale and one like [a slipper|a loaf|an old man with a beard]. "I see a dragon," said {a.n}. "That is only because you want to," said {b.n}.',
)
_WARM_SCENES = Lines(
    "On a leaf sat a beetle, [green as glass|no bigger than a crumb]. {a.n} and {b.n} lay down on their bellies and watched it [climb|wash its feet] until it flew away.",
    'It was warm in the grass. {a.n} closed {a.his} eyes. "Are you asleep?" asked {b.n}. "[Yes|No, I am thinking]," said {a.n}.',
    "{b.n} found a [blade of grass|hollow stem] and blew on it, and it [squeaked like a mouse|hooted]. Then {a.n} had to try it too.",
    'Two bees were having an argument over one flower. "There are a thousand others," {a.n} told them, but they did not listen.',
)
