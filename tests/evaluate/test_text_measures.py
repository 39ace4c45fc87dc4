"""Measures of a whole text: against direct sums, against planted models, and in parts against one pass."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from etude.data.primer.generator import documents
from etude.data.tokens.parts import TokenPart
from etude.data.tokens.tokenizer import EtudeTokenizer
from etude.data.tokens.vocabulary import train_bpe, train_char
from etude.errors import InputError
from etude.evaluate.clustered import REPLICATES, CalibrationSums, RatioSums
from etude.evaluate.statistics import mean
from etude.evaluate.text_measures import ScoredDocument, TextSums
from etude.evaluate.text_scoring import BytesDisagree, add_documents, count_tokens, measure_text
from etude.generate.scoring import score_tokens, tokens_seen
from etude.model.language_model import LanguageModel
from networks import make_config, make_network

TEXTS = [(f"story {at}", one.text[:700]) for at, one in enumerate(documents(3, 6_000))]


@pytest.fixture(scope="module")
def tokenizer() -> EtudeTokenizer:
    return train_bpe([text for _, text in TEXTS], 300, "llama3")


@pytest.fixture(scope="module")
def network(tokenizer: EtudeTokenizer) -> LanguageModel:
    return make_network(make_config("llama", vocab_size=tokenizer.vocab_size, max_position_embeddings=32), 1)


def distributions(model: LanguageModel, ids: list[int], seen: list[int]) -> list[np.ndarray]:
    """Score each token after the first, from the `seen` tokens before it, in one pass each."""
    with torch.no_grad():
        return [
            model(torch.tensor([ids[at - before : at]]))[0, -1].double().softmax(-1).numpy()
            for at, before in enumerate(seen, start=1)
        ]


def test_every_figure_is_the_sum_it_says(network: LanguageModel, tokenizer: EtudeTokenizer) -> None:
    few = [("a", TEXTS[0][1][:150]), ("nothing", ""), ("b", TEXTS[1][1][:400]), ("c", "Ünïcödé 🦊")]
    counts = np.arange(tokenizer.vocab_size) * 7 // 3
    found = measure_text(network, tokenizer, few, token_counts=counts)
    nats, groups, right, briers, sure, seen, ids = [], [], [], [], [], [], []  # fmt: skip
    for name, text in few:
        tokens = tokenizer.encode(text)
        before = tokens_seen(len(tokens), 32).tolist() if tokens else []
        for token, shares in zip(
            tokens, distributions(network, [tokenizer.roles.document_id, *tokens], before), strict=True
        ):
            nats.append(-math.log(shares[token]))
            right.append(float(shares.argmax() == token))
            briers.append(sum((share - (at == token)) ** 2 for at, share in enumerate(shares)))
            sure.append(shares.max())
            groups.append(name)
        seen += before
        ids += tokens
    num_bytes = sum(len(text.encode()) for _, text in few)
    assert (found.documents, found.empty_documents) == (3, 1)
    assert (found.tokens, found.num_bytes) == (len(nats), num_bytes)
    assert found.bits_per_byte.value == pytest.approx(sum(nats) / math.log(2) / num_bytes, rel=1e-5)
    expected = mean(nats, groups)
    assert found.nats_per_token.value == pytest.approx(expected.value, rel=1e-5)
    assert found.nats_per_token.standard_error == pytest.approx(expected.standard_error, rel=1e-4)
    assert found.first_guess.value == pytest.approx(np.mean(right))
    assert found.brier.value == pytest.approx(np.mean(briers), rel=1e-5)
    for bins, values in ((found.by_seen, np.array(seen)), (found.by_frequency, counts[ids])):
        assert sum(one.tokens for one in bins) == len(nats)
        for one in bins:
            inside = (values >= one.low) & (values <= one.high)
            assert one.tokens == inside.sum()
            direct = mean(np.array(nats)[inside], np.array(groups)[inside])
            assert one.nats.value == pytest.approx(direct.value, rel=1e-5)
            if one.nats.count > 1:
                assert one.nats.standard_error == pytest.approx(direct.standard_error, rel=1e-3, abs=1e-4)
    assert {one.low for one in found.by_seen} == {1, 2, 3, 5, 9, 17}
    for row in found.calibration:
        inside = (np.array(sure) >= row.low) & (np.array(sure) < row.high)
        assert row.tokens == inside.sum()
        assert row.right == pytest.approx(np.array(right)[inside].mean())
        assert row.confidence == pytest.approx(np.array(sure)[inside].mean(), rel=1e-5)
        assert row.gap.value == pytest.approx(row.right - row.confidence)
    assert found.calibration_error.value == pytest.approx(
        sum(row.tokens * abs(row.gap.value) for row in found.calibration) / len(nats)
    )


def test_batches_and_parts_give_the_same(network: LanguageModel, tokenizer: EtudeTokenizer) -> None:
    """Parts pass through JSON, as between processes, and add up to the result of one pass, except for rounding."""
    whole = measure_text(network, tokenizer, TEXTS)
    together = TextSums()
    for start in range(0, len(TEXTS), 3):
        sums = TextSums()
        add_documents(sums, network, tokenizer, TEXTS[start : start + 3], first_number=start, batch_size=5)
        together += TextSums.from_json(json.loads(json.dumps(sums.to_json())))

    def flat(value: object) -> list[float]:
        if isinstance(value, dict):
            value = list(value.values())
        if isinstance(value, list):
            return [number for one in value for number in flat(one)]
        return [value] if isinstance(value, int | float) else []

    assert flat(together.measures().to_json()) == pytest.approx(flat(whole.to_json()), rel=1e-4, abs=1e-6)


def test_uniform_logits_are_calibrated_and_cost_the_logarithm_of_the_vocabulary() -> None:
    tokenizer = train_char(text for _, text in TEXTS)
    model = make_network(make_config("llama", vocab_size=tokenizer.vocab_size), 0)
    with torch.no_grad():
        model.unembedding()[0].zero_()
    found, size = measure_text(model, tokenizer, TEXTS), tokenizer.vocab_size
    assert found.nats_per_token.value == pytest.approx(math.log(size))
    assert found.first_guess.value == pytest.approx(1 / size)
    assert found.brier.value == pytest.approx(1 - 1 / size)
    assert found.calibration_error.value == pytest.approx(0, abs=1e-9)
    assert [one.nats.value for one in found.by_seen] == pytest.approx([math.log(size)] * len(found.by_seen))


def test_documents_are_ranked_by_bits_per_byte(network: LanguageModel, tokenizer: EtudeTokenizer) -> None:
    texts = [*TEXTS, ("short", "zq")]
    found = measure_text(network, tokenizer, texts).by_document
    bits = {}
    for name, text in texts:
        scores = score_tokens(network, [tokenizer.roles.document_id, *tokenizer.encode(text)])
        bits[name] = -scores.logprobs.sum() / math.log(2) / len(text.encode())
    long = sorted(name for name, text in texts if len(text.encode()) >= 256)
    assert "short" not in long
    assert [one.name for one in found.best] == sorted(long, key=bits.__getitem__)[:5]
    assert [one.name for one in found.worst] == sorted(long, key=bits.__getitem__, reverse=True)[:5]
    assert found.mean.value == pytest.approx(np.mean(list(bits.values())), rel=1e-5)
    assert found.spread == pytest.approx(np.std(list(bits.values()), ddof=1), rel=1e-4)


def test_one_document_has_no_interval_and_no_text_no_measure(
    network: LanguageModel, tokenizer: EtudeTokenizer
) -> None:
    found = measure_text(network, tokenizer, TEXTS[:1]).to_json()
    json.dumps(found, allow_nan=False)
    assert found["schema"] == 1
    assert found["bits_per_byte"]["standard_error"] is None
    for nothing in ([], [("a", "")]):
        with pytest.raises(InputError, match="empty"):
            measure_text(network, tokenizer, nothing)


def test_tokens_of_another_text_are_refused(network: LanguageModel) -> None:
    from tokenizers import normalizers

    rewriting = train_bpe([text for _, text in TEXTS], 300, "llama3")
    rewriting.backend.normalizer = normalizers.Lowercase()
    with pytest.raises(AssertionError, match=r"document the second: .* from character 3") as caught:
        measure_text(network, rewriting, [("the first", "all small"), ("the second", "abcD")])
    assert isinstance(caught.value, BytesDisagree | InputError)
    assert "\n" not in str(caught.value)


def test_few_documents_are_held_at_a_time(
    network: LanguageModel, tokenizer: EtudeTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("etude.evaluate.text_scoring._BATCH_BYTES", 1_500)
    reports: list[tuple[int, int]] = []
    long = [("long", "abc " * 500), *TEXTS[:2]]
    read: list[str] = []

    def one_by_one() -> Iterator[tuple[str, str]]:
        for name, text in long:
            read.append(name)
            yield name, text

    def report(documents: int, num_bytes: int) -> None:
        reports.append((documents, num_bytes))
        assert len(read) <= documents + 1  # one more shows that the batch is full

    add_documents(TextSums(), network, tokenizer, one_by_one(), report=report)
    assert reports == [(1, 2_000), (3, 2_000 + sum(len(text.encode()) for _, text in TEXTS[:2]))]


def test_tokens_of_a_part_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("etude.evaluate.text_scoring._COUNTED_AT_ONCE", 3)
    part = TokenPart.from_documents([[1, 2, 2, 5], [2, 1]], document_id=0)
    assert count_tokens(part, 7).tolist() == [2, 2, 3, 0, 0, 1, 0]


def test_sums_give_the_clustered_error_of_the_definition() -> None:
    generator = np.random.default_rng(0)
    sums, values, groups = RatioSums(1), [], []
    for group in range(12):
        some = generator.normal(3, 1, generator.integers(1, 9)) + generator.normal()
        sums.add(np.array([float(len(some))]), np.array([some.sum()]))
        values += some.tolist()
        groups += [str(group)] * len(some)
    (found,) = sums.estimates()
    expected = mean(values, groups)
    assert found is not None
    assert (found.value, found.standard_error, found.count) == pytest.approx(
        (expected.value, expected.standard_error, 12)
    )
    assert RatioSums(2).estimates() == [None, None]


def calibration(generator: np.random.Generator, lift: float, number_of_documents: int) -> CalibrationSums:
    """Make documents of 60 tokens, whose guesses are right by `lift` more often than their confidence; levels vary."""
    sums = CalibrationSums(10)
    for number in range(number_of_documents):
        sure = generator.uniform(0.1, 0.85, 60)
        chance = np.clip(sure + lift + 0.05 * generator.normal(), 0, 1)
        key = int(generator.integers(2**40)) + number
        sums.add(sure, (generator.random(60) < chance).astype(float), key)
    return sums


@pytest.mark.parametrize("lift", [0.12, -0.08])
def test_the_interval_of_the_calibration_error_covers_it(lift: float) -> None:
    generator, held = np.random.default_rng(2), 0
    for _ in range(60):
        held += calibration(generator, lift, 40).expected_error(40).interval.holds(abs(lift))
    assert held >= 52  # of 60; 57 expected


def test_resampling_depends_on_the_document_alone() -> None:
    one, other = CalibrationSums(10), CalibrationSums(10)
    sure = np.linspace(0, 1, 11)
    for number in (4, 9):
        one.add(sure, sure.round(), number)
    for number in (9, 4):
        more = CalibrationSums(10)
        more.add(sure, sure.round(), number)
        other += CalibrationSums.from_json(json.loads(json.dumps(more.to_json())))
    assert one.resampled.shape == (REPLICATES, 2, 10)
    np.testing.assert_array_equal(one.resampled, other.resampled)
    assert one.expected_error(2) == other.expected_error(2)


def test_a_planted_effect_shows_in_its_bin_only() -> None:
    """Rare tokens cost three nats more: the bins of frequency show it, those of position do not."""
    counts = np.array([0, 5, 50, 500])
    sums, rng = TextSums(counts), random.Random(1)
    for number in range(30):
        ids = np.array([rng.randrange(4) for _ in range(64)])
        nats = np.where(ids <= 1, 4.0, 1.0)
        ones = np.ones(64)
        sums.add(ScoredDocument(number, str(number), 300, ids, np.arange(1, 65), -nats, ones, ones / 2, ones))
    found = sums.measures()
    assert [(one.low, one.nats.value) for one in found.by_frequency] == [(0, 4), (1, 4), (10, 1), (100, 1)]
    assert all(one.nats.interval.holds(2.5) for one in found.by_seen[2:])
    assert found.calibration[0].gap.value == 0.5
