"""Which encoding a file has: by its byte order mark, as UTF-8, as UTF-16 or UTF-32 without a mark, else by detection.

The whole file is looked at, so a file whose first megabyte is ASCII is judged by what comes after it, and nothing is
half-used. What is not certain is noted in the log, with the setting that overrides it. The same bytes give the same
answer, for a given version of the detector (``chardet``).
"""

from __future__ import annotations

import codecs
import re
import unicodedata
from dataclasses import dataclass, field
from typing import Any

from etude.data.reading import few_bytes
from etude.data.reading.binary import control_bytes, signature, too_many
from etude.data.reading.options import ReadingOptions, codec_of, label_of
from etude.data.reading.piece import SourceLog, Unusable
from etude.data.reading.streams import CHUNK_BYTES, Opener
from etude.untrusted import marked_encoding

DETECTED = (
    *("windows-1252", "windows-1250", "windows-1251", "windows-1253", "windows-1254", "windows-1255"),
    *("windows-1256", "windows-1257", "windows-1258", "cp874", "iso-8859-2", "iso-8859-5", "iso-8859-7"),
    *("koi8-r", "koi8-u", "cp866", "macroman", "cp437", "cp850", "cp852"),
    *("cp932", "euc-jp", "gb18030", "big5hkscs", "cp949"),
)
"""Those that are detected. Any that Python knows can be requested."""
LATIN = (
    "cp1252",
    "cp1250",
    "cp1254",
    "cp1257",
    "cp1258",
    "iso8859-2",
    "mac-roman",
    "cp850",
    "cp437",
    "cp852",
)
_DOS = ("cp850", "cp437", "cp852")
_EAST_ASIAN = ("cp932", "euc_jp", "gb18030", "big5hkscs", "cp949")
OVERRIDE = "--set data.encoding=NAME (or FILE=NAME)"
ERRORS = "windows-1252-for-bad-bytes"
"""The error handler of UTF-8 text with other bytes between: each of these reads as windows-1252 has it."""

_WIDE = ("utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be")
_HEAD_BYTES = 1 << 16
_SAMPLE_BYTES = 1 << 18
_SAMPLE_OF_CHUNK = 1 << 15
_AROUND = 80
_SURE = 0.2
_CLEARLY_BETTER = 1.4
"""How much likelier than windows-1252, by far the commonest, another encoding of Latin letters has to be."""
_HIGH = re.compile(rb"[\x80-\xff]+")
_BAD = re.compile("[\udc80-\udcff]")
_SHARED_PUNCTUATION = frozenset(b"\x82\x84\x85\x8b\x91\x92\x93\x94\x96\x97\x99\x9b\xa0\xab\xbb\x80")
"""The same in every Windows code page of a European language, but for the euro sign in the Cyrillic one."""


@dataclass(frozen=True)
class Encoding:
    """How a file decodes: Python's codec and error handler."""

    codec: str
    errors: str = "strict"


def encoding_of(
    opener: Opener, name: str, options: ReadingOptions, log: SourceLog, *, declared: str | None = None
) -> Encoding:
    """The encoding of the file ``name``, after the whole of it was seen to decode.

    A byte order mark is stronger than the settings, and these are stronger than what the file looks like. ``declared``
    is the codec that a page names itself; it counts where the bytes are not UTF-8.

    Raises:
        Unusable: empty, binary, or not the encoding that was requested or that its mark names.
    """
    with opener() as stream:
        head = stream.read(_HEAD_BYTES)
    if not head:
        raise Unusable("empty")
    marked = marked_encoding(head)
    if marked is not None and marked != "utf-8-sig":
        _require(opener, marked, "its byte order mark names this encoding; is the file damaged?")
        return Encoding(marked)
    requested = options.encoding_for(name)
    if requested is not None and marked is None:
        _require(opener, requested, "it is requested by data.encoding")
        return Encoding(requested)
    wide = _wide_encoding(opener, head)
    if wide is not None:
        log.assume(f"read as {label_of(wide)}, without a byte order mark", name, OVERRIDE)
        return Encoding(wide)
    survey = _Survey.of(opener)
    _refuse_binary(head, survey)
    if survey.is_utf8:
        if survey.escapes and _decodes(opener, "iso2022_jp"):
            log.assume("read as iso-2022-jp, by its escape sequences", name, OVERRIDE)
            return Encoding("iso2022_jp")
        return Encoding(marked or "utf-8")
    if marked or (survey.valid >= survey.bad and declared is None):
        what = "read as windows-1252, a last character that is cut off as U+FFFD"
        log.assume(f"UTF-8 but for {survey.bad:,} bytes: {what}", name, OVERRIDE)
        return Encoding(marked or "utf-8", ERRORS)
    if declared is not None and _decodes(opener, declared):
        return Encoding(declared)
    for codec, sure in _guesses(bytes(survey.sample)):
        if _decodes(opener, codec):
            log.assume(f"not UTF-8, read as {label_of(codec)}{'' if sure else ' (a guess)'}", name, OVERRIDE)
            return Encoding(codec)
    raise Unusable("unknown encoding", f"neither UTF-8 nor one that is recognised: {OVERRIDE}")


@dataclass
class _Survey:
    """What one pass over a file finds: whether it is UTF-8, and the surroundings of what is not ASCII."""

    is_utf8: bool = True
    size: int = 0
    controls: int = 0
    escapes: bool = False
    valid: int = 0
    bad: int = 0
    sample: bytearray = field(default_factory=bytearray)

    @classmethod
    def of(cls, opener: Opener) -> _Survey:
        survey, ascii_only = cls(), True
        strict = codecs.getincrementaldecoder("utf-8")()
        with opener() as stream:
            while chunk := stream.read(CHUNK_BYTES):
                survey.size += len(chunk)
                survey.controls += control_bytes(chunk)
                survey.escapes |= b"\x1b$" in chunk
                if not chunk.isascii():
                    ascii_only = False
                    survey._sample_from(chunk)
                survey.is_utf8 = survey.is_utf8 and _accepts(strict, chunk)
        survey.is_utf8 = survey.is_utf8 and _accepts(strict, b"", final=True)
        survey.escapes &= ascii_only
        if not survey.is_utf8:
            survey._count(opener)
        return survey

    def _sample_from(self, chunk: bytes) -> None:
        """Add the surroundings of non-ASCII bytes, of which other bytes decide nothing."""
        room, end = min(_SAMPLE_OF_CHUNK, _SAMPLE_BYTES - len(self.sample)), 0
        for found in _HIGH.finditer(chunk):
            if room <= 0:
                return
            start, stop = max(end, found.start() - _AROUND), min(len(chunk), found.end() + _AROUND)
            if start > end:
                self.sample += b"\n"
            part = chunk[start:stop]
            self.sample += part
            room -= len(part)
            end = max(end, stop)

    def _count(self, opener: Opener) -> None:
        """How many characters beyond ASCII are UTF-8, and how many bytes are not."""
        decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
        with opener() as stream:
            while chunk := stream.read(CHUNK_BYTES):
                self._add(decoder.decode(chunk))
        self._add(decoder.decode(b"", True))

    def _add(self, text: str) -> None:
        if not text.isascii():
            bad = len(_BAD.findall(text))
            self.bad += bad
            self.valid += len(text) - len(text.encode("ascii", "ignore")) - bad


def _refuse_binary(head: bytes, survey: _Survey) -> None:
    known = signature(head)
    if known is not None:
        raise Unusable("binary", ": ".join(part for part in known if part))
    if too_many(survey.controls, survey.size, is_utf8=survey.is_utf8):
        share = survey.controls / survey.size
        raise Unusable("binary", f"{share:.0%} of it is NUL bytes and other control characters")


def _wide_encoding(opener: Opener, head: bytes) -> str | None:
    """UTF-16 or UTF-32 without a mark, where the bytes are that and read as text."""
    import chardet

    if signature(head) is not None or (b"\0" not in head and _is_utf8(head)):
        return None
    head = head[: len(head) // 4 * 4] or head
    found = chardet.detect(
        head, include_encodings=list(_WIDE), compat_names=False, no_match_encoding="utf-16-le"
    )
    codec = str(found["encoding"]).lower()
    if codec not in _WIDE or found["confidence"] < 0.9:
        return None
    text = head.decode(codec, "replace")
    strange = sum(
        unicodedata.category(char) in {"Cc", "Cn", "Co"} and char not in "\t\n\r\f" for char in text
    )
    return codec if strange <= 0.02 * len(text) and _decodes(opener, codec) else None


def _is_utf8(head: bytes) -> bool:
    return _accepts(codecs.getincrementaldecoder("utf-8")(), head)


def _accepts(decoder: codecs.IncrementalDecoder, data: bytes, *, final: bool = False) -> bool:
    try:
        decoder.decode(data, final)
    except UnicodeDecodeError:
        return False
    return True


def _decodes(opener: Opener, codec: str) -> bool:
    try:
        _require(opener, codec, "")
    except Unusable:
        return False
    return True


def _require(opener: Opener, codec: str, why: str) -> None:
    """Refuse a file that is not ``codec`` from its first byte to its last."""
    decoder = codecs.getincrementaldecoder(codec)()
    position = 0
    with opener() as stream:
        while True:
            chunk = stream.read(CHUNK_BYTES)
            try:
                decoder.decode(chunk, not chunk)
            except UnicodeError as error:  # a codec of Python's own raises the plain kind, without a position
                offset = (
                    error.start - max(0, len(error.object) - len(chunk))
                    if isinstance(error, UnicodeDecodeError)
                    else 0
                )
                near = max(0, position + offset)
                raise Unusable(f"not {label_of(codec)}", f"bad byte near offset {near:,}; {why}") from error
            if not chunk:
                return
            position += len(chunk)


def _guesses(sample: bytes) -> list[tuple[str, bool]]:
    """(codec, whether it is sure) of the encodings that ``sample`` may have, the likeliest first."""
    runs = _HIGH.findall(sample)
    found = _detected(sample)
    if few_bytes.quotes_of_mac_roman(sample):
        found.insert(0, ("mac-roman", True))
    if sum(map(len, runs)) >= few_bytes.ENOUGH_BYTES:
        return found
    first = found[0][0] if found else ""
    vowel_signs_first = first == "cp1255" and any(b"\xc0" <= run[:1] <= b"\xdf" for run in runs)
    plausible = few_bytes.single_byte(sample, runs) if first in _EAST_ASIAN or vowel_signs_first else []
    return [(codec, False) for codec in [*plausible, *(codec for codec, _ in found)]]


def _detected(sample: bytes) -> list[tuple[str, bool]]:
    """As :func:`_guesses`, however short ``sample`` is."""
    import chardet

    ranked: list[tuple[str, float]] = []
    found: list[Any] = chardet.detect_all(
        sample,
        ignore_threshold=True,
        compat_names=False,
        include_encodings=list(DETECTED),
        no_match_encoding="windows-1252",
        max_bytes=_SAMPLE_BYTES,
    )
    for result in found:
        codec = codec_of(_superset(str(result["encoding"])))
        if codec not in dict(ranked):
            ranked.append((codec, float(result["confidence"])))
    if _only_punctuation(sample):
        return [("cp1252", True)]
    certain = bool(ranked) and ranked[0][1] >= _SURE and ranked[0][0] not in LATIN
    if _latin_letters(sample) and not certain:
        return _ranked_latin(ranked, sample)
    if not ranked or ranked[0][1] < _SURE / 4:
        alone = [("cp1252", 0.0)] if _short_runs(sample) else []  # signs such as a degree, not words
        ranked = [*_by_script(sample), *alone, *ranked]
    return [(codec, confidence >= _SURE) for codec, confidence in ranked]


def _superset(encoding: str) -> str:
    """The encoding that holds all of another and decodes more of what is found in the wild."""
    return {"euc_jis_2004": "euc_jp", "shift_jis_2004": "cp932"}.get(encoding.lower(), encoding)


def _ranked_latin(ranked: list[tuple[str, float]], sample: bytes) -> list[tuple[str, bool]]:
    """Encodings of Latin letters, windows-1252 first unless another is clearly likelier."""
    letters_of_dos = re.search(rb"[A-Za-z][\x80-\x9a]", sample)  # where those of Windows have punctuation
    possible = LATIN if letters_of_dos else tuple(codec for codec in LATIN if codec not in _DOS)
    scores = {codec: score for codec, score in ranked if codec in possible}
    scores["cp1252"] = scores.get("cp1252", 0.0) * _CLEARLY_BETTER
    order = sorted(scores, key=lambda codec: (-scores[codec], LATIN.index(codec)))
    best, second = scores[order[0]], scores[order[1]] if len(order) > 1 else 0.0
    sure = best >= _SURE / 2 and best > 1.5 * second
    return [*((codec, sure) for codec in order), *((c, False) for c in LATIN if c not in scores)]


def _only_punctuation(sample: bytes) -> bool:
    """Whether all that is not ASCII are quotation marks, dashes and the like of a Windows code page, where they fit."""
    if not _SHARED_PUNCTUATION.issuperset(byte for run in _HIGH.findall(sample) for byte in run):
        return False
    inside_words = re.findall(rb"[A-Za-z][\x80\x82\x84\x8b\x91\x93\x94\x99\x9b\xa0\xab\xbb]+[A-Za-z]", sample)
    return not inside_words


def _latin_letters(sample: bytes) -> bool:
    """Whether the bytes beyond ASCII stand alone or in pairs among many letters of ASCII."""
    letters = len(re.findall(rb"[A-Za-z]", sample))
    return letters >= 1.2 * sum(map(len, _HIGH.findall(sample))) and _short_runs(sample)


def _short_runs(sample: bytes) -> bool:
    """Whether the bytes beyond ASCII stand alone or in pairs, in four places of five."""
    runs = _HIGH.findall(sample)
    return sum(len(run) <= 2 for run in runs) >= 0.8 * len(runs)


def _by_script(sample: bytes) -> list[tuple[str, float]]:
    """Encodings of East Asia in which a sample too short for the detector reads as kana, or else as Hangul."""
    found = []
    for codec, first, last in (("cp932", "぀", "ヿ"), ("euc_jp", "぀", "ヿ"), ("cp949", "가", "힣")):
        try:
            letters = [char for char in sample.decode(codec) if char > "\x7f"]
        except UnicodeDecodeError:
            continue
        share = sum(first <= char <= last for char in letters) / max(len(letters), 1)
        if share > 0.3:
            found.append((codec, share))
    return found


def _windows_1252(error: UnicodeError) -> tuple[str, int]:
    """Bad bytes of UTF-8 text as windows-1252; U+FFFD for those without a meaning, and for a last character cut off."""
    if not isinstance(error, UnicodeDecodeError):
        raise error
    if error.reason == "unexpected end of data":
        return "\ufffd", error.end
    return error.object[error.start : error.end].decode("cp1252", "replace"), error.end


codecs.register_error(ERRORS, _windows_1252)
