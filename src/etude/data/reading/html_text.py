"""The visible text of an HTML page, in time that is linear in its length.

The standard library's parser is quadratic in what is opened and never closed (CVE-2025-6069 and its like), so the page
is cut into tags and text here, as the HTML standard has it; character references are the library's.
"""

from __future__ import annotations

import html
import re
from collections import Counter
from collections.abc import Iterator

from etude.data.reading.options import codec_of
from etude.errors import InputError

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


_RAW = frozenset(["script", "style", "xmp", "iframe", "noembed", "noframes", "title", "textarea"])
"""Elements in which `<` is text until their own end tag comes."""
_REFERENCES_IN = frozenset(["title", "textarea"])
_TAG = re.compile(r"<(/?)([A-Za-z][^\s/>]*)")
_QUOTED_OR_END = re.compile(r"""=\s*(?:"[^"]*"|'[^']*')|/?>""")
_LONG_NUMBER = re.compile(r"&#(?:[0-9]{8,}|[xX][0-9a-fA-F]{8,});?")
_COMMENT_END = re.compile(r"--!?>")


def _tokens(page: str) -> Iterator[tuple[str, str]]:
    """(kind, value) in order: ``text``, and the names of tags as ``start``, ``end`` and ``empty`` (``<br/>``).

    What is open where the page ends, a comment or a tag, is dropped with all that it holds.
    """
    position = 0
    while position < len(page):
        opening = page.find("<", position)
        if opening < 0:
            yield "text", _unescaped(page[position:])
            return
        if opening > position:
            yield "text", _unescaped(page[position:opening])
        found = _TAG.match(page, opening)
        if found is None:
            position = _after_markup(page, opening)
            if position == opening:  # a lone < is text
                yield "text", "<"
                position += 1
            continue
        end = _end_of_tag(page, found.end())
        if end < 0:
            return
        name = found.group(2).lower()
        kind = "end" if found.group(1) else "empty" if page[end - 2] == "/" else "start"
        yield kind, name
        position = end
        if kind == "start" and name in _RAW:
            closing = re.compile(rf"</{name}(?=[\s/>])", re.IGNORECASE).search(page, position)
            raw = page[position : closing.start() if closing else len(page)]
            yield "text", _unescaped(raw) if name in _REFERENCES_IN else raw
            position += len(raw)


def _after_markup(page: str, opening: int) -> int:
    """Where a comment, a declaration or another thing that is no tag ends; ``opening`` where it is only a <."""
    if page.startswith("<!--", opening):
        if page.startswith(("<!-->", "<!--->"), opening):
            return page.index(">", opening) + 1
        found = _COMMENT_END.search(page, opening + 4)
        return found.end() if found else len(page)
    if page.startswith("<![CDATA[", opening):
        end = page.find("]]>", opening)
        return end + 3 if end >= 0 else len(page)
    if page.startswith(("<!", "<?", "</"), opening):
        end = page.find(">", opening)
        return end + 1 if end >= 0 else len(page)
    return opening


def _end_of_tag(page: str, position: int) -> int:
    """The place after the > of a tag, which may also stand in quoted values; -1 where there is none."""
    while found := _QUOTED_OR_END.search(page, position):
        if found.group().endswith(">") and not found.group().startswith("="):
            return found.end()
        position = found.end()
    return -1


def _unescaped(text: str) -> str:
    # Python refuses to read numbers of thousands of digits; the standard has U+FFFD for all beyond Unicode.
    return html.unescape(_LONG_NUMBER.sub("\ufffd", text)) if "&" in text else text


class _Text:
    """Collects text; a block element is a line of its own, a paragraph has an empty line around it."""

    def __init__(self) -> None:
        self.parts: list[str] = []
        self.hidden: list[str] = []
        self.hidden_names: Counter[str] = Counter()
        self.preformatted = 0
        self.breaks = 0

    def start(self, tag: str) -> None:
        if tag in _HIDDEN:
            self.hidden.append(tag)
            self.hidden_names[tag] += 1
        self._break(tag)
        self.preformatted += tag == "pre"

    def empty(self, tag: str) -> None:
        if tag in _VOID:
            self._break(tag)
        else:  # HTML has no self-closing <p/>: a browser reads it as an opening tag
            self.start(tag)
            if tag in _HIDDEN:
                self.end(tag)

    def end(self, tag: str) -> None:
        if self.hidden_names[tag]:
            last = ""
            while last != tag:
                last = self.hidden.pop()
                self.hidden_names[last] -= 1
        self.preformatted = max(0, self.preformatted - (tag == "pre"))
        self._break(tag)

    def text(self, data: str) -> None:
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
    visible = _Text()
    for kind, value in _tokens(page):
        getattr(visible, kind)(value)
    lines = (line.rstrip() for line in "".join(visible.parts).split("\n"))
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip("\n") + "\n"


_CHARSET = re.compile(rb"<meta[^>]{0,200}?charset\s*=\s*[\"']?\s*([A-Za-z0-9_:.-]{1,40})", re.IGNORECASE)
_XML_ENCODING = re.compile(
    rb"\s*<\?xml[^>]{0,100}?encoding\s*=\s*[\"']([A-Za-z0-9_:.-]{1,40})", re.IGNORECASE
)


def declared_encoding(head: bytes) -> str | None:
    """The codec of the encoding that a page names: as the web has it, where iso-8859-1 means windows-1252."""
    head = re.sub(rb"<!--.*?(?:-->|\Z)", b"", head, count=100, flags=re.DOTALL)
    found = _XML_ENCODING.match(head) or _CHARSET.search(head)
    if found is None:
        return None
    try:
        codec = codec_of(found.group(1).decode("ascii"))
    except InputError:
        return None
    # A page in which this could be read byte by byte is not UTF-16, whatever it says.
    return "utf-8" if codec.startswith(("utf-16", "utf-32")) else codec
