"""What is shown, as plain values: the answers of ``etude inspect --json`` and of the studio."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from etude.errors import InputError
from etude.model.language_model import LOGITS, LanguageModel
from etude.watch import step_types, text_types, tuned_types
from etude.watch.arithmetic import WeightStep, weight_step
from etude.watch.attribution import Attribution
from etude.watch.knobs import Comparison
from etude.watch.layer_in_step import GradientTerm, GradientTerms, LayerInStep
from etude.watch.low_rank import LowRank, adapted_norms
from etude.watch.opened_step import OpenedRow, OpenedStep
from etude.watch.prompts import Guess, Prompt, induction_scores
from etude.watch.proof import Proof
from etude.watch.row_parts import row_parts
from etude.watch.rule_values import term_values
from etude.watch.tapped_forward import dtype_of, layers_of
from etude.watch.terms import NodeSum, WeightedSum

Decode = Callable[[Sequence[int]], str]
GUESSES = 8


def proof_values(proof: Proof) -> step_types.ProofAnswer:
    return {
        "holds": proof.holds,
        "from_step": proof.from_step,
        "steps_compared": len(proof.compared),
        "checksums_equal": proof.checksums,
        "largest_loss_difference": proof.largest_loss_difference,
        "largest_norm_difference": proof.largest_norm_difference,
        "other_machine": list(proof.other_machine),
        "text": str(proof),
    }


def parameter_values(opened: OpenedStep) -> list[step_types.ParameterAnswer]:
    """Return the norms of every parameter, its rule and its rates."""
    found: list[step_types.ParameterAnswer] = []
    for name in (name for name in opened.gradients if name in opened.used):
        moved = opened.parameter(name)
        weight, update = float(moved.before.norm()), float(moved.update.norm())
        found.append(
            {
                "name": name,
                "shape": list(moved.before.shape),
                "rule": moved.rule.name,
                "rule_title": moved.rule.title,
                "lr": moved.used.lr,
                "weight_decay": moved.used.weight_decay,
                "weight_norm": weight,
                "grad_norm": float(moved.gradient.norm()),
                "update_norm": update,
                "update_ratio": update / weight if weight else None,
            }
        )
    return found


def adapted_values(opened: OpenedStep) -> list[tuned_types.AdaptedMatrixAnswer]:
    """Return the norms of every matrix with an adapter."""
    return adapted_norms(opened.era.plan.model, opened.before.weights, opened.after.weights, opened.gradients)


def step_values(opened: OpenedStep, row: OpenedRow, decode: Decode) -> step_types.StepAnswer:
    """Return a step, and one row of its batch, forward and backward."""
    losses, real = opened.losses_after(row.row), row.loss_mask
    tokens: list[step_types.StepToken] = [
        {**token, "loss_after": after if token["desired"] is not None else None}
        for token, after in zip(row_values(row, decode), losses.tolist(), strict=True)
    ]
    return {
        "step": opened.step,
        "dtype": opened.era.plan.device.dtype,
        "proof": proof_values(opened.proof),
        "loss": opened.loss,
        "grad_norm": opened.grad_norm,
        "clip_factor": opened.clip_factor,
        "applied": opened.applied,
        "num_rows": opened.num_rows,
        "num_targets": opened.num_targets,
        "rows": [{"row": source.row, "documents": list(source.documents)} for source in opened.sources],
        "parameters": parameter_values(opened),
        "row": row.row,
        "row_loss": float(row.losses[real].double().mean()) if bool(real.any()) else None,
        "row_loss_after": float(losses[real].double().mean()) if bool(real.any()) else None,
        "adapted": adapted_values(opened),
        "tokens": tokens,
        "parts": row_parts(opened, row.row, decode),
        "stream": stream_values(row),
    }


def stream_values(row: OpenedRow) -> list[step_types.StreamAnswer]:
    """Return the norm of the residual stream, and of its gradient, at every position and layer.

    The mlp family has no residual stream: there it is all its activations.
    """
    names = [name for _, name in layers_of(list(row.activations), "resid_pre")]
    names += [name for _, name in layers_of(list(row.activations), "resid_post")][-1:]
    names = names or [name for name in row.activations if name != LOGITS]
    return [
        {
            "name": name,
            "norm": row.activations[name][0].float().norm(dim=-1).tolist(),
            "grad_norm": row.gradients[name][0].float().norm(dim=-1).tolist(),
        }
        for name in names
    ]


def row_values(row: OpenedRow, decode: Decode) -> list[step_types.RowToken]:
    """Return every token of a row: read, predicted, desired."""
    probabilities = row.probabilities
    best, chosen = probabilities.max(-1)
    found: list[step_types.RowToken] = []
    columns = (row.inputs.tolist(), row.targets.tolist(), row.loss_mask.tolist())
    for place, (read, wanted, real) in enumerate(zip(*columns, strict=True)):
        found.append(
            {
                "position": place,
                "read": decode([read]),
                "likeliest": decode([int(chosen[place])]),
                "likeliest_probability": float(best[place]),
                "desired": decode([wanted]) if real else None,
                "desired_probability": float(probabilities[place, wanted]) if real else None,
                "loss": float(row.losses[place]),
            }
        )
    return found


def token_values(opened: OpenedStep, row: OpenedRow, position: int, decode: Decode) -> step_types.TokenAnswer:
    """Return one prediction, the desired token, and the norms of activations and gradients at that position.

    Raises:
        InputError: the row has no such position.
    """
    if not 0 <= position < len(row.inputs):
        raise InputError(f"a row has positions 0 to {len(row.inputs) - 1}, not {position}")
    probabilities, wanted = row.probabilities[position], int(row.targets[position])
    logits = row.activations[LOGITS][0, position].double()
    order = probabilities.argsort(descending=True, stable=True).tolist()
    desired = wanted if bool(row.loss_mask[position]) else None
    error = row.gradients[LOGITS][0, position].double() * opened.total_weight  # times the token's weight
    stream: list[step_types.StreamAtToken] = [
        {"name": one["name"], "norm": one["norm"][position], "grad_norm": one["grad_norm"][position]}
        for one in stream_values(row)
    ]
    return {
        "step": opened.step,
        "dtype": dtype_of(row.gradients[LOGITS]),
        "row": row.row,
        "position": position,
        "context": decode(row.inputs[max(0, position - 11) : position + 1].tolist()),
        "desired": None if desired is None else decode([desired]),
        "probability": 0.0 if desired is None else float(probabilities[desired]),
        "rank": 0 if desired is None else order.index(desired) + 1,
        "vocabulary": len(order),
        "loss": float(row.losses[position]),
        "guesses": [
            {
                "token": decode([token]),
                "probability": float(probabilities[token]),
                "desired": float(token == desired),
                "error": float(error[token]),
            }
            for token in dict.fromkeys([*order[:GUESSES], *([] if desired is None else [desired])])
        ],
        "logits": {
            "logsumexp": float(logits.logsumexp(0)),
            "desired": None if desired is None else float(logits[desired]),
        },
        "stream": stream,
        "proof": proof_values(opened.proof),
    }


def arithmetic_values(summed: NodeSum) -> step_types.ArithmeticAnswer:
    return {
        "gate": _sum_values(summed.gate),
        "up": None if summed.up is None else _sum_values(summed.up),
        "function": summed.function,
        "activation": summed.post,
        "difference": summed.difference,
    }


def _sum_values(found: WeightedSum) -> step_types.WeightedSum:
    values, weights, terms = found.inputs, found.weights, found.terms
    return {
        "terms": [
            {"input": i, "value": float(values[i]), "weight": float(weights[i]), "term": float(terms[i])}
            for i in found.order.tolist()
        ],
        "bias": found.bias,
        "sum": found.total,
        "forward_pass": found.seen,
        "dtype": found.dtype,
    }


def unit_values(
    layer: LayerInStep, unit: int, row: int, position: int, number: int | None, decode: Decode
) -> step_types.UnitAnswer:
    """Return a neuron at a token of a step's batch: its sum, its gradient, and the terms of one weight's gradient.

    ``number`` is the input of that weight; by default the one with the largest term.
    """
    opened, node_layer = layer.opened, layer.node_layer
    found = layer.row(row)
    place = layer.place(row, position)
    read, wanted = int(found.inputs[place]), int(found.targets[place])
    summed, error = layer.sum(unit, row, place), layer.error(unit, row, place)
    number = int(summed.gate.order[0]) if number is None else number
    tug = layer.gradient_terms(unit, number)
    name = f"{node_layer.gate}.weight"
    bias = f"{node_layer.gate}.bias"
    return {
        "step": opened.step,
        "row": row,
        "position": place,
        "layer": node_layer.path,
        "unit": unit,
        "read": decode([read]),
        "desired": decode([wanted]) if bool(found.loss_mask[place]) else None,
        "arithmetic": arithmetic_values(summed),
        "error": {
            "outgoing": error.outgoing.tolist(),
            "arriving": error.arriving.tolist(),
            "at_activation": error.at_activation,
            "slope": error.slope,
            "at_sum": error.at_sum,
        },
        "weight": {
            "input": number,
            "name": name,
            "index": [unit, number],
            "pushes": _push_values(tug),
            "largest": [_largest_push(push, decode) for push in tug.largest()],
            "step": weight_values(weight_step(opened, name, (unit, number))),
        },
        "bias": None
        if bias not in opened.gradients
        else {"name": bias, "index": [unit], "step": weight_values(weight_step(opened, bias, (unit,)))},
        "proof": proof_values(opened.proof),
    }


def _push_values(tug: GradientTerms) -> step_types.PushesAnswer:
    pushes = tug.terms
    return {
        "up": float(pushes[pushes < 0].sum()),
        "down": float(pushes[pushes > 0].sum()),
        "up_count": int((pushes < 0).sum()),
        "down_count": int((pushes > 0).sum()),
        "size": float(pushes.abs().sum()),
        "rounded": float((tug.inputs.abs() * tug.rounded).sum()),
        "total": tug.total,
        "gradient": tug.gradient,
    }


def _largest_push(push: GradientTerm, decode: Decode) -> step_types.PushAnswer:
    return {
        "row": push.row,
        "position": push.position,
        "token_id": push.token_id,
        "value": push.value,
        "error": push.error,
        "read": decode([push.token_id]),
        "push": push.amount,
    }


def low_rank_values(part: LowRank) -> tuned_types.LowRankAnswer:
    """Return what an adapter adds to one number."""
    return {
        "base": part.base,
        "up_name": part.up_name,
        "down_name": part.down_name,
        "up": part.up.tolist(),
        "down": part.down.tolist(),
        "scale": part.scale,
        "product": part.product,
        "product_after": part.product_after,
        "share": part.share,
        "sum": part.base + part.product,
        "sum_after": part.base + part.product_after,
        "gradient": part.gradient,
    }


def weight_values(one: WeightStep) -> step_types.WeightStepAnswer:
    values: step_types.WeightStepAnswer = {
        "step": one.step,
        "before": one.before,
        "gradient": one.gradient,
        "clip_factor": one.clip_factor,
        "state_before": dict(one.state_before),
        "state_after": dict(one.state_after),
        "rule": one.used.rule,
        "rule_title": one.rule.title,
        "rule_summary": one.rule.summary,
        "lr": one.used.lr,
        "weight_decay": one.used.weight_decay,
        "betas": list(one.used.betas),
        "eps": one.used.eps,
        "momentum": one.used.momentum,
        "applied": one.applied,
        "decay": one.decay,
        "terms": [term_values(term) for term in one.terms],
        # Only some rules have these two; `terms` covers every rule.
        "orthogonal": one.whole.get("orthogonal"),
        "scale": one.used.extra.get("scale", 1.0),
        "direction": one.direction,
        "update": one.update,
        "after": one.after,
        "by_the_rule": one.by_the_rule,
        "difference": one.difference,
        "proof": one.proof,
    }
    if one.low_rank is not None:
        values["low_rank"] = low_rank_values(one.low_rank)
    return values


def guess_values(guess: Guess) -> text_types.Guess:
    """Return a token of a predicted distribution."""
    return {"token": guess.token, "text": guess.text, "probability": guess.probability}


def prompt_values(
    prompt: Prompt, induction: text_types.InductionAnswer | None = None
) -> text_types.PromptBase:
    """Return what is shown of a prompt, but neither patterns nor the attribution, which is large and takes long.

    ``induction`` are the scores of this network, if they are known.
    """
    prompt.read_at_once()
    parts = prompt.contributions()
    values: text_types.PromptBase = {
        "where": prompt.where,
        "tokens": list(prompt.tokens),
        "ids": prompt.ids.tolist(),
        "losses": prompt.losses.tolist(),
        "guesses": [guess_values(guess) for guess in prompt.guesses(count=GUESSES)],
        "contributions": {"terms": parts.terms, "logit": parts.logit, "unexplained": parts.unexplained},
    }
    if prompt.has_attention:
        values["lens"] = prompt.lens_of_next().tensor.tolist()
        values["induction"] = induction_values(prompt.model) if induction is None else induction
    return values


def induction_values(model: LanguageModel) -> text_types.InductionAnswer:
    """Return the induction scores of all heads."""
    scores, chance = induction_scores(model)
    return {"scores": scores.tensor.tolist(), "chance": chance}


def attribution_values(attribution: Attribution) -> text_types.AttributionAnswer:
    """Return which tokens contribute to a prediction."""
    return {
        "token": attribution.text,
        "logit": attribution.logit,
        "gradient_times_input": attribution.gradient_times_input.tolist(),
        "ablation": attribution.ablation.tolist(),
    }


def comparison_values(compared: Comparison) -> text_types.CompareAnswer:
    before, after = compared.losses
    return {
        "where": compared.prompt.where,
        "tokens": list(compared.prompt.tokens),
        "knobs": [str(knob) for knob in compared.knobs],
        "losses_before": before.tolist(),
        "losses_after": after.tolist(),
        "divergence": compared.divergence.tolist(),
        "next": [
            {"token": text, "before": was, "after": now} for text, was, now in compared.top(count=GUESSES)
        ],
    }
