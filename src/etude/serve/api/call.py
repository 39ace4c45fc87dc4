"""One call of the API: its rows in the batch, and their events as they are generated."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from etude.errors import EtudeError
from etude.generate.running_batch import Predicted, Request
from etude.generate.sampling import SamplingSettings, row_seed
from etude.generate.stop import GeneratedText
from etude.serve.api.json_schema import SchemaConstraint
from etude.serve.api.models import Served
from etude.serve.api.problem import Problem
from etude.serve.api.scheduler import Scheduler

POLL_SECONDS = 0.5
"""Seconds between two checks whether a client is still connected."""
FINISH = {"eos": "stop", "stop": "stop", "length": "length"}
"""Finish reasons by those of the batch."""


@dataclass(frozen=True)
class Options:
    """What all rows of a call have in common."""

    settings: SamplingSettings
    seed: int | None
    stops: tuple[str, ...]
    stop_ids: frozenset[int]
    alternatives: int = 0
    score_prompt: bool = False
    ignore_end: bool = False
    bias: dict[int, float] = field(default_factory=dict)
    presence: float = 0.0
    frequency: float = 0.0
    schema: object = None
    """A JSON schema that the answer follows; None: plain text."""


@dataclass
class Choice:
    """The answer of one row so far."""

    index: int
    prompt: Sequence[int]
    seed: int
    text: str = ""
    scored_prompt: list[Predicted] = field(default_factory=list)
    tokens: list[Predicted] = field(default_factory=list)
    finish_reason: str | None = None


@dataclass(frozen=True)
class Event:
    """What is new of a choice: a piece of text, which may be empty, and perhaps a token."""

    choice: Choice
    piece: str
    token: Predicted | None = None


class Call:
    """The rows of one call.

    Args:
        prompts: tokens of each prompt; each has the settings of ``each``.
        samples: answers to each prompt. Sample i has `row_seed(seed, i)` whatever else the call asks for.
    """

    def __init__(
        self,
        served: Served,
        kind: str,
        prompts: Sequence[Sequence[int]],
        each: Sequence[Options],
        samples: int,
    ) -> None:
        self.served, self.options = served, each[0]
        self.id = f"{kind}-{secrets.token_hex(12)}"
        self.created = int(time.time())
        self._events: asyncio.Queue[tuple[Choice, str, Predicted | None, object]] = asyncio.Queue()
        self._loop = asyncio.get_running_loop()
        seed = secrets.randbits(62) if self.options.seed is None else self.options.seed
        self.choices: list[Choice] = []
        self.requests: list[Request] = []
        for prompt, options in zip(prompts, each, strict=True):
            for sample in range(samples):
                choice = Choice(len(self.choices), prompt, row_seed(seed, sample))
                self.choices.append(choice)
                self.requests.append(self._request(choice, options))

    def _request(self, choice: Choice, options: Options) -> Request:
        text = GeneratedText(self.served.tokenizer.backend, options.stops)

        def report(piece: str, token: Predicted | None, end: object) -> None:
            self._loop.call_soon_threadsafe(self._events.put_nowait, (choice, piece, token, end))

        def on_token(token: Predicted) -> bool:
            report(text.feed(token.token), token, None)
            return text.stopped

        def on_end(reason: str | Exception) -> None:
            report("" if isinstance(reason, Exception) else text.finish(), None, reason)

        constraint = None if options.schema is None else SchemaConstraint(self.served, options.schema)
        return Request(
            prompt=choice.prompt,
            settings=options.settings,
            seed=choice.seed,
            stop_ids=options.stop_ids,
            on_token=on_token,
            on_end=on_end,
            on_prompt=choice.scored_prompt.extend,
            alternatives=options.alternatives,
            score_prompt=options.score_prompt,
            bias=options.bias,
            presence=options.presence,
            frequency=options.frequency,
            ignore_end=options.ignore_end,
            constraint=constraint,
        )

    def submit(self, scheduler: Scheduler) -> None:
        """Queue the rows. Raises Problem if too many wait."""
        scheduler.submit(self.served.batch, self.requests)

    async def events(self, left: Callable[[], Awaitable[bool]] | None = None) -> AsyncIterator[Event]:
        """Yield what is new until all rows have ended. When the caller stops reading, the rows are cancelled.

        Args:
            left: returns whether the client has disconnected, which cancels the rows too.

        Raises:
            Problem: a row failed.
        """
        remaining = len(self.requests)
        try:
            while remaining:
                try:
                    choice, piece, token, end = await asyncio.wait_for(self._events.get(), POLL_SECONDS)
                except TimeoutError:
                    if left is not None and await left():
                        return
                    continue
                if isinstance(end, Exception):
                    raise _problem(end) from end
                if end == "cancelled":
                    raise Problem("the server is ending", 503)
                choice.text += piece
                if token is not None:
                    choice.tokens.append(token)
                if isinstance(end, str):
                    choice.finish_reason = FINISH[end]
                    remaining -= 1
                yield Event(choice, piece, token)
        finally:
            for request in self.requests:
                request.cancelled = True

    def usage(self) -> dict[str, int]:
        """Return the numbers of tokens. A prompt counts once, however many answers it has."""
        prompts = {id(choice.prompt): len(choice.prompt) for choice in self.choices}
        read, new = sum(prompts.values()), sum(len(choice.tokens) for choice in self.choices)
        return {"prompt_tokens": read, "completion_tokens": new, "total_tokens": read + new}


def _problem(error: Exception) -> Problem:
    if isinstance(error, Problem):
        return error
    message = str(error) if isinstance(error, EtudeError) else f"the model failed ({type(error).__name__})"
    return Problem(message, 500)
