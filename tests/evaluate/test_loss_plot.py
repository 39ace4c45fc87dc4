"""Plots of run folders from a small real training: a feed-forward model on generated sentences."""

from __future__ import annotations

import json
import math
import random
import struct
import xml.etree.ElementTree as ElementTree
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from etude.errors import EtudeError, InputError
from etude.evaluate.ladder import build_ladder
from etude.evaluate.loss_plot.axes import bits_range
from etude.evaluate.loss_plot.plot import plot_runs
from etude.files import write_json
from etude.run import RunFolder
from etude.run.events import EndEvent, EvalEvent, Event, ReferenceEvent, RungEvent, SampleEvent, StepEvent
from etude.run.ladder import Ladder
from etude.run.record import RunRecord

CONTEXT, BATCH = 6, 64


def story_text(seed: int, sentences: int) -> bytes:
    rng = random.Random(seed)
    people, things = ["Ann", "Bo", "José", "Mia"], ["kite", "red ball", "old map", "cup of tea"]
    verbs = ["found", "lost", "wanted", "gave away"]
    return "".join(
        f"{rng.choice(people)} {rng.choice(verbs)} the {rng.choice(things)}. " for _ in range(sentences)
    ).encode()


class ContextModel(torch.nn.Module):
    """Bengio et al.'s model in miniature: the last bytes, embedded, through one hidden layer."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = torch.nn.Embedding(256, 8)
        self.hidden = torch.nn.Linear(8 * CONTEXT, 48)
        self.output = torch.nn.Linear(48, 256)

    def forward(self, contexts: torch.Tensor) -> torch.Tensor:
        return self.output(torch.tanh(self.hidden(self.embedding(contexts).flatten(1))))

    @torch.no_grad()
    def write(self, prompt: bytes, count: int, generator: torch.Generator) -> str:
        text = list(prompt.rjust(CONTEXT))
        for _ in range(count):
            logits = self(torch.tensor([text[-CONTEXT:]]))[0]
            text.append(int(torch.multinomial(logits.softmax(-1), 1, generator=generator)))
        return bytes(text[-count:]).decode("utf-8", errors="replace")


def windows(text: bytes) -> tuple[torch.Tensor, torch.Tensor]:
    symbols = torch.tensor(list(b" " * CONTEXT + text))
    return symbols.unfold(0, CONTEXT, 1)[:-1], symbols[CONTEXT:]


def training(
    text: bytes, held_out: bytes, ladder: Ladder, *, seed: int, steps: int, lr: float
) -> Iterator[Event]:
    """Return the events of a real training. One byte is one token, so nats per byte are nats per token."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    model = ContextModel()
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr)
    contexts, targets = windows(text)
    passed = 0
    for step in range(steps + 1):
        place = {"step": step, "tokens_seen": step * BATCH, "wall_time": step / 100}
        if step:
            rows = torch.randint(len(targets), (BATCH,), generator=generator)
            loss = torch.nn.functional.cross_entropy(model(contexts[rows]), targets[rows])
            optimizer.zero_grad()
            loss.backward()
            norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            yield StepEvent(**place, loss=loss.item(), grad_norm=norm.item(), lr=lr, tokens_per_second=6400.0)
        if step % 20 == 0:
            unseen, following = windows(held_out)
            with torch.no_grad():
                nats = torch.nn.functional.cross_entropy(model(unseen), following).item()
            bits = nats / math.log(2)
            yield EvalEvent(**place, val_loss=nats, bits_per_byte=bits, val_tokens=len(following))
            for rung in ladder.rungs[passed : ladder.passed(bits)]:
                yield RungEvent(**place, order=rung.order, bits_per_byte=rung.bits_per_byte)
            passed = max(passed, ladder.passed(bits))
            yield SampleEvent(**place, prompt="Ann ", text=model.write(b"Ann ", 300, generator))
    yield EndEvent(step=steps, tokens_seen=steps * BATCH, wall_time=steps / 100, reason="finished")


def write_run(folder: Path, *, seed: int = 0, steps: int = 240, lr: float = 1e-2) -> Path:
    text, held_out = story_text(1, 600), story_text(2, 40)
    ladder = build_ladder([text[:3000]], [held_out], orders=range(1, 6))
    folder.mkdir(parents=True)
    run = RunFolder(folder)
    run.settings_file.write_text("")
    write_json(run.ladder_file, ladder.to_json())
    for event in training(text, held_out, ladder, seed=seed, steps=steps, lr=lr):
        (run.samples if isinstance(event, SampleEvent) else run.metrics).append(event.record())
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("runs")
    return [write_run(folder / f"lr-{lr}", lr=lr) for lr in (1e-2, 3e-3, 1e-3)]


def png_pixels(path: Path) -> np.ndarray:
    """Decode an 8-bit PNG far enough to read its colours, verifying every chunk's checksum."""
    content = path.read_bytes()
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    at, kinds, packed = 8, [], b""
    while at < len(content):
        size, kind = struct.unpack(">I4s", content[at : at + 8])
        body = content[at + 8 : at + 8 + size]
        (checksum,) = struct.unpack(">I", content[at + 8 + size : at + 12 + size])
        assert checksum == zlib.crc32(kind + body)
        kinds.append(kind)
        packed += body if kind == b"IDAT" else b""
        at += 12 + size
    assert kinds[0] == b"IHDR"
    assert kinds[-1] == b"IEND"
    from matplotlib.image import imread

    return (imread(path)[..., :3] * 255).round().astype(np.uint8)


def texts_in(svg: Path) -> list[str]:
    """Return the texts that matplotlib drew: each is in a comment before its outlines."""
    parser = ElementTree.XMLParser(target=ElementTree.TreeBuilder(insert_comments=True))
    root = ElementTree.parse(svg, parser).getroot()
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    return [(node.text or "").strip() for node in root.iter() if node.tag is ElementTree.Comment]


class TestOneRun:
    @pytest.mark.parametrize("theme", ["light", "dark"])
    def test_writes_a_png_and_an_svg_that_tell_the_story(
        self, runs: list[Path], theme: str, tmp_path: Path
    ) -> None:
        png, svg = plot_runs(runs[:1], tmp_path / "loss.png", theme=theme)  # type: ignore[arg-type]
        assert (png, svg) == (tmp_path / "loss.png", tmp_path / "loss.svg")
        pixels = png_pixels(png)
        corner = pixels[2, 2].tolist()
        assert (min(corner) > 250) if theme == "light" else (max(corner) < 40)
        background_share = (pixels == pixels[2, 2]).all(axis=-1).mean()
        assert 0.5 < background_share < 0.98
        shown = texts_in(svg)
        ladder = Ladder.from_json(_ladder_of(runs[0]))
        events = RunFolder.open(runs[0]).metrics.read()
        passed = {event["order"]: event["step"] for event in events if event["event"] == "rung"}
        assert passed
        for rung in ladder.rungs:
            label = f"{rung.order}-gram {rung.bits_per_byte:.2f}"
            assert label + (f", passed at step {passed[rung.order]}" if rung.order in passed else "") in shown
        assert {"step", "tokens seen", "bits per byte", "validation", runs[0].name} <= set(shown)
        headings = [text for text in shown if text.startswith("step ")]
        assert headings[0].startswith("step 0 ·")
        assert headings[-1].startswith("step 240 ·")
        assert len(headings) == 3
        assert sum(text.startswith("Ann ") for text in shown) == 3

    def test_goes_to_the_derived_folder_by_default_and_is_the_same_every_time(self, runs: list[Path]) -> None:
        first = plot_runs(runs[:1])
        contents = [path.read_bytes() for path in first]
        assert [path.relative_to(runs[0]).as_posix() for path in first] == [
            "derived/loss.png",
            "derived/loss.svg",
        ]
        assert [path.read_bytes() for path in plot_runs(runs[:1])] == contents
        assert plot_runs(runs[:1], theme="dark")[0].name == "loss-dark.png"

    def test_no_two_texts_overlap(self, runs: list[Path]) -> None:
        for count in (1, 3):
            assert _overlaps(runs[:count]) == []

    def test_the_reference_text_has_a_curve_within_the_picture(
        self, runs: list[Path], tmp_path: Path
    ) -> None:
        base = _copy(runs[0], tmp_path / "base")
        highest = max(e["bits_per_byte"] for e in RunFolder.open(base).metrics.read() if e["event"] == "eval")
        for step, bits in ((0, highest + 1), (120, highest + 2), (240, highest + 3)):
            RunFolder(base).metrics.append(
                ReferenceEvent(step, 64 * step, step, bits, bits, 100, "a").record()
            )
        _, svg = plot_runs([base])
        assert {"reference text", f"reference {highest + 3:.2f}"} <= set(texts_in(svg))
        low, high = bits_range([RunRecord.open(base).history], None)
        assert low < highest + 3 < high
        assert "reference text" not in texts_in(plot_runs(runs[:1])[1])
        assert not any(text.startswith("reference") for text in texts_in(plot_runs([base, runs[1]])[1]))
        assert _overlaps([base]) == []

    def test_a_run_still_going_with_a_torn_line_is_drawn(self, runs: list[Path], tmp_path: Path) -> None:
        torn = _copy(runs[0], tmp_path / "torn")
        path = torn / "metrics.jsonl"
        lines = path.read_bytes().splitlines(keepends=True)
        path.write_bytes(b"".join(lines[:120]) + b'{"schema": 1, "event": "weather"}\n' + lines[120][:17])
        assert all(file.exists() for file in plot_runs([torn]))

    def test_no_ladder_no_samples_and_losses_that_are_not_numbers(
        self, runs: list[Path], tmp_path: Path
    ) -> None:
        bare = _copy(runs[0], tmp_path / "bare")
        (bare / "ladder.json").unlink()
        (bare / "samples.jsonl").unlink()
        place = {"schema": 1, "tokens_seen": 1, "wall_time": 9.0}
        events = [  # as another program may have written them
            {"event": "step", "step": 241, **place, "loss": math.nan},
            {"event": "step", "step": 242, **place, "loss": 1e9},
            {"event": "eval", "step": 243, **place, "val_loss": math.inf, "bits_per_byte": math.inf},
        ]
        with (bare / "metrics.jsonl").open("a") as file:
            file.writelines(json.dumps(event) + "\n" for event in events)
        _, svg = plot_runs([bare])
        assert not any("-gram" in text for text in texts_in(svg))

    def test_samples_of_every_kind_of_character_stay_valid(self, runs: list[Path], tmp_path: Path) -> None:
        odd = _copy(runs[0], tmp_path / "odd $x_1$ <run> & 练习")
        place = {"schema": 1, "event": "sample", "tokens_seen": 1, "wall_time": 9.0, "prompt": "$\\frac{"}
        text = "".join(map(chr, range(0x180))) + " --> ]]> <b>&amp; \u202e \ud800 \U0001f600 \ufffe $x^{"
        RunFolder.open(odd).samples.append(
            {**place, "step": 250, "text": text.encode("utf-8", "replace").decode()}
        )
        with (odd / "samples.jsonl").open("a") as file:
            file.write(
                '{"schema": 1, "event": "sample", "step": 251, "prompt": "$", "text": "\\ud800 \\u0000"}\n'
            )
        png, svg = plot_runs([odd])
        png_pixels(png)
        assert any(r"\ud800 \x00" in text for text in texts_in(svg))


class TestSeveralRuns:
    def test_one_named_curve_a_run_and_the_rungs_they_share(self, runs: list[Path]) -> None:
        png, svg = plot_runs(runs)
        assert png == runs[0] / "derived" / "comparison.png"
        png_pixels(png)
        shown = texts_in(svg)
        for run in runs:
            last = [e for e in RunFolder.open(run).metrics.read() if e["event"] == "eval"][-1]
            assert f"{run.name} {last['bits_per_byte']:.2f}" in shown
        assert sum("-gram" in text for text in shown) == 5
        assert not any("passed" in text for text in shown)

    def test_no_rungs_when_the_ladders_differ(self, runs: list[Path], tmp_path: Path) -> None:
        other = _copy(runs[1], tmp_path / "other")
        content = _ladder_of(other)
        content["rungs"][0]["bits_per_byte"] += 0.5
        write_json(other / "ladder.json", content)
        _, svg = plot_runs([runs[0], other], tmp_path)
        assert svg == tmp_path / "comparison.svg"
        assert not any("-gram" in text for text in texts_in(svg))

    def test_more_runs_than_colours(self, runs: list[Path], tmp_path: Path) -> None:
        many = [_copy(runs[n % 3], tmp_path / f"a-rather-long-name-of-a-run-{n}") for n in range(9)]
        _, svg = plot_runs(many)
        assert sum(text.startswith("a-rather-long") for text in texts_in(svg)) == 9
        assert _overlaps(many) == []


class TestMistakes:
    def test_each_error_is_one_line_with_advice(self, runs: list[Path], tmp_path: Path) -> None:
        with pytest.raises(InputError, match="name a run"):
            plot_runs([])
        with pytest.raises(InputError, match="lr-0\\.01"):
            plot_runs([runs[0].parent / "missing"])
        silent = _copy(runs[0], tmp_path / "silent")
        (silent / "metrics.jsonl").unlink()
        with pytest.raises(InputError, match="no validation result yet"):
            plot_runs([runs[0], silent])
        with pytest.raises(InputError, match=r"use --out picture\.svg"):
            plot_runs(runs[:1], tmp_path / "picture.pdf")
        (silent / "ladder.json").write_text("{")
        with pytest.raises(InputError, match="damaged"):
            plot_runs([silent])

    def test_a_place_that_cannot_be_written_is_a_failure(self, runs: list[Path], tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(EtudeError, match="could not write"):
            plot_runs(runs[:1], tmp_path / "file" / "loss.png")

    def test_a_dot_in_a_name_is_not_a_format(self, runs: list[Path], tmp_path: Path) -> None:
        assert [path.name for path in plot_runs(runs[:1], tmp_path / "v1.5")] == ["v1.5.png", "v1.5.svg"]


def _ladder_of(folder: Path) -> dict:
    import json

    return json.loads((folder / "ladder.json").read_text())


def _copy(folder: Path, to: Path) -> Path:
    import shutil

    return Path(shutil.copytree(folder, to, ignore=shutil.ignore_patterns("derived")))


def _overlaps(folders: list[Path]) -> list[tuple[str, str]]:
    """Return pairs of texts of the finished figure whose boxes intersect, as measured by matplotlib."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.text import Text

    from etude.evaluate.loss_plot.plot import THEMES, _figure
    from etude.run.record import RunRecord

    with rc_context({"text.parse_math": False}):
        figure = _figure([RunRecord.open(folder).history for folder in folders], THEMES["light"])
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        renderer = canvas.get_renderer()
        texts = [text for text in figure.findobj(Text) if text.get_text() and text.get_visible()]
        width, height = figure.bbox.size
        boxes = []
        for text in texts:
            box = text.get_window_extent(renderer)
            inside = box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height
            assert inside, text.get_text()
            boxes.append((text.get_text(), box.padded(-1)))
    return [(a, b) for i, (a, one) in enumerate(boxes) for b, other in boxes[:i] if one.overlaps(other)]
