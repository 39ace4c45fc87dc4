"""Settings of a run that was never planned: what the test gives, and the dial's values for a small text on a CPU."""

from __future__ import annotations

from typing import Any

from etude.config import Resolved, load_settings
from etude.device import Device
from etude.plan.derivation import Facts
from etude.plan.dial import resolve


def resolved_settings(values: dict[str, Any] | None = None) -> Resolved:
    settings = load_settings(values=values)
    facts = Facts(train_tokens=100_000, vocab_size=300, document_id=0)
    return resolve(settings, facts, Device("cpu", "fp32", 2)).settings
