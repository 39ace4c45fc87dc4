"""The worker's answers: each look of the studio from :mod:`etude.watch`, as plain values and tensor files."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from typing import Any, Generic, TypeVar, cast, get_args

import torch

from etude.errors import InputError
from etude.model.folder import load_model_folder
from etude.model.language_model import LanguageModel
from etude.run.checkpoints import checkpoint_name
from etude.serve import look_types
from etude.serve.request import Question
from etude.serve.tensor_files import TensorFiles, binned
from etude.train.rules import rule_named, rules_in_use
from etude.watch import api, step_types, text_types, values
from etude.watch.kinds_of_heads import KindOfHead, kinds_of_heads
from etude.watch.layer_in_step import LayerInStep
from etude.watch.node_values import node_values
from etude.watch.one_node import look_at_node
from etude.watch.opened_step import OpenedRow, OpenedStep, open_step
from etude.watch.prompts import Prompt
from etude.watch.rule_values import rule_values
from etude.watch.time_machine import TimeMachine

T = TypeVar("T")
Answer = Mapping[str, object]
"""One of :data:`etude.serve.look_types.ANSWERS`."""
Models = weakref.WeakValueDictionary[int, LanguageModel]
Emit = Callable[[Answer], None]
"""Called with each message before the answer: progress, or a token. Raises Cancelled once the client is gone."""
Between = Callable[[int], None]
"""Called before each replayed step with the number of steps left. May raise; replayed states are kept."""
READS_NOTHING = ("passages", "rules")
"""Looks that read no weights."""
READS_CHECKPOINT = ("prompt", "attribution", "neurons", "compare", "chat")
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
    """Answers questions about the runs of one folder, one at a time, and keeps what they share.

    Args:
        runs: the folder of runs.
        files: where large arrays are written.
    """

    def __init__(self, runs: Path, files: TensorFiles) -> None:
        self.runs, self.files = runs, files
        self._at: Last[AtStep] = Last()
        self._prompt: Last[Prompt] = Last()
        self._first: Last[dict[str, torch.Tensor]] = Last()
        self._chatting: weakref.WeakKeyDictionary[TimeMachine, Models] = weakref.WeakKeyDictionary()

    def is_quick(self, question: Question) -> bool:
        """Return whether a question is probably quick: it needs no replay, and does not read every checkpoint.

        This is decided without opening the run.

        Raises:
            InputError: it is no question.
        """
        run, look = question.run(self.runs), question.choice("look", LOOKS)
        if look in READS_NOTHING:
            return True
        if look in READS_CHECKPOINT and "step" in question:
            return (run / "checkpoints" / checkpoint_name(question.number("step")) / "config.json").is_file()
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
        self._machine = api.machine(question.run(self.runs))
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
            "attribution": self.attribution,
            "story": self.story,
            "neurons": self.neurons,
            "node": self.node,
            "compare": self.compare,
            "fork": self.fork,
            "chat": self.chat,
        }
        return looks[question.choice("look", LOOKS)](question)

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
        else:
            first = 0
            found = {"before": moved.before, "after": moved.after, "gradient": moved.gradient}.get(
                what, moved.update
            )
        whole = found.float().reshape(-1, found.shape[-1]) if found.ndim > 1 else found.float()[None]
        from_row, to_row = question.numbers("rows", 2) if "rows" in question else (0, len(whole))
        if not 0 <= from_row < to_row <= len(whole):
            raise InputError(f"{name} has rows 0 to {len(whole) - 1}, not {from_row} to {to_row}")
        tensors, by = binned(whole[from_row:to_row])
        key = self.files.save(tensors)
        return {
            "step": opened.step,
            "name": name,
            "what": what,
            "since": first,
            "shape": (whole.shape[0], whole.shape[1]),
            "rows": (from_row, to_row),
            "bin": by,
            "tensors": key,
            "norm": float(whole.double().norm()),
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
        prompt = self._read(question)
        along = [
            [values.guess_values(guess) for guess in prompt.guesses(place, count=6)]
            for place in range(len(prompt.ids))
        ]
        found = cast(look_types.PromptAnswer, values.prompt_values(prompt))
        found["guesses_along"] = along
        if prompt.has_attention:
            found["heads"] = [_head_values(kind) for kind in kinds_of_heads(prompt)]
        found["proof"] = _proof(prompt)
        return found

    def attribution(self, question: Question) -> text_types.AttributionAnswer:
        on_progress = self._progress("ablating one token after another")
        return values.attribution_values(self._read(question).attribution(on_progress=on_progress))

    def story(self, question: Question) -> text_types.StoryAnswer:
        from etude.watch.loss_by_checkpoint import loss_by_checkpoint

        recorded = self._machine.recorded
        return loss_by_checkpoint(
            recorded,
            self._machine.data.tokenizer,
            question.text("text"),
            question.numbers("steps") if "steps" in question else None,
            self._progress("reading the text at each checkpoint"),
        )

    def neurons(self, question: Question) -> look_types.NeuronsAnswer:
        from etude.watch.node_layers import find_node_layer

        prompt, layer = self._read(question), self._layer_name(question)
        node_layer = find_node_layer(prompt.model, layer)
        incoming = node_layer.linear(prompt.model, node_layer.gate).weight.detach().float()
        outgoing = (
            node_layer.linear(prompt.model, node_layer.out).weight.detach().float()[:, : node_layer.size]
        )
        pre, post = (prompt.activation(f"{layer}.{leaf}")[0].float() for leaf in ("pre", "post"))
        key = self.files.save({"pre": pre, "post": post})
        before = self._first_weights.get(f"{node_layer.gate}.weight")
        return {
            "step": self._step_of(question),
            "layer": layer,
            "tokens": list(prompt.tokens),
            "tensors": key,
            "incoming": incoming.norm(dim=1).tolist(),
            "outgoing": outgoing.norm(dim=0).tolist(),
            "change": None if before is None else (incoming.cpu() - before).norm(dim=1).tolist(),
            "proof": _proof(prompt),
        }

    def node(self, question: Question) -> text_types.NodeAnswer:
        node = look_at_node(
            self._machine, self._step_of(question), self._layer_name(question), question.number("unit", 0)
        )
        arithmetic = node.on_tokens(node.most[0].token_ids if node.most else (0,))
        history = node.history(on_progress=self._progress("reading the neuron at each checkpoint"))
        return node_values(node, arithmetic, history)

    def compare(self, question: Question) -> text_types.CompareAnswer:
        run, knobs = self._machine.recorded.run.path, question.texts("knobs")
        return values.comparison_values(
            api.compare(run, question.text("text"), knobs, self._step_of(question))
        )

    def fork(self, question: Question) -> look_types.ForkAnswer:
        step, knobs = self._step_of(question), question.texts("knobs")
        self._progress("writing the run")(0, 1)  # raises if the client is gone
        made = api.fork(self._machine.recorded.run.path, step, knobs, question.text("name"))
        return {"run": str(made.path), "step": step, "turned": list(knobs)}

    def chat(self, question: Question) -> Generator[None, None, look_types.ChatAnswer]:
        from etude.serve.chat import continued

        step = self._step_of(question)
        tokenizer, emit = self._machine.data.tokenizer, self._emit
        # Chats at the same step share one network.
        models = self._chatting.setdefault(self._machine, weakref.WeakValueDictionary())
        model = models.get(step)
        if model is None:
            model = models[step] = self._read(question, text="").model

        def answering() -> Generator[None, None, look_types.ChatAnswer]:
            text, finish = yield from continued(model, tokenizer, question, emit)
            return {"text": text, "finish": finish, "where": f"after step {step}"}

        return answering()

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

    def _read(self, question: Question, text: str | None = None) -> Prompt:
        """Return the question's text (or ``text``), read at its step; the last one is kept."""
        machine, step = self._machine, self._step_of(question)
        wanted = question.text("text") if text is None else text
        path = machine.recorded.run.path
        return self._prompt.of(machine, (step, wanted), lambda: api.prompt(path, wanted, step))

    def _layer_name(self, question: Question) -> str:
        layers = self._machine.empty_model().node_layers()
        number = question.number("layer", 0)
        if not 0 <= number < len(layers):
            raise InputError(f"this network has layers of neurons 0 to {len(layers) - 1}, not {number}")
        return layers[number].path

    @property
    def _first_weights(self) -> dict[str, torch.Tensor]:
        """The weights of the run's first checkpoint, in main memory."""
        checkpoints = self._machine.recorded.checkpoints
        folder = checkpoints[min(checkpoints)]

        def read() -> dict[str, torch.Tensor]:
            model, _ = load_model_folder(folder, device=torch.device("cpu"))
            return {name: p.detach().float() for name, p in model.named_parameters()}

        return self._first.of(self._machine, folder, read)


def _proof(prompt: Prompt) -> step_types.ProofAnswer | None:
    """Return the proof of the state that read the text; the time machine may be at another step by now."""
    return None if prompt.proof is None else values.proof_values(prompt.proof)


def _head_values(kind: KindOfHead) -> look_types.HeadAnswer:
    return {
        "layer": kind.layer,
        "head": kind.head,
        "previous": kind.previous,
        "first": kind.first,
        "itself": kind.itself,
        "entropy": kind.entropy,
    }


WHATS: tuple[str, ...] = get_args(look_types.What.__value__)
LOOKS = tuple(look_types.ANSWERS)
