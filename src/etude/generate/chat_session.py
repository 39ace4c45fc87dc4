"""A conversation with a model: its messages, and each answer while it is generated."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from etude.data.conversations.conversation import Message
from etude.errors import InputError
from etude.generate.chat_file import SavedChat, read_chat, write_chat
from etude.generate.chat_prompt import ChatPrompt, Chatter, answer_sampling, messages_of, require_question
from etude.generate.engine import FinishReason, stream
from etude.generate.language import Language
from etude.generate.sampling import CHAT_SAMPLING, SamplingSettings, changed, require_seed, row_seed
from etude.generate.stop import GeneratedText, stop_strings


class ChatSession:
    """A conversation with a model.

    The same messages, settings and seed give the same answers. All messages are kept; those that do not fit the
    context are dropped from the prompt only (``dropped``).

    Attributes:
        system: the system prompt; None for the template's own, if it has one.
        turns: user and assistant in turn.
        retries: how many answers to the last question were replaced.
        dropped: how many of the oldest exchanges the last answer did not read.
        finish: why the last answer ended; None if it was interrupted.
    """

    def __init__(
        self,
        language: Language,
        source: str | Path = "",
        *,
        system: str | None = None,
        settings: SamplingSettings = CHAT_SAMPLING,
        seed: int = 0,
        stop: str | Sequence[str] = (),
    ) -> None:
        """Begin a conversation without messages. ``source`` is what the user typed for the model.

        Raises:
            InputError: a model without a chat template, or an invalid value.
        """
        self.use(language, source or language.folder)
        self.system = system or None
        self.settings, self.seed, self.stop = settings, require_seed(seed), stop_strings(stop)
        self.turns: list[Message] = []
        self.retries = self.dropped = 0
        self.finish: FinishReason | None = None

    def use(self, language: Language, source: str | Path) -> None:
        """Continue the conversation with another model, such as another checkpoint.

        Raises:
            InputError: a model without a chat template.
        """
        self._chatter = Chatter.of(language.tokenizer, language.model.config.max_position_embeddings, source)
        self.language, self.source = language, str(source)

    @property
    def messages(self) -> list[Message]:
        """The system prompt, if any, and the turns."""
        return [*self._system, *self.turns]

    @property
    def _system(self) -> list[Message]:
        return [] if self.system is None else [Message("system", self.system)]

    @property
    def context(self) -> int:
        """The most tokens that the model reads."""
        return self._chatter.context

    def ask(self, text: str) -> Generator[str]:
        """Yield the answer to ``text`` in pieces, while it is generated.

        Question and answer are added to ``turns`` when the answer ends. An answer that the caller ends early is added
        as far as it was generated; without a token, nothing is added.

        Raises:
            InputError: an empty message, or one that does not fit the context.
        """
        return self._begin([*self.turns, Message("user", text)], 0)

    def answer(self, messages: Any) -> Generator[str]:
        """Replace the conversation by ``messages``, which end with a question, and yield the answer; see :meth:`ask`.

        Args:
            messages: as for :meth:`etude.generate.language.Language.chat`.

        Raises:
            InputError: something else than a conversation that ends with a question.
        """
        given = messages_of(messages)
        require_question(given)
        self._replace(given[:-1])
        return self._begin([*self.turns, given[-1]], 0)

    def retry(self) -> Generator[str]:
        """Replace the last answer by another; see :meth:`ask`. At temperature 0 the others are drawn at 0.8.

        Raises:
            InputError: there is no answer yet.
        """
        question = Message("user", self._last_question("replace"))
        return self._begin([*self.turns[:-2], question], self.retries + 1)

    def undo(self) -> str:
        """Remove the last question with its answer, and return the question.

        Raises:
            InputError: there is none.
        """
        question = self._last_question("remove")
        del self.turns[-2:]
        self.retries = 0
        return question

    def save(self, path: Path) -> None:
        """Write the conversation to a file, as JSON with ``messages``, the model's source, the settings and the seed.

        Raises:
            InputError: the file exists and holds something else.
            EtudeError: the disk is full or not writable.
        """
        sampling: dict[str, Any] = {**asdict(self.settings), "stop": list(self.stop)}
        write_chat(path, SavedChat(self.messages, self.source, sampling, self.seed, self.retries))

    def load(self, path: Path) -> str:
        """Replace the conversation by a saved one, with its settings and seed; return the source of its model.

        The model stays the present one.

        Raises:
            InputError: the file is missing, damaged or holds something else.
        """
        saved = read_chat(path)
        settings = dict(saved.settings)
        try:
            stop = stop_strings(settings.pop("stop", ()))
            sampling, seed = changed(CHAT_SAMPLING, settings), require_seed(saved.seed)
        except (InputError, TypeError) as error:
            raise InputError(f"{path}: {error}") from None
        self.settings, self.stop, self.seed, self.retries = sampling, stop, seed, saved.retries
        self._replace(saved.messages)
        return saved.model

    def _last_question(self, purpose: str) -> str:
        if not self.turns:
            raise InputError(f"there is no answer to {purpose} yet: type a question")
        return self.turns[-2].content

    def _replace(self, messages: Sequence[Message]) -> None:
        self.system = next((turn.content for turn in messages if turn.role == "system"), None)
        self.turns = [turn for turn in messages if turn.role != "system"]
        self.dropped = 0

    def _begin(self, turns: list[Message], retries: int) -> Generator[str]:
        messages = messages_of([*self._system, *turns])
        require_question(messages)
        prompt = self._chatter.prompt(messages, self.settings.max_new_tokens)
        self.dropped, self.finish = prompt.dropped, None
        return self._answer(turns, prompt, retries)

    def _answer(self, turns: list[Message], prompt: ChatPrompt, retries: int) -> Generator[str]:
        language = self.language
        text = GeneratedText(language.tokenizer.backend, self.stop)
        # What the engine reserves depends on the number of tokens; the context ends one token earlier than this.
        most = min(self.settings.max_new_tokens, self.context - len(prompt.ids) + 2)
        tokens = stream(
            language.model,
            prompt.ids,
            replace(answer_sampling(self.settings, retries), max_new_tokens=most),
            stop_ids=self._chatter.stop_ids,
            seed=row_seed(row_seed(self.seed, len(turns) // 2), retries),
            at_context_end="stop",
            dtype=language.dtype,
        )
        pieces: list[str] = []
        begun = False
        try:
            while not text.stopped:
                try:
                    token = next(tokens)
                except StopIteration as end:
                    self.finish = end.value.finish_reason
                    break
                begun = True
                pieces.append(text.feed(token))
                if pieces[-1]:
                    yield pieces[-1]
            else:
                self.finish = "stop"
            pieces.append(text.finish())
            if pieces[-1]:
                yield pieces[-1]
        finally:
            if begun or self.finish is not None:
                self.turns = [*turns, Message("assistant", "".join(pieces))]
                self.retries = retries
