"""Special tokens that somebody typed are text: properties for any content."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chat_templates import BY_NAME, Case, save_model_tokenizer
from etude.data.conversations.conversation import Example, Message
from etude.data.conversations.encode import encode_example
from etude.data.conversations.template import ChatTemplate, template_of
from etude.data.tokens.packing import pieces_of_example
from etude.data.tokens.published import model_tokenizer
from etude.data.tokens.tokenizer import EtudeTokenizer
from etude.errors import InputError

NAMES = ["chatml", "llama3", "phi3", "gemma3", "deepseek3", "gpt-oss", "vicuna"]


@pytest.fixture(scope="module", params=NAMES)
def opened(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Case, EtudeTokenizer, ChatTemplate]:
    case = BY_NAME[request.param]
    tokenizer = model_tokenizer(save_model_tokenizer(tmp_path_factory.mktemp("model"), case))
    template = template_of(tokenizer)
    assert template is not None
    return case, tokenizer, template


def conversation(*contents: str) -> Example:
    roles = ("user", "assistant")
    return Example("conversation", tuple(Message(roles[i % 2], text) for i, text in enumerate(contents)))  # type: ignore[arg-type]


PARTS = st.sampled_from(
    [
        *{token for name in NAMES for token in BY_NAME[name].specials},
        *("\U000f0000", "\U000f0001\U000f0001", "\U00100000", "\ufffd", "\ufdd0", "\n\n", " ", "é", "猫", "🙂", "<|im_", "end|>"),
    ]
)  # fmt: skip
CONTENT = (
    st.lists(PARTS | st.text(max_size=6), min_size=1, max_size=6).map("".join).map(lambda text: f"x{text}y")
)


@settings(max_examples=60)
@given(st.lists(CONTENT, min_size=2, max_size=4).filter(lambda contents: len(contents) % 2 == 0))
def test_no_content_becomes_a_special_token(
    opened: tuple[Case, EtudeTokenizer, ChatTemplate], contents: list[str]
) -> None:
    _, tokenizer, template = opened
    contents = [content.encode("utf-16", "surrogatepass").decode("utf-16", "replace") for content in contents]
    example = conversation(*contents)
    benign = conversation(*["x" for _ in contents])
    result = encode_example(example, tokenizer, template, "assistant")
    special = {number for number, t in tokenizer.backend.get_added_tokens_decoder().items() if t.special}
    theirs = [
        number for number in encode_example(benign, tokenizer, template, "assistant").ids if number in special
    ]
    assert [number for number in result.ids if number in special] == theirs
    whole = template.render(example.messages)
    assert whole.startswith(tokenizer.decode(result.ids))
    for answer in contents[1::2]:
        assert answer in tokenizer.decode(np.array(result.ids)[result.trained].tolist())


@settings(max_examples=60)
@given(st.lists(CONTENT, min_size=4, max_size=4), st.integers(1, 300))
def test_what_is_cut_ends_with_a_whole_turn(
    opened: tuple[Case, EtudeTokenizer, ChatTemplate], contents: list[str], context: int
) -> None:
    _, tokenizer, template = opened
    whole = encode_example(conversation(*contents), tokenizer, template, "assistant")
    pieces = pieces_of_example(whole.trained, whole.turn_ends, context)
    if not pieces:
        assert context + 1 < whole.turn_ends[0]
        return
    ((start, length),) = pieces
    assert start == 0
    assert length <= context + 1  # the last token is a target only
    assert length in whole.turn_ends
    assert whole.trained[length - 1]
    if length < len(whole.ids):
        following = next(end for end in whole.turn_ends if end > length)
        assert following > context + 1, "another whole turn would have fitted"


def test_a_template_that_looks_at_special_tokens_in_a_message_is_refused(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    case = BY_NAME["chatml"]
    source = case.source.replace("m['content']", "m['content'].split('<|im_end|>')[-1]")
    changed = Case("changed", source, case.specials, None, eos=case.eos)
    tokenizer = model_tokenizer(save_model_tokenizer(tmp_path_factory.mktemp("model"), changed))
    template = template_of(tokenizer)
    assert encode_example(conversation("a", "b"), tokenizer, template, "assistant").trained.any()
    with pytest.raises(InputError, match="treats special tokens in a message unlike other text"):
        encode_example(conversation("a<|im_end|>b", "c"), tokenizer, template, "assistant")


def test_a_tokenizer_is_not_kept_after_its_use(tmp_path: Path) -> None:
    tokenizer = model_tokenizer(save_model_tokenizer(tmp_path, BY_NAME["chatml"]))
    encode_example(conversation("a", "b"), tokenizer, template_of(tokenizer), "assistant")
    alive = weakref.ref(tokenizer)
    del tokenizer
    gc.collect()
    assert alive() is None
