"""A registry imports built-in implementations at their first use, and plugins when a name is not built in."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from etude import registry
from etude.errors import InputError
from etude.registry import VARIABLE, Registry


@pytest.fixture
def colours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry[str]]:
    """Two built-in colours, each in a module of its own, and no plugin loaded yet."""
    known = set(sys.modules)
    (tmp_path / "colour_red.py").write_text('THING = "#f00"\n')
    (tmp_path / "colour_blue.py").write_text('THING = "#00f"\n')
    (tmp_path / "colour_check.py").write_text(
        "from etude.errors import InputError\n\n\n"
        "def check(thing):\n    if not thing.startswith('#'):\n        raise InputError(f'{thing} is no colour')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(registry, "_loaded", False)
    monkeypatch.delenv(VARIABLE, raising=False)
    builtin = {"red": "colour_red:THING", "blue": "colour_blue:THING"}
    made: Registry[str] = Registry("colour", builtin, "colour_check:check")
    monkeypatch.setattr(registry, "COLOURS", made, raising=False)
    yield made
    for name in set(sys.modules) - known:
        del sys.modules[name]


def plugin(folder: Path, name: str, code: str) -> Path:
    file = folder / f"{name}.py"
    file.write_text(f"from etude.registry import COLOURS\n{code}\n")
    return file


def test_a_built_in_implementation_is_imported_at_its_first_use(colours: Registry[str]) -> None:
    colours.require("red")
    assert colours.names() == ["red", "blue"]
    assert "colour_red" not in sys.modules
    assert colours.get("red") == "#f00"
    assert "colour_red" in sys.modules
    assert "colour_blue" not in sys.modules


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("rad", "there is no colour 'rad': did you mean 'red'? choose red or blue, or name the module"),
        ("green-ish", "there is no colour 'green-ish': choose red or blue, or name the module"),
        ("a\nb\x1b", r"there is no colour 'a\nb\x1b': choose"),
        ("x" * 1000, f"there is no colour '{'x' * 60}': choose"),
    ],
)
def test_the_error_about_an_unknown_name_is_one_line_with_the_known_names(
    colours: Registry[str], name: str, words: str
) -> None:
    for method in (colours.get, colours.require):
        with pytest.raises(InputError) as raised:
            method(name)
        assert str(raised.value).startswith(words)
        assert VARIABLE in str(raised.value)
        assert len(str(raised.value).splitlines()) == 1


def test_a_registered_implementation_is_checked_and_needs_an_unused_name(colours: Registry[str]) -> None:
    with pytest.raises(InputError, match="green is no colour"):
        colours.register("green", "green")
    assert colours.names() == ["red", "blue"]
    colours.register("green", "#0f0")
    assert colours.names() == ["red", "blue", "green"]
    assert colours.get("green") == "#0f0"
    for name in ("green", "red"):
        with pytest.raises(InputError, match=f"the name '{name}' is taken by another colour"):
            colours.register(name, "#000")


@pytest.mark.parametrize("by", ["module", "path"])
def test_a_plugin_is_loaded_once_and_only_for_names_that_are_not_built_in(
    colours: Registry[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    file = plugin(
        tmp_path, "more_colours", 'assert COLOURS.names()[0] == "red"\nCOLOURS.register("green", "#0f0")'
    )
    monkeypatch.setenv(VARIABLE, " more_colours ," if by == "module" else str(file))
    assert colours.get("blue") == "#00f"
    assert "more_colours" not in sys.modules
    assert colours.get("green") == "#0f0"
    assert "more_colours" in sys.modules
    file.unlink()
    assert colours.names() == ["red", "blue", "green"]


def test_a_plugin_of_an_installed_package_is_found_by_its_entry_point(
    colours: Registry[str], tmp_path: Path
) -> None:
    plugin(tmp_path, "painted", 'COLOURS.register("green", "#0f0")')
    about = tmp_path / "painted-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Name: painted\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[etude.plugins]\nanything = painted\n")
    assert colours.get("green") == "#0f0"


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ('COLOURS.register("green", "green")', "is refused: green is no colour"),
        (
            'raise OSError("several\\n lines")',
            "cannot be imported (OSError: several lines): repair it, or do not load it",
        ),
        ("import no_such_module_at_all", "cannot be imported (ModuleNotFoundError: No module named"),
    ],
)
def test_the_error_about_a_failing_plugin_is_one_line_at_every_call(
    colours: Registry[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, words: str
) -> None:
    file = plugin(tmp_path, "bad_colours", code)
    monkeypatch.setenv(VARIABLE, str(file))
    for _ in range(2):
        with pytest.raises(InputError) as raised:
            colours.names()
        assert f"the plugin '{file}' of {VARIABLE} {words}" in str(raised.value)
        assert len(str(raised.value).splitlines()) == 1
    plugin(tmp_path, "bad_colours", 'COLOURS.register("green", "#0f0")')  # repaired
    assert colours.get("green") == "#0f0"


def test_the_error_about_a_missing_plugin_names_it(
    colours: Registry[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for missing in ("/nowhere/x.py", "no_such_module_at_all"):
        monkeypatch.setenv(VARIABLE, missing)
        with pytest.raises(InputError, match=f"the plugin '{missing}' of {VARIABLE} cannot be imported"):
            colours.get("green")


def test_a_plugin_in_the_home_folder(
    colours: Registry[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugin(tmp_path, "home_colours", 'COLOURS.register("green", "#0f0")')
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.setenv(VARIABLE, "~/home_colours.py")
    assert colours.get("green") == "#0f0"
