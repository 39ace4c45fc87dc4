"""Train a short run of every kind and record its bits, so that two versions of the source can be compared.

    python bench/same_bits.py --src OTHER/CHECKOUT/src --out before.json
    python bench/same_bits.py --out after.json
    python bench/same_bits.py --compare before.json after.json

Every kind in ``bits_kinds.py`` is one run of `python -m etude train` on generated text, one thread per process. The
result holds, for each run: SHA-256 of the parameters and of the optimizer's state at every checkpoint; loss, gradient
norm and every other number of metrics.jsonl; the sampled texts; the n-gram ladder. For the kinds with ``looks`` it also
holds what `etude inspect --json` and `etude eval --json` print. Times, versions and commits are dropped.

``--compare`` exits with 1 unless everything in the first file is unchanged in the second. Two differences do not count
unless ``--strict`` is given: keys that only the second file has, and sentences with other words but the same numbers.
Bits depend on the machine and the PyTorch version: compare files from one machine.

Only the command line and files of a run folder are used, never an import from etude, so that the script can run against
versions that differ widely inside. About five minutes on one core, two of them for compiling.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import importlib.metadata
import json
import os
import platform
import re
import struct
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bits_kinds import COMMON, KINDS, SHAPES, TEXT, Kind, made_text

SOURCE = Path(__file__).resolve().parent.parent / "src"
LIMIT = 1800
"""Seconds for one command; a run that hangs must not stop the others."""
EVALUATE = ("--items", "16", "--threads", "1")
DROPPED = frozenset(
    {"wall_time", "seconds", "tokens_per_second", "commit", "etude", "schema", "checkpoint", "folder"}
)
"""Keys of times, versions and paths, in events and answers."""
SENTENCES = frozenset({"proof", "asks", "held_out", "check", "where", "left_out", "missing"})
"""Keys of text for readers, with everything below them: its wording may change."""


def main() -> int:
    arguments = _arguments()
    if arguments.compare:
        before, after = (json.loads(file.read_text(encoding="utf-8")) for file in arguments.compare)
        return report(before, after, arguments.only, strict=arguments.strict)
    bf16 = has_bf16() if arguments.bf16 == "auto" else arguments.bf16 == "yes"
    names = [name for name, kind in chosen(arguments.only).items() if bf16 or not kind.in_bf16]
    with contextlib.ExitStack() as stack:
        scratch = arguments.keep or stack.enter_context(tempfile.TemporaryDirectory(prefix="etude-bits-"))
        bench = Bench(arguments.src.resolve(), Path(scratch).resolve())
        results = {name: bench.measure(name) for name in names}
    text = json.dumps({"about": about(arguments.src, bf16), "kinds": results})
    if arguments.out is None:
        print(text)
    else:
        arguments.out.write_text(text + "\n", encoding="utf-8")
    failed = [name for name, result in results.items() if "failed" in result]
    for name in failed:
        print(f"{name} failed: {results[name]['failed']}", file=sys.stderr)
    return 1 if failed else 0


class Bench:
    """A scratch folder in which commands of one version of the source run."""

    def __init__(self, source: Path, scratch: Path) -> None:
        self.source, self.scratch = source, scratch
        scratch.mkdir(parents=True, exist_ok=True)
        one_thread = dict.fromkeys(
            ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "TORCHINDUCTOR_COMPILE_THREADS"),
            "1",
        )
        outside = {name: value for name, value in os.environ.items() if not name.startswith("ETUDE_")}
        self.environment = outside | one_thread
        self.environment |= {"PYTHONPATH": str(source), "ETUDE_CACHE": str(scratch / "cache")}
        self.environment |= {"TORCHINDUCTOR_CACHE_DIR": str(scratch / "compiled"), "HF_HUB_OFFLINE": "1"}
        self.environment |= {"TOKENIZERS_PARALLELISM": "false"}
        place = Path(self.run("-c", "import etude; print(etude.__file__)").strip())
        if not place.resolve().is_relative_to(source):
            sys.exit(f"{source} holds no etude: Python imports {place}")
        (scratch / TEXT).write_text(made_text(), encoding="utf-8")

    def measure(self, name: str) -> dict[str, Any]:
        """Train one kind. Returns all values to compare, or the end of the error message if it fails."""
        kind, begin, result = KINDS[name], time.monotonic(), {}
        try:
            if kind.parent and not (self.scratch / "runs" / kind.parent.partition("@")[0]).exists():
                self.train(kind.parent.partition("@")[0])
            self.train(name)
            result = of_run(self.scratch / "runs" / name)
            for look, options in kind.looks.items():
                answer = self.run("-m", "etude", "inspect", f"runs/{name}", *options, "--json")
                result.setdefault("inspect", {})[look] = without_dropped(json.loads(answer))
            if kind.evaluated:
                answer = self.run("-m", "etude", "eval", f"runs/{name}", *EVALUATE, "--json")
                result["eval"] = without_dropped(json.loads(answer))
        except (RuntimeError, OSError, ValueError, LookupError, subprocess.TimeoutExpired) as error:
            result = {"failed": f"{type(error).__name__}: {error}"}
        outcome = "failed" if "failed" in result else "done"
        print(f"{name}: {outcome} in {time.monotonic() - begin:.0f} s", file=sys.stderr, flush=True)
        return result

    def train(self, name: str) -> None:
        kind = KINDS[name]
        launch = ["-m", "etude"]
        if kind.ranks > 1:
            ranks = f"--nproc-per-node={kind.ranks}"
            launch = ["-m", "torch.distributed.run", "--standalone", ranks, *launch]
        settings = COMMON | {"device.threads": str(kind.ranks)} | SHAPES[kind.family] | kind.settings
        what = [*kind.sources, "--model", kind.family]
        if kind.parent:
            what, settings = ["--fork", f"runs/{kind.parent}"], kind.settings
        changes = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
        self.run(*launch, "train", *what, "--name", name, "--no-studio", *changes)

    def run(self, *arguments: str) -> str:
        """Return what `python ARGUMENTS` prints. Raises RuntimeError with the end of its error output."""
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=self.scratch,
            env=self.environment,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=LIMIT,
        )
        if done.returncode != 0:
            raise RuntimeError(f"python {' '.join(arguments)}: {(done.stderr or done.stdout)[-1500:]}")
        return done.stdout


def of_run(run: Path) -> dict[str, Any]:
    """Return the digests, numbers and texts that a finished run left in its folder."""
    log = events(run / "metrics.jsonl")
    steps = log.pop("step", [])
    return {
        "checkpoints": {
            folder.name: {
                "parameters": digests(folder / "model.safetensors"),
                "optimizer": digests(folder / "optimizer.safetensors"),
            }
            for folder in sorted((run / "checkpoints").iterdir())
        },
        "losses": [event["loss"] for event in steps],
        "grad_norms": [event["grad_norm"] for event in steps],
        "learning_rates": [event["lr"] for event in steps],
        "events": log,
        "samples": events(run / "samples.jsonl"),
        "ladder": [rung["bits_per_byte"] for rung in json.loads((run / "ladder.json").read_text())["rungs"]],
    }


def events(file: Path) -> dict[str, list[dict[str, Any]]]:
    """Return the lines of a log by name of event."""
    by_name: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for line in file.read_text(encoding="utf-8").splitlines():
        event = json.loads(line)
        by_name[event.pop("event")].append(without_dropped(event))
    return dict(by_name)


def digests(file: Path) -> dict[str, str]:
    """Return SHA-256 of all tensors of a safetensors file together, and the first digits of each one's.

    Metadata does not count. This script parses the file itself, because it may hold bf16, which NumPy lacks.
    """
    content = file.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header, data = json.loads(content[8 : 8 + length]), content[8 + length :]
    together, each = hashlib.sha256(), {}
    for name in sorted(header.keys() - {"__metadata__"}):
        begin, end = header[name]["data_offsets"]
        described = json.dumps([name, header[name]["dtype"], header[name]["shape"]]).encode()
        together.update(described + data[begin:end])
        each[name] = hashlib.sha256(described + data[begin:end]).hexdigest()[:12]
    return {"sha256": together.hexdigest(), **each}


def without_dropped(value: Any) -> Any:
    """Return ``value`` without the keys in ``DROPPED``, at any depth."""
    if isinstance(value, dict):
        return {key: without_dropped(below) for key, below in value.items() if key not in DROPPED}
    return [without_dropped(below) for below in value] if isinstance(value, list) else value


@dataclass(frozen=True)
class Difference:
    """One place where two results differ. ``counts`` is false if it is only a new key or another wording."""

    place: tuple[str, ...]
    what: str
    counts: bool = True

    def __str__(self) -> str:
        return f"{' / '.join(self.place)}: {self.what}"


def differences(before: Any, after: Any, place: tuple[str, ...] = ()) -> Iterator[Difference]:
    """Yield the differences between two results. Values are compared by ``repr``: -0.0 is not 0.0, NaN equals NaN."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key, value in before.items():
            if key in after:
                yield from differences(value, after[key], (*place, key))
            else:
                yield Difference((*place, key), "missing")
        for key in after.keys() - before.keys():
            yield Difference((*place, key), "new", counts=False)
    elif isinstance(before, list) and isinstance(after, list):
        if len(before) != len(after):
            yield Difference(place, f"{len(before)} entries, now {len(after)}")
        for number, (old, new) in enumerate(zip(before, after, strict=False)):
            yield from differences(old, new, (*place, str(number)))
    elif repr(before) != repr(after):
        yield Difference(
            place, f"{_short(before)}, now {_short(after)}", not _only_words(place, before, after)
        )


def report(before: Mapping[str, Any], after: Mapping[str, Any], only: str, *, strict: bool) -> int:
    """Print the differences between two results. Returns 1 if there are any, else 0."""
    for key, value in before["about"].items():
        if key != "source" and value != after["about"].get(key):
            print(f"note: {key} was {value}, now {after['about'].get(key)}", file=sys.stderr)
    kinds = {name: result for name, result in before["kinds"].items() if re.search(only, name)}
    ignored = 0
    unequal = []
    for name, result in kinds.items():
        other = after["kinds"].get(name, {"failed": "not measured"})
        differing = list(differences(result, other, (name,)))
        if "failed" in result or "failed" in other:
            differing = [Difference((name,), f"failed: {(result | other)['failed']}")]
        counted = [difference for difference in differing if strict or difference.counts]
        ignored += len(differing) - len(counted)
        if counted:
            unequal.append(name)
        for difference in counted[:20]:
            print(difference)
        if len(counted) > 20:
            print(f"{name}: {len(counted) - 20} more")
    extra = f", {ignored} new keys or changed sentences (--strict lists them)" if ignored else ""
    print(f"{len(kinds) - len(unequal)} of {len(kinds)} kinds are the same{extra}")
    return 1 if unequal or not kinds else 0


def _only_words(place: tuple[str, ...], before: Any, after: Any) -> bool:
    """Return whether both are sentences for a reader and hold the same numbers."""
    written = isinstance(before, str) and isinstance(after, str) and not SENTENCES.isdisjoint(place)
    return written and sorted(re.findall(r"[\d.]*\d", before)) == sorted(re.findall(r"[\d.]*\d", after))


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def has_bf16() -> bool:
    """Return whether this processor multiplies in bf16; on others PyTorch emulates it, very slowly."""
    import torch

    capabilities = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capabilities.get("amx_bf16") or capabilities.get("avx512_bf16"))


def about(source: Path, bf16: bool) -> dict[str, Any]:
    """Return what the bits depend on, besides the source."""
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=source, capture_output=True, text=True).stdout
    names = ("torch", "numpy", "tokenizers")
    return {
        "source": f"{source.resolve()} ({commit.strip() or 'no commit'})",
        "bf16": bf16,
        "machine": f"{platform.machine()} {_processor()}",
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in names},
    }


def _processor() -> str:
    with contextlib.suppress(OSError):
        match = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
        return match[1] if match else ""
    return platform.processor()


def chosen(only: str) -> dict[str, Kind]:
    """Return the kinds whose names match ``only``."""
    kinds = {name: kind for name, kind in KINDS.items() if re.search(only, name)}
    if not kinds:
        sys.exit(f"no kind matches '{only}': there are {', '.join(KINDS)}")
    return kinds


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--src", type=Path, default=SOURCE, help="folder that holds etude (default: this one)"
    )
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="write the result here instead of printing it"
    )
    parser.add_argument(
        "--only", default="", metavar="REGEX", help="kinds whose names match, such as '^gpt2'"
    )
    parser.add_argument(
        "--bf16", choices=("auto", "yes", "no"), default="auto", help="auto: if the processor has it"
    )
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="work in this folder, and keep the runs")
    parser.add_argument("--compare", nargs=2, type=Path, metavar=("BEFORE", "AFTER"), help="two results")
    parser.add_argument("--strict", action="store_true", help="count new keys and changed sentences too")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
