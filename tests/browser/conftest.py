"""A real run, its studio, and a browser in which a request to the outside, or a console message, is an error."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from waiting import PATIENCE
from watched import Watched, train_run

CHROMIUM = os.environ.get("ETUDE_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--hide-scrollbars",
]
PAGE = Path(__file__).parents[2] / "src" / "etude" / "serve" / "page" / "index.html"


@pytest.fixture(scope="session")
def studied(tmp_path_factory: pytest.TempPathFactory) -> Watched:
    """A llama with biases, trained by Muon and AdamW."""
    return train_run(tmp_path_factory.mktemp("browsed"), "llama", {"train.checkpoint_every": 8})


@pytest.fixture(scope="session")
def serve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Path, Path], str]]:
    """Return a function that serves a folder of runs and returns its address."""
    processes: list[subprocess.Popen[str]] = []

    def served(runs: Path, cache: Path) -> str:
        process = subprocess.Popen(
            [sys.executable, "-m", "etude.serve", str(runs)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "ETUDE_CACHE": str(cache)},
        )
        processes.append(process)
        assert process.stdout is not None
        address: str = json.loads(process.stdout.readline())["address"]
        return address

    yield served
    for process in processes:
        assert process.stdin is not None
        process.stdin.close()
        process.wait(20)


@pytest.fixture(scope="session")
def address(studied: Watched, serve: Callable[[Path, Path], str]) -> str:
    return serve(studied.path.parent, studied.cache)


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api")
    for missing, reason in (
        (CHROMIUM is None, "no Chromium on this machine: apt install chromium"),
        (not PAGE.is_file(), "this installation has no page (ETUDE_STUDIO=skip)"),
    ):
        if missing and os.environ.get("ETUDE_BROWSER") == "required":
            pytest.fail(reason)
        elif missing:
            pytest.skip(reason)
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, headless=True, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    """Return a page that fails the test if it logs a warning, throws, or sends a request to another machine."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, reduced_motion="reduce")
    page = context.new_page()
    page.set_default_timeout(1000 * PATIENCE)
    trouble: list[str] = []
    page.on("pageerror", lambda error: trouble.append(f"thrown: {error}"))
    page.on(
        "console",
        lambda message: message.type in ("error", "warning") and trouble.append(f"console: {message.text}"),
    )

    def route(route: Any) -> None:
        if route.request.url.startswith(("http://127.0.0.1:", "data:", "blob:")):
            route.continue_()
        else:
            trouble.append(f"outside: {route.request.url}")
            route.abort()

    context.route("**/*", route)
    page.trouble = trouble
    yield page
    context.close()
    assert trouble == []
