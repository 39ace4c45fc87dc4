"""A preview of training data in the terminal, and as a page of HTML."""

from __future__ import annotations

import html
from collections.abc import Mapping
from typing import TYPE_CHECKING

from etude.data.conversations.preview import Preview, PreviewRow, ShownToken, State
from etude.show.lines import printable
from etude.untrusted import one_line

if TYPE_CHECKING:
    from rich.text import Text

STATES: Mapping[State, tuple[str, str]] = {
    "context": ("dim", "read, but not trained"),
    "trained": ("bold green", "what the model learns to write"),
    "truncated": ("yellow strike", "beyond the longest context: cut off"),
    "dropped": ("red strike", "not used"),
}
"""Each state with its style in the terminal and its meaning."""

_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; --page: #fff; --ink: #222; --quiet: #767676; --line: #ddd;
  --trained: #d9f2dd; --trained-ink: #14532d; --truncated: #fdf0c4; --truncated-ink: #6b4e00;
  --dropped: #fbdcdc; --dropped-ink: #7f1d1d; }}
@media (prefers-color-scheme: dark) {{ :root {{ --page: #16181d; --ink: #e6e6e6; --quiet: #8d929c; --line: #333842;
  --trained: #15391f; --trained-ink: #b4efc2; --truncated: #40340a; --truncated-ink: #f3dd91;
  --dropped: #451a1a; --dropped-ink: #f7bcbc; }} }}
body {{ margin: 2rem auto; max-width: 60rem; padding: 0 1rem; background: var(--page); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif; }}
h1 {{ font-size: 1.4rem; }} h2 {{ font-size: 1rem; margin: 2rem 0 .3rem; overflow-wrap: anywhere; }}
ul {{ padding-left: 1.2rem; }} .problem {{ color: var(--dropped-ink); }}
pre {{ white-space: pre-wrap; overflow-wrap: anywhere; border: 1px solid var(--line); border-radius: 6px;
  padding: .8rem; margin: 0; font: 14px/1.7 ui-monospace, monospace; }}
span {{ border-radius: 3px; }} span + span {{ box-shadow: -1px 0 0 var(--line); }}
.context {{ color: var(--quiet); }}
.trained {{ background: var(--trained); color: var(--trained-ink); }}
.truncated {{ background: var(--truncated); color: var(--truncated-ink); text-decoration: line-through; }}
.dropped {{ background: var(--dropped); color: var(--dropped-ink); text-decoration: line-through; }}
</style>
<h1>{title}</h1>
<ul>
{counts}
</ul>
<p>{legend}</p>
{rows}
</html>
"""


def row_text(row: PreviewRow) -> Text:
    """Return a row for the terminal: its tokens in colours. Line ends are shown and kept."""
    from rich.text import Text

    text = Text()
    text.append(f"{one_line(row.name)}, {row.kind}", style="bold")
    if row.problem:
        text.append(f": {one_line(row.problem)}", style="red")
    text.append("\n")
    for token in row.tokens:
        text.append(_visible(token), style=STATES[token.state][0])
    if not text.plain.endswith("\n"):
        text.append("\n")
    return text


def legend_text() -> Text:
    """Return the meaning of the colours for the terminal."""
    from rich.text import Text

    text = Text()
    for number, (state, (style, meaning)) in enumerate(STATES.items()):
        text.append("; " if number else "")
        text.append(state, style=style)
        text.append(f": {meaning}")
    return text


def preview_page(preview: Preview, title: str) -> str:
    """Return a page of HTML that needs no other file, for light and dark screens."""
    legend = "; ".join(
        f'<span class="{state}">{state}</span>: {meaning}' for state, (_, meaning) in STATES.items()
    )
    return _PAGE.format(
        title=html.escape(one_line(title)),
        counts="\n".join(f"<li>{html.escape(one_line(line.strip()))}</li>" for line in preview.lines()),
        legend=legend,
        rows="\n".join(map(_row_html, preview.rows)),
    )


def _row_html(row: PreviewRow) -> str:
    problem = f' <span class="problem">{html.escape(one_line(row.problem))}</span>' if row.problem else ""
    tokens = "".join(
        f'<span class="{token.state}" title="{" ".join(map(str, token.ids))}">{html.escape(_visible(token))}</span>'
        for token in row.tokens
    )
    return f"<h2>{html.escape(one_line(row.name))}, {row.kind}{problem}</h2>\n<pre>{tokens}</pre>"


def _visible(token: ShownToken) -> str:
    """Return a token's text with line ends marked, without characters that would move the cursor."""
    return printable(token.text).replace("\n", "↵\n")
