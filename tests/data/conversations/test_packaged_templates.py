"""The chat templates that the package ``trl`` carries: every answer and its end are trained, or the template is refused."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path

import pytest
from test_trained_text import TURNS, encoded, trained_texts

from chat_templates import FIRST, SECOND, Case, save_model_tokenizer
from etude.data.tokens.published import model_tokenizer
from etude.errors import InputError

PACKAGE = find_spec("trl")
PLACES = (
    [Path(place) / "chat_templates" for place in (PACKAGE.submodule_search_locations or [])]
    if PACKAGE
    else []
)
FILES = sorted(file for place in PLACES for file in place.glob("*.jinja"))
SPECIAL = re.compile(
    r"<[|｜][^\s|｜<>{}'\"]{1,40}[|｜]>|</?(?:s|bos|eos|start_of_turn|end_of_turn|end_of_utterance)>|\[/?INST\]"
    r"|<[A-Z_]+_TOKEN>|<\|turn>|<turn\|>"
)
REFUSED = re.compile(
    r"generation prompt differs|changes when the conversation continues|no token that ends an answer"
    r"|does not write an answer|cannot write a conversation"
)


@pytest.mark.skipif(not FILES, reason="trl is not installed")
@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_real_template_trains_each_answer_with_its_end(file: Path, tmp_path: Path) -> None:
    source = file.read_text()
    specials = tuple(sorted(set(SPECIAL.findall(source)) | {"<first>", "<last>"}))
    case = Case(file.stem, source, specials, None, "<first>", "<last>")
    tokenizer = model_tokenizer(save_model_tokenizer(tmp_path, case))
    for answers, turns in (((FIRST, SECOND), TURNS), ((FIRST,), TURNS[:2])):
        try:
            texts = trained_texts(tokenizer, encoded(tokenizer, {"messages": turns}))
        except InputError as error:
            reason = str(error)
            assert REFUSED.search(reason)
            assert "\n" not in reason
            continue
        assert len(texts) == len(answers)
        for text, answer in zip(texts, answers, strict=True):
            before, found, end = text.partition(answer)
            assert found, "the whole answer is trained"
            assert SPECIAL.sub("", end.replace("<last>", "")) == "", "what follows is its end of turn"
            assert end
            assert not re.search("How|tired", before), "nothing of the question"
