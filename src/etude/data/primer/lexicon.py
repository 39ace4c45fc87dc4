"""The people, things, animals and places of the small world."""

from __future__ import annotations

from dataclasses import dataclass

GIRLS = (
    "Anna",
    "Lily",
    "Mia",
    "Nora",
    "Ella",
    "Rosa",
    "Clara",
    "Ivy",
    "Maya",
    "Zoe",
    "Ruth",
    "Hana",
    "Lena",
    "Sofia",
    "Tess",
    "Amina",
    "Daisy",
    "Grace",
    "Kira",
    "Molly",
    "Priya",
    "Wendy",
    "Yara",
    "Elsie",
)
BOYS = (
    "Tom",
    "Ben",
    "Sam",
    "Leo",
    "Max",
    "Finn",
    "Hugo",
    "Omar",
    "Jack",
    "Noah",
    "Peter",
    "Luca",
    "Arlo",
    "Kofi",
    "Emil",
    "Theo",
    "Felix",
    "Ravi",
    "Oscar",
    "Jonas",
    "Toby",
    "Simon",
    "Karl",
    "Milo",
)
NAMES = GIRLS + BOYS


@dataclass(frozen=True, slots=True)
class ThingKind:
    """A thing that one person can have: how it is used, how it breaks and how it is mended."""

    noun: str
    adjectives: tuple[str, ...]
    used: str
    use: str
    damage: str
    mended: str

    @property
    def plural(self) -> str:
        return plural_of(self.noun)


@dataclass(frozen=True, slots=True)
class CountKind:
    """A thing that comes in numbers. ``source`` is where people get it: tree, shore, oven, wood, shop, plot."""

    noun: str
    plural: str
    source: str
    adjectives: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PlaceKind:
    noun: str
    at: str
    to: str
    details: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PetKind:
    noun: str
    noise: str
    move: str
    treat: str


def plural_of(noun: str) -> str:
    if noun.endswith("y") and noun[-2] not in "aeiou":
        return noun[:-1] + "ies"
    return noun + ("es" if noun.endswith(("s", "x", "ch", "sh")) else "s")


_THINGS = """
kite|red,blue,striped,paper|flew it high above the rooftops|fly it|had a long tear down the middle|glued the tear shut
ball|red,bouncy,yellow,spotted|bounced it against the wall|bounce it|had lost all its air|pumped it up again
drum|tin,loud,wooden,round|played a marching tune on it|play a tune on it|had a split across the top|stretched a new skin over it
doll|rag,wooden,smiling,tiny|made up stories with it|make up stories with it|had lost an arm|sewed the arm back on
whistle|tin,silver,shiny,loud|blew a high note on it|blow it|had a dent and made no sound|bent it straight again
lantern|brass,paper,old,bright|lit up the path with it|light the way with it|had a broken handle|fixed a new handle to it
blanket|woolly,soft,green,patchwork|made a tent with it|make a tent with it|had a big hole in it|sewed a neat square over the hole
scarf|red,long,woolly,yellow|wrapped it round and round|wear it|was coming apart at one end|knitted the end together
umbrella|black,yellow,big,spotted|twirled it in the rain|carry it in the rain|had a bent rib|bent the rib straight
map|old,folded,secret,torn|followed the dotted line on it|follow it|was ripped in two|taped the two halves together
key|rusty,golden,tiny,iron|turned it in every lock|try it in every lock|was bent at the tip|hammered it flat again
mirror|round,silver,little,golden|caught the sun in it|catch the sun in it|had a crack in the frame|glued the frame together
boat|wooden,blue,toy,white|sailed it across the water|sail it|had a snapped mast|carved a new mast for it
puppet|wooden,funny,striped,clown|put on a show with it|put on a show with it|had a tangle of broken strings|tied on new strings
teapot|china,blue,round,tiny|had a tea party with it|have a tea party with it|had a chip in its spout|mended the spout with glue
flute|wooden,silver,thin,reed|played a slow song on it|play a song on it|was split at one end|bound the split with thread
bucket|tin,green,little,yellow|filled it to the brim|fill it with sand|had a leak in the bottom|stopped the leak with wax
spade|small,wooden,iron,yellow|dug a deep hole with it|dig with it|had a cracked handle|carved a new handle for it
ribbon|silk,purple,long,golden|tied it in a bow|tie it in a bow|was frayed and dirty|washed it and trimmed the ends
compass|brass,old,round,little|found north with it|find north with it|had a stuck needle|made the needle swing again
sled|wooden,red,fast,old|rode it down the slope|ride it down the slope|had a loose runner|nailed the runner back on
paintbrush|thin,new,wide,soft|painted a sunset with it|paint a picture with it|had lost half its hairs|tied new hairs to it
necklace|bead,amber,golden,glass|wore it all day|wear it|had a snapped string|threaded it all again
telescope|brass,long,old,small|looked at the moon through it|look at the moon through it|had a loose lens|screwed the lens in tight
violin|brown,little,old,polished|played a merry dance on it|play it|had two broken strings|put new strings on it
robot|tin,silver,clever,wind-up|made it march in circles|make it march|had a wheel missing|fitted a new wheel
crown|paper,golden,shiny,tall|wore it and bowed to everyone|wear it|was squashed flat|pushed it back into shape
mask|tiger,painted,feathered,silly|wore it and roared|wear it|had a broken strap|tied a new strap to it
trumpet|brass,golden,dented,loud|played a fanfare on it|play it|had a stuck button on top|oiled it until it worked
scooter|green,fast,shiny,old|rode it down the lane|ride it|had a wobbly wheel|tightened the wheel
wagon|red,wooden,squeaky,little|pulled it up the lane|pull it|had a wheel that had come off|put the wheel back on
globe|painted,old,round,small|spun it and dreamed of far lands|spin it|had come off its stand|set it firmly on its stand
balloon|red,yellow,round,silver|let it dance on its string|hold it by the string|had a slow leak|closed the leak with a knot
teddy|brown,soft,old,furry|took it everywhere|take it everywhere|had lost an eye|sewed on a new eye
bracelet|copper,silver,woven,blue|turned it round and round|wear it|had a broken clasp|mended the clasp
jigsaw|wooden,big,sea,jungle|did it on the kitchen floor|do it on the floor|had a piece missing|carved a new piece for it
badge|gold,star,round,shiny|wore it with pride|wear it|had a bent pin|straightened the pin
notebook|blue,thick,leather,secret|filled it with drawings|draw in it|had a torn cover|made a new cover for it
hammock|striped,green,net,wide|swung in it for hours|swing in it|had a broken cord|knotted the cord together
rocket|cardboard,silver,toy,tall|counted down and launched it|launch it|had a crumpled nose|made a new nose for it
"""

_COUNTS = """
apple|apples|tree|red,sweet,crisp
pear|pears|tree|ripe,green,juicy
plum|plums|tree|purple,ripe,sweet
cherry|cherries|tree|dark,ripe,shiny
strawberry|strawberries|plot|ripe,red,sweet
carrot|carrots|plot|crunchy,orange,fat
tulip|tulips|plot|red,yellow,tall
shell|shells|shore|white,pink,curly
pebble|pebbles|shore|smooth,grey,round
feather|feathers|wood|white,long,speckled
acorn|acorns|wood|brown,shiny,fat
chestnut|chestnuts|wood|glossy,brown,round
egg|eggs|plot|brown,fresh,speckled
marble|marbles|shop|glass,green,shiny
button|buttons|shop|round,wooden,blue
sticker|stickers|shop|star,silver,animal
stamp|stamps|shop|foreign,old,bright
bead|beads|shop|glass,red,wooden
candle|candles|shop|white,yellow,thin
bun|buns|oven|sticky,warm,sweet
cookie|cookies|oven|ginger,oat,warm
muffin|muffins|oven|lemon,warm,golden
biscuit|biscuits|oven|butter,round,crisp
tart|tarts|oven|jam,little,golden
"""

_PLACES = """
barn|in|Hay lay in golden heaps on the floor.;An owl blinked down from the rafters.;It smelled of straw and warm animals.
mill|at|The great wheel turned and splashed.;White flour floated in the air.;The old stones rumbled round and round.
bridge|on|The water gurgled under the planks.;A fish jumped and was gone.;The wood creaked under every step.
orchard|in|The branches were heavy with fruit.;Wasps hummed in the long grass.;Long shadows lay between the trees.
market|at|People were shouting prices from behind their stalls.;It smelled of cheese and fresh bread.;Pigeons strutted between the stalls.
beach|on|The waves rolled in with a hush.;Gulls wheeled and screamed overhead.;The wind tasted of salt.
garden|in|Bees went from flower to flower.;The beans had climbed to the top of their poles.;A snail was crossing the path.
attic|in|Dust danced in the light of the little window.;It was full of trunks and cobwebs.;The floor groaned at every step.
library|in|It was so quiet that one could hear the pages turn.;Tall shelves reached to the ceiling.;Someone was sneezing behind the shelves.
park|in|Old men were playing chess under the trees.;Children were climbing on the wooden horse.;Somebody was feeding the ducks.
forest|in|The light was green under the leaves.;Somewhere a woodpecker was knocking.;Mushrooms stood in a ring under a tree.
hill|on|From up there the houses looked like crumbs.;The grass bent in the wind.;One could see all the way to the sea.
river|by|The water was brown and quick.;A heron stood on one leg among the reeds.;Dragonflies flickered over the water.
station|at|A train hissed and stood still.;People hurried by with heavy bags.;The big hands above the door jumped a minute.
bakery|in|The air was warm and smelled of bread.;Loaves stood in rows on the shelves.;Flour lay on everything like snow.
shed|in|Rakes and flowerpots leaned against the wall.;A spider had spun a web across the door.;It was dark and smelled of earth.
meadow|in|Crickets sang in the tall grass.;White butterflies tumbled through the air.;The grass came up to the knees.
lighthouse|at|The great lamp was turning above the sea.;Two hundred steps went round and round to the top.;Spray flew up from the rocks.
harbour|at|Nets were drying on the wall.;A big ship sounded its horn.;The masts clinked in the wind.
cave|in|Water dripped from the roof, plink, plink.;Every word came back as an echo.;It was cool and as dark as a pocket.
farm|at|Pigs grunted behind the fence.;A tractor was coughing in the yard.;Hens ran off in all directions.
kitchen|in|A pot was bubbling on the stove.;The window was white with steam.;Spoons and pans hung in a row.
playground|in|The swings squeaked.;There was a line at the slide.;Somebody had drawn a snake in chalk on the ground.
school|at|The halls were empty and smelled of chalk.;Paper stars hung in every window.;Somebody was practising the piano.
pond|by|Green weed covered half of it.;A frog plopped into the water.;Three ducks came paddling over at once.
field|in|Sheep lifted their heads and stared.;A scarecrow stood there with open arms.;A hare sat up, listened, and was off.
tower|in|The stairs went round and round.;Jackdaws clattered around the roof.;The walls were as thick as a man is tall.
greenhouse|in|The air was hot and damp.;Tomatoes hung in red bunches.;Drops ran down the glass.
"""

_PETS = """
dog|barked|wagging its tail|a bone
puppy|yapped|wriggling all over|a bone
cat|miaowed|stretching its legs|a piece of fish
kitten|mewed|purring loudly|a saucer of milk
rabbit|snuffled|twitching its nose|a lettuce leaf
duck|quacked|waddling happily|some bread
goat|bleated|kicking up its heels|a cabbage
pony|neighed|tossing its mane|a lump of sugar
hen|clucked|flapping its wings|a handful of corn
donkey|brayed|flicking its ears|a handful of hay
lamb|bleated|shaking its curly tail|some clover
goose|honked|stretching its neck|a handful of corn
"""

PET_NAMES = (
    "Patch", "Rufus", "Pepper", "Misty", "Pip", "Snowy", "Bramble", "Waffle", "Mopsy", "Hazel", "Socks",
    "Dusty", "Juniper", "Tinker", "Bonny", "Barney",
)  # fmt: skip


def _rows(table: str) -> list[list[str]]:
    return [line.split("|") for line in table.strip().splitlines()]


THINGS = tuple(ThingKind(r[0], tuple(r[1].split(",")), r[2], r[3], r[4], r[5]) for r in _rows(_THINGS))
COUNTS = tuple(CountKind(r[0], r[1], r[2], tuple(r[3].split(","))) for r in _rows(_COUNTS))
PLACES = tuple(
    PlaceKind(
        r[0],
        f"{r[1]} the {r[0]}",
        f"{'down to' if r[1] == 'by' else 'to'} the {r[0]}",
        tuple(r[2].split(";")),
    )
    for r in _rows(_PLACES)
)
PETS = tuple(PetKind(*r) for r in _rows(_PETS))

THING_BY_NOUN = {kind.noun: kind for kind in THINGS}
COUNT_BY_NOUN = {kind.noun: kind for kind in COUNTS}
PLACE_BY_NOUN = {kind.noun: kind for kind in PLACES}
OBJECTS = tuple(kind.noun for kind in THINGS) + tuple(kind.noun for kind in COUNTS)
PLACE_NOUNS = tuple(kind.noun for kind in PLACES)

# Every written form of an object, mapped to its singular: the words that a search of a text looks for.
OBJECT_FORMS = {kind.noun: kind.noun for kind in THINGS} | {kind.plural: kind.noun for kind in THINGS}
OBJECT_FORMS |= {kind.noun: kind.noun for kind in COUNTS} | {kind.plural: kind.noun for kind in COUNTS}

_ONES = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
]
_TENS = {2: "twenty", 3: "thirty", 4: "forty", 5: "fifty"}


def number_word(value: int) -> str:
    """Return the English words for 0 to 59."""
    if value < 20:
        return _ONES[value]
    tens, ones = divmod(value, 10)
    return _TENS[tens] + (f"-{_ONES[ones]}" if ones else "")


NUMBER_WORDS = tuple(number_word(value) for value in range(60))
NUMBER_OF_WORD = {word: value for value, word in enumerate(NUMBER_WORDS)}
