"""What was read, kept and dropped, and why: as JSON, as text, and as a picture."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class DataReport:
    """The facts of a prepared corpus. Plain values only."""

    facts: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def from_facts(cls, corpus: dict[str, Any], manifest: dict[str, Any]) -> DataReport:
        """From the records of the two cache folders."""
        tokens = {part: facts["tokens"] for part, facts in manifest["parts"].items()}
        source_bytes = sum(facts["source_bytes"] for facts in manifest["parts"].values())
        documents = sum(facts["documents"] for facts in manifest["parts"].values())
        text_tokens = max(sum(tokens.values()) - documents, 1)
        kept = {key: value for key, value in corpus.items() if key not in {"files", "schema", "notes"}}
        return cls(
            {
                "schema": 1,
                **kept,
                "notes": [*corpus["notes"], *manifest["notes"]],
                "tokenizer": {**manifest["tokenizer"], "hash": manifest["tokenizer_hash"]},
                "tokens": {**tokens, "bytes_per_token": round(source_bytes / text_tokens, 4)},
            }
        )

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return self.facts

    @property
    def notes(self) -> list[str]:
        """Lines that a person should see."""
        return list(self.facts["notes"])
