"""Show what a model would be trained on: ``etude data preview``."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from etude.config import Settings
from etude.data.conversations.preview import Preview, preview
from etude.data.conversations.preview_output import legend_text, preview_page, row_text
from etude.data.conversations.template import CHATML, CHATML_TOKENS, ChatTemplate, template_of
from etude.data.reading.options import ReadingOptions
from etude.data.reading.sources import open_sources
from etude.data.tokens.packing import LONGEST_EXAMPLE
from etude.data.tokens.tokenizer import EtudeTokenizer
from etude.files import write_atomic
from etude.model.folder import load_config
from etude.pretrained.chat_tokens import base_tokenizer
from etude.pretrained.resolve_source import model_folder
from etude.show.lines import say


def show_preview(settings: Settings, base: str, *, rows: int, page: Path | None) -> None:
    """Print the first rows in colours and the counts of all; write the rows to ``page``.

    Raises:
        InputError: there is no such data or model, or no row can be used.
    """
    console = Console()
    result = preview_for(settings, base, rows)
    for row in result.rows:
        console.print(row_text(row), soft_wrap=True)
    console.print(legend_text(), soft_wrap=True)
    for line in result.lines():
        say(console, line)
    if page is not None:
        title = f"{', '.join(settings.data.sources)} for {base}"
        write_atomic(page, preview_page(result, title))
        say(console, str(page))


def preview_for(settings: Settings, base: str, rows: int) -> Preview:
    """Return the preview of training ``base`` with ``settings``, with the first ``rows``.

    Raises:
        InputError: there is no such data or model, or no row can be used.
    """
    tokenizer = base_tokenizer(base)
    template, note = _template(tokenizer)
    # Training takes shorter rows where the longest example is shorter, and cuts none then either.
    longest = min(load_config(model_folder(base)).max_position_embeddings, LONGEST_EXAMPLE)
    context = settings.train.context
    result = _preview(settings, tokenizer, template, rows, longest if context == "auto" else context)
    result.notes += note
    return result


def _preview(
    settings: Settings, tokenizer: EtudeTokenizer, template: ChatTemplate, rows: int, context: int
) -> Preview:
    data = settings.data
    spool = Path(tempfile.mkdtemp(prefix="etude-"))
    try:
        budget = None if data.max_bytes == "auto" else data.max_bytes
        sources = open_sources(
            data.sources,
            options=replace(ReadingOptions.of(data), examples=True),
            max_bytes=budget,
            seed=0 if data.seed == "auto" else data.seed,
            spool=spool,
        )
        copies = data.deduplicate == "none"
        return preview(sources, tokenizer, template, data.mask, context=context, rows=rows, copies=copies)
    finally:
        shutil.rmtree(spool, ignore_errors=True)


def _template(tokenizer: EtudeTokenizer) -> tuple[ChatTemplate, list[str]]:
    """Return the template of the base, or ChatML, whose tokens training would add, with a note."""
    own = template_of(tokenizer)
    if own is not None:
        return own, []
    tokenizer.backend.add_special_tokens(list(CHATML_TOKENS))
    return CHATML, ["the base has no chat template: training gives it ChatML and its tokens"]
