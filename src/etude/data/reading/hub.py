"""Data sets of the Hugging Face Hub, streamed: ``hf:owner/name`` or ``hf:owner/name:split``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from etude.data.document import Document
from etude.data.reading.example_rows import Enough, example_line, kind_of
from etude.data.reading.fields import text_of
from etude.data.reading.options import ReadingOptions
from etude.data.reading.piece import MAX_ROW_CHARS, Piece, SourceLog, Unusable
from etude.errors import InputError
from etude.files import hash_file

PREFIX = "hf:"


class HubSource:
    """A data set that ``datasets.load_dataset`` can stream: on the Hub, or in a local folder."""

    size = None

    def __init__(self, name: str, text_field: str, options: ReadingOptions | None = None) -> None:
        self.name = name
        self.text_field = text_field
        self.options = options or ReadingOptions(text_field)
        target = name.removeprefix(PREFIX)
        self.path, self.split = target, "train"
        if not Path(target).exists() and ":" in target:
            self.path, _, self.split = target.rpartition(":")
        if not self.path or not self.split:
            raise InputError(f"'{name}' does not name a data set: type hf:owner/name or hf:owner/name:split")
        self._datasets()

    def identity(self) -> dict[str, Any]:
        """Return the hashes of the files of a local folder, or the commit on the Hub."""
        local = Path(self.path)
        if local.exists():
            paths = [local] if local.is_file() else sorted(p for p in local.rglob("*") if p.is_file())
            return {"source": self.name, "files": [[str(path), hash_file(path)] for path in paths]}
        return {"source": self.name, "commit": self._commit()}

    def pieces(self, log: SourceLog) -> Iterator[Piece]:
        """Yield one document per row."""
        try:
            rows = self._datasets().load_dataset(self.path, split=self.split, streaming=True)
            for number, row in enumerate(rows):
                name = f"{self.name}#{number}"
                try:
                    text: str
                    if self.options.examples:
                        text = example_line(row, self.options, log)
                    else:
                        text = text_of(row, self.text_field)
                    if len(text) > MAX_ROW_CHARS:
                        raise Unusable("row too long")
                except Unusable as error:
                    log.skip(error.reason, name, error.detail)
                else:
                    yield Piece(Document(text, name, self.name, kind_of(text)))
        except (InputError, Enough):
            raise
        except Exception as error:  # the library raises a dozen kinds of error, mostly from other libraries
            raise self._explained(error) from error

    def _commit(self) -> str:
        try:
            from huggingface_hub import HfApi

            return str(HfApi().dataset_info(self.path, timeout=20).sha)
        except Exception as error:
            raise self._explained(error) from error

    def _explained(self, error: Exception) -> InputError:
        kind = type(error).__name__
        reason = (str(error).strip().splitlines() or [kind])[0][:200]
        if kind in {"RepositoryNotFoundError", "DatasetNotFoundError", "HFValidationError", "GatedRepoError"}:
            return InputError(f"the Hub has no open data set '{self.path}': check owner/name ({kind})")
        if "split" in reason.lower():
            return InputError(f"{self.name}: {reason}; name the split as hf:owner/name:split")
        if (
            isinstance(error, OSError)
            or "Connect" in kind
            or "Timeout" in kind
            or "Offline" in kind
            or "HTTP" in kind
        ):
            return InputError(
                f"the Hugging Face Hub cannot be reached for '{self.path}' ({kind}): use local files"
            )
        return InputError(f"{self.name} cannot be read: {kind}: {reason}")

    def _datasets(self) -> Any:
        try:
            import datasets
        except ImportError:
            raise InputError("hf: sources need the data set library: pip install 'etude[hub]'") from None
        datasets.disable_progress_bars()
        return datasets
