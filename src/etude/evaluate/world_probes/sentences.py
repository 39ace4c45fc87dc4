"""Agreement past another noun, pronouns for people never told with the thing, tenses of sentences never told."""

from __future__ import annotations

from itertools import product

from etude.data.primer.entities import amount
from etude.data.primer.lexicon import BOYS, COUNTS, GIRLS, NAMES, PLACES, THINGS
from etude.data.primer.rng import Rng
from etude.evaluate.blocks import Asked, block, blocks
from etude.evaluate.items import Item, Probe
from etude.evaluate.world_probes.verbs import ENDINGS, VERBS
from etude.evaluate.world_probes.wording import HAVE_MANY, Evenly, held_with, taught_with


def agreement(seed: int, max_items: int) -> list[Probe]:
    """One or many, with another noun between. A block has all four numbers of the two nouns, so whoever goes by the
    noun next to the verb is right in half of them."""
    return [_agreeing(far, seed, max_items) for far in (False, True)]


def _agreeing(far: bool, seed: int, max_items: int) -> Probe:
    rng = Rng(f"probe {seed} agreement {far}")
    nouns = [(kind.noun, kind.plural) for kind in THINGS] + [(kind.noun, kind.plural) for kind in COUNTS]
    items: list[Item] = []
    for number in range(max(1, max_items // 4)):
        head, other = rng.some(nouns, 2)
        place = f" {rng.pick(PLACES).at}" if far else ""
        for between in other:
            pair = [
                (f"The {noun} beside the {between}{place} ", verb)
                for noun, verb in zip(head, ("was", "were"), strict=True)
            ]
            items += block(pair, str(number))
    return Probe(
        "agreement",
        "a noun and a place between" if far else "a noun between",
        "Was or were, after a noun of one or many and another noun of one or many?",
        tuple(items),
        held_out="Any noun with another noun beside it as that of which something is said.",
    )


def pronouns(seed: int, max_items: int) -> list[Probe]:
    """A girl and a boy change places; the pronoun is far from the name, or past the name of somebody else."""
    return [_pronoun(past, seed, max_items) for past in (False, True)]


def _pronoun(past: bool, seed: int, max_items: int) -> Probe:
    rng = Rng(f"probe {seed} pronouns {past}")
    cast = Evenly(
        rng,
        [
            (kind, *pair)
            for kind in COUNTS
            for pair in product(held_with(kind.noun, GIRLS), held_with(kind.noun, BOYS))
        ],
    )
    items: list[Item] = []
    for number in range(max(1, max_items // (4 if past else 2))):
        kind, girl, boy = cast.draw()
        frame, many = rng.pick(HAVE_MANY) + " ", amount(rng.between(3, 15), kind)
        said = ("her", "him") if past else ("She", "He")
        for others in (GIRLS, BOYS) if past else (NAMES,):
            giver = rng.pick(taught_with(kind.noun, others))
            then = f"{giver} gives " if past else ""
            asked = [
                (frame.format(a=who, many=many) + then, word)
                for who, word in zip((girl, boy), said, strict=True)
            ]
            items += block(asked, str(number))
    return Probe(
        "pronouns",
        "her or him, past another name" if past else "she or he",
        "Which pronoun stands for the person who has the things?",
        tuple(items),
        held_out="This person with these things.",
    )


def tenses(seed: int, max_items: int) -> list[Probe]:
    """Two verbs and two wishes in a block: the right form is that of the verb asked for, in the tense asked for."""
    rng = Rng(f"probe {seed} tenses")
    endings = Evenly(rng, sorted(ENDINGS))
    names = Evenly(rng, NAMES)

    def four_ways(_: int) -> list[Asked]:
        name, verb = names.draw(), endings.draw()
        asked = []
        for base, now, past in rng.some([one for one in VERBS if one[0] != verb], 2):
            sentence = f"{name} {now} {ENDINGS[verb]}."
            asked.append((f"Tell it in the past: {sentence}\n{name} ", past))
            asked.append((f"Say it for tomorrow: {sentence}\n{name} ", f"will {base}"))
        return asked

    return [
        Probe(
            "tenses",
            "",
            "What happens today, told in the past or for tomorrow?",
            blocks(four_ways, max_items),
            held_out="This verb with the rest of this sentence.",
        )
    ]
