"""Clean and judge the documents of sources as they arrive, and count what is dropped and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from etude.data.corpus.clean import filters, judge, normalise
from etude.data.reading.piece import EXAMPLES_KEPT, Piece, SourceLog
from etude.data.reading.sources import ExampleSource, Source, nothing_usable
from etude.errors import InputError
from etude.text_settings import DataSettings


@dataclass
class Intake:
    """What was read, dropped and kept as an example so far."""

    log: SourceLog = field(default_factory=SourceLog)
    documents: int = 0
    bytes: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    dropped_bytes: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[dict[str, str]]] = field(default_factory=dict)
    stopped: bool = False

    def drop(self, reason: str, name: str, text: str, size: int) -> None:
        self.dropped[reason] += 1
        self.dropped_bytes[reason] += size
        kept = self.examples.setdefault(reason, [])
        if len(kept) < EXAMPLES_KEPT:
            kept.append({"name": name, "text": " ".join(text[:400].split())[:120]})

    def cleaned(self, sources: Sequence[Source], data: DataSettings) -> Iterator[Piece]:
        """Yield the pieces of the documents that are kept, normalised; a document is judged by its first piece."""
        applied = filters(data.min_chars)
        dropping, reason = False, ""
        for source in sources:
            self.log.looked_at.append(source.name)
            for piece in source.pieces(self.log):
                if isinstance(source, ExampleSource):  # cleaned and judged when its row was read
                    self.documents += 1
                    self.bytes += len(piece.document.text.encode("utf-8"))
                    yield piece
                    continue
                document = piece.document
                size = len(document.text.encode("utf-8", "surrogatepass"))
                self.bytes += size
                text = normalise(document.text, data.normalization, self.log.changed)
                if piece.continues:
                    if dropping:
                        self.dropped_bytes[reason] += size
                        continue
                else:
                    self.documents += 1
                    keep, reason = judge(text, applied)
                    dropping = not keep
                    if dropping:
                        self.drop(reason, document.id, text, size)
                        continue
                yield Piece(replace(document, text=text), piece.continues)

    def dropped_words(self) -> str:
        """Return what was dropped, to end an error about too little text; empty when nothing was."""
        if not self.dropped:
            return ""
        count, size = self.dropped.total(), self.dropped_bytes.total()
        reasons = ", ".join(f"{reason}: {number:,}" for reason, number in self.dropped.most_common())
        return f", after {count:,} of {self.documents:,} documents ({size:,} bytes) were dropped ({reasons})"

    def nothing_usable(self) -> InputError:
        """Return the error for sources of which nothing was kept, with the reasons."""
        self.log.skipped.update(self.dropped)
        for reason, examples in self.examples.items():
            self.log.examples.setdefault(reason, [e["name"] for e in examples])
        return nothing_usable(self.log)


def fitting(text: str, room: int) -> str:
    """Return as much of ``text`` as fits into ``room`` bytes."""
    return text if len(text) * 4 <= room else text.encode("utf-8")[: max(room, 0)].decode("utf-8", "ignore")
