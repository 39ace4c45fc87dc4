"""What was read, kept and dropped, and why: as JSON, as text, or as a picture (:mod:`etude.data.report_picture`)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from etude.data.corpus.corpus import EXAMPLES

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(frozen=True)
class DataReport:
    """The facts of a prepared corpus. Plain values only."""

    facts: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def from_facts(cls, corpus: dict[str, Any], manifest: dict[str, Any]) -> DataReport:
        """Build the report from the records of the two cache folders."""
        tokens = {part: facts["tokens"] for part, facts in manifest["parts"].items()}
        source_bytes = sum(facts["source_bytes"] for facts in manifest["parts"].values())
        documents = sum(facts["documents"] for facts in manifest["parts"].values())
        text_tokens = max(sum(tokens.values()) - documents, 1)
        kept = {key: value for key, value in corpus.items() if key not in {"files", "schema", "notes"}}
        return cls(
            {
                "schema": 1,
                **kept,
                "notes": [*corpus["sources"].get("notes", []), *corpus["notes"], *manifest["notes"]],
                "tokenizer": {**manifest["tokenizer"], "hash": manifest["tokenizer_hash"]},
                "tokens": {**tokens, "bytes_per_token": round(source_bytes / text_tokens, 4)},
            }
        )

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return self.facts

    @property
    def notes(self) -> list[str]:
        """Lines that the user should see."""
        return list(self.facts["notes"])

    def summary(self) -> str:
        """Return one line: what was read and kept, and how much was skipped and dropped for each reason."""
        facts = self.facts
        skipped = _counts(facts["sources"]["skipped"])
        dropped = _counts({reason: count["documents"] for reason, count in facts["dropped"].items()})
        files = _files(facts["sources"])
        return (
            f"text: {_size(facts['kept'])}{f' from {files}' if files else ''}; skipped: {skipped}; dropped: {dropped}; "
            f"near copies: {self._near_copies()}"
        )

    def _near_copies(self) -> str:
        count = self.facts.get("near_copies")
        return "not searched for" if count is None else f"{count:,}" if count else "none"

    def rows(self) -> Iterator[tuple[str, str, str]]:
        """Yield (label, amount, remark) for everything in the report, in reading order."""
        facts = self.facts
        looked = facts["sources"]["looked_at"]
        yield "sources", ", ".join(looked[:3]) + (" ..." if len(looked) > 3 else ""), _files(facts["sources"])
        for reason, count in facts["sources"]["skipped"].items():
            yield (
                f"  skipped: {reason}",
                f"{count:,}",
                "; ".join(facts["sources"]["examples"].get(reason, [])[:1]),
            )
        yield "read", _size(facts["read"]), ""
        for reason, dropped in facts["dropped"].items():
            examples = facts["examples"].get(reason, [])
            yield f"  dropped: {reason}", _size(dropped), f"such as {examples[0]['name']}" if examples else ""
        if "near copy" not in facts["dropped"]:
            yield "  near copies", self._near_copies(), ""
        yield "kept", _size(facts["kept"]), _lengths(facts["lengths"])
        for kind, count in facts.get("kinds", {}).items():
            yield f"  {kind}", f"{count:,}", ""
        yield "split", f"by {facts['split']['rule']}", self.split_remark()
        for part in ("train", "validation"):
            share = facts["split"][part]["bytes"] / max(facts["kept"]["bytes"], 1)
            yield f"  {part}", _size(facts["split"][part]), f"{share:.1%}, {facts['tokens'][part]:,} tokens"
        tokenizer = facts["tokenizer"]
        pattern = f", {tokenizer['pattern']} pattern" if "pattern" in tokenizer else ""
        end = f"end of a document: {tokenizer['eos']}"
        yield "tokenizer", f"{tokenizer['kind']}, {tokenizer['vocab_size']:,} entries{pattern}", end
        yield "  bytes per token", f"{facts['tokens']['bytes_per_token']:.2f}", ""

    def split_remark(self) -> str:
        """Describe how the text was split."""
        split = self.facts["split"]
        if self.facts.get(EXAMPLES):
            return _example_remark(split)
        if split["rule"] == "tail":
            return (
                f"the last {split['validation_chars']:,} characters are validation; lines were not compared"
            )
        remarks = []
        if split["documents_cut"]:
            cut = (
                "1 long document"
                if split["documents_cut"] == 1
                else f"{split['documents_cut']:,} long documents"
            )
            remarks.append(
                f"{cut} cut into {split['sections']:,} sections of about {split['section_bytes']:,} bytes"
            )
        if split["moved_to_training"]:
            remarks.append(
                f"{split['moved_to_training']:,} moved to training for sharing a line of {split['line_chars']}+ "
                "characters"
            )
        if split["capped"]:
            remarks.append("validation is limited to about 4 MB")
        return "; ".join(remarks) or "training and validation share no line of 64+ characters"

    def table(self) -> Table:
        """Return the report as a table for the terminal."""
        from rich.table import Table
        from rich.text import Text

        table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
        table.add_column(no_wrap=True)
        table.add_column(overflow="fold")
        table.add_column(overflow="fold", style="dim")
        for label, amount, remark in self.rows():
            style = "" if label.startswith("  ") else "bold"
            # Text, not markup: a file may be called [red].txt
            table.add_row(Text(label, style), Text(amount), Text(remark))
        for note in self.notes:
            table.add_row(Text("note", "bold yellow"), Text(note), "")
        return table

    def text(self, width: int = 120) -> str:
        """Return the report as plain lines."""
        from io import StringIO

        from rich.console import Console

        page = StringIO()
        Console(file=page, width=width, no_color=True, highlight=False).print(self.table())
        return "\n".join(line.rstrip() for line in page.getvalue().splitlines()) + "\n"


def _example_remark(split: dict[str, Any]) -> str:
    """Describe how examples were split."""
    how = "as their files are named" if split["rule"] == "files" else "whole examples"
    apart = split["near_copies_apart"]
    return f"{how}; {apart:,} near copies on both sides" if apart else f"{how}; near copies on one side"


def human_bytes(count: float) -> str:
    """Format a number of bytes, such as ``1.2 MB`` (decimal units)."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            break
        count /= 1000
    return f"{count:,.0f} {unit}" if unit == "bytes" or count >= 100 else f"{count:,.1f} {unit}"


def _counts(reasons: dict[str, int]) -> str:
    return ", ".join(f"{reason} ({count:,})" for reason, count in reasons.items()) or "nothing"


def _size(counts: dict[str, int]) -> str:
    noun = "document" if counts["documents"] == 1 else "documents"
    return f"{counts['documents']:,} {noun}, {human_bytes(counts['bytes'])}"


def _files(sources: dict[str, Any]) -> str:
    count = sources["files"]
    return "" if not count else "1 file" if count == 1 else f"{count:,} files"


def _lengths(lengths: dict[str, int]) -> str:
    """Return the range of the median document length, from the histogram by powers of two."""
    half, seen = sum(lengths.values()) / 2, 0
    for low, count in lengths.items():
        seen += count
        if seen >= half:
            return f"the median document has {human_bytes(int(low))} to {human_bytes(2 * int(low))}"
    return ""
