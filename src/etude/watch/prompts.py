"""A text read by a network: what it predicts at every position, and why.

Everything is computed on demand from the network's weights; only requested activations are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor

from etude.data.tokens.tokenizer import EtudeTokenizer
from etude.device import free_memory_bytes
from etude.errors import InputError
from etude.model.language_model import LOGITS, LanguageModel
from etude.model.taps import Taps, every_activation
from etude.watch.attribution import Attribution, Progress, attribution
from etude.watch.contributions import Contributions, contributions
from etude.watch.named_tensor import Named
from etude.watch.proof import Proof
from etude.watch.tapped_forward import activation_bytes, run_with_taps

Passage = str | Sequence[int]
"""What a network reads: a text, as a document from its beginning, or exactly these tokens."""
TOP = 5
"""Most likely tokens listed of a prediction."""
_CONTRIBUTING = (".z", ".attn_out", ".mlp_out", ".post", ".embed", ".resid_pre", LOGITS)
"""Activations from which the terms of a logit are computed."""
LENS_NUMBERS = 2**25
"""Logits of the lens in memory at a time: 128 MiB."""


@dataclass(frozen=True)
class Guess:
    """One token of a predicted distribution."""

    token: int
    text: str
    probability: float

    def __str__(self) -> str:
        return f"{self.text!r} {self.probability:.1%}"


@dataclass(frozen=True, eq=False)
class Lens:
    """The logit lens (nostalgebraist 2020): what the residual stream would predict after each layer.

    The stream passes the last norm and the output matrix as if the network ended there. The last layer's prediction is
    the network's own.

    Attributes:
        log_probabilities: (L, T, V) nats, after layer 0 to L - 1.
        desired: (T,) the next token, -1 at the last position.
    """

    log_probabilities: Float[Tensor, "L T V"]
    desired: Int[Tensor, " T"]
    tokens: tuple[str, ...]
    decode: Callable[[int], str] = field(repr=False)

    @property
    def of_desired(self) -> Named:
        """Probability of the next token, at all positions but the last."""
        known = self.desired[:-1]
        index = known[None, :, None].expand(len(self.log_probabilities), -1, 1)
        probabilities = self.log_probabilities[:, :-1].gather(-1, index)[..., 0].exp()
        return Named("probability of the next token", ("layer", "position"), probabilities)

    def top(self, layer: int, position: int, count: int = TOP) -> list[Guess]:
        """Return the most likely tokens after ``layer`` at ``position``."""
        return _guesses(self.log_probabilities[layer, position], self.decode, count)

    def __repr__(self) -> str:
        layers = range(len(self.log_probabilities))
        lines = [f"after layer {layer:2}: {'  '.join(map(str, self.top(layer, -1, 3)))}" for layer in layers]
        return "\n".join([f"logit lens after {self.tokens[-1]!r}", *lines[-11:]])


@dataclass(eq=False)
class Prompt:
    """A text and the network that reads it.

    Attributes:
        ids: (T,) its tokens. The first of a text is the token that begins every document.
        tokens: their texts.
        proof: how the replayed state compares with the run's record; None for a model outside a run.
    """

    model: LanguageModel
    ids: Int[Tensor, " T"]
    tokens: tuple[str, ...]
    decode: Callable[[int], str] = field(repr=False)
    text: str = ""
    where: str = ""  # the run and step, with the proof; or the model folder
    proof: Proof | None = None
    _kept: dict[str, Tensor] = field(default_factory=dict, repr=False)
    _is_read: bool = False

    def activation(self, name: str) -> Tensor:
        """Return one activation by name, (1, T, ...); see :mod:`etude.watch.tapped_forward`.

        Raises:
            InputError: the network has no activation of that name.
        """
        if name not in self._kept:
            self._keep(name.__eq__)
        if name not in self._kept:
            raise InputError(
                f"no activation is called '{name}': try one such as model.layers.0.mlp.post, or logits"
            )
        return self._kept[name]

    def activations(self) -> dict[str, Tensor]:
        """Return all activations by name.

        Raises:
            InputError: they do not fit the free memory.
        """
        needed, free = (
            activation_bytes(self.model, len(self.ids)),
            free_memory_bytes(self.model.unembedding()[0].device.type),
        )
        if free is not None and needed > free:
            raise InputError(
                f"all activations of {len(self.ids)} tokens take {needed / 2**30:,.1f} GiB, and {free / 2**30:,.1f} "
                "GiB are free: request one at a time, or give a shorter text"
            )
        self._keep(every_activation)
        return self._kept

    @property
    def probabilities(self) -> Float[Tensor, "T V"]:
        """(T, V) the predicted distribution of the next token at every position."""
        return self.activation(LOGITS)[0].float().softmax(-1)

    @property
    def losses(self) -> Float[Tensor, " U"]:
        """(T - 1,) loss of each token but the first, nats."""
        logits = self.activation(LOGITS)[0, :-1].float()
        return torch.nn.functional.cross_entropy(logits, self.ids[1:], reduction="none")

    def guesses(self, position: int = -1, count: int = TOP) -> list[Guess]:
        """Return the most likely next tokens at ``position``."""
        logits = self.activation(LOGITS)[0, self._place(position)]
        return _guesses(logits.float().log_softmax(-1), self.decode, count)

    @property
    def has_attention(self) -> bool:
        """Whether the network has attention layers; the mlp family has none."""
        return self.model.has_attention

    def pattern(self, layer: int) -> Named:
        """Return the attention pattern of each head of one layer; each query's shares sum to 1.

        Raises:
            InputError: no such layer, or a network without attention.
        """
        self._require_attention("attention pattern")
        name = f"model.layers.{self._layer(layer)}.self_attn.pattern"
        return Named(name, ("head", "query", "key"), self.activation(name)[0])

    def patterns(self) -> list[Named]:
        """Return the attention patterns of all layers, from one forward pass.

        Raises:
            InputError: a network without attention, or patterns that do not fit the free memory.
        """
        self._require_attention("attention pattern")
        config = self.model.config
        needed = 4 * config.num_hidden_layers * config.num_attention_heads * len(self.ids) ** 2
        free = free_memory_bytes(self.model.unembedding()[0].device.type)
        if free is not None and needed > free:
            raise InputError(
                f"the attention patterns of {len(self.ids):,} tokens take {needed / 2**30:,.1f} GiB, and "
                f"{free / 2**30:,.1f} GiB are free: give a shorter text"
            )
        names = [f"model.layers.{layer}.self_attn.pattern" for layer in range(config.num_hidden_layers)]
        if not all(name in self._kept for name in names):
            self._keep(lambda name: name.endswith(".self_attn.pattern"))
        return [self.pattern(layer) for layer in range(config.num_hidden_layers)]

    @torch.no_grad()
    def logit_lens(self) -> Lens:
        """Return the prediction after each layer.

        Raises:
            InputError: a network without layers.
        """
        logits = self.model.logits_of_stream(torch.stack(self._streams()))
        desired = torch.cat((self.ids[1:], self.ids.new_tensor([-1])))
        return Lens(logits.float().log_softmax(-1), desired, self.tokens, self.decode)

    @torch.no_grad()
    def lens_of_next(self) -> Named:
        """Return :attr:`Lens.of_desired`; one layer at a time where the logits of all would take much memory.

        Raises:
            InputError: a network without layers.
        """
        config = self.model.config
        if config.num_hidden_layers * len(self.ids) * config.vocab_size <= LENS_NUMBERS:
            return self.logit_lens().of_desired
        rows = []
        for stream in self._streams():
            logits = self.model.logits_of_stream(stream[:-1]).float()
            rows.append(logits.gather(-1, self.ids[1:, None])[:, 0].sub(logits.logsumexp(-1)).exp())
        return Named("probability of the next token", ("layer", "position"), torch.stack(rows))

    def attribution(
        self, position: int = -1, token: int | None = None, on_progress: Progress | None = None
    ) -> Attribution:
        """Return which tokens contribute to the logit of ``token`` (default: the most likely) at ``position``."""
        place = self._place(position)
        chosen = self._token(place, token)
        return attribution(self.model, self.ids, self.tokens, place, chosen, self.decode, on_progress)

    def contributions(self, position: int = -1, token: int | None = None) -> Contributions:
        """Return what each head, MLP and bias adds to the logit of ``token`` (default: the most likely)."""
        place = self._place(position)
        opened = {name: value for name, value in self._kept.items() if name.endswith(_CONTRIBUTING)}
        if not self._is_read:
            taps = Taps(lambda name: name.endswith(_CONTRIBUTING))
            with torch.no_grad():
                opened = run_with_taps(self.model, self.ids[None], taps=taps)
        return contributions(self.model, opened, place, self._token(place, token), self.decode)

    def read_at_once(self) -> None:
        """Keep what the patterns, the lens and the contributions need, from one forward pass instead of one each."""
        if not self._is_read:
            self._keep(lambda name: name.endswith((".pattern", ".resid_post", *_CONTRIBUTING)))
            self._is_read = True

    def stream_norms(self) -> dict[str, Float[Tensor, " T"]]:
        """Return the length of the residual stream at every token: as embedded, and inside and after each layer.

        Raises:
            InputError: a network without layers.
        """
        self._require_attention("residual stream")
        names = ("model.layers.0.resid_pre", ".resid_mid", ".resid_post")
        with torch.no_grad():
            kept = run_with_taps(self.model, self.ids[None], taps=Taps(lambda name: name.endswith(names)))
        return {name: value[0].float().norm(dim=-1) for name, value in kept.items()}

    def _streams(self) -> list[Tensor]:
        """Return the residual stream (T, D) after each layer."""
        self._require_attention("logit lens")
        if not self._is_read:
            self._keep(lambda name: name.endswith(".resid_post"))
        layers = range(self.model.config.num_hidden_layers)
        return [self.activation(f"model.layers.{layer}.resid_post")[0] for layer in layers]

    def _keep(self, wanted: Callable[[str], bool]) -> None:
        with torch.no_grad():
            activations = run_with_taps(self.model, self.ids[None], taps=Taps(wanted))
        self._kept.update({name: value.detach() for name, value in activations.items()})

    def _require_attention(self, what: str) -> None:
        if not self.model.has_attention:
            family = self.model.config.model_type
            raise InputError(f"the {family} family has no attention layers, so no {what}: use a transformer")

    def _layer(self, layer: int) -> int:
        count = self.model.config.num_hidden_layers
        if not 0 <= layer < count:
            raise InputError(f"this network has layers 0 to {count - 1}, not {layer}")
        return layer

    def _place(self, position: int) -> int:
        count = len(self.ids)
        if not -count <= position < count:
            raise InputError(f"this text has positions 0 to {count - 1}, not {position}")
        return position % count

    def _token(self, place: int, token: int | None) -> int:
        if token is None:
            return int(self.activation(LOGITS)[0, place].argmax())
        if not 0 <= token < self.model.config.vocab_size:
            raise InputError(f"token ids go from 0 to {self.model.config.vocab_size - 1}, not {token}")
        return token

    def __repr__(self) -> str:
        text = " ".join(self.text.split())
        lines = [f"{len(self.ids)} tokens: {text if len(text) < 60 else text[:57] + '...'}"]
        lines += [self.where] if self.where else []
        if len(self.ids) > 1:
            lines.append(f"loss {float(self.losses.mean()):.4f} nats per token")
        lines.append(f"next: {'  '.join(map(str, self.guesses()))}")
        return "\n".join(lines)


def look(
    model: LanguageModel,
    tokenizer: EtudeTokenizer,
    passage: Passage,
    where: str = "",
    proof: Proof | None = None,
) -> Prompt:
    """Read a text, or tokens such as those of a conversation, with ``model``.

    Raises:
        InputError: it is longer than the network can read, or a token is outside the vocabulary.
    """
    if isinstance(passage, str):
        text, ids = passage, [tokenizer.roles.document_id, *tokenizer.encode(passage)]
    else:
        _require_tokens(passage, tokenizer.vocab_size)
        text, ids = tokenizer.decode(passage), list(passage)
    most = model.config.max_position_embeddings
    if len(ids) > most:
        raise InputError(
            f"this text has {len(ids):,} tokens, and the network reads {most:,} at most: shorten it"
        )
    tokens = tuple(tokenizer.decode([token]) for token in ids)
    device = model.unembedding()[0].device
    read = torch.tensor(ids, device=device)
    return Prompt(model, read, tokens, lambda token: tokenizer.decode([token]), text, where, proof)


def _require_tokens(ids: Sequence[int], vocab_size: int) -> None:
    if not ids or not all(0 <= number < vocab_size for number in ids):
        raise InputError(f"a passage has at least one token, each from 0 to {vocab_size - 1}")


@torch.no_grad()
def induction_scores(
    model: LanguageModel, length: int = 24, rows: int = 8, seed: int = 0
) -> tuple[Named, float]:
    """Return the induction score of each head (Olsson et al. 2022), and its value by chance.

    ``rows`` sequences of ``length`` random tokens are each read twice in a row. The score is the share of attention,
    averaged over the second copy, on the token after the earlier occurrence.

    Returns:
        Scores (layer, head), and the score of a head that spreads its attention evenly.

    Raises:
        InputError: a network without attention, or one whose context is too short.
    """
    if not model.has_attention:
        raise InputError(f"the {model.config.model_type} family has no heads")
    length = min(length, model.config.max_position_embeddings // 2)
    if length < 2:
        raise InputError("this network reads too few tokens to read anything twice")
    generator = torch.Generator().manual_seed(seed)
    once = torch.randint(model.config.vocab_size, (rows, length), generator=generator)
    inputs = torch.cat((once, once), 1).to(model.unembedding()[0].device)
    scores = []
    taps = Taps(lambda name: name.endswith(".pattern"))
    for pattern in run_with_taps(model, inputs, taps=taps).values():
        # The diagonal of query i + length and key i + 1: the token after the earlier occurrence.
        shares = pattern.diagonal(offset=1 - length, dim1=-2, dim2=-1)[..., 1:]
        scores.append(shares.mean((0, 2)))
    visible = torch.arange(length + 1, 2 * length + 1, dtype=torch.float64)
    return Named("induction score", ("layer", "head"), torch.stack(scores)), float((1 / visible).mean())


def _guesses(log_probabilities: Float[Tensor, " V"], decode: Callable[[int], str], count: int) -> list[Guess]:
    likeliest = log_probabilities.argsort(descending=True, stable=True)[:count].tolist()
    return [Guess(token, decode(token), float(log_probabilities[token].exp())) for token in likeliest]
