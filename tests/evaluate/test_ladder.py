"""The ladder: bits per byte, sampling under the caps, and what passing a rung means."""

from __future__ import annotations

import json
import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from etude.errors import InputError
from etude.evaluate.ladder import build_ladder
from etude.evaluate.ngram import KneserNey
from etude.run.ladder import Ladder, Rung


def sentences(seed: int, count: int) -> list[bytes]:
    rng = random.Random(seed)
    words = ["the", "old", "fox", "sees", "a", "café", "and", "naïve", "birds", "sing", "again", "—"]
    return [(" ".join(rng.choices(words, k=rng.randint(3, 12))) + ".\n").encode() for _ in range(count)]


def ladder_of(*bits: float) -> Ladder:
    return Ladder("byte", 10, 10, 10, tuple(Rung(order, value) for order, value in enumerate(bits, 1)))


class TestBuild:
    def test_rungs_are_the_mean_bits_of_each_model(self) -> None:
        train, validation = sentences(1, 400), sentences(2, 60)
        ladder = build_ladder(iter(train), iter(validation))
        model = KneserNey.fit(train)
        size = sum(map(len, validation))
        for rung in ladder.rungs:
            nats = sum(model.score(document, rung.order).sum() for document in validation)
            assert rung.bits_per_byte == pytest.approx(nats / size / math.log(2), abs=1e-12)
        assert [rung.order for rung in ladder.rungs] == list(range(1, 8))
        assert (ladder.train_bytes, ladder.corpus_train_bytes) == (sum(map(len, train)),) * 2
        assert ladder.validation_bytes == size

    def test_only_the_requested_orders(self) -> None:
        full = build_ladder(sentences(1, 50), sentences(2, 20))
        some = build_ladder(sentences(1, 50), sentences(2, 20), orders=[5, 2])
        assert some.rungs == (full.rungs[1], full.rungs[4])

    def test_caps_bound_what_is_counted_and_are_stated(self) -> None:
        train, validation = sentences(1, 3000), sentences(2, 500)
        ladder = build_ladder(train, validation, max_train_bytes=20_000, max_validation_bytes=4_000)
        assert 10_000 <= ladder.train_bytes <= 20_000
        assert 2_000 <= ladder.validation_bytes <= 4_000
        assert ladder.corpus_train_bytes == sum(map(len, train))
        assert ladder == build_ladder(train, validation, max_train_bytes=20_000, max_validation_bytes=4_000)
        assert "n-th piece" in ladder.to_json()["sampling"]

    @pytest.mark.parametrize(
        ("train", "validation", "name"), [([], [b"a"], "training"), ([b"a"], [b""], "validation")]
    )
    def test_empty_text_is_an_error_that_names_it(
        self, train: list[bytes], validation: list[bytes], name: str
    ) -> None:
        with pytest.raises(InputError, match=name):
            build_ladder(train, validation)

    def test_a_uniform_source_costs_its_entropy(self) -> None:
        rng = random.Random(0)
        ladder = build_ladder(
            [bytes(rng.choices(b"abcd", k=60_000))], [bytes(rng.choices(b"abcd", k=20_000))]
        )
        assert ladder.rungs[0].bits_per_byte == pytest.approx(2, abs=0.002)
        assert all(rung.bits_per_byte > 1.998 for rung in ladder.rungs)


class TestPassed:
    def test_below_a_rung_is_past_it_and_on_it_is_not(self) -> None:
        ladder = ladder_of(4.0, 3.0, 2.0)
        assert [ladder.passed(bits) for bits in (9, 4.0, 3.9, 3.0, 2.5, 1.9)] == [0, 0, 1, 1, 2, 3]
        assert ladder.passed(math.nan) == 0

    def test_a_worse_higher_rung_is_passed_with_the_better_one_below_it(self) -> None:
        ladder = ladder_of(4.0, 3.0, 2.0, 2.2, 2.1)
        assert ladder.passed(2.15) == 2
        assert ladder.passed(2.05) == 2
        assert ladder.passed(1.99) == 5

    @given(st.lists(st.floats(0.5, 8), max_size=7), st.floats(0.1, 9), st.floats(0.1, 9))
    def test_a_better_model_never_passed_less(self, bits: list[float], one: float, other: float) -> None:
        ladder = ladder_of(*bits)
        worse, better = max(one, other), min(one, other)
        assert ladder.passed(worse) <= ladder.passed(better)
        assert all(better < value for value in bits[: ladder.passed(better)])


class TestJson:
    @settings(max_examples=20)
    @given(st.lists(st.floats(0.1, 9), max_size=7))
    def test_round_trip_through_text(self, bits: list[float]) -> None:
        ladder = ladder_of(*bits)
        assert Ladder.from_json(json.loads(json.dumps(ladder.to_json()))) == ladder

    def test_a_file_without_the_sampling_rule_is_read(self) -> None:
        content = ladder_of(3.0).to_json()
        del content["sampling"]
        assert Ladder.from_json(content).rungs == (Rung(1, 3.0),)

    @pytest.mark.parametrize(
        "damage",
        [
            [],
            {},
            {"schema": 1},
            {**ladder_of(3.0).to_json(), "rungs": [{"order": 1}]},
            {"schema": 7, "rungs": []},
        ],
    )
    def test_damage_is_an_input_error(self, damage: object) -> None:
        with pytest.raises(InputError, match=r"ladder\.json"):
            Ladder.from_json(damage)  # type: ignore[arg-type]
