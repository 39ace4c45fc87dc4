"""The output of ``etude chat``: answers on standard output, everything else on standard error."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from etude.device import Dtype
from etude.errors import EtudeError, InputError
from etude.files import file_errors_in_one_line
from etude.generate.chat_prompt import dropped_line
from etude.generate.chat_session import ChatSession
from etude.generate.language import load
from etude.generate.sampling import SamplingSettings
from etude.places import expand_home
from etude.pretrained.resolve_source import source_at_step
from etude.run.checkpoints import MARKER, step_of
from etude.untrusted import shown

HELP = """\
/undo          remove the last question and its answer
/retry         replace the last answer by another, drawn at temperature 0.8 where the setting is 0
/system TEXT   set the system prompt, for the next answers; without TEXT, remove it
/step N        continue with the checkpoint of step N of the run
/save FILE     write the conversation as JSON
/load FILE     read a conversation that /save wrote
/help          show these lines
/quit          end, as Ctrl-D does
Ctrl-C ends an answer. A line that begins with a space is never a command."""
COMMANDS = ("/help", "/undo", "/retry", "/system", "/step", "/save", "/load", "/quit")
_CONTROL = {code: "\ufffd" for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"}
"""Characters that would move a terminal's cursor or change its colours."""


@dataclass(frozen=True)
class ChatOptions:
    """How to talk.

    Attributes:
        once: the only question; None to read questions from standard input.
        step: the checkpoint of a run; None for its newest.
    """

    settings: SamplingSettings
    seed: int = 0
    system: str | None = None
    once: str | None = None
    step: int | None = None
    stop: Sequence[str] = ()
    dtype: Dtype = "fp32"


def talk(source: Path, options: ChatOptions) -> None:
    """Answer one question, or the lines of standard input: a terminal with commands, or a pipe.

    Raises:
        InputError: no model, one without a chat template, or an invalid value.
    """
    place = source if options.step is None else source_at_step(source, options.step)
    language = load(place, options.dtype)
    session = ChatSession(
        language,
        place,
        system=options.system,
        settings=options.settings,
        seed=options.seed,
        stop=options.stop,
    )
    answers = _Answers(session)
    if options.once is not None:
        answers.write(session.ask(options.once))
    elif sys.stdin is None:
        raise InputError("standard input is closed: type  --once QUESTION")
    elif sys.stdin.isatty():
        _Terminal(answers).run()
    else:
        _answer_lines(answers)


class _Answers:
    """Writes the answers of a conversation while they are generated, and reports how they ended."""

    def __init__(self, session: ChatSession) -> None:
        self.session = session
        self._reported = 0  # dropped exchanges
        self._safe = sys.stdout.isatty()

    def write(self, answer: Generator[str]) -> None:
        """Write an answer. It is added to the conversation, even if Ctrl-C ends it."""
        session = self.session
        if session.dropped > self._reported:
            _report(dropped_line(session.dropped, session.context))
        self._reported = session.dropped
        empty = True
        try:
            with closing(answer):
                for piece in answer:
                    sys.stdout.write(piece.translate(_CONTROL) if self._safe else piece)
                    sys.stdout.flush()
                    empty = False
        finally:
            sys.stdout.write("\n")
            sys.stdout.flush()
        if session.finish == "length":
            _report(
                f"the answer was cut after {session.settings.max_new_tokens:,} tokens: --max-new-tokens allows more"
            )
        elif session.finish == "context":
            _report(f"the answer was cut: the model reads {session.context:,} tokens")
        elif empty:
            _report("the model ended its turn without an answer")


def _answer_lines(answers: _Answers) -> None:
    """Answer each line of standard input.

    Raises:
        InputError: not all lines were answered; the reason of each was reported.
    """
    questions = refused = 0
    for number, line in enumerate(sys.stdin.buffer, 1):
        if not line.strip():
            continue
        questions += 1
        try:
            answers.write(answers.session.ask(_text_of(line, number)))
        except InputError as error:
            refused += 1
            _report(f"line {number}: {error}")
    if refused:
        raise InputError(f"{refused:,} of {questions:,} questions could not be answered: see above")
    if not questions:
        raise InputError("standard input has no question: pipe one per line, or type  --once QUESTION")


def _text_of(line: bytes, number: int) -> str:
    try:
        return line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
    except UnicodeDecodeError as error:
        raise InputError(f"it is not UTF-8 text (byte {error.start})") from None


class _Terminal:
    """Questions and commands that the user types."""

    def __init__(self, answers: _Answers) -> None:
        self._answers, self._session = answers, answers.session
        self._ended = False
        self._commands: dict[str, Callable[[str], None]] = dict(
            zip(
                COMMANDS,
                (
                    lambda _: _report(HELP),
                    self._undo,
                    lambda _: answers.write(self._session.retry()),
                    self._system,
                    self._step,
                    self._save,
                    self._load,
                    self._quit,
                ),
                strict=True,
            )
        )

    def run(self) -> None:
        """Answer until Ctrl-D or /quit."""
        with suppress(ImportError):
            import readline  # noqa: F401 - input() then edits lines
        _report(f"{_where(self._session)}: type a question. /help lists the commands, Ctrl-D ends.")
        while not self._ended:
            try:
                line = _typed()
            except EOFError:
                _report("")
                return
            except KeyboardInterrupt:
                _report("\nCtrl-D or /quit ends.")
                continue
            except UnicodeDecodeError:
                _report("this line is not UTF-8 text: set your terminal to UTF-8")
                continue
            self._take(line)

    def _take(self, line: str) -> None:
        """Do what a line says; report why it cannot be done."""
        try:
            with file_errors_in_one_line():
                if line.startswith("/"):
                    name, _, rest = line.partition(" ")
                    self._command(name)(rest.strip())
                elif line.strip():
                    self._answers.write(self._session.ask(line.strip()))
        except KeyboardInterrupt:
            _report("interrupted")
        except MemoryError:
            _report("this machine does not have enough free memory for that: close other programs")
        except EtudeError as error:
            _report(str(error))

    def _command(self, name: str) -> Callable[[str], None]:
        if name in self._commands:
            return self._commands[name]
        near = get_close_matches(name, COMMANDS, n=1)
        advice = f"did you mean {near[0]}?" if near else "/help lists the commands"
        raise InputError(f"there is no command {shown(name)}: {advice}")

    def _undo(self, _: str) -> None:
        question = self._session.undo()
        _report(f"removed: {shown(question)}")

    def _system(self, text: str) -> None:
        self._session.system = text or None
        _report("the system prompt is set" if text else "the system prompt is removed")

    def _step(self, step: str) -> None:
        if not step.isdecimal():
            raise InputError("type /step with the number of a step, such as /step 100")
        session = self._session
        source = source_at_step(session.source, int(step))
        session.use(load(source, session.language.dtype), source)
        _report(_where(session))

    def _save(self, name: str) -> None:
        self._session.save(_file(name, "/save"))
        _report(f"saved as {name}")

    def _load(self, name: str) -> None:
        model = self._session.load(_file(name, "/load"))
        count = len(self._session.turns)
        other = model not in ("", self._session.source)
        _report(
            f"{count:,} messages from {name}"
            + (f", answered by {shown(model)}; now by {self._session.source}" if other else "")
        )

    def _quit(self, _: str) -> None:
        self._ended = True


def _file(name: str, command: str) -> Path:
    if not name:
        raise InputError(f"type {command} with the name of a file, such as {command} talk.json")
    return expand_home(name)


def _where(session: ChatSession) -> str:
    """Return the name of the model, with the step of a checkpoint."""
    folder = session.language.folder
    if (folder / MARKER).is_file():
        return f"{folder.resolve().parent.parent.name}, step {step_of(folder):,}"
    return session.source


def _typed() -> str:
    """Return the next line from the terminal. Raises EOFError at its end."""
    if sys.stdout.isatty():
        return input("> ")
    print("> ", end="", file=sys.stderr, flush=True)
    line = sys.stdin.readline()
    if not line:
        raise EOFError
    return line.removesuffix("\n")


def _report(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
