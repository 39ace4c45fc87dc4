"""The worker's answers: each look of the studio from :mod:`etude.watch`, as plain values and tensor files."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from typing import Any, Generic, TypeVar, cast, get_args

import torch

from etude.errors import InputError
from etude.model.folder import load_model_folder
from etude.model.lora import first_factors
from etude.run.checkpoints import MARKER, checkpoint_name
from etude.serve import look_types
from etude.serve.collection import Collection
from etude.serve.model_answers import OF_VERSIONS, ModelAnswers, compare
from etude.serve.request import Question
from etude.serve.tensor_files import TensorFiles
from etude.serve.text_answers import (
    chat_answer,
    head_answer,
    layer_name,
    matrix_picture,
    neurons_answer,
    prompt_answer,
)
from etude.train.rules import rule_named, rules_in_use
from etude.watch import api, step_types, text_types, values
from etude.watch.layer_in_step import LayerInStep
from etude.watch.loaded_models import Reader
from etude.watch.low_rank import product_of
from etude.watch.node_values import node_values
from etude.watch.one_node import look_at_node
from etude.watch.opened_step import OpenedRow, OpenedStep, model_at, open_step
from etude.watch.rule_values import rule_values
from etude.watch.time_machine import TimeMachine

T = TypeVar("T")
Answer = Mapping[str, object]
"""One of :data:`etude.serve.look_types.ANSWERS`."""
Readers = weakref.WeakValueDictionary[int, Reader]
Emit = Callable[[Answer], None]
"""Called with each message before the answer: progress, or a token. Raises Cancelled once the client is gone."""
Between = Callable[[int], None]
"""Called before each replayed step with the number of steps left. May raise; replayed states are kept."""
READS_NOTHING = ("passages", "rules")
"""Looks that read no weights."""
READS_CHECKPOINT = ("prompt", "head", "attribution", "neurons", "compare", "chat")
"""Looks that are quick at a step with a checkpoint."""
OPENS_STEP = ("step", "token", "unit", "weight", "matrix")
"""Looks that are quick at the open step."""


class AtStep:
    """A step that stays open while questions are about it."""

    def __init__(self, machine: TimeMachine, step: int) -> None:
        self.opened: OpenedStep = open_step(machine, step)
        self._row: tuple[int, OpenedRow] | None = None
        self._layer: LayerInStep | None = None

    def row(self, row: int) -> OpenedRow:
        """Return a whole row; the last one is kept."""
        if self._row is None or self._row[0] != row:
            self._row = None  # its memory is needed for the next
            self._row = (row, self.opened.row(row))
        return self._row[1]

    def layer(self, layer: str) -> LayerInStep:
        """Return a layer of neurons over the whole batch; the last one is kept."""
        if self._layer is None or self._layer.node_layer.path != layer:
            self._layer = None
            self._layer = LayerInStep(self.opened, layer)
        return self._layer


class Last(Generic[T]):
    """The last computed value. Another key, or a new time machine of the same run, computes it again."""

    def __init__(self) -> None:
        self._machine: Callable[[], TimeMachine | None] = lambda: None
        self._key: Any = None
        self._value: T | None = None

    def has(self, machine: TimeMachine, key: Any) -> bool:
        return self._value is not None and self._machine() is machine and self._key == key

    def of(self, machine: TimeMachine, key: Any, make: Callable[[], T]) -> T:
        if not self.has(machine, key):
            self._value = None  # its memory is needed for the next
            self._value, self._key, self._machine = make(), key, weakref.ref(machine)
        assert self._value is not None
        return self._value


class Answers:
    """Answers questions about runs and models, one at a time, and keeps what they share.

    Args:
        shown: the runs and models.
        files: where large arrays are written.
    """

    def __init__(self, shown: Collection | Path, files: TensorFiles) -> None:
        self.shown = shown if isinstance(shown, Collection) else Collection(shown)
        self.files, self._models = files, ModelAnswers(files)
        self._at: Last[AtStep] = Last()
        self._read: Last[Reader] = Last()
        self._first: Last[dict[str, torch.Tensor]] = Last()
        self._chatting: weakref.WeakKeyDictionary[TimeMachine, Readers] = weakref.WeakKeyDictionary()

    def is_quick(self, question: Question) -> bool:
        """Return whether a question is probably quick: it needs no replay, and does not read every checkpoint.

        This is decided without opening the run.

        Raises:
            InputError: it is no question.
        """
        run, look = question.place(self.shown), question.choice("look", LOOKS)
        if not (run / "run.toml").is_file():
            return look not in OF_VERSIONS
        if look in READS_NOTHING:
            return True
        if look in READS_CHECKPOINT and "step" in question:
            return (run / "checkpoints" / checkpoint_name(question.number("step")) / MARKER).is_file()
        if look in OPENS_STEP and "step" in question:
            machine = api.machine_at_hand(run)
            return machine is not None and self._at.has(machine, question.number("step"))
        return False

    def answer(
        self, question: Question, emit: Emit, between: Between = lambda left: None
    ) -> Answer | Generator[None, None, Answer]:
        """Return the answer to a question; for a chat, a generator that returns it and makes a token for each ``next``.

        Other questions may be answered between two tokens. ``emit`` is called with each message before the answer.

        Raises:
            InputError: the question names something that does not exist.
        """
        path, look = question.place(self.shown), question.choice("look", LOOKS)
        if not (path / "run.toml").is_file():
            return self._models.answer(question.text("run"), path, look, question, emit)
        self._machine = api.machine(path)
        self._emit = emit
        replaying = self._progress("replaying steps")

        def on_progress(done: int, of: int) -> None:
            replaying(done, of)
            between(of - done)

        self._machine.on_progress = on_progress
        looks: dict[str, Callable[[Question], Answer | Generator[None, None, Answer]]] = {
            "step": self.step,
            "token": self.token,
            "unit": self.unit,
            "weight": self.weight,
            "matrix": self.matrix,
            "rules": self.rules,
            "passages": self.passages,
            "prompt": self.prompt,
            "head": self.head,
            "attribution": self.attribution,
            "story": self.story,
            "neurons": self.neurons,
            "node": self.node,
            "compare": self.compare,
            "fork": self.fork,
            "chat": self.chat,
        }
        if look not in looks:
            raise InputError(f"'{look}' is a look at a model that has no run")
        return looks[look](question)

    def step(self, question: Question) -> step_types.StepAnswer:
        at = self._open(question)
        return values.step_values(at.opened, at.row(question.number("row", 0)), self._decode)

    def token(self, question: Question) -> step_types.TokenAnswer:
        at = self._open(question)
        row, position = at.row(question.number("row", 0)), question.number("position", 0)
        return values.token_values(at.opened, row, position, self._decode)

    def unit(self, question: Question) -> step_types.UnitAnswer:
        layer = self._open(question).layer(self._layer_name(question))
        row, position = question.number("row", 0), question.number("position", 0)
        number = question.number("input") if "input" in question else None
        return values.unit_values(layer, question.number("unit", 0), row, position, number, self._decode)

    def weight(self, question: Question) -> look_types.WeightAnswer:
        from etude.watch.arithmetic import weight_step
        from etude.watch.one_weight import index_in

        opened, name = self._open(question).opened, question.text("name")
        shape = tuple(opened.parameter(name).before.shape)
        index = index_in(name, question.numbers("index"), shape)
        at = values.weight_values(weight_step(opened, name, index))
        return {"name": name, "index": list(index), "shape": list(shape), "at": at}

    def matrix(self, question: Question) -> look_types.MatrixAnswer:
        name, what = question.text("name"), cast(look_types.What, question.choice("what", WHATS))
        opened = self._open(question).opened
        moved = opened.parameter(name)
        if what == "since_start":
            first = min(self._machine.recorded.checkpoints)
            found = moved.after - self._first_weights[name].reshape(moved.after.shape)
        elif what == "product":
            first = 0
            product = product_of(opened.era.plan.model, name, opened.before.weights)
            if product is None:
                raise InputError(f"{name} has no adapter: choose another picture of it")
            found = product
        else:
            first = 0
            found = {"before": moved.before, "after": moved.after, "gradient": moved.gradient}.get(
                what, moved.update
            )
        shape, rows, by, key, norm = matrix_picture(found, name, question, self.files)
        return {
            "step": opened.step,
            "name": name,
            "what": what,
            "since": first,
            "shape": shape,
            "rows": rows,
            "bin": by,
            "tensors": key,
            "norm": norm,
            "proof": values.proof_values(opened.proof),
        }

    def rules(self, question: Question) -> look_types.RulesAnswer:
        """Return the update rules of the run, in words."""
        chosen = rule_named(self._machine.recorded.settings.train.optimizer)
        return {"rules": [rule_values(rule) for rule in rules_in_use(chosen)]}

    def passages(self, question: Question) -> look_types.PassagesAnswer:
        from etude.watch.passages import beginnings

        # The token that begins every document comes before them.
        context = self._machine.empty_model().config.max_position_embeddings
        found = beginnings(self._machine.data, context - 1)
        return {
            "passages": [
                {"name": f"held-out {number + 1}", "text": text} for number, text in enumerate(found)
            ]
        }

    def prompt(self, question: Question) -> look_types.PromptAnswer:
        return prompt_answer(self._reader(question), question.passage())

    def head(self, question: Question) -> look_types.HeadPattern:
        return head_answer(self._reader(question), question)

    def attribution(self, question: Question) -> text_types.AttributionAnswer:
        on_progress = self._progress("ablating one token after another")
        return values.attribution_values(
            self._reader(question).read(question.passage()).attribution(on_progress=on_progress)
        )

    def story(self, question: Question) -> text_types.StoryAnswer:
        from etude.watch.loss_by_checkpoint import loss_by_checkpoint

        recorded = self._machine.recorded
        return loss_by_checkpoint(
            recorded,
            self._machine.data.tokenizer,
            question.passage(),
            question.numbers("steps") if "steps" in question else None,
            self._progress("reading the text at each checkpoint"),
        )

    def neurons(self, question: Question) -> look_types.NeuronsAnswer:
        layer = self._layer_name(question)
        answer = neurons_answer(self._reader(question), question, layer, self.files, self._first_weights)
        answer["step"] = self._step_of(question)
        return answer

    def node(self, question: Question) -> text_types.NodeAnswer:
        node = look_at_node(
            self._machine, self._step_of(question), self._layer_name(question), question.number("unit", 0)
        )
        arithmetic = node.on_tokens(node.most[0].token_ids if node.most else (0,))
        history = node.history(on_progress=self._progress("reading the neuron at each checkpoint"))
        return node_values(node, arithmetic, history)

    def compare(self, question: Question) -> text_types.CompareAnswer:
        return compare(self._reader(question), question)

    def fork(self, question: Question) -> look_types.ForkAnswer:
        step, knobs = self._step_of(question), question.texts("knobs")
        self._progress("writing the run")(0, 1)  # raises if the client is gone
        made = api.fork(self._machine.recorded.run.path, step, knobs, question.text("name"))
        return {"run": str(made.path), "step": step, "turned": list(knobs)}

    def chat(self, question: Question) -> Generator[None, None, look_types.ChatAnswer]:
        step = self._step_of(question)
        # Chats at the same step share one network.
        readers = self._chatting.setdefault(self._machine, weakref.WeakValueDictionary())
        reader = readers.get(step)
        if reader is None:
            reader = readers[step] = self._reader(question)
        return chat_answer(reader, question, self._emit, f"after step {step}")

    @property
    def _decode(self) -> values.Decode:
        return self._machine.data.tokenizer.decode

    def _progress(self, doing: str) -> Callable[[int, int], None]:
        """Return a callback (done, total) that reports progress. It raises once the client is gone."""
        return lambda done, of: self._emit({"progress": {"doing": doing, "done": done, "of": of}})

    def _step_of(self, question: Question) -> int:
        recorded = self._machine.recorded
        newest = max((recorded.last_step, *recorded.checkpoints), default=0)
        return question.number("step", newest)

    def _open(self, question: Question) -> AtStep:
        machine, step = self._machine, self._step_of(question)
        return self._at.of(machine, step, lambda: AtStep(machine, step))

    def _reader(self, question: Question) -> Reader:
        """Return the network at the question's step; the last one is kept."""
        machine, step = self._machine, self._step_of(question)

        def make() -> Reader:
            model = model_at(machine, step)
            where = f"after step {step}, {machine.proof}"
            return Reader(model, machine.data.tokenizer, where, machine.proof)

        return self._read.of(machine, step, make)

    def _layer_name(self, question: Question) -> str:
        return layer_name([layer.path for layer in self._machine.empty_model().node_layers()], question)

    @property
    def _first_weights(self) -> dict[str, torch.Tensor]:
        """The weights of the run's first checkpoint, in main memory."""
        checkpoints = self._machine.recorded.checkpoints
        folder = checkpoints[min(checkpoints)]

        def read() -> dict[str, torch.Tensor]:
            model, found = load_model_folder(folder, device=torch.device("cpu"))
            first = {name: p.detach().float() for name, p in model.named_parameters()}
            network = self._machine.empty_model()
            if found == network.config:
                return first
            return first | first_factors(network, network.config, self._machine.recorded.settings.run.seed)

        return self._first.of(self._machine, folder, read)


WHATS: tuple[str, ...] = get_args(look_types.What.__value__)
LOOKS = tuple(look_types.ANSWERS)
