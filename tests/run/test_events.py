"""Events are written as lines of the logs, and read back."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etude.run import events
from etude.run.events import Event, event_from, number_or

KINDS = [kind for kind in vars(events).values() if isinstance(kind, type) and issubclass(kind, Event)]
PLAIN = {
    "int": st.integers(0, 2**62),
    "float": st.floats(),
    "str": st.text(st.characters(exclude_categories=["Cs"])),
}
READ_BACK = [kind for kind in KINDS if all(field.type in PLAIN for field in dataclasses.fields(kind))]


def test_events_are_plain_and_versioned() -> None:
    samples: dict[str, Any] = {"int": 1, "float": 0.5, "str": "x"}
    samples["Sequence[RowSource]"] = [events.RowSource(0, ("a", "b"))]
    samples["Mapping[str, Mapping[str, float | None]]"] = {"w": {"weight_norm": 0.5, "update_ratio": None}}
    samples["Sequence[Sequence[float | None]]"] = [[0.5, None]]
    samples["Sequence[float]"] = [0.5]
    samples["Mapping[str, float]"] = {"forward": 0.5}
    assert len(KINDS) > 10
    for kind in KINDS:
        event = kind(**{field.name: samples[str(field.type)] for field in dataclasses.fields(kind)})
        record = json.loads(json.dumps(event.record(), allow_nan=False))
        assert record["schema"] == 1
        assert record["event"] == kind.name
        assert {"step", "tokens_seen", "wall_time"} <= record.keys()


@given(st.data())
def test_an_event_of_plain_fields_is_read_back_unchanged(data: st.DataObject) -> None:
    """Infinities are read back as NaN: JSON has neither."""
    kind = data.draw(st.sampled_from(READ_BACK))
    values = {field.name: data.draw(PLAIN[str(field.type)]) for field in dataclasses.fields(kind)}
    back = event_from(kind, json.loads(json.dumps(kind(**values).record(), allow_nan=False)))
    for name, value in values.items():
        read_back = getattr(back, name)
        if isinstance(value, float) and not math.isfinite(value):
            assert math.isnan(read_back)
        else:
            assert read_back == value


@pytest.mark.parametrize("damage", [None, "x", [], {}, True, 2**80, -(10**400)])
def test_a_damaged_field_counts_as_missing(damage: Any) -> None:
    assert math.isnan(number_or(damage, math.nan))
    assert number_or(damage, 0) == 0
    event = event_from(events.EvalEvent, {"step": damage, "val_loss": damage, "bits_per_byte": 2})
    assert (event.step, event.bits_per_byte) == (0, 2.0)
    assert math.isnan(event.val_loss)
