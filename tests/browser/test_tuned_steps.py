"""A run with an adapter on pairs: what is trained of a row, the two factors, and both answers over the steps."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from browsing import assert_accessible, settled
from chat_models import make_chat_model
from etude.config import load_settings
from etude.workflow import jobs

pytestmark = pytest.mark.slow
MATRIX = "model.layers.0.mlp.up_proj.weight"


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory, serve: Callable[[Path, Path], str]) -> str:
    """Serve a run of eight steps on pairs."""
    home = tmp_path_factory.mktemp("tuned")
    base = make_chat_model(home / "models" / "base", context=128)
    rows = [
        {
            "prompt": f"Fact {n}?",
            "chosen": f"It is {n * n}.",
            "rejected": "No." if n % 2 else "I do not know.",
        }
        for n in range(24)
    ]
    (home / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    values = {
        "data.sources": (str(home / "pairs.jsonl"),),
        "data.validation_fraction": 0.4,
        "data.workers": 1,
        "model.base": str(base),
        "train.lora_rank": 4,
        "train.steps": 8,
        "train.context": 128,
        "train.batch_rows": 2,
        "train.eval_every": 2,
        "train.lr": 0.01,
        "device.kind": "cpu",
        "device.threads": 1,
        "run.folder": str(home / "runs"),
        "run.name": "tuned",
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ETUDE_CACHE", str(home / "cache"))
        jobs.grow(load_settings(values=values), Console(file=io.StringIO()))
    return serve(home / "runs", home / "cache")


def go(page: Any, address: str, place: str) -> None:
    page.goto("about:blank")
    page.goto(f"{address}#/{place}")
    page.locator("main h2").first.wait_for()
    settled(page)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_token_of_a_row_is_named_trained_context_or_padding(page: Any, tuned: str, theme: str) -> None:
    page.emulate_media(color_scheme=theme, reduced_motion="reduce")
    go(page, tuned, "step?run=tuned&s=5")
    strip = page.get_by_role("group", name="The row's tokens: choose one")
    names = strip.get_by_role("button").evaluate_all(
        "all => all.map((one) => one.getAttribute('aria-label'))"
    )
    kinds = [re.findall(", (trained|context|padding)(?:, loss .*)?$", name) for name in names]
    assert {kind for (kind,) in kinds} == {"trained", "context", "padding"}
    assert "pair 1, chosen" in strip.inner_text()
    assert "pair 1, rejected" in strip.inner_text()
    assert "nats per pair" in page.locator("main").inner_text()
    lines = strip.locator(".trained").evaluate_all(
        "all => all.map((one) => getComputedStyle(one).textDecorationLine)"
    )
    assert set(lines) == {"underline"}, "not by colour alone"
    assert_accessible(page)
    page.get_by_role("button", name="loss", exact=True).click()
    assert strip.locator(".trained").count() == 0


def test_the_factors_of_a_frozen_weight_and_of_its_matrix(page: Any, tuned: str) -> None:
    go(page, tuned, "step?run=tuned&s=5&z=4")
    text = page.locator("#scene").inner_text()
    assert "frozen, with an adapter" in text
    assert "not applied" in text
    assert "matches the run" in text
    assert "differs" not in text
    go(page, tuned, f"layers?run=tuned&s=5&t={MATRIX}&of=product")
    for words in (
        "The adapter at step 5",
        "What the adapter adds",
        "Factor B",
        "Factor A",
        "of the length of the frozen",
    ):
        page.get_by_text(words).first.wait_for()
    page.get_by_role("tab", name="Gradient, not applied").click()
    page.get_by_text("which was not applied").first.wait_for()
    settled(page)
    assert_accessible(page)


def test_both_answers_are_drawn_apart_and_the_report_has_the_pairs(page: Any, tuned: str) -> None:
    go(page, tuned, "growth?run=tuned")
    section = page.get_by_role("region", name="Chosen and rejected answers")
    drawn = section.get_by_role("img").first.get_attribute("aria-label")
    assert "chosen answers" in drawn
    assert "rejected answers" in drawn
    report = page.get_by_role("region", name="What tuning gained and cost")
    for name in ("Held-out pairs", "Reference texts"):
        report.get_by_role("region", name=name).wait_for()
        assert report.get_by_role("region", name=name).count() == 1
    assert_accessible(page)
