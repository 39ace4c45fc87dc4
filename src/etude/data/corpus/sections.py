"""Cut a long text into sections, at the end of a paragraph or of a line."""

from __future__ import annotations

from collections.abc import Callable, Iterator

ReadBytes = Callable[[int, int], bytes]


def cut_sections(read: ReadBytes, start: int, end: int, size: int) -> Iterator[tuple[int, int]]:
    """Yield byte ranges of about ``size`` bytes that tile [start, end) of UTF-8 text.

    A section ends in the second half of ``size`` bytes, after an empty line or else after a line. A longer line is
    followed to its end up to ``3 * size`` bytes, and is otherwise cut after a space or between two characters.
    """
    position = start
    while end - position > size + size // 2:
        window = read(position, min(end, position + 3 * size))
        length = _section_length(window, size)
        yield position, position + length
        position += length
    if position < end:
        yield position, end


def _section_length(window: bytes, size: int) -> int:
    half = size // 2
    paragraph = window.rfind(b"\n\n", half, size)
    if paragraph >= 0:
        return paragraph + 2
    line = window.rfind(b"\n", half, size)
    if line < 0:
        line = window.find(b"\n", size)
    if line >= 0:
        return line + 1
    space = window.rfind(b" ", half, size)
    if space >= 0:
        return space + 1
    length = size
    while length > 1 and window[length] & 0xC0 == 0x80:  # inside a character of several bytes
        length -= 1
    return length
