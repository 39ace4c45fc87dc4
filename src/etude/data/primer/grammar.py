"""A small template language for prose, compiled once and rendered many times.

``[a|b|c]`` picks one branch (branches nest, and may be empty), ``<glad>`` picks from a word list of the lexicon, ``{a}``
is a slot. A slot names something in the environment: plain text, or an object with ``refer(form, sentence, rng)`` that
chooses its wording at this point of the discourse (``{a}`` name or pronoun, ``{a.his}`` always the pronoun, ``{t.a}``
"a red kite").
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from etude.data.primer.rng import Rng
from etude.data.primer.words import WORDS

Nodes = tuple[Any, ...]


class Slot:
    """A place in a template that the environment fills."""

    __slots__ = ("form", "key", "upper")

    def __init__(self, source: str) -> None:
        key, _, self.form = source.partition(".")
        self.upper = key[0].isupper()
        self.key = key[0].lower() + key[1:]


class Choice:
    """Branches of which one is rendered."""

    __slots__ = ("branches", "count")

    def __init__(self, branches: list[Nodes]) -> None:
        self.branches = branches
        self.count = len(branches)


END: Final = object()  # the end of a sentence outside quotation marks: the discourse moves on


class _Compiler:
    def __init__(self, source: str) -> None:
        self.source = source
        self.at = 0

    def sequence(self, quoted: bool, nested: bool) -> tuple[Nodes, bool]:
        nodes: list[Any] = []
        text: list[str] = []
        source = self.source

        def flush() -> None:
            if text:
                nodes.append("".join(text))
                text.clear()

        while self.at < len(source):
            mark = source[self.at]
            if nested and mark in "|]":
                break
            self.at += 1
            if mark == "[":
                flush()
                choice, quoted = self.choice(quoted)
                nodes.append(choice)
            elif mark in "{<":
                flush()
                stop = source.index("}" if mark == "{" else ">", self.at)
                inner = source[self.at : stop]
                self.at = stop + 1
                nodes.append(Slot(inner) if mark == "{" else _word_choice(inner))
            else:
                text.append(mark)
                quoted ^= mark == '"'
                if not quoted and self._ends_sentence():
                    flush()
                    nodes.append(END)
        flush()
        return tuple(nodes), quoted

    def _ends_sentence(self) -> bool:
        done, rest = self.source[: self.at], self.source[self.at :]
        if done[-1] == '"':
            return done[-2:-1] in (".", "!", "?") and (not rest or rest[:2].strip()[:1].isupper())
        return done[-1] in ".!?" and rest[:1] in ("", " ", "|", "]")

    def choice(self, quoted: bool) -> tuple[Choice, bool]:
        branches: list[Nodes] = []
        ends: set[bool] = set()
        while True:
            branch, after = self.sequence(quoted, nested=True)
            branches.append(branch)
            ends.add(after)
            if self.at >= len(self.source):
                raise ValueError(f"unclosed [ in {self.source!r}")
            self.at += 1
            if self.source[self.at - 1] == "]":
                break
        if len(ends) > 1:
            raise ValueError(f"branches differ in quotation marks: {self.source!r}")
        return Choice(branches), ends.pop()


def _word_choice(name: str) -> Choice:
    return Choice([(word,) for word in WORDS[name].split("|")])


def compile_template(source: str) -> Nodes:
    """Compile one template; raise ValueError if brackets or quotation marks do not match."""
    nodes, quoted = _Compiler(source).sequence(quoted=False, nested=False)
    if quoted:
        raise ValueError(f"unbalanced quotation marks: {source!r}")
    return nodes


class Lines:
    """Several ways to say one thing."""

    __slots__ = ("count", "templates")

    def __init__(self, *sources: str) -> None:
        self.templates = [compile_template(source) for source in sources]
        self.count = len(sources)


class Voice:
    """The state of a rendering: the random source and the number of the current sentence."""

    __slots__ = ("rng", "sentence", "used")

    def __init__(self, rng: Rng) -> None:
        self.rng = rng
        self.sentence = 0
        self.used: set[int] = set()

    def tell(self, lines: Lines, env: Mapping[str, Any], out: list[str]) -> None:
        """Render one of the lines into ``out``, preferring one that this rendering has not used yet."""
        random = self.rng.random
        template = lines.templates[int(random() * lines.count)]
        for _ in range(3):
            if id(template) not in self.used:
                break
            template = lines.templates[int(random() * lines.count)]
        self.used.add(id(template))
        self.render(template, env, out)

    def render(self, nodes: Nodes, env: Mapping[str, Any], out: list[str]) -> None:
        rng = self.rng
        for node in nodes:
            kind = type(node)
            if kind is str:
                out.append(node)
            elif kind is Choice:
                branch = node.branches[int(rng.random() * node.count)]
                if branch:
                    self.render(branch, env, out)
            elif kind is Slot:
                value = env[node.key]
                word = value if type(value) is str else value.refer(node.form, self.sentence, rng)
                out.append(word[0].upper() + word[1:] if node.upper else word)
            else:
                self.sentence += 1


_STARTS = re.compile(r'(?:^"?|[.!?] "?)[a-z]')


def _upper(match: re.Match[str]) -> str:
    found = match.group()
    return found[:-1] + found[-1].upper()


def finish(text: str) -> str:
    """Capitalise sentence starts, and write "an" before a vowel."""
    text = _STARTS.sub(_upper, text)
    for vowel in "aeiou":
        text = text.replace(" a " + vowel, " an " + vowel).replace("A " + vowel, "An " + vowel)
    return text.replace('"a ', '"A ') if '"a ' in text else text
