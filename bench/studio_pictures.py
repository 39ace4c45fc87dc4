"""Take pictures of the studio's views of a real run, for docs/studio/, and the film strip of the README.

    python bench/studio_pictures.py runs/stories

It shows each view in light, some in dark and on a telephone. The film strip shows the Predictions view at checkpoints
from the first to the last. Needs Chromium and playwright, and the page built into the package.
"""

from __future__ import annotations

import argparse
from io import BytesIO
from pathlib import Path
from shutil import which
from typing import Any

from PIL import Image

from studio_served import served

DOCS = Path(__file__).parent.parent / "docs" / "studio"
VIEWS = ("live", "step", "predictions", "layers", "neurons", "attention", "growth", "chat")
DARK = ("step", "neurons")
LAPTOP, TELEPHONE = {"width": 1280, "height": 860}, {"width": 390, "height": 844}
FRAMES = 12
SHOWN_MS = 900


def main() -> None:
    arguments = parse()
    from playwright.sync_api import sync_playwright

    arguments.out.mkdir(parents=True, exist_ok=True)
    with served(arguments.run.absolute().parent) as address, sync_playwright() as begun:
        browser = begun.chromium.launch(
            executable_path=which("chromium"), args=["--no-sandbox", "--hide-scrollbars"]
        )
        looked = {"run": arguments.run.name, "p": 9, "l": 1, "n": 5, "i": 2}
        for theme, size, views in (
            ("light", LAPTOP, VIEWS),
            ("dark", LAPTOP, DARK),
            ("light", TELEPHONE, ("step",)),
        ):
            page = browser.new_page(viewport=size, color_scheme=theme, reduced_motion="reduce")
            for view in views:
                go(page, address, view, **looked)
                suffix = "-telephone" if size is TELEPHONE else "-dark" if theme == "dark" else ""
                write(picture(page), arguments.out / f"{view}{suffix}.png")
        page = browser.new_page(viewport=LAPTOP, color_scheme="light", reduced_motion="reduce")
        film(page, address, checkpoints(arguments.run), looked, arguments.out / "film.webp")
        browser.close()


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("--out", type=Path, default=DOCS)
    return parser.parse_args()


def go(page: Any, address: str, view: str, **selected: object) -> None:
    """Show a view, and wait until all of its requests are answered."""
    page.goto("about:blank")
    page.goto(f"{address}#/{view}?" + "&".join(f"{key}={value}" for key, value in selected.items()))
    page.locator("main h2").first.wait_for(timeout=60_000)
    for _ in range(3):  # one answer may lead to another request
        page.wait_for_timeout(700)
        while page.evaluate("document.querySelector('main').getAttribute('aria-busy')") == "true":
            page.wait_for_timeout(200)
    if view == "chat" and page.get_by_label("Your message").count() == 0:  # it continues text
        page.locator("main textarea, main input[type=text]").first.fill("Once there was a fox who")
        page.get_by_role("button", name="Continue").click()
        page.wait_for_timeout(4000)


def picture(page: Any) -> Image.Image:
    return Image.open(BytesIO(page.screenshot()))


def write(image: Image.Image, file: Path) -> None:
    """Write a PNG with 256 colours, which are enough for a page and take a third of the space."""
    image.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(file, optimize=True)
    print(file)


def checkpoints(run: Path) -> list[int]:
    """Choose steps of checkpoints from the first to the last, evenly by index: early checkpoints are close together."""
    steps = sorted(int(folder.name.split("-")[1]) for folder in (run / "checkpoints").glob("step-*"))
    steps = [step for step in steps if step > 0]
    return [steps[round(i * (len(steps) - 1) / (FRAMES - 1))] for i in range(FRAMES)]


def film(page: Any, address: str, steps: list[int], looked: dict[str, Any], file: Path) -> None:
    frames = []
    for step in steps:
        go(page, address, "predictions", **{**looked, "s": step})
        frames.append(picture(page).convert("RGB"))
    frames[0].save(
        file, save_all=True, append_images=frames[1:], duration=SHOWN_MS, loop=0, quality=60, method=6
    )
    print(file)


if __name__ == "__main__":
    main()
