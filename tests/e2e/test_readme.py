"""README and docs are correct: their commands, options and settings exist, and the README's Python runs."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from typer.main import get_command

from etude.cli.main import app
from etude.config import known_keys
from test_architecture import ORDER

REPOSITORY = Path(__file__).parent.parent.parent
README = (REPOSITORY / "README.md").read_text()
DOCS = {
    file.name: file.read_text()
    for file in sorted((REPOSITORY / "docs").glob("*.md"))
    if file.name not in {"lab-notebook.md", "reliability.md"}  # these record work with older versions
}
MOST_WORDS = 1_250
BLOCK = re.compile(r"```(\w*)\n(.*?)```", re.DOTALL)
BLOCKS = BLOCK.findall(README)


def commands_in(page: str) -> list[str]:
    """Return the calls of ``etude`` in blocks without a language, also those that torchrun starts."""
    parts = [
        part.strip()
        for language, block in BLOCK.findall(page)
        if not language
        for line in block.splitlines()
        for part in line.split("#")[0].replace("&&", "|").split("|")
    ]
    return [part[part.index("etude ") :] for part in parts if re.match(r"etude |torchrun .* -m etude ", part)]


COMMANDS = commands_in(README)
ALL_COMMANDS = [
    (name, command) for name, page in {"README.md": README, **DOCS}.items() for command in commands_in(page)
]


def test_public_names_and_packages_do_not_collide() -> None:
    """An imported package becomes an attribute of its parent, and would hide a function of the same name."""
    import pkgutil

    import etude

    assert not set(etude.__all__) & {module.name for module in pkgutil.iter_modules(etude.__path__)}
    for name in etude.__all__:
        assert getattr(etude, name) is not None


def test_there_are_commands_to_check() -> None:
    assert len(COMMANDS) > 12
    used = {shlex.split(command)[1] for command in COMMANDS}
    assert used >= set(get_command(app).commands) - {"settings"}  # type: ignore[attr-defined]


@pytest.mark.parametrize(("page", "command"), ALL_COMMANDS, ids=lambda value: value[:60])
def test_every_command_parses(page: str, command: str) -> None:
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


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", *(f"docs/{name}" for name in DOCS)])
def test_every_path_that_a_page_names_exists(page: str) -> None:
    text, folder = (REPOSITORY / page).read_text(), (REPOSITORY / page).parent
    linked = re.findall(r"\]\((?!https?:)([^)#\s]+)(?:#[^)]*)?\)|(?:src|srcset)=\"([^\"]+)\"", text)
    assert linked or page != "README.md"
    for names in linked:
        assert (folder / "".join(names)).exists(), names
    for name in re.findall(r"`((?:src/etude|tests|bench|studio|docs)/[\w./-]+)`", text):
        assert (REPOSITORY / name).exists(), name
    inside = "|".join(package.name for package in packages())
    for name in re.findall(rf"`((?:{inside})/[\w/]+\.py)`", text):
        assert (REPOSITORY / "src" / "etude" / name).is_file(), name


def packages() -> list[Path]:
    return [path for path in (REPOSITORY / "src" / "etude").iterdir() if (path / "__init__.py").is_file()]


def test_its_map_is_complete_and_in_the_order_of_imports() -> None:
    house = next(block for _, block in BLOCKS if block.startswith("src/etude/\n"))
    mapped = re.findall(r"^  (\w+)/ ", house, re.MULTILINE)
    assert set(mapped) == {package.name for package in packages()} | {"recipes"}
    assert mapped == sorted(mapped, key=[*ORDER, "recipes"].index)
    modules = re.findall(r"(\w+)\.py", house)
    assert set(modules) <= {file.stem for file in (REPOSITORY / "src" / "etude").glob("*.py")}
    assert set(modules) >= set(ORDER) - set(mapped)
    for folder in re.findall(r"^(\w+)/ ", house, re.MULTILINE):
        assert (REPOSITORY / folder).is_dir(), folder
    assert {"studio", "tests", "bench", "docs"} <= set(re.findall(r"^(\w+)/ ", house, re.MULTILINE))


def test_it_is_short_and_names_every_page() -> None:
    assert len(README.split()) <= MOST_WORDS
    assert README.count("╭─ sample") == 1
    for name in {*DOCS, "lab-notebook.md", "reliability.md"} - {"environment.md"}:
        assert f"docs/{name}" in README, name


def test_its_python_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    snippet = next(block for language, block in BLOCKS if language == "python" and "import etude" in block)
    assert '"train.steps=200"' in snippet
    small = [
        "train.steps=3", "model.size=nano", "data.max_bytes=60000", "data.workers=1", "train.context=32",
        "train.batch_rows=4", "device.compile=false", "device.threads=1", "tokenizer.vocab_size=300",
    ]  # fmt: skip
    monkeypatch.chdir(tmp_path)
    exec(snippet.replace('"train.steps=200"', ", ".join(f'"{value}"' for value in small)), {})
    run = tmp_path / "runs" / "primer"
    assert (run / "run.toml").is_file()
    last = max(path.name for path in (run / "checkpoints").iterdir())
    for language, block in BLOCK.findall(DOCS["using-a-model.md"]):
        if language == "python":
            exec(block.replace("runs/notes", "runs/primer").replace("step-00001220", last), {})
