"""The worker's answers about a model that has no run, or about its saved versions."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from typing import Any, get_args

import torch

from etude.data.tokens.published import model_tokenizer
from etude.errors import InputError
from etude.messages import suggest_name
from etude.run.published_history import PublishedHistory
from etude.serve import look_types
from etude.serve.request import Question, no_record
from etude.serve.tensor_files import TensorFiles
from etude.serve.text_answers import (
    chat_answer,
    head_answer,
    layer_name,
    matrix_picture,
    neurons_answer,
    prompt_answer,
)
from etude.watch import knobs, text_types, values
from etude.watch.in_model import weight_in_model
from etude.watch.loaded_models import LoadedModels, Reader
from etude.watch.loss_by_checkpoint import loss_by_checkpoint
from etude.watch.node_in_text import look_at_node_in_text
from etude.watch.node_values import node_in_text_values

Answer = Mapping[str, object]
Answered = Answer | Generator[None, None, Answer]
EXAMPLES = (
    (
        "names that come again",
        "When Mary and John went to the shop, John gave the bag to Mary. When Mary and Tom went to the park, Tom gave "
        "the ball to",
    ),
    ("capitals", "The capital of Italy is Rome. The capital of Japan is Tokyo. The capital of France is"),
    (
        "a story",
        "Once upon a time, there was a small fox who lived at the edge of a dark forest. One morning",
    ),
)
"""Texts to begin with: what the model was trained on is not known, so none can be held out."""


class ModelAnswers:
    """Answers questions about models without runs, and keeps the last ones loaded."""

    def __init__(self, files: TensorFiles) -> None:
        self.files = files
        self.models = LoadedModels()

    def answer(
        self, name: str, folder: Path, look: str, question: Question, emit: Callable[[Answer], None]
    ) -> Answered:
        """Return the answer to a question about the model, or the saved versions of one, in ``folder``.

        Raises:
            InputError: the question is about a record, which the model does not have, or names what does not exist.
        """
        history = PublishedHistory.at(folder)
        if history is not None and look in OF_VERSIONS:
            return OF_VERSIONS[look](history, question, emit)
        looks: dict[str, Callable[[Reader, Question], Answered]] = {
            "prompt": lambda reader, question: prompt_answer(reader, question.passage()),
            "head": head_answer,
            "attribution": lambda reader, question: self._attribution(reader, question, emit),
            "neurons": lambda reader, question: neurons_answer(
                reader, question, _layer(reader, question), self.files, {}
            ),
            "node_in_text": node_in_text,
            "layers": layers,
            "matrix": self.matrix,
            "value": value,
            "compare": compare,
            "chat": lambda reader, question: chat_answer(reader, question, emit, reader.where),
        }
        if look == "passages":
            return {"passages": [{"name": title, "text": text} for title, text in EXAMPLES]}
        if look not in looks:
            raise InputError(no_record(name, folder))
        if history is not None:
            step = question.number("step", history.last)
            folder, name = history.folder_of(step), f"{name}, step {step}"
        if not self.models.has(folder):
            emit({"progress": {"doing": "loading the model", "done": 0, "of": 1}})
        return looks[look](self.models.of(folder, name), question)

    def matrix(self, reader: Reader, question: Question) -> look_types.MatrixAnswer:
        name = question.text("name")
        if question.choice("what", get_args(look_types.What.__value__)) != "before":
            raise InputError("a model without a run has weights, but no step that changed them")
        parameters = dict(reader.model.named_parameters())
        if name not in parameters:
            raise InputError(f"no parameter is called '{name}': {suggest_name(name, list(parameters))}")
        shape, rows, by, key, norm = matrix_picture(parameters[name].detach(), name, question, self.files)
        return {
            "step": question.number("step", 0),
            "name": name,
            "what": "before",
            "since": 0,
            "shape": shape,
            "rows": rows,
            "bin": by,
            "tensors": key,
            "norm": norm,
            "proof": None,
        }

    def _attribution(
        self, reader: Reader, question: Question, emit: Callable[[Answer], None]
    ) -> text_types.AttributionAnswer:
        on_progress = _progress(emit, "ablating one token after another")
        return values.attribution_values(reader.read(question.passage()).attribution(on_progress=on_progress))


def _progress(emit: Callable[[Any], None], doing: str) -> Callable[[int, int], None]:
    """Return a callback (done, total) that reports progress. It raises once the client is gone."""
    return lambda done, of: emit({"progress": {"doing": doing, "done": done, "of": of}})


def versions(
    history: PublishedHistory, question: Question, emit: Callable[[Answer], None]
) -> look_types.VersionsAnswer:
    """Return the saved versions of a model, and which of them are the same."""
    same = history.find_duplicates(_progress(emit, "comparing the versions"))
    return {
        "versions": [
            {
                "step": step,
                "name": folder.name,
                "same_as": same.get(step),
                "weights": history.hash_of(step) if step in same else None,
            }
            for step, folder in history.checkpoints.items()
        ]
    }


def story(
    history: PublishedHistory, question: Question, emit: Callable[[Answer], None]
) -> text_types.StoryAnswer:
    """Return the loss of each token of a text at the saved versions of a model."""
    return loss_by_checkpoint(
        history,
        model_tokenizer(history.folder_of(history.last)),
        question.text("text"),
        question.numbers("steps") if "steps" in question else None,
        _progress(emit, "reading the text at each version"),
    )


OF_VERSIONS: Mapping[
    str, Callable[[PublishedHistory, Question, Callable[[Answer], None]], Mapping[str, Any]]
] = {"versions": versions, "story": story}
"""The looks at several saved versions of a model."""


def node_in_text(reader: Reader, question: Question) -> text_types.NodeInTextAnswer:
    """Return a neuron along a text."""
    prompt = reader.read(question.passage())
    node = look_at_node_in_text(prompt, _layer(reader, question), question.number("unit", 0))
    return node_in_text_values(node, node.on(node.strongest))


@torch.no_grad()
def layers(reader: Reader, question: Question) -> look_types.LayersAnswer:
    """Return the length of the stream along a text, layer by layer, and every tensor of the network."""
    prompt = reader.read(question.passage())
    streams = prompt.stream_norms() if prompt.has_attention else {}
    parameters: list[look_types.ParameterFacts] = []
    for name, parameter in reader.model.named_parameters():
        deviation, mean = torch.std_mean(parameter.float(), correction=0)
        parameters.append(
            {
                "name": name,
                "shape": list(parameter.shape),
                "norm": float(parameter.float().norm()),
                "mean": float(mean),
                "deviation": float(deviation),
            }
        )
    return {
        "tokens": list(prompt.tokens),
        "stream": [{"name": name, "norm": norm.tolist()} for name, norm in streams.items()],
        "parameters": parameters,
    }


def value(reader: Reader, question: Question) -> look_types.ValueAnswer:
    """Return one number of a tensor."""
    found = weight_in_model(reader.model, question.text("name"), question.numbers("index"))
    return {
        "name": found.name,
        "index": list(found.index),
        "shape": list(found.shape),
        "value": found.value,
        "share_smaller": found.share_smaller,
        "mean": found.mean,
        "deviation": found.deviation,
    }


def compare(reader: Reader, question: Question) -> text_types.CompareAnswer:
    """Return a text without and with knobs turned."""
    passage, turned = question.passage(), question.texts("knobs")
    return values.comparison_values(
        knobs.compare(reader.model, reader.tokenizer, passage, turned, where=reader.where)
    )


def _layer(reader: Reader, question: Question) -> str:
    return layer_name([layer.path for layer in reader.model.node_layers()], question)
