"""Determine a file's encoding: byte order mark, UTF-8, UTF-16 or UTF-32 without a mark, else by detection.

The whole file is examined, so a file whose first megabyte is ASCII is judged by what follows, and no file is used in
part. Uncertain results are noted in the log, with the setting that overrides them. The same bytes give the same answer
for a given version of the detector (``chardet``).
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
"""The encodings that are detected. Any encoding that Python knows can be requested."""
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
"""Name of the error handler for UTF-8 text with other bytes in it: it reads each of them as windows-1252."""

_WIDE = ("utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be")
_HEAD_BYTES = 1 << 16
_SAMPLE_BYTES = 1 << 18
_SAMPLE_OF_CHUNK = 1 << 15
_AROUND = 80
_SURE = 0.2
_CLEARLY_BETTER = 1.4
"""Required ratio of another Latin encoding's score to that of windows-1252, by far the most common one."""
_HIGH = re.compile(rb"[\x80-\xff]+")
_BAD = re.compile("[\udc80-\udcff]")
_SHARED_PUNCTUATION = frozenset(b"\x82\x84\x85\x8b\x91\x92\x93\x94\x96\x97\x99\x9b\xa0\xab\xbb\x80")
"""The same in every Windows code page of a European language, except for the euro sign in the Cyrillic one."""


@dataclass(frozen=True)
class Encoding:
    """How to decode a file: Python's codec and error handler."""

    codec: str
    errors: str = "strict"


def encoding_of(
    opener: Opener, name: str, options: ReadingOptions, log: SourceLog, *, declared: str | None = None
) -> Encoding:
    """Return the encoding of the file ``name``, after decoding all of it.

    A byte order mark overrides the settings, and the settings override detection. ``declared`` is the codec that a page
    names for itself; it counts only where the bytes are not UTF-8.

    Raises:
        Unusable: empty, binary, or not in the encoding that was requested or that its mark names.
    """
    with opener() as stream:
        head = stream.read(_HEAD_BYTES)
    if not head:
        raise Unusable("empty")
    marked = marked_encoding(head)
    if marked is not None and marked != "utf-8-sig":
        _require(opener, marked, "its byte order mark names this encoding: is the file damaged?")
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
        what = "read as windows-1252, a cut-off last character as U+FFFD"
        log.assume(f"UTF-8 except for {survey.bad:,} bytes: {what}", name, OVERRIDE)
        return Encoding(marked or "utf-8", ERRORS)
    if declared is not None and _decodes(opener, declared):
        return Encoding(declared)
    for codec, sure in _guesses(bytes(survey.sample)):
        if _decodes(opener, codec):
            log.assume(f"not UTF-8, read as {label_of(codec)}{'' if sure else ' (a guess)'}", name, OVERRIDE)
            return Encoding(codec)
    raise Unusable("unknown encoding", f"neither UTF-8 nor another encoding that is detected: {OVERRIDE}")


@dataclass
class _Survey:
    """The result of one pass over a file: whether it is UTF-8, and the surroundings of its non-ASCII bytes."""

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
        """Add the surroundings of non-ASCII bytes; the other bytes decide nothing."""
        room, end = min(_SAMPLE_OF_CHUNK, _SAMPLE_BYTES - len(self.sample)), 0
        for run in _HIGH.finditer(chunk):
            if room <= 0:
                return
            start, stop = max(end, run.start() - _AROUND), min(len(chunk), run.end() + _AROUND)
            if start > end:
                self.sample += b"\n"
            part = chunk[start:stop]
            self.sample += part
            room -= len(part)
            end = max(end, stop)

    def _count(self, opener: Opener) -> None:
        """Count the non-ASCII characters that are valid UTF-8, and the bytes that are not."""
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
    """Detect UTF-16 or UTF-32 without a byte order mark; None unless the bytes read as text in it."""
    import chardet

    if signature(head) is not None or (b"\0" not in head and _is_utf8(head)):
        return None
    head = head[: len(head) // 4 * 4] or head
    detected = chardet.detect(
        head, include_encodings=list(_WIDE), compat_names=False, no_match_encoding="utf-16-le"
    )
    codec = str(detected["encoding"]).lower()
    if codec not in _WIDE or detected["confidence"] < 0.9:
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
    """Raise Unusable unless the whole file is valid in ``codec``."""
    decoder = codecs.getincrementaldecoder(codec)()
    position = 0
    with opener() as stream:
        while True:
            chunk = stream.read(CHUNK_BYTES)
            try:
                decoder.decode(chunk, not chunk)
            except UnicodeError as error:  # some of Python's codecs raise this class, without a position
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
    """Return (codec, whether it is certain) for the encodings that ``sample`` may have, the likeliest first."""
    runs = _HIGH.findall(sample)
    guesses = _detected(sample)
    if few_bytes.quotes_of_mac_roman(sample):
        guesses.insert(0, ("mac-roman", True))
    if sum(map(len, runs)) >= few_bytes.ENOUGH_BYTES:
        return guesses
    first = guesses[0][0] if guesses else ""
    vowel_signs_first = first == "cp1255" and any(b"\xc0" <= run[:1] <= b"\xdf" for run in runs)
    plausible = few_bytes.single_byte(sample, runs) if first in _EAST_ASIAN or vowel_signs_first else []
    return [(codec, False) for codec in [*plausible, *(codec for codec, _ in guesses)]]


def _detected(sample: bytes) -> list[tuple[str, bool]]:
    """Return the same as :func:`_guesses`, for a sample of any length."""
    import chardet

    ranked: list[tuple[str, float]] = []
    results: list[Any] = chardet.detect_all(
        sample,
        ignore_threshold=True,
        compat_names=False,
        include_encodings=list(DETECTED),
        no_match_encoding="windows-1252",
        max_bytes=_SAMPLE_BYTES,
    )
    for result in results:
        codec = codec_of(_superset(str(result["encoding"])))
        if codec not in dict(ranked):
            ranked.append((codec, float(result["confidence"])))
    if _only_punctuation(sample):
        return [("cp1252", True)]
    certain = bool(ranked) and ranked[0][1] >= _SURE and ranked[0][0] not in LATIN
    if _latin_letters(sample) and not certain:
        return _ranked_latin(ranked, sample)
    if not ranked or ranked[0][1] < _SURE / 4:
        alone = [("cp1252", 0.0)] if _short_runs(sample) else []  # signs such as the degree sign, not words
        ranked = [*_by_script(sample), *alone, *ranked]
    return [(codec, confidence >= _SURE) for codec, confidence in ranked]


def _superset(encoding: str) -> str:
    """Return the encoding that contains another one and decodes more of the files in use."""
    return {"euc_jis_2004": "euc_jp", "shift_jis_2004": "cp932"}.get(encoding.lower(), encoding)


def _ranked_latin(ranked: list[tuple[str, float]], sample: bytes) -> list[tuple[str, bool]]:
    """Rank the encodings of Latin letters, windows-1252 first unless another is clearly likelier."""
    letters_of_dos = re.search(rb"[A-Za-z][\x80-\x9a]", sample)  # Windows has punctuation at these codes
    possible = LATIN if letters_of_dos else tuple(codec for codec in LATIN if codec not in _DOS)
    scores = {codec: score for codec, score in ranked if codec in possible}
    scores["cp1252"] = scores.get("cp1252", 0.0) * _CLEARLY_BETTER
    order = sorted(scores, key=lambda codec: (-scores[codec], LATIN.index(codec)))
    best, second = scores[order[0]], scores[order[1]] if len(order) > 1 else 0.0
    sure = best >= _SURE / 2 and best > 1.5 * second
    return [*((codec, sure) for codec in order), *((c, False) for c in LATIN if c not in scores)]


def _only_punctuation(sample: bytes) -> bool:
    """Return whether all non-ASCII bytes are punctuation of a Windows code page, in plausible places."""
    if not _SHARED_PUNCTUATION.issuperset(byte for run in _HIGH.findall(sample) for byte in run):
        return False
    inside_words = re.findall(rb"[A-Za-z][\x80\x82\x84\x8b\x91\x93\x94\x99\x9b\xa0\xab\xbb]+[A-Za-z]", sample)
    return not inside_words


def _latin_letters(sample: bytes) -> bool:
    """Return whether the non-ASCII bytes stand alone or in pairs among many ASCII letters."""
    letters = len(re.findall(rb"[A-Za-z]", sample))
    return letters >= 1.2 * sum(map(len, _HIGH.findall(sample))) and _short_runs(sample)


def _short_runs(sample: bytes) -> bool:
    """Return whether the non-ASCII bytes stand alone or in pairs in at least four places of five."""
    runs = _HIGH.findall(sample)
    return sum(len(run) <= 2 for run in runs) >= 0.8 * len(runs)


def _by_script(sample: bytes) -> list[tuple[str, float]]:
    """Return East Asian encodings in which a sample too short for the detector reads as kana, or else as Hangul."""
    codecs_by_script = []
    for codec, first, last in (("cp932", "぀", "ヿ"), ("euc_jp", "぀", "ヿ"), ("cp949", "가", "힣")):
        try:
            letters = [char for char in sample.decode(codec) if char > "\x7f"]
        except UnicodeDecodeError:
            continue
        share = sum(first <= char <= last for char in letters) / max(len(letters), 1)
        if share > 0.3:
            codecs_by_script.append((codec, share))
    return codecs_by_script


def _windows_1252(error: UnicodeError) -> tuple[str, int]:
    """Decode bad bytes of UTF-8 text as windows-1252; undefined bytes and a cut-off last character give U+FFFD."""
    if not isinstance(error, UnicodeDecodeError):
        raise error
    if error.reason == "unexpected end of data":
        return "\ufffd", error.end
    return error.object[error.start : error.end].decode("cp1252", "replace"), error.end


codecs.register_error(ERRORS, _windows_1252)
