"""``etude doctor MODEL``: what can be found out about a model without a record of its training."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from etude.diagnose.run.activations import NetworkState, look_at_rows
from etude.diagnose.run.verdict import SEVERITIES, Rule, Verdict
from etude.errors import InputError
from etude.messages import command
from etude.pretrained.facts import licence_of, rounding_of
from etude.pretrained.load_model import Trained, load_trained
from etude.untrusted import open_plain
from etude.watch.activity import DEAD_REACH
from etude.watch.kinds_of_heads import SINK_SHARE, SINKS, kinds_of_heads
from etude.watch.prompts import look

TEXT_BYTES = 2**16
ROW_TOKENS, MOST_ROWS = 256, 8
"""The text is read in rows of so many tokens, and at most so many rows of it."""
UNTRAINED = 0.25
"""Share of the median length of an embedding below which a token counts as hardly trained."""
DEAD_NOTICE = 0.01

FINITE = Rule("numbers not finite", "Every weight of a model is a finite number.")
ROUNDED = Rule("rounded weights", "Weights that were rounded when the file was made predict a little worse.")
ROLES = Rule(
    "roles of tokens",
    "A model needs a token that begins a document and tokens that stop generation; one for conversations also a token "
    "that ends a turn, and a chat template.",
)
TIED = Rule("tied embeddings", "The output matrix is the embedding of the tokens, or a matrix of its own.")
UNUSED = Rule(
    "hardly trained tokens",
    f"A token counts as hardly trained if its embedding is shorter than {UNTRAINED:g} of the median, and a row without "
    "a token is padding. A text with such tokens is predicted badly.",
)
LOSS = Rule("loss on the text", "A trained model predicts a text better than guessing among all tokens.")
DEAD = Rule(
    "dead neurons",
    f"A neuron is dead on a text if it never adds more than {DEAD_REACH:g} of the norm of what it is added to; a "
    f"notice from {DEAD_NOTICE:.0%} of the neurons.",
)
HEADS = Rule("attention sinks", SINKS)
HISTORY = Rule(
    "the training",
    "Learning, learning rates, spikes, overfitting, leaks and lost text are judged by the record of a run.",
)


@dataclass(frozen=True)
class _Text:
    """What was measured on a text."""

    loss: float  # nats per token
    num_tokens: int
    network: NetworkState
    sinks: int
    heads: int


def diagnose_model(source: str | Path, text: Path | None = None) -> list[Verdict]:
    """Return a verdict of every rule on the model that ``source`` names, worst first.

    Args:
        text: a file on which loss, neurons and heads are measured; without one they are not judged.

    Raises:
        InputError: there is no such model or text, or the model cannot be read.
    """
    content = None if text is None else _read(text)
    trained = load_trained(source)
    measured = None if content is None else _measure(trained, content)
    verdicts = [
        _finite(trained),
        _loss(trained, measured),
        _dead(measured),
        _sinks(trained, measured),
        _roles(trained),
        _unused(trained),
        _rounded(trained),
        _tied(trained),
        HISTORY.not_judged(
            f"a model without a run has none; {command('train', 'TEXT', '--from', source)} begins one"
        ),
    ]
    return sorted(verdicts, key=lambda verdict: SEVERITIES.index(verdict.severity))


def _read(text: Path) -> str:
    try:
        with open_plain(text) as file:
            content = file.read(TEXT_BYTES).decode("utf-8", "ignore")
    except OSError as error:
        raise InputError(f"{text} cannot be read ({error.strerror}): name a text file") from None
    if not content.strip():
        raise InputError(f"{text} holds no text: name another file")
    return content


@torch.no_grad()
def _measure(trained: Trained, content: str) -> _Text:
    """Read the text in rows that each begin a document, on their own."""
    model = trained.model
    losses, num_tokens, rows = 0.0, 0, list(_rows(trained, content))
    for row in rows:
        logits = model.head(model.hidden(row[None]))[0, :-1].float()
        losses += float(torch.nn.functional.cross_entropy(logits, row[1:], reduction="sum"))
        num_tokens += len(row) - 1
    network = look_at_rows(model, rows)
    sinks = heads = 0
    if model.has_attention:
        ids = rows[0].tolist()[1:]
        kinds = kinds_of_heads(look(model, trained.tokenizer, trained.tokenizer.decode(ids)))
        sinks, heads = sum(head.first >= SINK_SHARE for head in kinds), len(kinds)
    return _Text(losses / max(1, num_tokens), num_tokens, network, sinks, heads)


def _rows(trained: Trained, content: str) -> Iterator[Tensor]:
    ids = trained.tokenizer.encode(content)
    length = min(ROW_TOKENS, trained.model.config.max_position_embeddings) - 1
    for first in range(0, min(len(ids), length * MOST_ROWS), length):
        yield torch.tensor([trained.tokenizer.roles.document_id, *ids[first : first + length]])


def _finite(trained: Trained) -> Verdict:
    parameters = dict(trained.model.named_parameters())
    broken = [name for name, values in parameters.items() if not bool(values.isfinite().all())]
    if broken:
        return FINITE.problem(
            f"{len(broken)} of {len(parameters)} tensors hold numbers that are not finite, the first {broken[0]}.",
            "get the model again: the file is damaged",
        )
    return FINITE.fine(f"all {len(parameters)} tensors are finite")


def _loss(trained: Trained, text: _Text | None) -> Verdict:
    if text is None:
        return LOSS.not_judged(_NO_TEXT)
    guessing = math.log(trained.tokenizer.vocab_size)
    found = f"{text.loss:.3f} nats per token on {text.num_tokens:,} tokens; guessing gives {guessing:.3f}"
    if not text.loss < guessing:
        return LOSS.problem(
            f"The model predicts worse than guessing: {found}.",
            "the weights and the tokenizer may not belong together: get the model again, or try a text in its language",
        )
    return LOSS.fine(found)


def _dead(text: _Text | None) -> Verdict:
    if text is None:
        return DEAD.not_judged(_NO_TEXT)
    layers = text.network.nodes
    dead = [int((layer.reach <= DEAD_REACH).sum()) for layer in layers]
    total, worst = sum(len(layer.reach) for layer in layers), max(range(len(dead)), key=dead.__getitem__)
    found = f"{sum(dead):,} of {total:,} neurons are dead on {text.network.num_tokens:,} tokens"
    if sum(dead) < DEAD_NOTICE * total:
        return DEAD.fine(found)
    return DEAD.notice(
        f"{found}, most in layer {worst}: {dead[worst]:,}.",
        "nothing, if the text is short or unlike what the model was trained on; otherwise try a longer one",
    )


def _sinks(trained: Trained, text: _Text | None) -> Verdict:
    if not trained.model.has_attention:
        return HEADS.not_judged("the network has no attention")
    if text is None:
        return HEADS.not_judged(_NO_TEXT)
    return HEADS.fine(
        f"{text.sinks} of {text.heads} heads put {SINK_SHARE:.0%} or more of their attention on the first token"
    )


def _roles(trained: Trained) -> Verdict:
    tokenizer, roles = trained.tokenizer, trained.tokenizer.roles
    template = _has_template(trained.folder)
    stops = ", ".join(tokenizer.token(token) for token in sorted(roles.stop_ids))
    turn = f"{roles.end_of_turn} ends a turn" if roles.end_of_turn else "none ends a turn"
    found = f"{roles.document} begins a document, {turn}, generation stops at {stops}; "
    found += "there is a chat template" if template else "there is no chat template"
    if template and roles.end_of_turn is None:
        return ROLES.notice(
            f"{found}.", "an answer may run on past its end: give generation a stop text of the template"
        )
    return ROLES.fine(found)


def _has_template(folder: Path) -> bool:
    from etude.data.tokens.published import chat_template
    from etude.files import read_json
    from etude.run.published_history import tokenizer_folder

    folder = tokenizer_folder(folder)
    file = folder / "tokenizer_config.json"
    try:
        config = read_json(file) if file.is_file() else {}
        return chat_template(folder, config if isinstance(config, dict) else {}) is not None
    except InputError:
        return False


def _unused(trained: Trained) -> Verdict:
    lengths = trained.model.embedding_weight().float().norm(dim=-1)
    tokens, rows = trained.tokenizer.vocab_size, len(lengths)
    median = float(lengths[:tokens].median())
    short = (lengths[:tokens] < UNTRAINED * median).nonzero()[:, 0].tolist()
    padding = f", and {rows - tokens:,} rows without a token" if rows > tokens else ""
    found = f"{len(short):,} of {tokens:,} tokens have a short embedding (median {median:.3g}){padding}"
    if not short:
        return UNUSED.fine(found)
    names = ", ".join(repr(trained.tokenizer.token(token)) for token in short[:5])
    return UNUSED.notice(
        f"{found}: {names}{', ...' if len(short) > 5 else ''}.", "do not build on these tokens"
    )


def _rounded(trained: Trained) -> Verdict:
    rounding, licence = rounding_of(trained.folder), licence_of(trained.folder) or "not stated"
    if rounding is None:
        return ROUNDED.fine(f"the files record no rounding; licence {licence}")
    return ROUNDED.notice(
        f"The weights were rounded when the file was made ({rounding}); licence {licence}.",
        "use the original weights where small differences matter",
    )


def _tied(trained: Trained) -> Verdict:
    tied = trained.model.config.tie_word_embeddings
    return TIED.fine("tied: one matrix reads and writes tokens" if tied else "not tied: two matrices")


_NO_TEXT = "no text was given: add --text FILE"
