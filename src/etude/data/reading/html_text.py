"""Extract the visible text of an HTML page, in time linear in its length.

The standard library's parser takes quadratic time on elements that are never closed (such as CVE-2025-6069). This
module splits the page into tags and text by the rules of the HTML standard; the library resolves character references.
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
"""Elements in which `<` is text until their own end tag."""
_REFERENCES_IN = frozenset(["title", "textarea"])
_TAG = re.compile(r"<(/?)([A-Za-z][^\s/>]*)")
_QUOTED_OR_END = re.compile(r"""=\s*(?:"[^"]*"|'[^']*')|/?>""")
_LONG_NUMBER = re.compile(r"&#(?:[0-9]{8,}|[xX][0-9a-fA-F]{8,});?")
_COMMENT_END = re.compile(r"--!?>")


def _tokens(page: str) -> Iterator[tuple[str, str]]:
    """Yield (kind, value) in order: ``text``, and the names of tags as ``start``, ``end`` and ``empty`` (``<br/>``).

    A comment or tag that is still open at the end of the page is dropped with its content.
    """
    position = 0
    while position < len(page):
        opening = page.find("<", position)
        if opening < 0:
            yield "text", _unescaped(page[position:])
            return
        if opening > position:
            yield "text", _unescaped(page[position:opening])
        tag = _TAG.match(page, opening)
        if tag is None:
            position = _after_markup(page, opening)
            if position == opening:  # a lone < is text
                yield "text", "<"
                position += 1
            continue
        end = _end_of_tag(page, tag.end())
        if end < 0:
            return
        name = tag.group(2).lower()
        kind = "end" if tag.group(1) else "empty" if page[end - 2] == "/" else "start"
        yield kind, name
        position = end
        if kind == "start" and name in _RAW:
            closing = re.compile(rf"</{name}(?=[\s/>])", re.IGNORECASE).search(page, position)
            raw = page[position : closing.start() if closing else len(page)]
            yield "text", _unescaped(raw) if name in _REFERENCES_IN else raw
            position += len(raw)


def _after_markup(page: str, opening: int) -> int:
    """Return the end of a comment, a declaration or other markup; ``opening`` where it is only a <."""
    if page.startswith("<!--", opening):
        if page.startswith(("<!-->", "<!--->"), opening):
            return page.index(">", opening) + 1
        closing = _COMMENT_END.search(page, opening + 4)
        return closing.end() if closing else len(page)
    if page.startswith("<![CDATA[", opening):
        end = page.find("]]>", opening)
        return end + 3 if end >= 0 else len(page)
    if page.startswith(("<!", "<?", "</"), opening):
        end = page.find(">", opening)
        return end + 1 if end >= 0 else len(page)
    return opening


def _end_of_tag(page: str, position: int) -> int:
    """Return the position after the > of a tag, skipping any in quoted values; -1 where there is none."""
    while match := _QUOTED_OR_END.search(page, position):
        if match.group().endswith(">") and not match.group().startswith("="):
            return match.end()
        position = match.end()
    return -1


def _unescaped(text: str) -> str:
    # Python refuses numbers of thousands of digits; the standard gives U+FFFD for all numbers beyond Unicode.
    return html.unescape(_LONG_NUMBER.sub("\ufffd", text)) if "&" in text else text


class _Text:
    """Collect text; a block element is on a line of its own, a paragraph is between empty lines."""

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
        """Note the line ends that come before the next text: blocks share them, every <br> adds one."""
        if self.hidden:
            return
        if tag == "br":
            self.breaks += 1
        elif tag in _BLOCKS:
            self.breaks = max(self.breaks, 2 if tag in _PARAGRAPHS else 1)


def html_to_text(page: str) -> str:
    """Return the visible text, one line per block, at most one empty line between; skip scripts and styles."""
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
    """Return the codec that a page declares, with the web's meaning: iso-8859-1 is windows-1252."""
    head = re.sub(rb"<!--.*?(?:-->|\Z)", b"", head, count=100, flags=re.DOTALL)
    declaration = _XML_ENCODING.match(head) or _CHARSET.search(head)
    if declaration is None:
        return None
    try:
        codec = codec_of(declaration.group(1).decode("ascii"))
    except InputError:
        return None
    # The declaration was readable byte by byte, so the page is not UTF-16, whatever it declares.
    return "utf-8" if codec.startswith(("utf-16", "utf-32")) else codec
