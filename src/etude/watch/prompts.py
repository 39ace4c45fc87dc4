"""A text on its way through a network: what every position predicts, and why.

Everything is computed from the weights at hand when it is asked for; only what was asked for is kept.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor

from etude.data.tokens.tokenizer import EtudeTokenizer
from etude.device import Device, free_memory_bytes
from etude.errors import InputError
from etude.model.language_model import LOGITS, LanguageModel
from etude.model.taps import Taps, every_activation
from etude.watch.attribution import Attribution, Told, attribution
from etude.watch.contributions import Contributions, contributions
from etude.watch.forward import activation_bytes, run_opened
from etude.watch.named_tensor import Named
from etude.watch.proof import Proof

TOP = 5
"""Tokens told of a prediction."""


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
    """What the residual stream would predict after each layer (nostalgebraist 2020): through the last norm and the
    output matrix as if the network ended there. The last layer's is the network's own prediction.

    Attributes:
        log_probabilities: (L, T, V) nats, after layer 0 to L - 1.
        desired: (T,) the token that comes next, -1 at the last position.
    """

    log_probabilities: Float[Tensor, "L T V"]
    desired: Int[Tensor, " T"]
    tokens: tuple[str, ...]
    decode: Callable[[int], str] = field(repr=False)

    @property
    def of_desired(self) -> Named:
        """Probability of the token that comes, at all positions but the last."""
        known = self.desired[:-1]
        index = known[None, :, None].expand(len(self.log_probabilities), -1, 1)
        found = self.log_probabilities[:, :-1].gather(-1, index)[..., 0].exp()
        return Named("probability of the token that comes", ("layer", "position"), found)

    def top(self, layer: int, position: int, count: int = TOP) -> list[Guess]:
        """The likeliest tokens there."""
        return _guesses(self.log_probabilities[layer, position], self.decode, count)

    def __repr__(self) -> str:
        layers = range(len(self.log_probabilities))
        lines = [f"after layer {layer:2}: {'  '.join(map(str, self.top(layer, -1, 3)))}" for layer in layers]
        return "\n".join([f"logit lens behind {self.tokens[-1]!r}", *lines[-11:]])


@dataclass(eq=False)
class Prompt:
    """A text and the network that reads it.

    Attributes:
        ids: (T,) its tokens; the first is the one that begins every document.
        tokens: their texts.
        proof: how the state that reads it compares with the run's record; None for a model outside a run.
    """

    model: LanguageModel
    ids: Int[Tensor, " T"]
    tokens: tuple[str, ...]
    decode: Callable[[int], str] = field(repr=False)
    text: str = ""
    where: str = ""  # of which step of what, and how that is proved
    proof: Proof | None = None
    _kept: dict[str, Tensor] = field(default_factory=dict, repr=False)

    def activation(self, name: str) -> Tensor:
        """One activation by name, (1, T, ...); see :mod:`etude.watch.forward`.

        Raises:
            InputError: the network has none of that name.
        """
        if name not in self._kept:
            self._keep(name.__eq__)
        if name not in self._kept:
            raise InputError(f"no activation is called '{name}': such as model.layers.0.mlp.post, or logits")
        return self._kept[name]

    def activations(self) -> dict[str, Tensor]:
        """All of them.

        Raises:
            InputError: they do not fit the memory that is free.
        """
        needed, free = activation_bytes(self.model, len(self.ids)), free_memory_bytes(_device(self.model))
        if free is not None and needed > free:
            raise InputError(
                f"all activations of {len(self.ids)} tokens take {needed / 2**30:,.1f} GiB, and {free / 2**30:,.1f} "
                "GiB are free: ask for one at a time, or give a shorter text"
            )
        self._keep(every_activation)
        return self._kept

    @property
    def probabilities(self) -> Float[Tensor, "T V"]:
        """The predicted distribution behind every token."""
        return self.activation(LOGITS)[0].float().softmax(-1)

    @property
    def losses(self) -> Float[Tensor, " U"]:
        """(T - 1,) nats: how surprising each token but the first is."""
        logits = self.activation(LOGITS)[0, :-1].float()
        return torch.nn.functional.cross_entropy(logits, self.ids[1:], reduction="none")

    def guesses(self, position: int = -1, count: int = TOP) -> list[Guess]:
        """The likeliest tokens behind ``position``."""
        logits = self.activation(LOGITS)[0, self._place(position)]
        return _guesses(logits.float().log_softmax(-1), self.decode, count)

    @property
    def has_attention(self) -> bool:
        """Whether the network has layers of attention; the mlp family has not."""
        return self.model.has_attention

    def pattern(self, layer: int) -> Named:
        """What each head attends to in one layer; each query's shares add up to 1.

        Raises:
            InputError: no such layer, or a network without attention.
        """
        self._require_attention("attention pattern")
        name = f"model.layers.{self._layer(layer)}.self_attn.pattern"
        return Named(name, ("head", "query", "key"), self.activation(name)[0])

    @torch.no_grad()
    def logit_lens(self) -> Lens:
        """The prediction after each layer.

        Raises:
            InputError: a network without layers.
        """
        self._require_attention("logit lens")
        model = self.model
        self._keep(lambda name: name.endswith(".resid_post"))
        streams = [
            self.activation(f"model.layers.{layer}.resid_post")[0]
            for layer in range(model.config.num_hidden_layers)
        ]
        logits = model.logits_of_stream(torch.stack(streams))
        desired = torch.cat((self.ids[1:], self.ids.new_tensor([-1])))
        return Lens(logits.float().log_softmax(-1), desired, self.tokens, self.decode)

    def attribution(
        self, position: int = -1, token: int | None = None, told: Told | None = None
    ) -> Attribution:
        """Which tokens speak for ``token`` (the likeliest unless told) behind ``position``."""
        place = self._place(position)
        wanted = self._token(place, token)
        return attribution(self.model, self.ids, self.tokens, place, wanted, self.decode, told)

    def contributions(self, position: int = -1, token: int | None = None) -> Contributions:
        """What each head, MLP and bias adds to the logit of ``token`` (the likeliest unless told)."""
        place = self._place(position)
        kept = Taps(
            lambda name: name.endswith(
                (".z", ".attn_out", ".mlp_out", ".post", ".embed", ".resid_pre", LOGITS)
            )
        )
        with torch.no_grad():
            opened = run_opened(self.model, self.ids[None], taps=kept)
        return contributions(self.model, opened, place, self._token(place, token), self.decode)

    def _keep(self, wanted: Callable[[str], bool]) -> None:
        with torch.no_grad():
            found = run_opened(self.model, self.ids[None], taps=Taps(wanted))
        self._kept.update({name: value.detach() for name, value in found.items()})

    def _require_attention(self, what: str) -> None:
        if not self.model.has_attention:
            family = self.model.config.model_type
            raise InputError(
                f"the {family} family has no layers of attention, so no {what}: use a transformer"
            )

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
            lines.append(f"loss {float(self.losses.mean()):.4f} nats a token")
        lines.append(f"next: {'  '.join(map(str, self.guesses()))}")
        return "\n".join(lines)


def look(
    model: LanguageModel,
    tokenizer: EtudeTokenizer,
    text: str,
    where: str = "",
    proof: Proof | None = None,
) -> Prompt:
    """``text`` as a document from its beginning, read by ``model``.

    Raises:
        InputError: it is longer than the network can read.
    """
    ids = [tokenizer.eos_id, *tokenizer.encode(text)]
    most = model.config.max_position_embeddings
    if len(ids) > most:
        raise InputError(
            f"this text has {len(ids):,} tokens, and the network reads {most:,} at most: shorten it"
        )
    tokens = tuple(tokenizer.decode([token]) for token in ids)
    device = model.unembedding()[0].device
    read = torch.tensor(ids, device=device)
    return Prompt(model, read, tokens, lambda token: tokenizer.decode([token]), text, where, proof)


@torch.no_grad()
def induction_scores(
    model: LanguageModel, length: int = 24, rows: int = 8, seed: int = 0
) -> tuple[Named, float]:
    """How far each head looks back to what came after the same token before (Olsson et al. 2022).

    ``rows`` times ``length`` random tokens are read twice in a row. The score is the share of attention, a mean over
    the second copy, that goes to the token behind the earlier occurrence.

    Returns:
        Scores (layer, head), and what a head that attends to all it sees alike would score.

    Raises:
        InputError: a network without attention, or one that reads too few tokens.
    """
    if not model.has_attention:
        raise InputError(f"the {model.config.model_type} family has no heads")
    length = min(length, model.config.max_position_embeddings // 2)
    if length < 2:
        raise InputError("this network reads too few tokens for anything to come twice")
    dice = torch.Generator().manual_seed(seed)
    once = torch.randint(model.config.vocab_size, (rows, length), generator=dice)
    inputs = torch.cat((once, once), 1).to(model.unembedding()[0].device)
    scores = []
    taps = Taps(lambda name: name.endswith(".pattern"))
    for pattern in run_opened(model, inputs, taps=taps).values():
        # Query i + length at key i + 1.
        found = pattern.diagonal(offset=1 - length, dim1=-2, dim2=-1)[..., 1:]
        scores.append(found.mean((0, 2)))
    seen = torch.arange(length + 1, 2 * length + 1, dtype=torch.float64)
    return Named("induction score", ("layer", "head"), torch.stack(scores)), float((1 / seen).mean())


def _device(model: LanguageModel) -> Device:
    on_gpu = model.unembedding()[0].device.type == "cuda"
    return Device("cuda" if on_gpu else "cpu", "fp32", 1)


def _guesses(log_probabilities: Float[Tensor, " V"], decode: Callable[[int], str], count: int) -> list[Guess]:
    likeliest = log_probabilities.argsort(descending=True, stable=True)[:count].tolist()
    return [Guess(token, decode(token), float(log_probabilities[token].exp())) for token in likeliest]
