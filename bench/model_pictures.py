"""Take pictures of the studio's views of a model without a run, for docs/images/model-*.png.

    python bench/model_pictures.py smol

It shows each view that works without a history, and one that does not, in light (and with --dark, in dark too). Needs
Chromium and playwright, and the page built into the package.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from shutil import which
from urllib.parse import quote

from studio_pictures import LAPTOP, go, picture, write
from studio_served import served

IMAGES = Path(__file__).parent.parent / "docs" / "images"
TEXT = (
    "When Mary and John went to the shop, John gave the bag to Mary. When Mary and Tom went to the park, Tom gave the "
    "ball to"
)
QUESTION = "What is the capital of France, and what is it known for?"
VIEWS: dict[str, dict[str, object]] = {
    "live": {},
    "predictions": {"text": quote(TEXT), "p": 30},
    "layers": {"text": quote(TEXT), "p": 9},
    "neurons": {"text": quote(TEXT), "p": 9, "l": 20, "n": 5},
    "attention": {"text": quote(TEXT), "p": 30, "l": 18, "h": 6},
    "chat": {},
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("--out", type=Path, default=IMAGES)
    parser.add_argument("--dark", action="store_true", help="take the dark pictures too")
    parser.add_argument("--views", nargs="+", default=list(VIEWS))
    arguments = parser.parse_args()
    from playwright.sync_api import sync_playwright

    arguments.out.mkdir(parents=True, exist_ok=True)
    with served(arguments.model.absolute().parent) as address, sync_playwright() as begun:
        browser = begun.chromium.launch(
            executable_path=which("chromium"), args=["--no-sandbox", "--hide-scrollbars"]
        )
        for theme in ("light", "dark") if arguments.dark else ("light",):
            page = browser.new_page(viewport=LAPTOP, color_scheme=theme, reduced_motion="reduce")
            page.set_default_timeout(600_000)
            for view in arguments.views:
                started = time.monotonic()
                go(page, address, view, run=arguments.model.name, **VIEWS[view])
                if view == "chat":
                    page.get_by_label("Your message").fill(QUESTION)
                    page.get_by_label("Your message").press("Enter")
                    page.get_by_role("button", name="Retry", disabled=False).wait_for()
                print(f"{view}: {time.monotonic() - started:.1f} s", flush=True)
                suffix = "-dark" if theme == "dark" else ""
                write(picture(page), arguments.out / f"model-{view}{suffix}.png")
        browser.close()


if __name__ == "__main__":
    main()
