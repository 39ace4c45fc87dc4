"""Every view of a real run, in both themes and at all widths: it shows its content without errors."""

from __future__ import annotations

import json
from typing import Any

import pytest

from browsing import assert_accessible, settled, until

VIEWS = {  # with a text that it shows once it has its answers
    "live": "Validation loss",
    "step": "matches the run",
    "predictions": "When it learned that",
    "layers": "gradient",
    "neurons": "neuron",
    "attention": "head",
    "growth": "What it wrote",
    "chat": "temperature",
}
WIDTHS = {"telephone": (390, 844), "laptop": (1280, 900), "wall": (3840, 2160)}


def show(page: Any, address: str, view: str, **selected: object) -> None:
    """Go to a view, and wait until it is loaded."""
    query = "&".join(f"{key}={value}" for key, value in {"run": "llama", **selected}.items())
    page.goto(f"{address}#/{view}?{query}")
    page.locator("main").get_by_text(VIEWS[view], exact=False).first.wait_for()
    settled(page)


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("view", VIEWS)
def test_a_view_is_there_and_accessible(page: Any, address: str, view: str, theme: str) -> None:
    page.emulate_media(color_scheme=theme, reduced_motion="reduce")
    show(page, address, view)
    assert page.evaluate("document.documentElement.dataset.theme") == theme
    page.wait_for_timeout(500)
    assert_accessible(page)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("view", VIEWS)
def test_nothing_is_wider_than_the_page(page: Any, address: str, view: str, width: str) -> None:
    across, down = WIDTHS[width]
    page.set_viewport_size({"width": across, "height": down})
    show(page, address, view)
    assert page.evaluate("document.documentElement.scrollWidth") <= across


def test_keys_reach_every_view(page: Any, address: str) -> None:
    show(page, address, "live")
    for number, view in enumerate(VIEWS, start=1):
        page.keyboard.press(str(number))
        until(page, f"location.hash.startsWith('#/{view}')")
    page.keyboard.press("2")
    page.keyboard.press("ArrowRight")
    until(page, "location.hash.includes('p=1')")
    page.keyboard.press("]")
    until(page, "location.hash.includes('l=1')")
    page.keyboard.press("ArrowDown")
    until(page, "location.hash.includes('s=32')")


def test_every_control_can_be_reached_by_tab(page: Any, address: str) -> None:
    show(page, address, "live")
    reached: set[str] = set()
    for _ in range(60):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.textContent.trim().slice(0, 20)"))
    assert {"Skip to the view", "Tour", "Explain"} <= reached


def test_the_time_bar_reaches_any_step_with_its_proof(page: Any, address: str) -> None:
    show(page, address, "step", s=19)
    proof = page.locator("[data-proof]").first
    proof.wait_for()
    assert proof.get_attribute("data-proof") == "holds"
    assert "bit for bit" in proof.inner_text()
    page.get_by_label("One step forward").click()
    until(page, "location.hash.includes('s=20')")
    page.get_by_role("spinbutton", name="step").fill("7")
    page.keyboard.press("Enter")
    until(page, "location.hash.includes('s=7')")


def test_the_address_brings_back_what_was_looked_at(page: Any, address: str) -> None:
    show(page, address, "neurons", s=16, l=1, n=5)
    page.keyboard.press("j")
    until(page, "location.hash.includes('n=6')")
    link = page.url
    other = page.context.new_page()  # it has the cookie
    other.goto(link)
    other.locator("main").get_by_text("neuron", exact=False).first.wait_for()
    assert other.evaluate("location.hash") == page.evaluate("location.hash")
    other.close()


def test_a_link_shows_the_same_two_steps_in_chat(page: Any, address: str) -> None:
    page.goto(f"{address}#/chat?run=llama&s=24&b=8&text=Who is it? She?")
    page.get_by_label("The step beside").wait_for()
    assert page.get_by_label("The step beside").input_value() == "8"
    assert page.get_by_label("Text to continue").input_value() == "Who is it? She?"
    page.get_by_label("compare with", exact=True).uncheck()
    until(page, "!location.hash.includes('b=8')")


def test_a_link_carries_scene_picture_and_number(page: Any, address: str) -> None:
    show(page, address, "step", s=14, z=2)
    assert page.get_by_role("tab", name="Loss").get_attribute("aria-selected") == "true"
    page.keyboard.press("Space")
    until(page, "location.hash.includes('z=3')")
    name = "model.layers.0.mlp.up_proj.weight"
    show(page, address, "layers", s=14, t=name, of="gradient", at="3,17")
    assert page.get_by_role("tab", name="Gradient").get_attribute("aria-selected") == "true"
    page.locator("main").get_by_text("[3, 17]").first.wait_for()


def test_a_link_to_what_chat_wrote_writes_it_again(page: Any, address: str) -> None:
    page.goto(f"{address}#/chat?run=llama&s=24&b=8&text=Once")
    page.get_by_label("new tokens").fill("6")
    page.get_by_role("button", name="Continue the text").click()
    until(page, "location.hash.includes('draw=')")
    settled(page)
    page.get_by_role("button", name="Continue the text").wait_for()
    other = page.context.new_page()  # it has the cookie
    other.goto(page.url)
    other.get_by_role("button", name="Stop").or_(
        other.get_by_role("button", name="Continue")
    ).first.wait_for()
    until(other, "document.querySelector('.columns').innerText.length > 20")
    other.get_by_role("button", name="Continue the text").wait_for()
    until(
        other,
        f"document.querySelector('.columns').innerText === {json.dumps(page.locator('.columns').inner_text())}",
    )
    other.close()


def test_a_missing_step_is_reported(page: Any, address: str) -> None:
    for view in ("predictions", "neurons", "attention", "chat"):
        page.goto("about:blank")
        page.goto(f"{address}#/{view}?run=llama&s=99999")
        page.get_by_role("alert").get_by_text("no step 99,999").wait_for()
    page.get_by_role("button", name="Go to the newest").click()
    until(page, "!location.hash.includes('s=')")


def test_explanations_at_four_depths(page: Any, address: str) -> None:
    for view in VIEWS:
        show(page, address, view)
        panel = page.get_by_role("complementary", name="Explain")
        for depth in ("Picture", "Words", "Maths", "Code"):
            panel.get_by_role("tab", name=depth).click()
            assert panel.locator("section").count() >= 1
            if depth == "Maths":
                assert panel.locator("math").count() >= 1
            if depth == "Code":
                panel.locator("pre").first.wait_for()
                assert "def " in panel.locator("pre").first.inner_text() or "class " in panel.inner_text()


def test_the_tour_goes_from_beginning_to_end(page: Any, address: str) -> None:
    show(page, address, "live")
    page.get_by_role("button", name="Tour").click()
    seen = set()
    for _ in range(60):
        seen.add(page.evaluate("location.hash.split('?')[0]"))
        page.wait_for_timeout(50)
        forward = page.get_by_role("button", name="Next", exact=True)
        if forward.count() == 0 or not forward.is_enabled():
            break
        forward.click()
    assert len(seen) >= 6
    page.keyboard.press("Escape")
