"""Placeholder until the branch is merged."""

from __future__ import annotations

from etude.model.language_model import LanguageModel


def checksum(model: LanguageModel) -> str:
    return ""
