"""The samples under a plot: what the model wrote early, midway and last, in lines that fit the figure."""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from etude.run.events import SampleEvent
from etude.run.history import RunHistory
from etude.show.picture_text import printable, wrapped

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TEXT_SIZE, LINE_HEIGHT = 8.5, 0.165  # points, inches
HEADER_HEIGHT, MARGIN = 0.24, 0.14  # inches
MAX_LINES = 5
MAX_TEXT = 2000  # characters of a sample that are laid out

# matplotlib includes the first; the others are common fonts for scripts that it lacks, used if installed.
FAMILIES = (
    "DejaVu Sans Mono",
    "Noto Sans Mono CJK SC",
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "WenQuanYi Micro Hei",
    "Hiragino Sans",
    "PingFang SC",
    "Microsoft YaHei",
    "Malgun Gothic",
)


@dataclass(frozen=True)
class Fonts:
    """The installed monospace font and its fallbacks."""

    families: list[str]
    fonts: list[Any]

    @classmethod
    def find(cls) -> Fonts:
        from matplotlib import font_manager

        installed = {font.name: font.fname for font in font_manager.fontManager.ttflist}
        paths = {
            name: installed[name] for name in FAMILIES if name in installed and Path(installed[name]).exists()
        }
        return cls(list(paths), [font_manager.get_font(path) for path in paths.values()])

    def has_glyph(self, character: str) -> bool:
        return any(font.get_char_index(ord(character)) for font in self.fonts)

    def show(self, text: str, columns: int) -> str:
        """Return `text` on one line of at most `columns` cells."""
        return "".join(wrapped(printable(text.replace("\n", " "), self.has_glyph), columns, 1))


@dataclass(frozen=True)
class SamplePanel:
    """A heading and the lines of each chosen sample."""

    samples: list[tuple[str, list[str]]]
    families: list[str]

    @classmethod
    def of(cls, run: RunHistory, fonts: Fonts, width: float) -> SamplePanel | None:
        """Make the panel of a run for `width` inches; None when it has no samples."""
        columns = int(width / (0.602 * TEXT_SIZE / 72))  # a cell of DejaVu Sans Mono is 0.602 of its size
        chosen = choose_samples(run.samples)
        texts = [(_heading(run, sample), _lines(sample, fonts, columns)) for sample in chosen]
        return cls(texts, fonts.families) if texts else None

    @property
    def height(self) -> float:
        """Height in inches."""
        return sum(HEADER_HEIGHT + MARGIN + LINE_HEIGHT * len(lines) for _, lines in self.samples) + MARGIN

    def draw(self, figure: Figure, left: float, ink: str, faint: str) -> None:
        """Draw at the bottom of `figure`, `left` inches from its edge."""
        width, height = figure.get_size_inches()
        y = self.height
        for heading, lines in self.samples:
            y -= HEADER_HEIGHT
            figure.text(left / width, y / height, heading, size=9, weight="bold", color=faint)
            for line in lines:
                y -= LINE_HEIGHT
                figure.text(left / width, y / height, line, size=TEXT_SIZE, family=self.families, color=ink)
            y -= MARGIN


def choose_samples(samples: list[SampleEvent]) -> list[SampleEvent]:
    """Choose the first sample, the last, and the one nearest to midway between them; of one prompt if possible.

    Midway is measured in powers of ten, since most visible progress comes early.
    """
    if not samples:
        return []
    same = [sample for sample in samples if sample.prompt == samples[-1].prompt]
    samples = same if len(same) > 1 else samples
    first, *between, last = samples if len(samples) > 1 else (samples[0], samples[0])
    if first is last:
        return [last]
    middle = (math.log1p(first.step) + math.log1p(last.step)) / 2
    nearest = sorted(between, key=lambda sample: abs(math.log1p(sample.step) - middle))[:1]
    return [first, *nearest, last]


def _heading(run: RunHistory, sample: SampleEvent) -> str:
    text = f"step {sample.step:,}"
    evaluations = [event for event in run.evals if math.isfinite(event.bits_per_byte)]
    at = bisect_right([event.step for event in evaluations], sample.step)
    if at and evaluations[at - 1].step == sample.step:
        text += f" · {evaluations[at - 1].bits_per_byte:.2f} bits per byte"
    passed = [order for order, step in run.passed_at.items() if step <= sample.step]
    return f"{text} · past the {max(passed)}-gram" if passed else text


def _lines(sample: SampleEvent, fonts: Fonts, columns: int) -> list[str]:
    text = sample.text if sample.text.startswith(sample.prompt) else sample.prompt + sample.text
    return wrapped(printable(text[:MAX_TEXT], fonts.has_glyph), columns, MAX_LINES) or ["(nothing)"]
