"""The README is true: its commands exist with their options, its settings are real, its Python runs."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from typer.main import get_command

from etude.cli.main import app
from etude.config import known_keys

REPOSITORY = Path(__file__).parent.parent.parent
README = (REPOSITORY / "README.md").read_text()
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", README, re.DOTALL)
COMMANDS = [
    part.strip()
    for language, block in BLOCKS
    if not language
    for line in block.splitlines()
    for part in line.split("#")[0].replace("&&", "|").split("|")
    if part.strip().startswith("etude ")
]


def test_public_names_and_packages_do_not_collide() -> None:
    """A package that is imported becomes an attribute of its parent, and would hide a function of its name."""
    import pkgutil

    import etude

    assert not set(etude.__all__) & {module.name for module in pkgutil.iter_modules(etude.__path__)}
    for name in etude.__all__:
        assert getattr(etude, name) is not None


def test_there_are_commands_to_check() -> None:
    assert len(COMMANDS) > 12
    used = {shlex.split(command)[1] for command in COMMANDS}
    assert used >= set(get_command(app).commands) - {"settings"}  # type: ignore[attr-defined]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_parses(command: str) -> None:
    words = shlex.split(command)[1:]
    group = get_command(app)
    while hasattr(group, "commands"):
        group = group.commands[words.pop(0)]
    context = group.make_context("etude", list(words), resilient_parsing=False)
    for override in context.params.get("overrides") or []:
        assert override.split("=")[0] in known_keys()


def test_the_two_commands_are_what_ci_runs() -> None:
    script = (REPOSITORY / ".ci" / "run").read_text()
    assert "pip install -e '.[test]' && pytest" in README
    assert "pip install --quiet -e '.[test]'" in script
    assert "\npytest\n" in script


def test_every_path_it_names_exists() -> None:
    for name in re.findall(r"\]\(([\w./-]+\.md)\)|(?:src|srcset)=\"([^\"]+)\"", README):
        path = name[0] or name[1]
        assert (REPOSITORY / path).is_file(), path
    for package in re.findall(r"^  (\w+)/ ", README, re.MULTILINE):
        assert (REPOSITORY / "src" / "etude" / package).is_dir(), package


def test_its_python_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    snippet = next(block for language, block in BLOCKS if language == "python" and "import etude" in block)
    assert '"train.steps=200"' in snippet
    small = [
        "train.steps=3", "model.size=nano", "data.max_bytes=60000", "data.workers=1", "train.context=32",
        "train.batch_rows=4", "device.compile=false", "device.threads=1", "tokenizer.vocab_size=300",
    ]  # fmt: skip
    monkeypatch.chdir(tmp_path)
    exec(snippet.replace('"train.steps=200"', ", ".join(f'"{value}"' for value in small)), {})
    assert (tmp_path / "runs" / "primer" / "run.toml").is_file()
