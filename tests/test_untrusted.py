"""Untrusted files, names, links and values are checked before they are used or shown."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etude.errors import InputError
from etude.untrusted import MAX_SHOWN, inside, read_plain, refuse_links_out, shown


def test_only_regular_files_of_limited_size_are_read(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_bytes(b"12345")
    assert read_plain(file, 5) == b"12345"
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(file)
    assert read_plain(tmp_path / "link", 5) == b"12345"
    for path, words in (
        (file, "longer than 4 bytes"),
        (tmp_path / "pipe", "not a plain file"),
        (tmp_path, "not a plain file"),
        (Path("/dev/zero"), "not a plain file"),
        (tmp_path / "a\0b", "not a valid file name"),
    ):
        with pytest.raises(InputError, match=words):
            read_plain(path, 4)
    with pytest.raises(FileNotFoundError):
        read_plain(tmp_path / "absent", 4)


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../a", "/etc/passwd", "a/b", "a/", "a\0", "a\x85", "a" * 256, None, 3, ["a"]]
)
def test_a_name_stays_inside_its_folder(tmp_path: Path, name: object) -> None:
    assert inside(tmp_path, "a.bin") == tmp_path / "a.bin"
    with pytest.raises(InputError, match="it names the file"):
        inside(tmp_path, name)


def test_links_may_not_lead_out_of_a_run(tmp_path: Path) -> None:
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    (run / "checkpoints" / "newest").symlink_to(run / "checkpoints")
    (run / "loop").symlink_to("loop")
    (tmp_path / "also").symlink_to(run)
    refuse_links_out(run)
    refuse_links_out(tmp_path / "also")
    (run / "checkpoints" / "step").symlink_to("../..")
    for path in (run, tmp_path / "also"):
        with pytest.raises(InputError, match="step is a link that leads out"):
            refuse_links_out(path)


@given(st.text() | st.recursive(st.none() | st.integers() | st.text(), st.lists))
def test_any_value_is_shown_on_one_short_line(value: object) -> None:
    text = shown(value)
    assert len(text) <= MAX_SHOWN
    assert len(text.splitlines()) <= 1
    text.encode("utf-8")
    assert shown(10**5000) == "a int too large to show"
