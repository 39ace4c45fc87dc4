from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etude.config import (
    Settings,
    get_value,
    is_given,
    known_keys,
    load_settings,
    to_toml,
    with_values,
)
from etude.errors import InputError
from etude.setting_declarations import declarations, require_resolved, settings_with_help
from etude.setting_types import Change


def test_defaults_then_file_then_overrides(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text("[train]\nlr = 0.5\nsteps = 7\n")
    settings = load_settings(file, ["train.lr=3e-4"])
    assert settings.train.lr == 3e-4
    assert settings.train.steps == 7
    assert settings.train.betas == Settings().train.betas


@given(
    lr=st.one_of(st.just("auto"), st.floats(1e-9, 10.0)),
    steps=st.one_of(st.just("auto"), st.integers(1, 10**9)),
    sources=st.lists(st.text(min_size=1).filter(lambda s: "\x00" not in s), min_size=1, max_size=3),
)
def test_toml_round_trip(lr: object, steps: object, sources: list[str]) -> None:
    import tomllib

    settings = with_values(Settings(), {"train.lr": lr, "train.steps": steps, "data.sources": tuple(sources)})
    assert Settings.model_validate(tomllib.loads(to_toml(settings))) == settings


def test_every_key_can_be_read_and_set_to_its_own_value() -> None:
    settings = Settings()
    for key in known_keys():
        assert with_values(settings, {key: get_value(settings, key)}) == settings


def test_every_setting_has_help_and_the_printed_file_has_the_defaults(tmp_path: Path) -> None:
    assert [key for key in known_keys() if not declarations()[key].help.endswith(".")] == []
    file = tmp_path / "all.toml"
    file.write_text(settings_with_help())
    assert load_settings(file) == Settings()
    lines = file.read_text().splitlines()
    line = lines.index('steps = "auto"')
    assert lines[line - 1] == f"# Optimizer steps. Can be changed {Change.STEERING.value}."
    assert max(map(len, lines)) <= 100


def test_a_setting_declares_when_it_may_be_changed() -> None:
    change = {key: declaration.change for key, declaration in declarations().items()}
    assert change["train.log_every"] is Change.OBSERVING
    assert change["train.steps"] is change["device.threads"] is Change.STEERING
    assert change["train.context"] is change["data.sources"] is Change.FORK
    assert {change[key] for key in change if key.startswith(("model.", "tokenizer."))} == {Change.NEVER}
    may_differ = {key for key, declaration in declarations().items() if declaration.may_differ}
    assert {"run.seed", "train.log_every", "device.threads"} <= may_differ
    assert not may_differ & {"train.steps", "train.eval_every", "data.seed"}


def test_resolved_settings_have_a_value_for_every_derived_setting() -> None:
    values = {key: 8 for key, declaration in declarations().items() if declaration.is_derived}
    values |= {"device.kind": "cpu", "device.dtype": "fp32", "train.dropout": 0.5, "train.optimizer": "muon"}
    settings = with_values(Settings(), values)
    assert require_resolved(settings) is settings
    for key in values:
        with pytest.raises(InputError, match=f"{key} is not resolved"):
            require_resolved(with_values(settings, {key: "auto"}))


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("train.ler=1", ["train.ler", "did you mean 'train.lr'"]),
        ("lr=1", ["did you mean 'train.lr'"]),
        ("zzz.qqq=1", ["etude settings"]),
        ("train.lr", ["KEY=VALUE"]),
        ("train.lr=banana", ["train.lr", "'banana'"]),
        ("train.lr=nan", ["train.lr"]),
        ("train.steps=0", ["train.steps", "greater than or equal to 1"]),
        ("train.steps=1.5", ["train.steps"]),
        ("model.preset=lama", ["'llama'"]),
        ("data.validation_fraction=1.0", ["data.validation_fraction"]),
        ("train.betas=[1.5, 0.9]", ["train.betas"]),
        ("run.seed=99999999999999999999", ["run.seed"]),
        ("train=3", ["unknown setting 'train'"]),
    ],
)
def test_the_error_about_a_setting_is_one_line_that_names_it(override: str, words: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        load_settings(None, [override])
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"[train]\nlerning = 1\n", "unknown setting"),
        (b"[train\n", "not valid TOML"),
        (b"[train]\nlr = 1\n# \xe9", r"line 3 has a byte \(0xe9\) that is not UTF-8: save the file as UTF-8"),
        (b"train = 3\n", "unknown setting 'train'"),
    ],
)
def test_the_error_about_a_settings_file_is_one_line(tmp_path: Path, content: bytes, word: str) -> None:
    file = tmp_path / "bad.toml"
    file.write_bytes(content)
    with pytest.raises(InputError, match=word):
        load_settings(file)
    with pytest.raises(InputError, match="no settings file"):
        load_settings(tmp_path / "absent.toml")


def test_what_was_typed_is_given_whatever_its_value(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text(to_toml(with_values(Settings(), {"train.patience": 5})))
    settings = load_settings(file, ["train.beta=0.1"], {"data.mask": "last"})
    typed = {key for key in known_keys() if is_given(settings, key)}
    assert typed == {"train.patience", "train.beta", "data.mask"}
    assert settings == with_values(Settings(), {"train.patience": 5, "data.mask": "last"})
    later = with_values(settings, {"run.seed": 1337})
    assert {key for key in known_keys() if is_given(later, key)} == typed | {"run.seed"}
    assert not any(is_given(Settings(), key) for key in known_keys())
    copied = Settings.model_validate(settings.model_dump())
    changed = {key for key in typed if get_value(copied, key) != get_value(Settings(), key)}
    assert {key for key in known_keys() if is_given(copied, key)} == changed < typed


def test_settings_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Settings().train.steps = 3  # type: ignore[misc]


def test_a_single_source_needs_no_brackets() -> None:
    assert load_settings(overrides=["data.sources=diary.txt"]).data.sources == ("diary.txt",)
    assert load_settings(overrides=["data.sources=['a.txt', 'b.txt']"]).data.sources == ("a.txt", "b.txt")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_a_settings_file_may_be_in_any_unicode_encoding(tmp_path: Path, encoding: str, line_end: str) -> None:
    lines = ["[data]", 'sources = ["Märchen.txt", "昔.txt"]', "[train]", "steps = 9", ""]
    file = tmp_path / "windows.toml"
    file.write_bytes(line_end.join(lines).encode(encoding))
    settings = load_settings(file)
    assert settings.data.sources == ("Märchen.txt", "昔.txt")
    assert settings.train.steps == 9


@pytest.mark.parametrize(
    "path", [r"C:\Users\ada\tales.txt", r"D:\new\tales.txt", r"\\server\tales", r"C:\x y\b.txt"]
)
def test_a_windows_path_in_double_quotes_is_refused_with_the_right_spelling(
    tmp_path: Path, path: str
) -> None:
    """In TOML some backslashes are errors, and some silently become a tab or a line end."""
    file = tmp_path / "settings.toml"
    file.write_text(f'[data]\nsources = ["{path}"]\n')
    with pytest.raises(InputError) as caught:
        load_settings(file)
    message = str(caught.value)
    plain = path.replace("\\\\", "\\")
    assert f"in single quotes, '{plain}'" in message
    assert f'with forward slashes, "{plain.replace(chr(92), "/")}"' in message
    assert "\n" not in message
    file.write_text(f"[data]\nsources = ['{path}']\n")
    assert load_settings(file).data.sources == (path,)


@pytest.mark.parametrize("value", ['["C:\\Users\\ada"]', '"C:\\Users\\ada"', '"C:\\temp\\ada"'])
def test_a_windows_path_in_double_quotes_on_the_command_line_is_refused(value: str) -> None:
    with pytest.raises(InputError, match="single quotes"):
        load_settings(overrides=[f"data.sources={value}"])


def test_a_windows_path_without_quotes_keeps_its_backslashes() -> None:
    assert load_settings(overrides=[r"data.sources=C:\temp\new.txt"]).data.sources == (r"C:\temp\new.txt",)
    assert (
        load_settings(overrides=['train.sample_prompt="Q: why?\\nA:"']).train.sample_prompt == "Q: why?\nA:"
    )


def test_values_that_are_not_utf8_are_refused() -> None:
    with pytest.raises(InputError, match=r"etude train - < FILE"):
        load_settings(values={"data.sources": ("caf\udce9.txt",)})
    with pytest.raises(InputError, match=r"run\.name.*not UTF-8"):
        load_settings(overrides=["run.name=caf\udce9"])
