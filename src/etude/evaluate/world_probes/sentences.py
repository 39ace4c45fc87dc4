"""Agreement across another noun, pronouns for new pairs of person and thing, and tenses of new sentences."""

from __future__ import annotations

from itertools import product

from etude.data.primer.entities import amount
from etude.data.primer.lexicon import BOYS, COUNTS, GIRLS, NAMES, PLACES, THINGS
from etude.data.primer.rng import Rng
from etude.evaluate.blocks import Question, block, blocks
from etude.evaluate.items import Item, Probe
from etude.evaluate.world_probes.verbs import ENDINGS, VERBS
from etude.evaluate.world_probes.wording import HAVE_MANY, Evenly, held_with, taught_with


def agreement(seed: int, max_items: int) -> list[Probe]:
    """Choose between was and were, with another noun in between.

    A block has all four combinations of singular and plural, so a model that uses the nearest noun is right in half.
    """
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
        held_out="Any subject noun with another noun beside it.",
    )


def pronouns(seed: int, max_items: int) -> list[Probe]:
    """Exchange a girl and a boy; the pronoun is far from the name, or after another person's name."""
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
            questions = [
                (frame.format(a=who, many=many) + then, word)
                for who, word in zip((girl, boy), said, strict=True)
            ]
            items += block(questions, str(number))
    return Probe(
        "pronouns",
        "her or him, past another name" if past else "she or he",
        "Which pronoun stands for the person who has the things?",
        tuple(items),
        held_out="This person with these things.",
    )


def tenses(seed: int, max_items: int) -> list[Probe]:
    """Use two verbs and two tenses in a block: the right form is of the verb in the question, in its tense."""
    rng = Rng(f"probe {seed} tenses")
    endings = Evenly(rng, sorted(ENDINGS))
    names = Evenly(rng, NAMES)

    def four_ways(_: int) -> list[Question]:
        name, verb = names.draw(), endings.draw()
        questions = []
        for base, now, past in rng.some([forms for forms in VERBS if forms[0] != verb], 2):
            sentence = f"{name} {now} {ENDINGS[verb]}."
            questions.append((f"Tell it in the past: {sentence}\n{name} ", past))
            questions.append((f"Say it for tomorrow: {sentence}\n{name} ", f"will {base}"))
        return questions

    return [
        Probe(
            "tenses",
            "",
            "What happens today, told in the past or for tomorrow?",
            blocks(four_ways, max_items),
            held_out="This verb with the rest of this sentence.",
        )
    ]
