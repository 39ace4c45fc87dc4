"""Items answered by a network and by counting, against single log-probabilities, and the rules of scoring."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from etude.data.tokens.tokenizer import EtudeTokenizer
from etude.data.tokens.vocabulary import train_bpe
from etude.errors import InputError
from etude.evaluate.answerers import CountingAnswerer, ItemScore
from etude.evaluate.items import Candidate, Item, Probe, choice
from etude.evaluate.network_answerer import ModelAnswerer
from etude.evaluate.ngram import KneserNey
from etude.evaluate.results import Measured, ProbeResult, measure
from etude.evaluate.statistics import brier, credit, log_share, mean, mean_of_shares, proportion, wilson
from etude.model.language_model import LanguageModel
from networks import make_config, make_network

ITEMS = (
    choice("Ann gives the ball to Ben. Who has it? ", "Ben", "Ann"),
    choice("", "yes", "no, never", "maybe"),
    Item((Candidate("one two ", "three"), Candidate("two one ", "three")), 1),
)


@pytest.fixture(scope="module")
def tokenizer() -> EtudeTokenizer:
    return train_bpe(["one two three Ann Ben gives the ball. " * 4], 280, "llama3")


@pytest.fixture(scope="module")
def network(tokenizer: EtudeTokenizer) -> LanguageModel:
    return make_network(make_config("llama", vocab_size=tokenizer.vocab_size, max_position_embeddings=64), 2)


def log_probability(
    model: LanguageModel, tokenizer: EtudeTokenizer, candidate: Candidate, whole: bool
) -> float:
    """Score the whole text, or `said` after `given`, token by token, each in a pass of its own."""
    ids = [tokenizer.roles.document_id, *tokenizer.encode(candidate.given + candidate.said)]
    within = [at for at in range(len(ids)) if candidate.given.startswith(tokenizer.decode(ids[1 : at + 1]))]
    first = 1 if whole else 1 + max(within)
    with torch.no_grad():
        return sum(
            float(model(torch.tensor([ids[:at]]))[0, -1].double().log_softmax(-1)[ids[at]])
            for at in range(first, len(ids))
        )


def test_a_network_gives_each_candidate_its_probability(
    network: LanguageModel, tokenizer: EtudeTokenizer
) -> None:
    for item, score in zip(ITEMS, ModelAnswerer(network, tokenizer).answer(ITEMS), strict=True):
        shared = len({one.given for one in item.candidates}) == 1
        direct = [log_probability(network, tokenizer, one, shared) for one in item.candidates]
        shift = direct[0] - score.logprobs[0] if shared else 0.0  # of what stands before, alike for all
        np.testing.assert_allclose(score.logprobs + shift, direct, atol=1e-4)
        assert not score.cut


def test_a_long_text_loses_its_beginning_and_says_so(
    network: LanguageModel, tokenizer: EtudeTokenizer
) -> None:
    long, short = choice("x" * 200 + "The end is ", "near", "far"), choice("x" * 60, "a", "b")
    said, not_said = ModelAnswerer(network, tokenizer).answer([long, short])
    assert said.cut
    assert not not_said.cut
    ids = tokenizer.encode("x" * 200 + "The end is near")[-65:]
    first = 65 - len(said.answer_logprobs)
    assert tokenizer.decode(ids[first:]).endswith("near")
    with torch.no_grad():
        logprobs = network(torch.tensor([ids[:-1]]))[0].double().log_softmax(-1)
    expected = sum(float(logprobs[at - 1, ids[at]]) for at in range(first, 65))
    assert said.logprobs[0] == pytest.approx(expected, abs=1e-4)


def test_counting_gives_each_candidate_its_probability() -> None:
    counts = KneserNey.fit([b"Ann gives the ball to Ben. one two three " * 3], 5)
    for item, score in zip(ITEMS, CountingAnswerer(counts, 5).answer(ITEMS), strict=True):
        for candidate, logprob in zip(item.candidates, score.logprobs, strict=True):
            nats = counts.score((candidate.given + candidate.said).encode(), 5)
            assert logprob == pytest.approx(-nats[len(candidate.given) :].sum())


def uniform(tokenizer: EtudeTokenizer) -> LanguageModel:
    model = make_network(make_config("llama", vocab_size=tokenizer.vocab_size), 0)
    with torch.no_grad():
        model.unembedding()[0].zero_()
    return model


def test_uniform_logits_are_at_chance_where_items_are_mirrored_or_compared_by_token(
    tokenizer: EtudeTokenizer,
) -> None:
    names = ("Ann", "Benjamin", "Christabel")
    mirrored = [
        choice(f"{right} has it. Who? ", right, *(one for one in names if one != right), group="1")
        for right in names
    ]
    for items, per_token in ((mirrored, False), (mirrored[:1], True), (mirrored[2:], True)):
        probe = Probe("holds", "", "?", tuple(items), per_token=per_token)
        found = measure(probe, ModelAnswerer(uniform(tokenizer), tokenizer).answer(items))
        assert found.accuracy.value == pytest.approx(1 / 3)


def test_an_open_answer_is_scored_token_by_token(network: LanguageModel, tokenizer: EtudeTokenizer) -> None:
    item = choice("7 + 5 = ", "twelve", "2")
    score = ModelAnswerer(network, tokenizer).answer([item])[0]
    ids = tokenizer.encode("7 + 5 = twelve")
    said = ids[len(ids) - len(score.answer_credits) :]
    assert tokenizer.decode(said).strip() == "twelve"
    with torch.no_grad():
        guesses = network(torch.tensor([[tokenizer.roles.document_id, *ids[:-1]]]))[0].argmax(-1)[
            -len(said) :
        ]
    assert score.answer_credits.tolist() == [float(a == b) for a, b in zip(guesses, said, strict=True)]
    found = measure(Probe("sum", "", "?", (item,), open_answer=True), [score]).exact
    assert found is not None
    assert found.token.value == score.answer_credits.mean()
    assert found.nats_per_token.value == pytest.approx(-score.answer_logprobs.mean())


def test_independence_is_the_power_of_the_length() -> None:
    items = (choice("", "abcd", "x"), choice("", "ab", "y"))
    probe = Probe("p", "", "?", items, open_answer=True)
    scores = [
        ItemScore(
            np.array([-1.0, -2.0]), np.array([4, 1]), np.full(4, -0.25), np.array([1.0, 1.0, 0.0, 0.0])
        ),
        ItemScore(np.array([-1.0, -2.0]), np.array([2, 1]), np.full(2, -0.5), np.array([1.0, 1.0])),
    ]
    exact = measure(probe, scores).exact
    assert exact is not None
    assert exact.token.value == 0.75
    assert exact.exact.value == 0.5
    assert exact.independence == pytest.approx((0.75**4 + 0.75**2) / 2)


def test_ties_are_shared() -> None:
    assert credit(np.array([1.0, 1.0]), 0) == 0.5
    assert credit(np.array([1.0, 1.0 + 1e-9, 0.0]), 1) == 0.5
    assert credit(np.array([2.0, 1.0, 1.0]), 2) == 0.0
    assert credit(np.array([2.0, 1.0, 1.0]), 0) == 1.0


@given(st.lists(st.floats(-50, 0), min_size=2, max_size=6), st.data())
def test_shares_of_the_candidates(scores: list[float], data: st.DataObject) -> None:
    values = np.array(scores)
    right = data.draw(st.integers(0, len(scores) - 1))
    shares = np.exp([log_share(values, at) for at in range(len(scores))])
    assert shares.sum() == pytest.approx(1.0)
    assert sum(credit(values, at) for at in range(len(scores))) == pytest.approx(1.0)
    truth = np.zeros(len(scores))
    truth[right] = 1
    assert brier(values, right) == pytest.approx(((shares - truth) ** 2).sum(), abs=1e-12)


def test_wilson_against_scipy() -> None:
    from scipy.stats import binomtest

    for successes, count in ((0, 5), (3, 10), (10, 10), (511, 1000)):
        theirs = binomtest(successes, count).proportion_ci(0.95, method="wilson")
        ours = wilson(successes, count)
        assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=1e-9)


def test_items_of_a_group_count_as_one() -> None:
    alone = proportion([1.0, 0.0, 1.0, 1.0])
    doubled = proportion([1.0, 1.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0], list("aabbccdd"))
    assert (doubled.value, doubled.count) == (alone.value, alone.count)
    assert doubled.interval == alone.interval
    assert doubled.standard_error == pytest.approx(alone.standard_error)
    values = np.random.default_rng(0).normal(size=40)
    assert mean(values).standard_error == pytest.approx(values.std(ddof=1) / math.sqrt(40))


def test_intervals_cover_the_truth() -> None:
    """For clustered items as well: 95 % of studies, within the error of 400 of them."""
    generator = np.random.default_rng(1)
    covered = 0
    for _ in range(400):
        levels = generator.normal(size=30)
        values = levels.repeat(4) + generator.normal(size=120)
        covered += mean(values, [str(at) for at in range(30) for _ in range(4)]).interval.holds(0.0)
    assert 0.90 < covered / 400 < 0.98


def test_a_mean_of_shares_counts_each_alike() -> None:
    small, large = proportion([1.0, 0.0] * 5), proportion([1.0] * 90)
    both = mean_of_shares([small, large])
    assert both.value == pytest.approx(0.75)
    assert both.standard_error == pytest.approx(math.hypot(small.standard_error, large.standard_error) / 2)
    assert both.count == 36  # 4 / (1/10 + 1/90)
    alike = [proportion([1.0, 1.0, 0.0, 0.5]), proportion([0.0, 1.0, 0.0, 0.0])]
    assert mean_of_shares(alike).interval == wilson(3.5, 8)


def result(accuracy: float, counting: float | None, random: float | None) -> ProbeResult:
    items = tuple(choice("", "a", "b") for _ in range(100))
    probe = Probe("p", "", "?", items)

    def measured(share: float | None) -> Measured | None:
        if share is None:
            return None
        scores = [
            ItemScore(
                np.array([0.0, -1.0] if at < 100 * share else [-1.0, 0.0]),
                np.array([1, 1]),
                np.array([0.0]),
                np.array([1.0]),
            )
            for at in range(100)
        ]
        return measure(probe, scores)

    model = measured(accuracy)
    assert model is not None
    return ProbeResult(probe, model, measured(counting), measured(random))


@pytest.mark.parametrize(
    ("accuracy", "counting", "random", "label"),
    [
        (0.9, 0.5, 0.52, "beyond counting"),
        (0.9, 0.8, 0.5, "counting does it too"),
        (0.9, 0.2, 0.5, "counting is below chance"),
        (0.9, 0.5, 0.7, "random weights are off chance"),
        (0.55, 0.5, 0.5, "at chance"),
        (0.55, 0.9, 0.5, "at chance"),
        (0.9, None, 0.5, "not held against counting"),
        (0.9, 0.5, None, "not held against random weights"),
        (0.9, None, None, "no null measured"),
    ],
)
def test_labels(accuracy: float, counting: float | None, random: float | None, label: str) -> None:
    assert result(accuracy, counting, random).label == label


def test_questions_have_a_hash() -> None:
    one = Probe("p", "", "?", ITEMS)
    assert one.hash == Probe("p", "", "asked otherwise", ITEMS).hash
    assert one.hash != Probe("p", "", "?", ITEMS[:2]).hash
    assert one.hash != Probe("p", "", "?", (Item(ITEMS[0].candidates, 1), *ITEMS[1:])).hash
    assert one.chance == pytest.approx((1 / 2 + 1 / 3 + 1 / 2) / 3)
    with pytest.raises(InputError, match="no items"):
        Probe("p", "", "?", ())
    with pytest.raises(ValueError, match="two candidates"):
        Item((Candidate("a", "b"),))
