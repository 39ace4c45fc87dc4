"""Answers about a text that a network reads, at a step of a run or from a model without one."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from typing import Any, cast

from torch import Tensor

from etude.errors import InputError
from etude.serve import look_types
from etude.serve.chat import answered, continued
from etude.serve.request import Question
from etude.serve.tensor_files import TensorFiles, binned
from etude.watch import step_types, values
from etude.watch.kinds_of_heads import KindOfHead, chosen_heads, kinds_of_heads, sinks_line
from etude.watch.loaded_models import Reader
from etude.watch.node_layers import find_node_layer
from etude.watch.prompts import Passage, Prompt

MOST_HEADS = 48
"""Heads whose patterns are sent."""
PATTERN_NUMBERS = 2**21
"""Numbers of all patterns in one answer, which is JSON."""
DIGITS = 6


def prompt_answer(reader: Reader, passage: Passage) -> look_types.PromptAnswer:
    """Return a text, or tokens, as a network reads them, with the patterns of some heads of each kind."""
    prompt = reader.read(passage)
    prompt.read_at_once()
    along = [
        [values.guess_values(guess) for guess in prompt.guesses(place, count=6)]
        for place in range(len(prompt.ids))
    ]
    induction = reader.induction if prompt.has_attention else None
    found = cast(look_types.PromptAnswer, values.prompt_values(prompt, induction))
    found["guesses_along"] = along
    if induction is not None:
        heads, scores = kinds_of_heads(prompt), induction["scores"]
        most = min(MOST_HEADS, PATTERN_NUMBERS // len(prompt.ids) ** 2)
        chosen = chosen_heads(heads, most, scores)
        found["heads"] = [_head_values(head, chosen.kinds[head.layer, head.head]) for head in heads]
        found["drawn"] = [_pattern(prompt, layer, head) for layer, head in chosen.places]
        found["choice"], found["sinks"] = str(chosen), sinks_line(heads)
    found["proof"] = proof_of(prompt)
    return found


def head_answer(reader: Reader, question: Question) -> look_types.HeadPattern:
    """Return the pattern of one head.

    Raises:
        InputError: no such head, or a text whose pattern is too large to send.
    """
    prompt = reader.read(question.passage())
    layer, head, heads = question.number("layer"), question.number("head"), 0
    if len(prompt.ids) ** 2 > PATTERN_NUMBERS:
        raise InputError(
            f"a pattern of {len(prompt.ids):,} tokens is too large to draw: shorten the text to "
            f"{int(PATTERN_NUMBERS**0.5):,} tokens"
        )
    heads = len(prompt.pattern(layer).tensor)
    if head >= heads:
        raise InputError(f"this network has heads 0 to {heads - 1}, not {head}")
    return _pattern(prompt, layer, head)


def neurons_answer(
    reader: Reader, question: Question, layer: str, files: TensorFiles, first: Mapping[str, Tensor]
) -> look_types.NeuronsAnswer:
    """Return a layer of neurons along a text; ``first`` are the weights of the run's first checkpoint, if any."""
    prompt = reader.read(question.passage())
    node_layer = find_node_layer(prompt.model, layer)
    incoming = node_layer.linear(prompt.model, node_layer.gate).weight.detach().float()
    outgoing = node_layer.linear(prompt.model, node_layer.out).weight.detach().float()[:, : node_layer.size]
    pre, post = (prompt.activation(f"{layer}.{leaf}")[0].float() for leaf in ("pre", "post"))
    before = first.get(f"{node_layer.gate}.weight")
    return {
        "step": question.number("step", 0),
        "layer": layer,
        "tokens": list(prompt.tokens),
        "tensors": files.save({"pre": pre, "post": post}),
        "incoming": incoming.norm(dim=1).tolist(),
        "outgoing": outgoing.norm(dim=0).tolist(),
        "change": None if before is None else (incoming.cpu() - before).norm(dim=1).tolist(),
        "proof": proof_of(prompt),
    }


def matrix_picture(
    tensor: Tensor, name: str, question: Question, files: TensorFiles
) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int], str, float]:
    """Return a tensor as a picture: its whole shape, the rows, the bin, the key of its file, and its norm.

    Raises:
        InputError: no such rows.
    """
    whole = tensor.float().reshape(-1, tensor.shape[-1]) if tensor.ndim > 1 else tensor.float()[None]
    from_row, to_row = question.numbers("rows", 2) if "rows" in question else (0, len(whole))
    if not 0 <= from_row < to_row <= len(whole):
        raise InputError(f"{name} has rows 0 to {len(whole) - 1}, not {from_row} to {to_row}")
    tensors, by = binned(whole[from_row:to_row])
    shape = (whole.shape[0], whole.shape[1])
    return shape, (from_row, to_row), by, files.save(tensors), float(whole.double().norm())


def chat_answer(
    reader: Reader, question: Question, emit: Callable[[Any], None], where: str
) -> Generator[None, None, look_types.ChatAnswer]:
    """Continue a text, or answer in a conversation, one token for each ``next``."""
    if "messages" in question:
        name = question.text("run")
        tokens = answered(reader.model, reader.tokenizer, question, emit, name)
    else:
        tokens = continued(reader.model, reader.tokenizer, question, emit)
    text, finish = yield from tokens
    return {"text": text, "finish": finish, "where": where}


def layer_name(paths: list[str], question: Question) -> str:
    """Return the name of the question's layer of neurons.

    Raises:
        InputError: no such layer.
    """
    number = question.number("layer", 0)
    if not 0 <= number < len(paths):
        raise InputError(f"this network has layers of neurons 0 to {len(paths) - 1}, not {number}")
    return paths[number]


def proof_of(prompt: Prompt) -> step_types.ProofAnswer | None:
    """Return the proof of the state that read the text; the time machine may be at another step by now."""
    return None if prompt.proof is None else values.proof_values(prompt.proof)


def _pattern(prompt: Prompt, layer: int, head: int) -> look_types.HeadPattern:
    rows = prompt.pattern(layer).tensor[head].float().cpu().tolist()
    return {
        "layer": layer,
        "head": head,
        "pattern": [[round(share, DIGITS) for share in row] for row in rows],
    }


def _head_values(head: KindOfHead, kind: str) -> look_types.HeadAnswer:
    return {
        "layer": head.layer,
        "head": head.head,
        "previous": head.previous,
        "first": head.first,
        "itself": head.itself,
        "entropy": head.entropy,
        "here": head.induction,
        "kind": kind,
    }
