"""Public suites through the real lm-eval library: local files, compared with its own `hf` model on the same folder."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from etude.data.primer.generator import documents
from etude.data.tokens.vocabulary import train_bpe, train_char
from etude.errors import InputError
from etude.evaluate.blimp import Paradigm, measure_blimp
from etude.evaluate.network_answerer import ModelAnswerer
from etude.evaluate.word_coverage import words_of
from etude.interop.public_suites import SuiteScore, _manager, public_suite
from etude.model.folder import save_model_folder
from etude.pretrained.load_model import load_trained
from minimal_pairs import OURS, write_paradigms
from networks import make_config, make_network

pytest.importorskip("lm_eval", reason="the library lm-eval is not installed (the extra 'eval')")
from etude.interop.lm_eval_model import EtudeLM
from etude.interop.local_tasks import local_task

STORIES = [story.text for story in documents(11, 6_000)]
ISLAND = Paradigm("adjunct_island", "island_effects", OURS[1].pairs + OURS[2].pairs)


@pytest.fixture(scope="module", params=["bpe", "char"])
def folders(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make two model folders with one tokenizer: `model` with random weights, `uniform` with uniform logits."""
    work = tmp_path_factory.mktemp("models")
    tokenizer = train_bpe(STORIES, 500, "llama3") if request.param == "bpe" else train_char(STORIES)
    tokenizer.save(work / "tokenizer")
    for name in ("model", "uniform"):
        special = {"eos_token_id": tokenizer.roles.document_id, "bos_token_id": tokenizer.roles.document_id}
        config = make_config(
            "llama-grouped-tied", vocab_size=tokenizer.vocab_size, max_position_embeddings=64, **special
        )
        model = make_network(config, 5)
        if name == "uniform":
            with torch.no_grad():
                model.unembedding()[0].zero_()
        save_model_folder(work / name, model, config, work / "tokenizer")
    return work


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a few rows for tasks of four kinds, in the form of their data sets."""
    folder = write_paradigms(tmp_path_factory.mktemp("rows"), [ISLAND])
    sentences = [line for story in STORIES for line in story.split(". ") if len(line.split()) > 4][:14]
    plain = [{"text": line.replace("\n", " ").strip(" .")} for line in sentences]
    contexts = [
        {
            "activity_label": "Reading",
            "ctx_a": line,
            "ctx_b": "then",
            "endings": ["she ran home.", "he sang.", f"{line[:9]} again.", "they all slept."],
            "label": str(at % 4),
        }
        for at, line in enumerate(sentences)
    ]
    questions = [
        {
            "question": line,
            "choices": {"text": ["yes", "no", "never"], "label": ["A", "B", "C"]},
            "answerKey": "C",
        }
        for line in sentences
    ]
    pages = [{"page": story[:900]} for story in STORIES[:3]]
    for name, some in {
        "lambada_openai": plain,
        "hellaswag": contexts,
        "ARC-Easy": questions,
        "ARC-Challenge": questions[:9],
    }.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in some))
    (folder / "wikitext").mkdir()
    (folder / "wikitext" / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in pages))
    return folder


TASKS = ["blimp_adjunct_island", "lambada_openai", "hellaswag", "arc_easy", "wikitext"]


def hf_figures(
    model: Path, rows: Path, work: Path, tasks: list[str], more: str = ""
) -> dict[str, dict[str, float]]:
    """Return the scores of the library's own `hf` model."""
    from lm_eval import simple_evaluate

    manager = _manager()
    files = [str(local_task(name, manager.task_index[name], rows, work)) for name in tasks]
    scores = simple_evaluate(
        "hf",
        model_args=f"pretrained={model},dtype=float32{more}",
        tasks=files,
        device="cpu",
        batch_size=1,
        bootstrap_iters=0,
        task_manager=manager,
    )
    return {
        name: {
            key.split(",")[0]: value
            for key, value in scores["results"][name].items()
            if key.endswith(",none") and "stderr" not in key
        }
        for name in tasks
    }


def test_figures_are_those_of_the_librarys_own_model(folders: Path, rows: Path, tmp_path: Path) -> None:
    reports: list[tuple[int, int]] = []
    scores = public_suite(folders / "model", TASKS, local=rows, report=lambda *now: reports.append(now))
    assert [score.task for score in scores] == TASKS
    assert reports[-1] == (3, 3)  # the pages, last
    expected = hf_figures(folders / "model", rows, tmp_path, TASKS[:-1])
    # For a whole text, the `hf` model would also score the token with which the tokenizer begins it.
    expected |= hf_figures(folders / "model", rows, tmp_path, TASKS[-1:], ",add_bos_token=False")
    for score in scores:
        assert {name: value for name, (value, _) in score.figures.items()} == pytest.approx(
            expected[score.task], rel=1e-4
        )
    assert {score.items for score in scores[1:4]} == {14}
    json.dumps([score.to_json() for score in scores], allow_nan=False)
    assert [score.choices is not None for score in scores] == [True, False, True, True, False]
    assert scores[2].choices is not None
    assert scores[2].choices.chance == 0.25


def test_uniform_logits_are_at_chance_by_our_rule_only(folders: Path, rows: Path) -> None:
    tasks = ["blimp_adjunct_island", "hellaswag", "arc_easy"]
    island, swag, questions = public_suite(folders / "uniform", tasks, local=rows)
    for score, chance in ((island, 1 / 2), (swag, 1 / 4), (questions, 1 / 3)):
        assert score.choices is not None
        assert score.choices.chance == pytest.approx(chance)
        assert score.choices.per_token.value == pytest.approx(chance)
    tokenizer = load_trained(folders / "uniform").tokenizer
    counts = [[len(tokenizer.encode(f" {word}")) for word in pair] for pair in ISLAND.pairs]
    assert island.figures["acc"][0] == pytest.approx(np.mean([good <= bad for good, bad in counts]))
    if tokenizer.kind == "char":  # the wrong sentences are at least as long: all count as right
        assert island.figures["acc"][0] == 1.0


def test_our_blimp_beside_the_librarys(folders: Path, rows: Path) -> None:
    """The library's figure is its rule applied to our log-probabilities of its texts (a space before each sentence)."""
    for name in ("model", "uniform"):
        (theirs,) = public_suite(folders / name, ["blimp_adjunct_island"], local=rows)
        trained = load_trained(folders / name)
        (ours,) = measure_blimp([ISLAND], ModelAnswerer(trained.model, trained.tokenizer), before=" ")
        assert theirs.figures["acc"][0] == pytest.approx(ours.library)
        assert theirs.choices is not None
        assert theirs.choices.whole.value == pytest.approx(ours.whole.accuracy.value)
        assert theirs.choices.per_token.value == pytest.approx(ours.per_token.accuracy.value)


@dataclass
class Request:
    args: tuple[Any, ...]


REQUESTS = [
    ("", "Once upon a time"),
    ("The fox said: ", "no"),
    ("The fox", " ran home"),
    ("word " * 80, "end"),
    ("a", "b" * 90),
]


def test_log_probabilities_and_greedy_text(folders: Path) -> None:
    from lm_eval.models.huggingface import HFLM

    trained = load_trained(folders / "model")
    ours = EtudeLM(trained.model, trained.tokenizer)
    theirs = HFLM(pretrained=str(folders / "model"), dtype="float32", device="cpu", batch_size=1)
    requests = [Request(pair) for pair in REQUESTS[:4]]
    answers = ours.loglikelihood(requests)
    for (logprob, greedy), (expected, is_greedy) in zip(answers, theirs.loglikelihood(requests), strict=True):
        assert logprob == pytest.approx(expected, rel=1e-4)
        assert greedy == is_greedy
    prompts = [Request((text, {"until": [" the"], "max_gen_toks": 20})) for text in ("Once", "The fox said")]
    written = ours.generate_until(prompts)
    assert written == theirs.generate_until(prompts)


def test_a_first_guess_is_known_as_one(folders: Path) -> None:
    from lm_eval.models.huggingface import HFLM

    trained = load_trained(folders / "model")
    requests = []
    for context in dict.fromkeys(" ".join(STORIES).split()):
        given = [trained.tokenizer.roles.document_id, *trained.tokenizer.encode(context)]
        with torch.no_grad():
            guess = int(trained.model(torch.tensor([given]))[0, -1].argmax())
        continuation = trained.tokenizer.decode([guess])
        if (
            trained.tokenizer.encode(context + continuation) == [*given[1:], guess]
            and continuation.strip() == continuation != ""
        ):
            requests.append(Request((context, continuation)))
    assert len(requests) > 3
    assert all(greedy for _, greedy in EtudeLM(trained.model, trained.tokenizer).loglikelihood(requests))
    theirs = HFLM(pretrained=str(folders / "model"), dtype="float32", device="cpu", batch_size=1)
    assert all(greedy for _, greedy in theirs.loglikelihood(requests))


def test_a_continuation_longer_than_the_context_is_scored_whole(folders: Path) -> None:
    trained = load_trained(folders / "model")
    ours = EtudeLM(trained.model, trained.tokenizer)
    context, continuation = REQUESTS[4]
    ((logprob, _),) = ours.loglikelihood([Request((context, continuation))])
    from etude.generate.scoring import score_tokens

    given = len(trained.tokenizer.encode(context))
    ids = trained.tokenizer.encode(context + continuation)
    count = len(ids) - given
    tail = ids[-max(64, count) - 1 :]
    assert logprob == pytest.approx(score_tokens(trained.model, tail).logprobs[-count:].sum())


def test_documents_begin_as_the_folders_tokenizer_begins_them(folders: Path) -> None:
    from lm_eval.models.huggingface import HFLM

    trained = load_trained(folders / "model")
    requests = [Request(pair) for pair in REQUESTS[:3]]
    by_begin = {}
    for begin, named in ((None, {}), (False, {"add_bos_token": False}), (True, {"add_bos_token": True})):
        by_begin[begin] = EtudeLM(trained.model, trained.tokenizer, begin_documents=begin).loglikelihood(
            requests
        )
        theirs = HFLM(
            pretrained=str(folders / "model"), dtype="float32", device="cpu", batch_size=1, **named
        ).loglikelihood(requests)
        assert [logprob for logprob, _ in by_begin[begin]] == pytest.approx(
            [logprob for logprob, _ in theirs], rel=1e-4
        )
    assert by_begin[None] == by_begin[True]
    assert by_begin[True][0] == pytest.approx(
        by_begin[False][0]
    )  # without a context, the token is there in any case
    assert by_begin[True][2] != by_begin[False][2]


def split_words(folder: Path) -> dict[tuple[str, str], tuple[int, int]]:
    """Return contexts that end within a token of the whole, with the length of the common prefix and of all tokens."""
    tokenizer = load_trained(folder).tokenizer
    cases = {}
    for word in sorted({word for story in STORIES for word in story.split() if len(word) > 4}):
        for at in range(1, len(word)):
            context, continuation = f"The {word[:at]}", f"{word[at:]} is here"
            whole, given = tokenizer.encode(context + continuation), tokenizer.encode(context)
            shared = sum(
                1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(whole, given, strict=False))
            )
            if shared < len(given):
                cases[context, continuation] = (shared, len(whole))
    return cases


@torch.no_grad()
def test_the_token_that_spans_the_join_is_scored(folders: Path) -> None:
    """Score with `transformers`: sum over the tokens of the whole, from the first that the context alone lacks."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    trained = load_trained(folders / "model")
    ours = EtudeLM(trained.model, trained.tokenizer)
    cases = split_words(folders / "model")
    assert (len(cases) > 20) == (trained.tokenizer.kind == "bpe")  # no character reaches into the next one
    theirs = AutoModelForCausalLM.from_pretrained(folders / "model")
    tokenizer = AutoTokenizer.from_pretrained(folders / "model")
    for (context, continuation), (shared, count) in list(cases.items())[:40]:
        ((logprob, greedy),) = ours.loglikelihood([Request((context, continuation))])
        ids = tokenizer(context + continuation, return_tensors="pt")[
            "input_ids"
        ]  # the begin token is the first
        assert ids.shape[1] == count + 1
        odds = theirs(ids).logits[0, :-1].double().log_softmax(-1).gather(-1, ids[0, 1:, None])[:, 0]
        assert logprob == pytest.approx(float(odds[shared:].sum()), rel=1e-5)
        assert logprob < -1e-3
        assert greedy == bool((theirs(ids).logits[0, shared:-1].argmax(-1) == ids[0, shared + 1 :]).all())
        assert ours.num_tokens(context, continuation) == count - shared


def test_a_whole_that_has_no_more_tokens_than_its_context_is_not_certain(folders: Path) -> None:
    """A word's end within one token: equally many tokens as the context, so nothing was scored, and it won."""
    trained = load_trained(folders / "model")
    ours = EtudeLM(trained.model, trained.tokenizer)
    encode = trained.tokenizer.encode
    words = {word for story in STORIES for word in story.split()}
    cases = [
        (f"The {word[:at]}", word[at:])
        for word in sorted(words)
        for at in range(1, len(word))
        if len(encode(f"The {word}")) <= len(encode(f"The {word[:at]}"))
    ]
    assert bool(cases) == (trained.tokenizer.kind == "bpe")
    assert all(logprob < -1e-3 for logprob, _ in ours.loglikelihood([Request(case) for case in cases]))


@pytest.mark.parametrize("context", ["", "The fox", "   "])
def test_an_empty_continuation_is_refused(folders: Path, context: str) -> None:
    trained = load_trained(folders / "model")
    ours = EtudeLM(trained.model, trained.tokenizer)
    with pytest.raises(InputError, match="no token to score") as caught:
        ours.loglikelihood([Request(("The fox", " ran")), Request((context, ""))])
    assert "\n" not in str(caught.value)


def test_the_command_line_of_the_library_takes_a_model_folder(
    folders: Path, rows: Path, tmp_path: Path
) -> None:
    manager = _manager()
    file = local_task("lambada_openai", manager.task_index["lambada_openai"], rows, tmp_path)
    command = [
        *(sys.executable, "-m", "lm_eval", "--model", "hf", "--model_args"),
        f"pretrained={folders / 'model'},dtype=float32",
        *("--tasks", str(file), "--device", "cpu", "--output_path", str(tmp_path / "out")),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    (written,) = (tmp_path / "out").rglob("results_*.json")
    theirs = json.loads(written.read_text())["results"]["lambada_openai"]
    (ours,) = public_suite(folders / "model", ["lambada_openai"], local=rows)
    for metric in ("perplexity", "acc"):
        assert ours.figures[metric][0] == pytest.approx(theirs[f"{metric},none"], rel=1e-4)


def test_items_that_are_refused(folders: Path, rows: Path) -> None:
    with pytest.raises(InputError, match=r"near it: .*blimp_adjunct_island"):
        public_suite(folders / "model", ["blimp_adjunct_iland"], local=rows)
    with pytest.raises(InputError, match=r"put piqa\.jsonl there"):
        public_suite(folders / "model", ["piqa"], local=rows)
    with pytest.raises(
        InputError,
        match=r"rows of the task 'piqa' cannot be read .* add --local FOLDER, or .* access to the Hub",
    ) as caught:
        public_suite(folders / "model", ["piqa"])
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="no tasks are named"):
        public_suite(folders / "model", [])


def test_an_interrupted_evaluation_resumes(
    folders: Path, rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was answered before the interruption is not answered again, and never for another model."""
    monkeypatch.setattr("etude.interop.lm_eval_model._AT_A_TIME", 10)
    whole = public_suite(folders / "model", ["blimp_adjunct_island"], local=rows)
    sizes: list[int] = []
    score = EtudeLM._score

    def counted(self: EtudeLM, pairs: Any) -> Any:
        if len(sizes) == 3:
            raise KeyboardInterrupt
        sizes.append(len(pairs))
        return score(self, pairs)

    monkeypatch.setattr(EtudeLM, "_score", counted)
    with pytest.raises(KeyboardInterrupt):
        public_suite(folders / "model", ["blimp_adjunct_island"], local=rows, kept=tmp_path)
    monkeypatch.setattr(EtudeLM, "_score", lambda self, pairs: sizes.append(len(pairs)) or score(self, pairs))
    assert public_suite(folders / "model", ["blimp_adjunct_island"], local=rows, kept=tmp_path) == whole
    assert sum(sizes) == 2 * len(ISLAND.pairs)
    public_suite(folders / "uniform", ["blimp_adjunct_island"], local=rows, kept=tmp_path)
    assert sum(sizes) == 4 * len(ISLAND.pairs)


def test_a_limit_takes_the_first_items(folders: Path, rows: Path) -> None:
    (few,) = public_suite(folders / "model", ["hellaswag"], local=rows, limit=3)
    assert isinstance(few, SuiteScore)
    assert few.items == 3
    assert few.choices is not None
    assert np.isclose(few.choices.whole.value * 6, round(few.choices.whole.value * 6))


def test_items_with_words_unknown_to_training_are_skipped(folders: Path, tmp_path: Path) -> None:
    """The same figures as for the selected rows alone; a task without any such item has none."""
    pairs = ISLAND.pairs
    text = [" ".join(pairs[at][0] + " " + pairs[at][1] for at in (1, 4, 5, 9, 25, 31)).upper().encode()]
    known = words_of(text[0].decode())
    kept = [pair for pair in pairs if words_of(" ".join(pair)) <= known]
    assert 3 <= len(kept) < len(pairs)
    foreign = Paradigm(
        "anaphor_number_agreement", "anaphora", (("The emu sees itself.", "The emu sees us."),)
    )
    rows = write_paradigms(tmp_path / "all", [ISLAND, foreign])
    fewer = write_paradigms(tmp_path / "fewer", [Paradigm(ISLAND.name, ISLAND.phenomenon, tuple(kept))])
    tasks = ["blimp_adjunct_island", "blimp_anaphor_number_agreement"]
    score, none = public_suite(folders / "model", tasks, local=rows, training_text=text)
    (expected,) = public_suite(folders / "model", tasks[:1], local=fewer)
    assert (score.items, score.left_out) == (len(kept), len(pairs) - len(kept))
    assert score.figures.keys() == expected.figures.keys()
    assert score.figures["acc"] == pytest.approx(expected.figures["acc"])
    assert score.choices == expected.choices
    assert (none.items, none.left_out, none.figures, none.choices) == (0, 1, {}, None)
    (few, _) = public_suite(folders / "model", tasks, local=rows, training_text=text, limit=2)
    assert (few.items, few.left_out) == (2, len(pairs) - len(kept))
    with pytest.raises(InputError, match="has a word that the training text lacks"):
        public_suite(folders / "model", tasks[1:], local=rows, training_text=text)


def test_words_of_every_kind_of_item_are_looked_at(folders: Path, rows: Path) -> None:
    """Return everything that is shown, and all answers."""
    tasks = ["lambada_openai", "hellaswag", "ai2_arc"]
    everything = [
        (rows / f"{name}.jsonl").read_bytes() for name in ("lambada_openai", "hellaswag", "ARC-Easy")
    ]
    whole = public_suite(folders / "model", tasks, local=rows)
    same = public_suite(
        folders / "model", tasks, local=rows, training_text=[*everything, b"Reading Question Answer"]
    )
    assert [one.left_out for one in same] == [0] * len(whole)
    assert [one.items for one in same] == [one.items for one in whole]
    without = [text.replace(b"never", b"ever") for text in everything]  # an answer to every question
    scores = public_suite(
        folders / "model", tasks, local=rows, training_text=[*without, b"Reading Question Answer"]
    )
    assert [score.items for score in scores if "arc" in score.task] == [0, 0]
    assert "ai2_arc" not in {score.task for score in scores}


def test_a_group_has_the_mean_of_its_tasks(folders: Path, rows: Path) -> None:
    *tasks, group = public_suite(folders / "model", ["ai2_arc"], local=rows)
    assert {one.task for one in tasks} == {"arc_easy", "arc_challenge"}
    assert (group.task, group.tasks, group.items) == ("ai2_arc", 2, 14 + 9)
    assert group.choices is not None
    figures = [score.choices.per_token for score in tasks if score.choices is not None]
    assert group.choices.per_token.value == pytest.approx(np.mean([one.value for one in figures]))
    assert group.choices.per_token.interval.holds(group.choices.per_token.value)
    assert group.figures["acc"][0] == pytest.approx(np.mean([one.figures["acc"][0] for one in tasks]))
    mixed = public_suite(folders / "model", ["arc_easy", "lambada_openai"], local=rows)
    assert [one.tasks for one in mixed] == [1, 1]


def test_the_command_says_its_table_and_nothing_else(folders: Path, rows: Path, tmp_path: Path) -> None:
    command = [*(sys.executable, "-m", "etude", "eval", str(folders / "model"), "--tasks", "ai2_arc")]
    done = subprocess.run(
        [*command, "--local", str(rows)], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "ai2_arc: mean of 2 tasks" in done.stdout
    assert len(re.findall(r"\d\.\d{3} \(\d\.\d{3}-\d\.\d{3}\)", done.stdout)) == 2 * 3


def test_without_a_network_the_error_comes_at_once(folders: Path, tmp_path: Path) -> None:
    """The Hub's name is resolved once, and then no longer requested."""
    environment = {**os.environ, "HF_ENDPOINT": "https://nowhere.invalid"}
    proxies = {name for name in environment if name.lower().endswith("_proxy")}
    environment = {
        name: value for name, value in environment.items() if name not in proxies | {"HF_HUB_OFFLINE"}
    }
    command = [sys.executable, "-m", "etude", "eval", str(folders / "model"), "--tasks", "piqa"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, env=environment)
    assert done.returncode == 2
    assert "Retry" not in done.stderr
    assert done.stderr.count("\n") == 1
    assert "OfflineModeIsEnabled" in done.stderr
    assert "--local FOLDER" in done.stderr
