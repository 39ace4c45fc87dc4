"""Locate the answers of a conversation in the text that its chat template renders."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from etude.data.conversations.conversation import Message
from etude.data.conversations.place import Untrainable, place
from etude.data.conversations.special_text import SpecialText
from etude.data.conversations.template import ChatTemplate
from etude.errors import InputError

Span = tuple[int, int]
_LAST_CHARS = 24


@dataclass(frozen=True, slots=True)
class Turns:
    """A rendered conversation.

    Attributes:
        text: the whole, up to the end of the last turn.
        answers: by the number of a turn of the assistant, where what it writes begins and ends, its end of turn
            included. Answers that are not trained may be missing.
        added: the end of the text that the template does not write: the token that begins a next turn, where this is
            what ends an answer.
    """

    text: str
    answers: dict[int, Span]
    added: str = ""


def turns_of(
    messages: Sequence[Message], template: ChatTemplate, special: SpecialText, trained: Iterable[int]
) -> Turns:
    """Render a conversation that ends with an answer, and find its answers.

    ``trained`` are the numbers of the answers that must be found exactly. Special tokens in the messages must be in
    disguise, so that those of the text are the template's own.

    Raises:
        InputError: an answer of ``trained`` cannot be found exactly, or the template's own marks contradict it.
    """
    whole = template.render(messages)
    needed, answers = set(trained), {}
    for number, turn in enumerate(messages):
        if turn.role == "assistant":
            try:
                answers[number] = _answer(messages, number, whole, template, special)
            except InputError:
                if number in needed:
                    raise
    for number in sorted(needed):
        _require_written(messages[number], whole, answers[number])
    if template.has_generation and needed:
        _compare(messages, whole, {number: answers[number] for number in needed}, template, special)
    last = answers.get(len(messages) - 1)
    if last is None:
        return Turns(whole, answers)
    added = "" if special.ending(whole, last[1]) else _next_turn(messages, whole, template, special)
    answers[len(messages) - 1] = (last[0], last[1] + len(added))
    return Turns(whole[: last[1]] + added, answers, added)


def _answer(
    messages: Sequence[Message], number: int, whole: str, template: ChatTemplate, special: SpecialText
) -> Span:
    before = template.render(messages[:number], add_generation_prompt=True)
    if not whole.startswith(before):
        raise _unstable(
            messages, whole, before, number, "the generation prompt differs from the written answer"
        )
    start = len(before)
    if number == len(messages) - 1:
        closed = _end_of_turn(whole, start, len(whole), special)
        if special.ending(whole, closed) or _next_turn(messages, whole, template, special):
            return start, closed
        raise _endless(whole, closed)
    until = template.render(messages[: number + 1])
    end = _common_end(whole, until, start, special)
    if end is None:
        why = "what the template writes changes when the conversation continues"
        raise _unstable(messages, whole, until, number, why)
    closed = _end_of_turn(whole, start, end, special)
    if special.ending(whole, closed):
        return start, closed
    # A template may end a conversation otherwise than a turn inside it, or with the token that begins the next turn.
    following = special.beginning(whole, end)
    if following and (end < len(until) or following in special.stops):
        return start, end + len(following)
    raise _endless(whole, closed)


def _next_turn(messages: Sequence[Message], whole: str, template: ChatTemplate, special: SpecialText) -> str:
    """Return the token that would begin the next turn, if it stops the model; empty for other templates."""
    try:
        longer = template.render([*messages, Message("user", "x")])
    except InputError:
        return ""
    token = special.beginning(longer, len(whole)) if longer.startswith(whole) else ""
    return token if token in special.stops else ""


def _common_end(whole: str, until: str, start: int, special: SpecialText) -> int | None:
    """Return how much of ``until`` begins ``whole``, apart from special tokens and white space at its end."""
    end = len(until)
    while end >= start:
        if whole.startswith(until[:end]):
            return end
        token = special.ending(until, end)
        shorter = end - len(token) if token else len(until[:end].rstrip())
        if shorter == end:
            return None
        end = shorter
    return None


def _end_of_turn(text: str, start: int, end: int, special: SpecialText) -> int:
    """Return where an answer ends: after the first special tokens at its end, and no later than one that stops.

    Without special tokens it is ``end``.
    """
    tokens: list[tuple[int, int]] = []
    position = end
    while position > start:
        position = start + len(text[start:position].rstrip())
        token = special.ending(text, position)
        if not token or position - len(token) < start:
            break
        tokens.append((position - len(token), position))
        position -= len(token)
    closed = end
    for number, (first, last) in enumerate(reversed(tokens)):
        if (
            number and first != closed
        ):  # white space between: what follows ends the conversation, not the turn
            break
        closed = last
        if text[first:last] in special.stops:
            break
    return closed


def _require_written(turn: Message, whole: str, answer: Span) -> None:
    """Raise InputError unless the end of an answer is where it belongs in the text."""
    last = turn.content.strip()[-_LAST_CHARS:]
    if last not in whole[answer[0] : answer[1]]:
        raise Untrainable(
            "the chat template does not write an answer where it belongs",
            place(whole, answer[0]),
            "use a template that writes it unchanged",
        )


def _compare(
    messages: Sequence[Message],
    whole: str,
    answers: dict[int, Span],
    template: ChatTemplate,
    special: SpecialText,
) -> None:
    """Raise InputError unless the template's ``{% generation %}`` blocks mark the same answers.

    A block may begin with the generation prompt, and continue with white space and the end of the conversation.
    """
    blocks = template.generation_spans(messages)
    for number, (start, end) in answers.items():
        before = template.render(messages[:number])
        header = next((i for i, (a, b) in enumerate(zip(before, whole, strict=False)) if a != b), len(before))
        own = [(a, b) for a, b in blocks if a < end and b > start]
        first, last = min((a for a, _ in own), default=len(whole)), max((b for _, b in own), default=0)
        early = first < header
        late = first > start and bool(whole[start:first].strip())
        short = last < end
        long = last > end and bool(_without_specials(whole[end:last], special).strip())
        if early or late or short or long:
            position = first if own and (early or late) else last if own else start
            raise Untrainable(
                "the {% generation %} blocks of the chat template mark other text than the answer and its end of turn",
                place(whole, position),
                "correct the template, or remove its blocks",
            )


def _without_specials(text: str, special: SpecialText) -> str:
    for token in special.tokens:
        text = text.replace(token, "")
    return text


def _unstable(messages: Sequence[Message], whole: str, part: str, number: int, why: str) -> Untrainable:
    position = next((i for i, (a, b) in enumerate(zip(part, whole, strict=False)) if a != b), len(whole))
    last = number == len(messages) - 1
    others = "" if last else "train on the last answer of each conversation (--set data.mask=last), or "
    return Untrainable(
        f"{why}, so that it is not certain what an answer trains",
        f"{place(whole, position)} of turn {number + 1} instead of {place(part, position)}",
        f"{others}use another template",
    )


def _endless(whole: str, end: int) -> Untrainable:
    return Untrainable(
        "the chat template writes no token that ends an answer, so that the model would not learn to stop",
        place(whole, end),
        "use a template that writes one, such as eos_token",
    )
