"""No encoding of the output, no bytes in the arguments, no closed or full stream may cause a traceback."""

from __future__ import annotations

import io
import json
import os
import sys
from pathlib import Path

import pytest
import typer
from test_cli import etude

from etude.cli import main
from etude.errors import InputError

PROBE = """
import sys
from etude.system import make_output_safe
escapes = make_output_safe()
print(sys.argv[1])
sys.stdout.flush()
print(escapes.report(), file=sys.stderr)
"""
TEXT = "é—昔🦊"


def printed(encoding: str, tmp_path: Path) -> tuple[bytes, str]:
    """Return what a program with safe output prints for TEXT, and what it reports."""
    import subprocess

    environment = {**os.environ, "PYTHONIOENCODING": encoding, "PYTHONUTF8": "1"}
    result = subprocess.run(
        [sys.executable, "-c", PROBE, TEXT], capture_output=True, cwd=tmp_path, env=environment, check=True
    )
    return result.stdout, result.stderr.decode("ascii", "replace").strip()


@pytest.mark.parametrize(
    ("encoding", "expected", "escaped"),
    [
        ("utf-8", TEXT.encode(), 0),
        ("cp1252", b"\xe9\x97\\u6614\\ud83e\\udd8a", 2),
        ("cp1252:strict", b"\xe9\x97\\u6614\\ud83e\\udd8a", 2),
        ("ascii", b"\\u00e9\\u2014\\u6614\\ud83e\\udd8a", 4),
        ("ascii:surrogateescape", b"\\u00e9\\u2014\\u6614\\ud83e\\udd8a", 4),
        ("shift_jis", b"\\u00e9\\u2014" + "昔".encode("shift_jis") + b"\\ud83e\\udd8a", 3),
        ("ascii:replace", b"????", 0),  # chosen by the user
        ("ascii:ignore", b"", 0),
    ],
)
def test_a_character_that_an_encoding_does_not_have_is_escaped_and_counted(
    encoding: str, expected: bytes, escaped: int, tmp_path: Path
) -> None:
    out, report = printed(encoding, tmp_path)
    assert out.rstrip(b"\n") == expected
    assert (f"{escaped} character" in report) == bool(escaped)
    if escaped:
        assert "PYTHONIOENCODING=utf-8" in report


def test_escapes_are_those_of_json(tmp_path: Path) -> None:
    out, _ = printed("ascii", tmp_path)
    assert json.loads(b'"' + out.strip() + b'"') == TEXT


def run_with(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, encoding: str = "utf-8"
) -> tuple[int, str, str]:
    """Run the command in this process, as its entry point does. Returns exit code, output, errors."""
    out = io.TextIOWrapper(io.BytesIO(), encoding, "strict")
    errors = io.TextIOWrapper(io.BytesIO(), encoding, "backslashreplace")
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", errors)
    monkeypatch.setattr(sys, "argv", ["etude", *arguments])
    with pytest.raises(SystemExit) as ending:
        main.run()
    errors.flush()
    sys.stdout.flush()
    monkeypatch.undo()
    assert isinstance(ending.value.code, int)
    texts = [stream.buffer.getvalue().decode(encoding) for stream in (out, errors)]  # type: ignore[attr-defined]
    return ending.value.code, *texts


def words_of_all_commands() -> list[list[str]]:
    """Return command lines with a value that is not text, for every argument and option of every command."""
    group = typer.main.get_command(main.app)
    commands = {(name,): command for name, command in group.commands.items() if name != "data"}  # type: ignore[attr-defined]
    commands["data", "report"] = group.commands["data"].commands["report"]  # type: ignore[attr-defined]
    odd, lines = "caf\udce9", []
    for names, command in commands.items():
        needed = [p for p in command.params if p.param_type_name == "argument" and p.required]
        for parameter in command.params:
            if getattr(parameter, "is_flag", False) or parameter.name in ("help", "host", "port"):
                continue
            words = [odd if p is parameter else "absent" for p in needed]
            if parameter.param_type_name == "option":
                words += [parameter.opts[0], odd]
            elif parameter not in needed:
                words.append(odd)
            if names in (("train",), ("sweep",)) and odd not in words[:1]:
                words.insert(0, "absent")
            lines.append([*names, *words])
    return lines


@pytest.mark.parametrize("words", words_of_all_commands(), ids=lambda words: ascii(" ".join(words)))
def test_bytes_that_are_no_text_are_a_message_in_every_argument(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, errors = run_with(words, monkeypatch)
    assert code == 2, errors
    assert "Traceback" not in errors


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["generate", "run", "-5 degrees"], "as in: etude generate run -- '-5 degrees'"),
        (["generate", "run", "-5"], "as in: etude generate run -- -5"),
        (["generate", "run", "-nice day"], "as in: etude generate run -- '-nice day'"),
        (
            ["generate", "a run", "--Hello, he said", "--seed", "3"],
            "etude generate 'a run' --seed 3 -- '--Hello, he said'",
        ),
        (["generate", "run", "-hello there"], "as in: etude generate run -- '-hello there'"),
        (["generate", "run", "caf\udce9"], "PROMPT is not UTF-8 text ('caf�')"),
        (["inspect", "run", "--node", "caf\udce9"], "--node is not UTF-8 text"),
        (["train", "caf\udce9"], "pipe it in: etude train - < FILE"),
        (
            ["data", "report", "~no-such-account/x.txt"],
            "no home folder for '~no-such-account/x.txt': write the whole path",
        ),
    ],
    ids=ascii,
)
def test_what_to_type_instead(
    arguments: list[str], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, errors = run_with(arguments, monkeypatch)
    assert code == 2
    assert words in errors
    assert errors.count("\n") == 1
    assert not out


def test_a_mistyped_option_is_still_answered_with_the_right_one(monkeypatch: pytest.MonkeyPatch) -> None:
    code, _, errors = run_with(["generate", "run", "--temprature", "1"], monkeypatch)
    assert code == 2
    assert "--temperature" in errors


def test_bytes_of_utf8_are_text_in_any_locale() -> None:
    """In an ASCII locale, Python passes the bytes of a prompt one by one."""
    from types import SimpleNamespace

    from etude.cli.command import _text_of

    prompt = SimpleNamespace(param_type_name="argument", metavar=None, name="prompt", opts=["prompt"])
    assert _text_of(prompt, "昔 fox".encode().decode("ascii", "surrogateescape")) == "昔 fox"
    assert _text_of(prompt, ["plain", "é"]) == ["plain", "é"]
    with pytest.raises(InputError, match="PROMPT is not UTF-8"):
        _text_of(prompt, "\udce9")


def test_a_table_in_an_encoding_without_its_characters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "runs" / "昔"
    run.mkdir(parents=True)
    (run / "run.toml").write_text("")
    monkeypatch.chdir(tmp_path)
    code, out, errors = run_with(["runs"], monkeypatch, "ascii")
    assert code == 0
    assert "\\u6614" in out
    assert errors.startswith("etude: ")
    assert "PYTHONIOENCODING=utf-8" in errors


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a device of Linux")
def test_an_output_that_is_full_is_one_line(tmp_path: Path) -> None:
    import subprocess

    with open("/dev/full", "w") as full:
        result = subprocess.run(
            [sys.executable, "-m", "etude", "settings"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            cwd=tmp_path,
        )
    assert result.returncode == 1
    assert result.stderr == "etude: could not write the output: No space left on device\n"


def test_closed_streams_are_no_error(tmp_path: Path) -> None:
    import subprocess

    for redirection, code in ((">&-", 0), ("2>&-", 0), (">&- 2>&- <&-", 0)):
        command = f"{sys.executable} -m etude settings {redirection}"
        result = subprocess.run(["bash", "-c", command], capture_output=True, text=True, cwd=tmp_path)
        assert result.returncode == code, result.stderr
        assert "Traceback" not in result.stderr


def test_the_cache_is_named_where_it_is_looked_for(tmp_path: Path) -> None:
    assert "ETUDE_CACHE" in etude("train", "--help", cwd=tmp_path).stdout
