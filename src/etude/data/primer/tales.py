"""Every kind of document and its frequency."""

from __future__ import annotations

from collections.abc import Callable

from etude.data.primer.exercises import EXERCISES
from etude.data.primer.pages import PAGES
from etude.data.primer.quiz import add_questions
from etude.data.primer.story import Story
from etude.data.primer.tales_deeds import baking, building, contest, fear, lost_pet, storm
from etude.data.primer.tales_friends import blame, broken, race, sharing
from etude.data.primer.tales_kindness import neighbourly, surprise
from etude.data.primer.tales_minds import hidden, newcomer, night, word_passed
from etude.data.primer.tales_seek import lost_thing, quest

Plot = Callable[[Story], None]

_STORIES: tuple[tuple[Plot, int], ...] = (
    (quest, 9), (lost_thing, 6), (broken, 6), (sharing, 6), (blame, 5), (race, 4), (building, 5), (baking, 5),
    (storm, 4), (lost_pet, 5), (surprise, 4), (fear, 4), (contest, 4), (neighbourly, 4), (hidden, 5),
    (word_passed, 4), (night, 4), (newcomer, 4),
)  # fmt: skip
_WHEEL = tuple(plot for plot, weight in _STORIES for _ in range(weight))
_SEQUELS: tuple[Plot, ...] = (
    lost_thing, broken, sharing, blame, race, building, baking, storm, lost_pet, fear, contest, neighbourly, hidden,
    word_passed,
)  # fmt: skip


def story(st: Story) -> None:
    """Write one plot, sometimes followed by another with the same people, and sometimes by questions."""
    first = st.rng.pick(_WHEEL)
    first(st)
    if "both" in st.env and st.rng.chance(0.28):
        second = st.rng.pick(_SEQUELS)
        if second is not first and (st.season != "winter" or second not in (storm, contest)):
            st.para()
            second(st)
    if st.asks:
        add_questions(st)


KINDS: tuple[tuple[str, Plot, int], ...] = (("story", story, 60), *EXERCISES, *PAGES)
