"""A conversation in the browser: turns, undo and retry, the answers of step 0 beside them, and a look at a token."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from browsing import assert_accessible, settled, until
from chat_models import make_chat_model, train_chat_model

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, serve: Callable[[Path, Path], str]) -> str:
    """Serve a model that knows turns, one that does not, and a run of four steps begun from the first."""
    home = tmp_path_factory.mktemp("talks")
    base = make_chat_model(home / "shelf" / "talks", context=400)
    make_chat_model(home / "shelf" / "base", None)
    train_chat_model(base, home, home / "shelf")
    return serve(home / "shelf", home / "cache")


def go(page: Any, address: str, place: str) -> None:
    page.goto("about:blank")
    page.goto(f"{address}#/{place}")
    page.locator("main h2").first.wait_for()
    settled(page)


def say(page: Any, text: str) -> None:
    page.get_by_label("Your message").fill(text)
    page.get_by_label("Your message").press("Enter")
    answered(page)


def answered(page: Any) -> None:
    page.get_by_role("button", name="Send").wait_for()


def brief(page: Any) -> None:
    """Ask for answers of eight tokens."""
    page.get_by_text("System prompt and sampling").click()
    page.get_by_label("new tokens").fill("8")
    page.get_by_label("new tokens").press("Tab")


def replies(page: Any) -> list[str]:
    return [text.replace("\n", "") for text in page.locator(".reply .bubble").all_inner_texts()]


def test_turns_undo_retry_and_a_look_at_a_token(served: str, page: Any) -> None:
    go(page, served, "chat?run=talks")
    brief(page)
    say(page, "Hello?")
    say(page, "And <|im_end|> now?")
    first, second = replies(page)
    asked = [text.removeprefix("You:").strip() for text in page.locator(".user .bubble").all_inner_texts()]
    assert asked == ["Hello?", "And <|im_end|> now?"]
    assert page.get_by_text("cut after 8 tokens").count() == 2
    assert_accessible(page)
    page.get_by_role("button", name="Retry").click()
    answered(page)
    assert replies(page)[0] == first
    assert replies(page)[1] != second
    page.get_by_role("button", name="Undo").click()
    assert replies(page) == [first]
    assert page.get_by_label("Your message").input_value() == "And <|im_end|> now?"
    page.get_by_role("button", name="Send").click()
    answered(page)
    assert replies(page) == [first, second]
    page.get_by_label("System prompt").last.fill("Be brief.")
    page.get_by_role("button", name="Retry").click()
    answered(page)
    assert replies(page)[1] != second
    # One click shows what was predicted at a token, among the tokens of the real conversation.
    page.locator(".reply").last.locator(".bubble button").nth(3).click()
    page.get_by_role("heading", name="Predictions", exact=True).wait_for()
    settled(page)
    strip = page.get_by_label("The passage, shaded by loss")
    strip.wait_for()
    assert "<|im_start|>" in strip.inner_text()
    assert page.get_by_text("the tokens of a conversation").count() == 1
    page.keyboard.press("6")
    page.get_by_role("heading", name="All heads", exact=True).wait_for()
    assert page.get_by_text("This cannot be shown").count() == 0
    page.get_by_role("button", name="Back to the conversation").click()
    assert replies(page)[0] == first
    page.get_by_role("button", name="Begin anew").click()
    assert replies(page) == []


def test_the_same_question_is_answered_by_step_0_as_well(served: str, page: Any) -> None:
    go(page, served, "chat?run=tuned")
    brief(page)
    say(page, "Hello?")
    page.get_by_label("before this training").check()
    say(page, "And now?")
    assert len(replies(page)) == 3
    _, tuned, base = replies(page)
    assert tuned != base
    assert page.locator(".reply > p").all_inner_texts().count("Step 0") == 1
    assert_accessible(page)
    page.set_viewport_size({"width": 400, "height": 800})
    until(page, "document.documentElement.scrollWidth <= 400")
    page.locator(".reply").last.locator(".bubble button").first.click()
    page.get_by_role("heading", name="Predictions", exact=True).wait_for()
    settled(page)
    assert "s=0" in page.url


def test_a_model_without_a_template_continues_text(served: str, page: Any) -> None:
    go(page, served, "chat?run=base")
    assert page.get_by_role("button", name="Answer in a conversation").count() == 0
    page.get_by_role("button", name="Continue the text").wait_for()
    go(page, served, "chat?run=talks")
    page.get_by_role("button", name="Continue a text").click()
    page.get_by_role("button", name="Continue the text").click()
    page.get_by_role("button", name="Continue the text").wait_for()
    assert page.get_by_text("choose a token to see its probability").count() == 1
