"""What is trained of a conversation, for the templates of public models and every format."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from chat_templates import BY_NAME, CASES, FIRST, QUESTIONS, SECOND, SYSTEM, Case, save_model_tokenizer
from etude.data.conversations.encode import Encoded, encode_example
from etude.data.conversations.formats import example_of
from etude.data.conversations.template import template_of
from etude.data.tokens.published import model_tokenizer
from etude.data.tokens.tokenizer import EtudeTokenizer
from etude.errors import InputError

TURNS = [
    {"role": "user", "content": QUESTIONS[0]},
    {"role": "assistant", "content": FIRST},
    {"role": "user", "content": QUESTIONS[1]},
    {"role": "assistant", "content": SECOND},
]
NAMES = {"user": "human", "assistant": "gpt", "system": "system"}
FORMATS: dict[str, dict[str, Any]] = {
    "messages": {"messages": TURNS},
    "sharegpt": {"conversations": [{"from": NAMES[t["role"]], "value": t["content"]} for t in TURNS]},
    "alpaca": {
        "instruction": QUESTIONS[1],
        "input": "",
        "output": SECOND,
        "history": [[QUESTIONS[0], FIRST]],
    },
    "completion": {"prompt": TURNS[:3], "completion": TURNS[3:]},
    "question": {"question": QUESTIONS[0], "answer": FIRST},
}


def opened(folder: Path, case: Case, kind: str = "bytes") -> EtudeTokenizer:
    return model_tokenizer(save_model_tokenizer(folder, case, kind))


def encoded(tokenizer: EtudeTokenizer, row: dict[str, Any], mask: Any = "assistant") -> Encoded:
    return encode_example(example_of(row), tokenizer, template_of(tokenizer), mask)


def trained_texts(tokenizer: EtudeTokenizer, result: Encoded) -> list[str]:
    """Return the text of each stretch of trained tokens."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], result.trained, [False]]).astype(int)))
    return [tokenizer.decode(result.ids[a:b]) for a, b in zip(edges[::2], edges[1::2], strict=True)]


def expected_of(case: Case, form: str) -> list[str] | None:
    if form == "question":
        return None if case.trained_alone is None else [case.trained_alone]
    if case.answers is None:
        return None
    return list(case.answers) if form != "completion" else [case.answers[1]]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_exactly_the_answers_are_trained_or_the_template_is_refused(case: Case, tmp_path: Path) -> None:
    tokenizer = opened(tmp_path, case)
    for form, row in FORMATS.items():
        expected = expected_of(case, form)
        if form == "completion" and case.name == "qwen3":  # its last answer is certain
            expected = [f"<think>\n\n</think>\n\n{SECOND}<|im_end|>"]
        if expected is None:
            with pytest.raises(InputError, match=case.refused):
                encoded(tokenizer, row)
            continue
        result = encoded(tokenizer, row)
        assert trained_texts(tokenizer, result) == expected, form
        assert result.trained[-1], "a conversation ends with the end of its last turn"
        assert result.turn_ends[-1] == len(result.ids)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_system_turn_is_context_or_refused(case: Case, tmp_path: Path) -> None:
    tokenizer = opened(tmp_path, case)
    row = {"messages": [{"role": "system", "content": SYSTEM}, *TURNS]}
    if case.system or case.answers is None:
        with pytest.raises(InputError, match=case.system or case.refused):
            encoded(tokenizer, row)
        return
    assert trained_texts(tokenizer, encoded(tokenizer, row)) == list(case.answers)


@pytest.mark.parametrize("kind", ["bytes", "pieces", "legacy"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_tokens_are_those_of_transformers(case: Case, kind: str, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = opened(tmp_path, case, kind)
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    for turns in (TURNS, TURNS[:2]):
        if case.answers is None and (len(turns) > 2 or case.single is None):
            continue
        source = case.source.replace('strftime_now("%Y-%m-%d")', '"2024-07-26"')
        source = source.replace('strftime_now("%d %B %Y")', '"26 July 2024"')
        reference = theirs.apply_chat_template(
            turns, chat_template=source, return_dict=True, date_string="26 Jul 2024"
        )["input_ids"]
        ids = encoded(tokenizer, {"messages": turns}).ids
        added = int(case.name == "glm4")  # the token of the next turn, which ends the answer
        assert ids[: len(ids) - added] == reference[: len(ids) - added]
        rest = theirs.decode(reference[len(ids) - added :])
        assert not rest.replace(case.eos or "\n", "").strip(), "what follows is no part of the last turn"
        assert ids.count(theirs.bos_token_id) == reference.count(theirs.bos_token_id)


def test_special_tokens_that_the_library_finds_only_with_a_blank_before_are_refused(tmp_path: Path) -> None:
    """With such a tokenizer, ``transformers`` gives a part of the template's tokens as text."""
    tokenizer = opened(tmp_path, BY_NAME["chatml"], "normalized")
    with pytest.raises(InputError, match="confuses special tokens with ordinary text"):
        encoded(tokenizer, FORMATS["messages"])


def test_a_character_without_a_token_is_text(tmp_path: Path) -> None:
    tokenizer = opened(tmp_path, BY_NAME["chatml"], "pieces")
    result = encoded(tokenizer, {"question": "猫?", "answer": "b"})
    assert tokenizer.backend.token_to_id("<unk>") in result.ids


def test_an_end_of_turn_that_is_not_special_in_its_file_is_one_token(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    case = BY_NAME["gemma3"]
    folder = save_model_tokenizer(tmp_path, case)
    stated = json.loads((folder / "tokenizer.json").read_text())
    for entry in stated["added_tokens"]:
        entry["special"] = entry["content"] != "<end_of_turn>"
    (folder / "tokenizer.json").write_text(json.dumps(stated))
    tokenizer = model_tokenizer(folder)
    result = encoded(tokenizer, {"messages": TURNS})
    assert result.ids.count(tokenizer.backend.token_to_id("<end_of_turn>")) == 4
    reference = AutoTokenizer.from_pretrained(folder).apply_chat_template(TURNS, return_dict=True)[
        "input_ids"
    ]
    assert result.ids == reference[: len(result.ids)]
    typed = encoded(tokenizer, {"question": "a <end_of_turn> b", "answer": "c"})
    assert typed.ids.count(tokenizer.backend.token_to_id("<end_of_turn>")) == 2


def test_blocks_of_generation_give_the_same_mask_as_transformers(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = opened(tmp_path, BY_NAME["marked"])
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    reference = theirs.apply_chat_template(TURNS, return_dict=True, return_assistant_tokens_mask=True)
    result = encoded(tokenizer, {"messages": TURNS})
    assert result.trained.tolist() == [bool(m) for m in reference["assistant_masks"][: len(result.ids)]]
    assert not any(reference["assistant_masks"][len(result.ids) :])


def test_blocks_of_smollm3_also_hold_the_generation_prompt(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = opened(tmp_path, BY_NAME["smollm3"])
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    reference = theirs.apply_chat_template(TURNS, return_dict=True, return_assistant_tokens_mask=True)
    mask = np.array(reference["assistant_masks"], bool)
    result = encoded(tokenizer, {"messages": TURNS})
    # The date differs; the last tokens are the same.
    ours, marked = result.trained[-12:], mask[len(mask) - 1 - 12 : len(mask) - 1]
    assert (marked | ~ours).all(), "every trained token is in a block"
    assert mask.sum() > result.trained.sum(), "theirs trains on the header, which the model never writes"


BLOCK = "{% generation %}{{ m['content'] + '<|im_end|>' }}{% endgeneration %}"


@pytest.mark.parametrize(
    "block",
    [
        "{% generation %}{{ m['content'] }}{% endgeneration %}{{ '<|im_end|>' }}",
        "{{ m['content'][:4] }}{% generation %}{{ m['content'][4:] + '<|im_end|>' }}{% endgeneration %}",
        "{% if false %}{% generation %}{% endgeneration %}{% endif %}{{ m['content'] + '<|im_end|>' }}",
        "{% generation %}{{ m['content'] + '<|im_end|>' }}\nuser{% endgeneration %}",
    ],
)
def test_blocks_that_contradict_the_answers_are_an_error(block: str, tmp_path: Path) -> None:
    case = BY_NAME["marked"]
    source = case.source.replace(BLOCK, block)
    assert source != case.source
    tokenizer = opened(tmp_path, Case("changed", source, case.specials, None, eos=case.eos))
    with pytest.raises(InputError, match=r"mark other text|no token that ends an answer"):
        encoded(tokenizer, {"messages": TURNS})


def test_the_last_answer_alone_and_everything(tmp_path: Path) -> None:
    tokenizer = opened(tmp_path, BY_NAME["chatml"])
    last = encoded(tokenizer, FORMATS["messages"], "last")
    assert trained_texts(tokenizer, last) == [f"{SECOND}<|im_end|>"]
    everything = encoded(tokenizer, FORMATS["messages"], "all")
    assert everything.trained.all()
    assert everything.ids == last.ids == encoded(tokenizer, FORMATS["messages"]).ids
    qwen = opened(tmp_path / "qwen3", BY_NAME["qwen3"])
    assert trained_texts(qwen, encoded(qwen, FORMATS["messages"], "last")) == [
        f"<think>\n\n</think>\n\n{SECOND}<|im_end|>"
    ]


def test_an_answer_of_weight_zero_is_context(tmp_path: Path) -> None:
    tokenizer = opened(tmp_path, BY_NAME["chatml"])
    turns = [dict(turn) for turn in TURNS]
    turns[1]["weight"] = 0  # type: ignore[assignment]
    assert trained_texts(tokenizer, encoded(tokenizer, {"messages": turns})) == [f"{SECOND}<|im_end|>"]


def test_plain_text_and_completions(tmp_path: Path) -> None:
    case = BY_NAME["llama3"]
    tokenizer = opened(tmp_path, case)
    text = encoded(tokenizer, {"text": "Once <|eot_id|> upon"})
    assert text.ids[0] == tokenizer.roles.document_id
    assert trained_texts(tokenizer, text) == ["Once <|eot_id|> upon"]
    assert tokenizer.roles.end_of_turn_id not in text.ids[1:]
    completion = encoded(tokenizer, {"prompt": "2 + 2 =", "completion": " 4"})
    assert trained_texts(tokenizer, completion) == [" 4<|eot_id|>"]
    assert tokenizer.decode(completion.ids[1:]) == "2 + 2 = 4<|eot_id|>"
    assert completion.turn_ends == (len(completion.ids),)


def test_a_template_without_the_answers_is_an_error(tmp_path: Path) -> None:
    for number, (source, message) in enumerate(
        {
            "{{ '<|im_start|>' }}": "no token that ends an answer|does not write",
            "{% for m in messages %}{{ m.content | upper }}<|im_end|>{% endfor %}": "does not write an answer",
            "{% for m in messages %}{{ m.content }}{% endfor %}": "no token that ends an answer",
            "{{ messages | length }}{% for m in messages %}{{ m.content }}{% endfor %}": "generation prompt differs",
            "{% for m in messages %}{{ undefined_thing.x }}{% endfor %}": "cannot write",
        }.items()
    ):
        tokenizer = opened(
            tmp_path / str(number), Case("bad", source, BY_NAME["chatml"].specials, None, eos="<|im_end|>")
        )
        with pytest.raises(InputError, match=message):
            encoded(tokenizer, FORMATS["messages"])


def test_a_base_without_a_template_says_so(tmp_path: Path) -> None:
    tokenizer = opened(tmp_path, BY_NAME["chatml"])
    with pytest.raises(InputError, match="has no chat template"):
        encode_example(example_of(FORMATS["messages"]), tokenizer, None, "assistant")


def test_the_template_is_found_in_each_of_its_files(tmp_path: Path) -> None:
    case = BY_NAME["chatml"]
    folder = save_model_tokenizer(tmp_path, case)
    jinja = folder / "chat_template.jinja"
    found = template_of(model_tokenizer(folder))
    assert found is not None
    assert (found.source, found.tokens["eos_token"]) == (case.source, "<|im_end|>")
    jinja.unlink()
    assert template_of(model_tokenizer(folder)) is None
    config = json.loads((folder / "tokenizer_config.json").read_text())
    named = [{"name": "tool_use", "template": "x"}, {"name": "default", "template": case.source}]
    for value in (case.source, named):
        (folder / "tokenizer_config.json").write_text(json.dumps({**config, "chat_template": value}))
        found = template_of(model_tokenizer(folder))
        assert found is not None
        assert found.source == case.source
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": case.source}))
    found = template_of(model_tokenizer(folder))
    assert found is not None
    assert found.source == case.source
