"""The normalisation of a tokenizer: what :func:`etude.data.corpus.clean.normalise` did to its training text.

It is recorded beside tokenizer.json and written into it as its ``normalizer``, so that other programs apply it as well.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from etude.data.corpus.clean import _CONTROL, _LINE_ENDS, Form

if TYPE_CHECKING:
    from tokenizers import Tokenizer

FORMS: tuple[Form, ...] = ("NFC", "NFKC", "none")


def normaliser_of(form: Form) -> Any:
    """Return the ``tokenizers.normalizers`` object that does what cleaning with ``form`` does.

    The two differ in C1 control characters, which no cleaned text holds (cleaning repairs text that was decoded with
    the wrong encoding), in runs of more combining marks than cleaning allows, and where the two libraries use
    different versions of Unicode.
    """
    from tokenizers import Regex, normalizers

    steps = [
        normalizers.Replace(Regex("[\ufeff\0]"), ""),
        normalizers.Replace(Regex(_LINE_ENDS.pattern), "\n"),
        normalizers.Replace(Regex(_CONTROL.pattern), ""),
    ]
    forms = {"NFC": normalizers.NFC, "NFKC": normalizers.NFKC}
    return normalizers.Sequence([*steps, forms[form]()] if form in forms else steps)


def add_normaliser(backend: Tokenizer, form: Form) -> None:
    """Make ``backend`` normalise as cleaning does, unless it has a normaliser of its own."""
    if backend.normalizer is None:
        backend.normalizer = normaliser_of(form)


def remove_normaliser(backend: Tokenizer, form: Form) -> None:
    """Undo :func:`add_normaliser`: cleaning itself is exact and faster, and training text is already clean."""
    current = backend.normalizer
    if current is not None and current.__getstate__() == normaliser_of(form).__getstate__():
        backend.normalizer = None
