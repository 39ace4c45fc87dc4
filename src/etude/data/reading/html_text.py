"""The visible text of an HTML page, by the standard library's parser."""

from __future__ import annotations

import re
from html.parser import HTMLParser

_HIDDEN = frozenset({"script", "style", "template", "noscript", "svg", "math", "iframe", "object", "select"})
_BLOCKS = frozenset(
    [
        "address",
        "article",
        "aside",
        "blockquote",
        "body",
        "br",
        "caption",
        "dd",
        "details",
        "dialog",
        "div",
        "dl",
        "dt",
        "fieldset",
        "figcaption",
        "figure",
        "footer",
        "form",
        "h1",
        "h2",
        "h3",
        "h4",
        "h5",
        "h6",
        "header",
        "hr",
        "html",
        "li",
        "main",
        "nav",
        "ol",
        "option",
        "p",
        "pre",
        "section",
        "summary",
        "table",
        "tbody",
        "td",
        "tfoot",
        "th",
        "thead",
        "title",
        "tr",
        "ul",
    ]
)
_PARAGRAPHS = frozenset(
    [
        "article",
        "blockquote",
        "dl",
        "figure",
        "h1",
        "h2",
        "h3",
        "h4",
        "h5",
        "h6",
        "ol",
        "p",
        "pre",
        "section",
        "table",
        "title",
        "ul",
    ]
)
_VOID = frozenset(
    ["area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"]
)


class _Text(HTMLParser):
    """Collects text; a block element is a line of its own, a paragraph has an empty line around it."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self.hidden: list[str] = []
        self.preformatted = 0
        self.breaks = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in _HIDDEN:
            self.hidden.append(tag)
        self._break(tag)
        self.preformatted += tag == "pre"

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in _VOID:
            self._break(tag)
        else:  # HTML has no self-closing <p/>: a browser reads it as an opening tag
            self.handle_starttag(tag, attrs)
            if tag in _HIDDEN:
                self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in self.hidden:
            while self.hidden.pop() != tag:
                pass
        self.preformatted = max(0, self.preformatted - (tag == "pre"))
        self._break(tag)

    def handle_data(self, data: str) -> None:
        if self.hidden:
            return
        if not self.preformatted:
            data = re.sub(r"[ \t\r\n\f]+", " ", data)
            at_line_start = self.breaks or not self.parts or self.parts[-1].endswith((" ", "\n"))
            data = data.lstrip(" ") if at_line_start else data
        if data:
            self.parts.append("\n" * self.breaks + data)
            self.breaks = 0

    def _break(self, tag: str) -> None:
        """Line ends to come before the next text: blocks share them, every <br> adds one."""
        if self.hidden:
            return
        if tag == "br":
            self.breaks += 1
        elif tag in _BLOCKS:
            self.breaks = max(self.breaks, 2 if tag in _PARAGRAPHS else 1)


def html_to_text(page: str) -> str:
    """Visible text, one line a block, at most one empty line between; scripts and styles are left out."""
    parser = _Text()
    parser.feed(page)
    parser.close()
    lines = (line.rstrip() for line in "".join(parser.parts).split("\n"))
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip("\n") + "\n"


_CHARSET = re.compile(rb"<meta[^>]{0,200}?charset\s*=\s*[\"']?([A-Za-z0-9_-]{1,40})", re.IGNORECASE)


def declared_encoding(head: bytes) -> str | None:
    """The encoding that a page's ``<meta charset>`` names, if Python knows it as a text encoding."""
    found = _CHARSET.search(head)
    if found is None:
        return None
    name = found.group(1).decode("ascii")
    try:
        b"".decode(name)
        "".encode(name)
    except (LookupError, ValueError):
        return None
    return name
