"""Generating through a loaded model, in Python and on the command line, on a small network of random weights."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from etude.cli import main
from etude.data.primer.generator import documents
from etude.data.tokens.vocabulary import train_bpe, train_char
from etude.errors import InputError
from etude.generate.language import Language, load
from etude.generate.sampling import SamplingSettings
from etude.generate.text import TokenStreamDecoder
from etude.model.folder import save_model_folder
from networks import make_config, make_network

STORIES = [item.text for item in documents(13, 8_000)]


def make_folder(folder: Path, kind: str) -> Path:
    tokenizer = train_bpe(STORIES, 400, "llama3") if kind == "bpe" else train_char(STORIES)
    tokenizer.save(folder / "tokenizer")
    special = {"eos_token_id": tokenizer.roles.document_id, "bos_token_id": tokenizer.roles.document_id}
    config = make_config(
        "llama-grouped-tied", vocab_size=tokenizer.vocab_size, max_position_embeddings=64, **special
    )
    save_model_folder(folder / "model", make_network(config, 6), config, folder / "tokenizer")
    return folder / "model"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("words"), "bpe")


@pytest.fixture(scope="module")
def language(folder: Path) -> Language:
    return load(folder)


@pytest.fixture(scope="module")
def letters(tmp_path_factory: pytest.TempPathFactory) -> Language:
    return load(make_folder(tmp_path_factory.mktemp("letters"), "char"))


def test_plain_keywords_are_the_settings(language: Language) -> None:
    settings = SamplingSettings(
        temperature=0.6, top_k=30, top_p=0.9, min_p=0.01, repetition_penalty=1.2, max_new_tokens=15
    )
    expected = language.generate("The fox", settings, 4)
    named: dict[str, Any] = {
        "temperature": 0.6, "top_k": 30, "top_p": 0.9, "min_p": 0.01, "repetition_penalty": 1.2,
        "max_new_tokens": 15,
    }  # fmt: skip
    assert language.generate("The fox", seed=4, **named) == expected
    assert "".join(language.stream("The fox", seed=4, **named)) == expected
    assert language.generate("The fox", SamplingSettings(max_new_tokens=3), 4, **named) == expected
    assert language.generate("The fox", seed=5, **named) != expected
    with pytest.raises(TypeError, match="no setting 'max_tokens'"):
        language.generate("The fox", max_tokens=3)  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ({"seed": 99999999999999999999}, "seed must be from 0"),
        ({"seed": None}, "seed must be a whole number"),
        ({"max_new_tokens": -3}, "max_new_tokens must be 0 or above"),
        ({"temperature": "hot"}, "temperature must be a number, not hot"),
        ({"stop": [""]}, "a stop string must have a character"),
        ({"stop": 7}, "stop must be a text"),
        ({"prompt": 5}, "the prompt must be text"),
        ({"settings": 5}, "must be SamplingSettings"),
        ({"repetition_penalty": 0}, "repetition_penalty must be from"),
    ],
    ids=str,
)
def test_a_bad_value_gets_one_line_at_once(language: Language, named: dict[str, Any], message: str) -> None:
    for begin in (language.generate, language.stream, language.continuations):
        with pytest.raises(InputError, match=message) as caught:
            begin(**named)  # before anything is generated
        assert "\n" not in str(caught.value)


def test_bad_counts_get_one_line(language: Language) -> None:
    with pytest.raises(InputError, match="samples must be 1 or more, not 0"):
        language.continuations("a", samples=0)
    with pytest.raises(InputError, match="alternatives must be a whole number"):
        language.continuations("a", alternatives=1.5)  # type: ignore[arg-type]


def test_a_stop_string_ends_the_text_wherever_tokens_are_cut(language: Language) -> None:
    whole = language.generate("The", max_new_tokens=40, temperature=1.0, seed=9)
    assert len(whole) > 30
    for begin, length in ((0, 3), (7, 1), (11, 5), (20, 9)):
        stop = whole[begin : begin + length]
        end = whole.index(stop)
        named: dict[str, Any] = {"max_new_tokens": 40, "temperature": 1.0, "seed": 9}
        assert language.generate("The", stop=stop, **named) == whole[:end]
        (actual,) = language.continuations("The", stop=["never in it", stop], **named)
        assert (actual.text, actual.finish_reason) == (whole[:end], "stop")
        assert language.tokenizer.decode(actual.token_ids).startswith(whole[: end + length])


def test_samples_are_those_of_their_seeds(language: Language) -> None:
    named: dict[str, Any] = {"max_new_tokens": 6, "temperature": 1.0}
    actual = list(language.continuations("The fox", seed=3, samples=18, **named))
    assert len({item.text for item in actual}) > 15
    assert actual[0].seed == 3
    for item in (actual[0], actual[5], actual[17]):
        assert language.generate("The fox", seed=item.seed, **named) == item.text
    assert {item.finish_reason for item in actual} <= {"length", "eos"}


@torch.no_grad()
def test_log_probabilities_are_those_of_one_forward_pass(language: Language) -> None:
    (actual,) = language.continuations(
        "The fox", alternatives=3, max_new_tokens=9, temperature=0.5, repetition_penalty=1.3
    )
    prompt = [language.tokenizer.roles.document_id, *language.tokenizer.encode("The fox")]
    logits = language.model(torch.tensor([prompt + actual.token_ids]))[0, len(prompt) - 1 : -1]
    odds = logits.double().log_softmax(-1)
    assert actual.logprobs == pytest.approx(
        odds.gather(-1, torch.tensor(actual.token_ids)[:, None])[:, 0].tolist(), abs=1e-5
    )
    for at, others in enumerate(actual.likeliest):
        assert [value for _, value in others] == pytest.approx(odds[at].topk(3).values.tolist(), abs=1e-5)
        assert [float(odds[at, token]) for token, _ in others] == pytest.approx(
            [value for _, value in others], abs=1e-5
        )


@torch.no_grad()
@pytest.mark.parametrize(
    ("prompt", "remaining", "space"), [("The fox ", "The fox", " "), ("She saw  ", "She saw ", " ")]
)
def test_a_space_at_the_end_is_joined_to_the_word_after_it(
    language: Language, prompt: str, remaining: str, space: str
) -> None:
    """Greedy by hand: the most likely of the tokens that begin with a space, after the text before the space."""
    ids = [language.tokenizer.roles.document_id, *language.tokenizer.encode(remaining)]
    logits = language.model(torch.tensor([ids]))[0, -1]
    spaced = [
        token
        for token in range(language.tokenizer.vocab_size)
        if language.tokenizer.decode([token]).startswith(space)
    ]
    assert len(spaced) > 20
    first = max(spaced, key=lambda token: float(logits[token]))
    (actual,) = language.continuations(prompt, temperature=0, max_new_tokens=6)
    assert actual.token_ids[0] == first
    assert actual.text == language.tokenizer.decode(actual.token_ids)[1:]
    assert actual.text == language.generate(prompt, temperature=0, max_new_tokens=6)
    rest = language.generate(
        prompt[:-1] + language.tokenizer.decode([first]), temperature=0, max_new_tokens=5
    )
    tokens = language.tokenizer.encode(remaining + language.tokenizer.decode([first]))
    if tokens == [*ids[1:], first] and not language.tokenizer.decode([first]).endswith(" "):
        assert actual.text == language.tokenizer.decode([first])[1:] + rest


def test_where_a_space_is_a_token_everywhere_nothing_changes(letters: Language) -> None:
    (actual,) = letters.continuations("The fox ", temperature=0, max_new_tokens=8)
    ids = [letters.tokenizer.roles.document_id, *letters.tokenizer.encode("The fox ")]
    with torch.no_grad():
        assert actual.token_ids[0] == int(letters.model(torch.tensor([ids]))[0, -1].argmax())
    assert actual.text == "".join(TokenStreamDecoder(letters.tokenizer.backend).decode(actual.token_ids))


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["etude", "generate", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main.run()
    out, err = capsys.readouterr()
    return int(ended.value.code or 0), out, err


def test_json_has_one_object_per_continuation(
    folder: Path, language: Language, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run(
        capsys, folder, "The fox ", "-n", 3, "--json", "--max-new-tokens=7", "--logprobs=2", "--seed=8"
    )
    assert (code, err) == (0, "")
    lines = [json.loads(line) for line in out.splitlines()]
    assert len(lines) == 3
    for line in lines:
        assert list(line) == ["prompt", "text", "tokens", "finish_reason", "seed", "logprobs"]
        assert line["prompt"] == "The fox "
        assert line["text"] == language.generate("The fox ", seed=line["seed"], max_new_tokens=7)
        assert [item["id"] for item in line["logprobs"]] == line["tokens"]
        for item in line["logprobs"]:
            assert item["token"] == language.tokenizer.decode([item["id"]])
            assert len(item["top"]) == 2
            assert item["logprob"] <= item["top"][0]["logprob"] + 1e-9
            assert math.exp(item["top"][0]["logprob"]) <= 1
    _, plain, _ = run(capsys, folder, "The fox ", "--json", "--max-new-tokens=7", "--seed=8")
    assert json.loads(plain) == {name: lines[0][name] for name in list(lines[0])[:5]}


def test_text_and_samples_and_tokens_are_printed(
    folder: Path, language: Language, capsys: pytest.CaptureFixture[str]
) -> None:
    named: dict[str, Any] = {"max_new_tokens": 30, "temperature": 1.0, "seed": 2}
    options = ["--max-new-tokens=30", "--temperature=1", "--seed=2"]
    whole = language.generate("The", **named)
    assert run(capsys, folder, "The", *options)[1] == f"The{whole}\n"
    stop = whole[10:12]
    cut = whole[: whole.index(stop)]
    assert run(capsys, folder, "The", *options, "--stop", "nowhere in it", "--stop", stop)[1] == f"The{cut}\n"
    texts = [item.text for item in language.continuations("The", samples=2, **named)]
    assert (
        run(capsys, folder, "The", *options, "-n2")[1] == f"The{texts[0]}\n---------------\nThe{texts[1]}\n"
    )
    (actual,) = language.continuations("The", alternatives=1, **named)
    lines = run(capsys, folder, "The", *options, "--logprobs=1")[1].splitlines()
    assert len(lines) == len(actual.token_ids)
    for line, logprob, token in zip(lines, actual.logprobs, actual.token_ids, strict=True):
        assert line.startswith(f"{logprob:9.4f}  {language.tokenizer.decode([token])!r}   likeliest: ")


def test_a_line_end_can_be_written_as_a_stop_string(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = [folder, "The", "--max-new-tokens=300", "--temperature=3", "--top-p=1", "--json"]
    whole = json.loads(run(capsys, *options)[1])["text"]
    assert "\n" in whole
    actual = json.loads(run(capsys, *options, "--stop", r"\n")[1])
    assert (actual["text"], actual["finish_reason"]) == (whole.split("\n")[0], "stop")


@pytest.mark.parametrize(
    "bad",
    [
        "--seed=99999999999999999999", "--seed=-99999999999999999999", "--repetition-penalty=0", "--samples=0",
        "--logprobs=-1", "--stop=", "--temperature=-1",
    ],
)  # fmt: skip
def test_a_bad_option_gets_one_line(folder: Path, bad: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, folder, "The", bad)
    assert (code, out) == (2, "")
    assert err.count("\n") == 1


def test_the_greedy_choice_with_a_penalty_is_that_of_transformers(folder: Path, language: Language) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = tokenizer("The fox ran", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        theirs = AutoModelForCausalLM.from_pretrained(folder).generate(
            ids, do_sample=False, repetition_penalty=1.3, max_new_tokens=25
        )[0, ids.shape[1] :]
    (actual,) = language.continuations(
        "The fox ran", temperature=0, repetition_penalty=1.3, max_new_tokens=25
    )
    assert actual.token_ids == theirs.tolist()[: len(actual.token_ids)]
    assert len(actual.token_ids) > 10
    assert np.unique(actual.token_ids).size > 10
