"""Licence and rounding of a model are read from texts by strangers, and are safe to print and to write into YAML."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from etude.plan.model_card import _code, _head_of_base
from etude.pretrained.facts import licence_of, recorded_facts, rounding_of

ESCAPE = "\x1b[2J\x1b]0;owned\x07"


@pytest.mark.parametrize(
    ("head", "licence"),
    [
        ("license: mit", "mit"),
        ("license: 'apache-2.0'", "apache-2.0"),
        ('license:   "llama3.1"   # see below', "llama3.1"),
        ("tags:\n- a\nlicense: cc-by-4.0\r\nx: y", "cc-by-4.0"),
        ("license:\nlibrary_name: transformers", None),
        ("license:   \nmit: no", None),
        ("not_license: mit", None),
        ("x: y", None),
        ("license: Our own, see LICENSE", "Our own, see LICENSE"),
    ],
)
def test_the_licence_of_a_card_is_on_its_own_line(tmp_path: Path, head: str, licence: str | None) -> None:
    (tmp_path / "README.md").write_bytes(f"---\n{head}\n---\nlicense: gpl\n".encode())
    assert licence_of(tmp_path) == licence


@pytest.mark.parametrize(
    "card", ["license: mit\n", "---\nlicense: mit\n", "---\n---\nlicense: mit\n---\n", ""]
)
def test_only_the_head_of_a_card_states_a_licence(tmp_path: Path, card: str) -> None:
    (tmp_path / "README.md").write_text(card)
    assert licence_of(tmp_path) is None


@pytest.mark.parametrize(
    "licence",
    [f"mit{ESCAPE}", "mit\nbase_model: other", "mit\u2028x: y", "x" * 5000, "mit: [", "{a: b}", "\u202emit"],
)
def test_a_licence_of_a_stranger_is_one_harmless_line(tmp_path: Path, licence: str) -> None:
    (tmp_path / "origin.json").write_text(json.dumps({"license": licence, "rounding": licence}))
    for text in (licence_of(tmp_path), rounding_of(tmp_path)):
        assert text
        assert text.isprintable()
        assert len(text) <= 120
    # A manifest may be a stranger's as well.
    entry = {"source": f"hf:owner/{licence}", "hash": licence, "licence": licence, "rounding": licence}
    facts = recorded_facts({"base": entry})
    assert facts is not None
    assert all(text and text.isprintable() for text in (facts.source, facts.hash, facts.rounding))
    head = yaml.safe_load(_head_of_base(facts))
    assert head.keys() == {"license", "base_model"}
    assert head["license"] == "other"


def test_formats_of_a_stranger_are_harmless(tmp_path: Path) -> None:
    (tmp_path / "origin.json").write_text(
        json.dumps({"rounded": True, "quantisation": {f"Q4{ESCAPE}": {}, "F32": {}}})
    )
    assert rounding_of(tmp_path) == "Q4�[2J�]0;owned�"


@pytest.mark.parametrize("entry", [None, 5, [], {}, {"source": 5, "licence": [], "step": "2"}])
def test_damaged_entries_of_a_manifest_are_no_error(entry: object) -> None:
    facts = recorded_facts({"base": entry})
    assert facts is None or (facts.licence_identifier == "other" and facts.step is None)


def test_code_in_a_card_stays_code_on_one_line() -> None:
    assert _code(f"a`b\n# Title{ESCAPE}") == "`a'b�# Title�[2J�]0;owned�`"
    assert _code("long" * 100) == f"`{'long' * 100}`"
