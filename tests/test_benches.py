"""Every benchmark still finds what it imports: they are run by hand and seldom, so a test checks it."""

from __future__ import annotations

import copy
import json
import math
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from waiting import PATIENCE

BENCH = Path(__file__).parent.parent / "bench"


def test_every_benchmark_finds_what_it_imports() -> None:
    modules = sorted(file.stem for file in BENCH.glob("*.py"))
    assert len(modules) > 20
    done = subprocess.run(
        [sys.executable, "-c", f"import {', '.join(modules)}"],
        cwd=BENCH,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr[-2000:]


def same_bits(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run bench/same_bits.py."""
    command = [sys.executable, str(BENCH / "same_bits.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)


INVENTED = {
    "about": {"source": "here", "torch": "2.13.0"},
    "kinds": {
        "a": {
            "losses": [2.5, 0.1 + 0.2, -0.0, math.nan],
            "inspect": {"step": {"rule": "muon", "proof": {"holds": True, "text": "5 steps made again"}}},
        },
        "b": {"losses": [1.0]},
    },
}


@pytest.mark.parametrize(
    ("place", "value", "reported"),
    [
        ((), None, None),
        (("about", "source"), "there", None),
        (("kinds", "a", "losses", 1), 0.3, "a / losses / 1: 0.30000000000000004, now 0.3"),
        (("kinds", "a", "losses", 2), 0.0, "a / losses / 2: -0.0, now 0.0"),
        (("kinds", "b", "losses"), [1.0, 1.0], "b / losses: 1 entries, now 2"),
        (("kinds", "b", "losses"), None, "b / losses: [1.0], now None"),
        (("kinds", "a", "inspect", "step"), {"rule": "muon"}, "a / inspect / step / proof: missing"),
        (
            ("kinds", "a", "inspect", "step", "rule"),
            "adamw",
            "a / inspect / step / rule: 'muon', now 'adamw'",
        ),
        (("kinds", "a", "inspect", "step", "proof", "text"), "4 steps replayed", "proof / text"),
        (("kinds", "b"), {"losses": [1.0], "failed": "no compiler"}, "b: failed: no compiler"),
    ],
)
def test_compared_results_differ_where_one_value_does(
    tmp_path: Path, place: tuple[Any, ...], value: Any, reported: str | None
) -> None:
    changed = copy.deepcopy(INVENTED)
    branch: Any = changed
    for key in place[:-1]:
        branch = branch[key]
    if place:
        branch[place[-1]] = value
    before, after = tmp_path / "before.json", tmp_path / "after.json"
    before.write_text(json.dumps(INVENTED))
    after.write_text(json.dumps(changed))
    done = same_bits("--compare", before, after)
    assert done.returncode == (reported is not None), done.stderr
    assert (reported or "2 of 2 kinds are the same") in done.stdout


def test_new_keys_and_other_words_count_only_when_compared_strictly(tmp_path: Path) -> None:
    changed: Any = copy.deepcopy(INVENTED)
    changed["kinds"]["b"]["gradients"] = [3.0]
    changed["kinds"]["a"]["inspect"]["step"]["proof"]["text"] = "replayed 5 steps"
    before, after = tmp_path / "before.json", tmp_path / "after.json"
    before.write_text(json.dumps(INVENTED))
    after.write_text(json.dumps(changed))
    assert same_bits("--compare", before, after).returncode == 0
    done = same_bits("--compare", before, after, "--strict")
    assert done.returncode == 1
    assert "b / gradients: new" in done.stdout
    assert "now 'replayed 5 steps'" in done.stdout


def test_a_kind_that_was_not_measured_is_a_difference(tmp_path: Path) -> None:
    fewer = INVENTED | {"kinds": {"a": INVENTED["kinds"]["a"]}}
    before, after = tmp_path / "before.json", tmp_path / "after.json"
    before.write_text(json.dumps(INVENTED))
    after.write_text(json.dumps(fewer))
    assert same_bits("--compare", before, after).returncode == 1
    assert same_bits("--compare", before, after, "--only", "^a$").returncode == 0
    assert same_bits("--compare", before, after, "--only", "^c$").returncode == 1, "nothing was compared"


def test_a_kind_is_trained_and_its_digest_is_of_the_tensors_alone(tmp_path: Path) -> None:
    """Two measurements are equal, and the digest of a checkpoint follows each byte and name of its tensors."""
    kept = tmp_path / "kept"
    for name, options in {"one": ("--keep", kept), "two": ()}.items():
        done = same_bits("--only", "^mlp-adamw-accumulated$", "--out", tmp_path / name, *options)
        assert done.returncode == 0, done.stderr
    done = same_bits("--compare", tmp_path / "one", tmp_path / "two", "--strict")
    assert (done.returncode, done.stdout) == (0, "1 of 1 kinds are the same\n")
    result = json.loads((tmp_path / "one").read_text())["kinds"]["mlp-adamw-accumulated"]
    assert len(result["losses"]) == 16
    assert result["losses"][-1] < result["losses"][0] - 0.5
    assert list(result["checkpoints"])[-1] == "step-00000016"
    assert len({json.dumps(saved) for saved in result["checkpoints"].values()}) == len(result["checkpoints"])

    saved = kept / "runs" / "mlp-adamw-accumulated" / "checkpoints" / "step-00000016" / "model.safetensors"
    expected = result["checkpoints"]["step-00000016"]["parameters"]
    content = saved.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header, data = content[8 : 8 + length], content[8 + length :]
    assert digests_of(header.replace(b'"pt"', b'"np"'), data, saved) == expected
    flipped = data[:-1] + bytes([data[-1] ^ 1])
    for other in (
        digests_of(header, flipped, saved),
        digests_of(header.replace(b"lm_head", b"lm_tail"), data, saved),
    ):
        assert other["sha256"] != expected["sha256"]


def digests_of(header: bytes, data: bytes, file: Path) -> dict[str, str]:
    """What the script says of a safetensors file with this header and data."""
    file.write_bytes(struct.pack("<Q", len(header)) + header + data)
    programme = "import json, sys, pathlib, same_bits; print(json.dumps(same_bits.digests(pathlib.Path(sys.argv[1]))))"
    command = [sys.executable, "-c", programme, str(file)]
    found: dict[str, str] = json.loads(subprocess.check_output(command, cwd=BENCH, timeout=PATIENCE))
    return found
