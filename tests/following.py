"""What a page may compute from values that etude inspect says, and print: each way a function of one answer."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import torch

BENDS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {"silu": torch.nn.functional.silu}


def from_losses(losses: Iterable[float | None]) -> Iterator[float]:
    """Odds of each token; the mean of all, and as unsure as between how many that is."""
    real = [loss for loss in losses if loss is not None]
    for loss in real:
        yield from (math.exp(-loss), 100 * math.exp(-loss))
    if real:
        mean = math.fsum(real) / len(real)
        yield from (mean, math.exp(mean))


def from_prompt(answer: dict[str, Any]) -> Iterator[float]:
    yield from from_losses(answer["losses"])
    yield math.fsum(answer["contributions"]["terms"].values())
    for head in answer.get("heads", ()):
        yield math.exp(head["entropy"] or 0)


def from_story(answer: dict[str, Any]) -> Iterator[float]:
    for losses in answer["losses"]:
        yield from from_losses(losses)


def from_record(events: Iterable[dict[str, Any]]) -> Iterator[float]:
    """How far each tensor moved for its size, in percent, kept in float32: where the colours of the seismograph end."""
    for event in events:
        for tensor in event.get("tensors", {}).values():
            if tensor["update_ratio"] is not None:
                yield 100 * float(np.float32(tensor["update_ratio"]))


def from_step(answer: dict[str, Any]) -> Iterator[float]:
    """Differences and the perplexity of losses, lengths along the row, how far the tensors of a layer move together."""
    for one in answer["stream"]:
        yield from (math.fsum(one[key]) / len(one[key]) for key in ("norm", "grad_norm"))
    places: dict[str, list[dict[str, Any]]] = {}
    for parameter in answer["parameters"]:
        parts = parameter["name"].split(".")
        place = ".".join(parts[: 3 if parts[1:2] == ["layers"] else -1])
        for name in {place, "output" if place in ("model.norm", "lm_head") else place}:
            places.setdefault(name, []).append(parameter)
    for together in places.values():
        lengths = [
            math.sqrt(sum(one[key] ** 2 for one in together)) for key in ("update_norm", "weight_norm")
        ]
        if lengths[1]:
            yield 100 * lengths[0] / lengths[1]
    yield answer["row_loss_after"] - answer["row_loss"]
    yield math.exp(answer["loss"])
    for token in answer["tokens"]:
        if token["loss_after"] is not None:
            yield token["loss_after"] - token["loss"]


def from_token(answer: dict[str, Any]) -> Iterator[float]:
    yield math.log(answer["vocabulary"])
    end = max(1e-6, min(0.004, answer["probability"]))  # of the picture of the loss
    yield from (end, -math.log(end))
    if answer["probability"]:
        yield math.log(answer["probability"])


def from_unit(answer: dict[str, Any]) -> Iterator[float]:
    """Products and what is left of their sums, the bend and its slope, the tug of war, the update line by line."""
    arithmetic, chosen = answer["arithmetic"], answer["weight"]["input"]
    for of in (arithmetic["gate"], arithmetic["up"]):
        if of is not None:
            yield from sums_of(of["terms"], chosen)
    yield arithmetic["activation"] - arithmetic["difference"]  # as the forward pass had it
    gate = torch.tensor(arithmetic["gate"]["forward_pass"], dtype=torch.float64, requires_grad=True)
    bent = BENDS[arithmetic["function"]](gate)
    yield bent.item()
    reach = max(4, math.ceil(1.2 * abs(gate.item())))
    curve = BENDS[arithmetic["function"]](torch.linspace(-reach, reach, 241, dtype=torch.float64))
    yield from (reach, curve.min().item(), curve.max().item())
    error = answer["error"]
    products = [a * b for a, b in zip(error["outgoing"], error["arriving"], strict=True)]
    yield from products
    products.sort(key=abs, reverse=True)
    yield from (math.fsum(products[at:]) for at in range(len(products)))
    pushes = answer["weight"]["pushes"]
    if pushes["size"]:
        yield 100 * (1 - abs(pushes["total"]) / pushes["size"])
    yield from (one["value"] * one["error"] for one in answer["weight"]["largest"])
    for one in (answer["weight"], answer["bias"]):
        if one is not None:
            yield from update_of(one["step"])


def sums_of(terms: list[dict[str, float]], chosen: int) -> Iterator[float]:
    """Each product; and what all behind the first so many are together, without the chosen one too."""
    products = [(term["input"], term["value"] * term["weight"]) for term in terms]
    yield from (product for _, product in products)
    for at in range(len(products)):
        yield math.fsum(product for _, product in products[at:])
        yield math.fsum(product for number, product in products[at:] if number != chosen)


def update_of(step: dict[str, Any]) -> Iterator[float]:
    """AdamW (Loshchilov & Hutter 2019) or Muon, line by line."""
    clipped, was = step["gradient"] * step["clip_factor"], step["state_before"]
    first, second = step["betas"]
    count = was.get("step", 0) + 1
    m = first * was.get("exp_avg", 0) + (1 - first) * clipped
    v = second * was.get("exp_avg_sq", 0) + (1 - second) * clipped**2
    m_hat, v_hat = m / (1 - first**count), v / (1 - second**count)
    momentum = step["momentum"] * was.get("momentum_buffer", 0) + (1 - step["momentum"]) * clipped
    ahead = step["momentum"] * momentum + (1 - step["momentum"]) * clipped
    if step["orthogonal"] is None:
        direction = m_hat / (math.sqrt(v_hat) + step["eps"])
    else:
        direction = step["scale"] * step["orthogonal"]
    yield from (clipped, m, v, m_hat, v_hat, momentum, ahead, direction)
    yield from (1 - first, 1 - second, 1 - step["momentum"])
    yield from (step["lr"] * step["weight_decay"] * step["before"], step["lr"] * direction)


FOLLOWS: dict[str, Callable[[dict[str, Any]], Iterator[float]]] = {
    "prompt": from_prompt,
    "story": from_story,
    "step": from_step,
    "token": from_token,
    "unit": from_unit,
}
