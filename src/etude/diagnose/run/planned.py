"""Rules about the plan: did the schedule finish, does the shape make sense, and where does the time go?"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from etude.diagnose.run.evidence import Absent, Evidence
from etude.diagnose.run.verdict import Rule, Verdict
from etude.model.cost import count_parameters

RATE_IS_DOWN = 0.1
"""Share of the peak: most of the gain from a falling learning rate comes before this (Hägele et al. 2024, "Scaling Laws
and Compute-Optimal Training Beyond Fixed Training Durations")."""
SCHEDULE = Rule(
    "schedule not finished",
    "A run that ended before its last step misses the fall of the loss with the learning rate; a problem if the rate "
    f"was above {RATE_IS_DOWN:.0%} of its peak, or the run failed.",
)

LOADER_NOTICE, LOADER_PROBLEM = 0.1, 0.5
LOADER = Rule(
    "loader-bound",
    f"Making a batch takes {LOADER_NOTICE:.0%} of the recorded seconds per step (a problem from "
    f"{LOADER_PROBLEM:.0%}); on a GPU, which prefetches the next batch during a step, only a problem counts.",
)

HEAD_DIMS = (8, 256)
"""Fewer numbers cannot distinguish many positions; no published family has more."""
WIDTH_BY_DEPTH = (8, 512)
"""hidden_size / num_hidden_layers of published families is 25 to 130; within 10 to 300 it hardly matters (Kaplan et al.
2020, figure 5)."""
INNER_BY_WIDTH = (1, 16)
"""intermediate_size / hidden_size; published families have 2 to 8."""
TIMES_A_TOKEN = 10
"""Average occurrences of each vocabulary token in the training text: the embedding of a rarer token is hardly trained.
"""
TOKENS_A_PARAMETER = 0.1
"""Tokens per parameter outside the embeddings. Hoffmann et al. 2022 find 20 best; the dial gives 90 seconds 1."""
DOCUMENTS_A_ROW = 16
SHAPE = Rule(
    "absurd shape",
    f"A problem: head_dim outside {HEAD_DIMS[0]} to {HEAD_DIMS[1]}, width over depth outside {WIDTH_BY_DEPTH[0]} to "
    f"{WIDTH_BY_DEPTH[1]}, or MLP over width outside {INNER_BY_WIDTH[0]} to {INNER_BY_WIDTH[1]}; a notice: fewer than "
    f"{TIMES_A_TOKEN} training tokens per vocabulary token, less than {TOKENS_A_PARAMETER:g} training token per "
    f"parameter outside the embeddings, or rows of more than {DOCUMENTS_A_ROW} documents.",
)


def schedule_not_finished(run: Evidence) -> Verdict:
    """Judge whether the run made all its steps."""
    done, planned = run.last_step, run.num_steps
    if done >= planned:
        return SCHEDULE.fine(f"it made all of its {planned:,} steps")
    if not run.history.steps:
        return SCHEDULE.notice(f"It has made none of its {planned:,} steps yet.", run.resume_command)
    left = run.history.steps[-1].lr / run.settings.train.lr
    text = f"It is at step {done:,} of {planned:,}, with the learning rate at {left:.0%} of its peak"
    if run.state == "running":
        return SCHEDULE.notice(
            f"{text}: judge it after it has ended.",
            f"if no process is training it any more, resume it: {run.resume_command}",
        )
    because = f" ({run.reason})" if run.state == "failed" and run.reason else ""
    verdict = SCHEDULE.problem if left > RATE_IS_DOWN or run.state == "failed" else SCHEDULE.notice
    return verdict(f"{text}{because}: its loss is not that of the planned run.", run.resume_command)


def loader_bound(run: Evidence) -> Verdict:
    """Judge whether training waits for batches."""
    if isinstance(run.seconds_per_batch, Absent):
        return LOADER.not_judged(run.seconds_per_batch.why)
    speeds = run.steps.column("tokens_per_second")
    speeds = speeds[(speeds > 0) & (speeds < math.inf)]
    if not len(speeds):
        return LOADER.not_judged("no step is in the record")
    seconds = run.tokens_per_step / float(np.median(speeds))
    share = run.seconds_per_batch / seconds
    text = (
        f"a batch takes {1000 * run.seconds_per_batch:.2f} ms to make (measured now) and a step took "
        f"{1000 * seconds:.1f} ms: {share:.0%}"
    )
    prefetches = run.settings.device.kind == "cuda"
    if share < LOADER_NOTICE or (prefetches and share < LOADER_PROBLEM):
        return LOADER.fine(text)
    advice = f"put the cache on a faster disk (ETUDE_CACHE=FOLDER), or use longer rows: {_longer_rows(run)}"
    verdict = LOADER.problem if share >= LOADER_PROBLEM else LOADER.notice
    return verdict(f"The run waits for its text: {text}.", advice)


def absurd_shape(run: Evidence) -> Verdict:
    """Judge the shape of the network, and its proportion to the text."""
    problems, notices = list(_misshapen(run)), list(_out_of_proportion(run))
    if notices and run.has_base:
        rows = run.rerun(
            {"train.context": max(2, DOCUMENTS_A_ROW * run.text.train_tokens // _documents(run))}
        )
        return SHAPE.notice(f"{'; '.join(notices)}.", f"use shorter rows: {rows}")
    if problems:
        return SHAPE.problem(
            f"{'; '.join([*problems, *notices])}.",
            f"let the dial choose: {run.new_run_command()}",
        )
    if notices:
        return SHAPE.notice(
            f"{'; '.join(notices)}.", f"let the dial choose, or give more text: {run.new_run_command()}"
        )
    model = run.model
    return SHAPE.fine(
        f"{model.hidden_size} wide, {model.num_hidden_layers} deep, {model.vocab_size:,} tokens"
    )


def _misshapen(run: Evidence) -> Iterator[str]:
    model = run.model
    inner = model.intermediate_size / model.hidden_size
    if run.has_base:  # its shape cannot be changed, and was found by its publisher
        return
    if model.family.has_attention:  # otherwise hidden_size is the size of one of several embeddings
        ratio = model.hidden_size / model.num_hidden_layers
        if not HEAD_DIMS[0] <= model.head_dim <= HEAD_DIMS[1]:
            yield f"Each head has {model.head_dim} numbers (head_dim)"
        if not WIDTH_BY_DEPTH[0] <= ratio <= WIDTH_BY_DEPTH[1]:
            yield f"{model.num_hidden_layers} layers of width {model.hidden_size} are {ratio:.3g} numbers per layer"
        if not INNER_BY_WIDTH[0] <= inner <= INNER_BY_WIDTH[1]:
            yield f"An MLP of {model.intermediate_size} neurons is {inner:.3g} times the width of {model.hidden_size}"


def _out_of_proportion(run: Evidence) -> Iterator[str]:
    vocabulary, text = run.model.vocab_size, run.text
    begun = run.has_base  # a base model has learned most of what it knows already, embeddings included
    if not begun and text.train_tokens < TIMES_A_TOKEN * vocabulary:
        yield (
            f"A vocabulary of {vocabulary:,} tokens occurs {text.train_tokens / vocabulary:.1f} times each in a text "
            f"of {text.train_tokens:,} tokens"
        )
    parameters, seen = count_parameters(run.model).non_embedding, run.num_steps * run.tokens_per_step
    if not begun and seen < TOKENS_A_PARAMETER * parameters:
        yield f"{parameters:,} parameters outside the embeddings are to learn from {seen:,} tokens in all"
    if text.train_documents:
        context = run.settings.train.context
        length = text.train_tokens / text.train_documents
        if context > DOCUMENTS_A_ROW * length:
            yield f"Rows of {context:,} tokens hold {context / length:.0f} documents of {length:.0f} each"


def _documents(run: Evidence) -> int:
    return run.text.train_documents or 1


def _longer_rows(run: Evidence) -> str:
    context, rows = run.settings.train.context, run.settings.train.batch_rows
    if rows % 2:
        return run.rerun({"train.context": 2 * context})
    return run.rerun(
        {
            "train.context": 2 * context,
            "train.batch_rows": rows // 2,
            "train.micro_batch_rows": rows // 2,
        }
    )
